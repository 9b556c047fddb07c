"""How others name the tensors of an encoder: each layout is recognised by its names, and mapped to those of timm.

Every map is a list of rules, so that a person can read what becomes of what. Heads, projectors and second encoders are left out
by name and told; what no rule knows stays, and strict loading names it.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]


class Layout(NamedTuple):
    """One way to name the tensors of an encoder.

    Attributes:
        name: of the library and the architecture.
        marks: a name that only this layout has, as a pattern.
        rules: patterns of names and what takes their place, tried in order; the first that matches is taken.
        parts: patterns of names that belong to other parts than the encoder, and are left out.
        join: what the rules cannot say: several tensors that are one in timm.
    """

    name: str
    marks: str
    rules: Rules
    parts: tuple[str, ...] = ()
    join: Callable[[Tensors], Tensors] | None = None


class Mapped(NamedTuple):
    """Tensors under timm's names.

    Attributes:
        tensors: of the encoder.
        layout: how they were named.
        left_out: names of what belongs to other parts (heads, decoders, a second network) and is not needed.
    """

    tensors: Tensors
    layout: str
    left_out: tuple[str, ...]


_HEADS = (r"(projection_head|projector|prediction_head|predictor|prototypes|classifier|fc|head|decoder|online_\w+)\..*",)
_OTHERS = (r"(momentum_\w+|teacher\w*|student_head|criterion|queue\w*|momentum_backbone)(\..*)?",)
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def _sequential(prefix: str) -> Rules:
    """A ResNet of torchvision as `nn.Sequential` of its children."""
    return tuple((rf"{prefix}{number}\.(.*)", rf"{name}.\1") for number, name in _CHILDREN.items())


def _joined(parts: tuple[str, str, str], whole: str) -> Callable[[Tensors], Tensors]:
    """Query, key and value, which are one layer in timm."""

    def join(tensors: Tensors) -> Tensors:
        found = dict(tensors)
        for name in tensors:
            match = re.fullmatch(rf"(.*\.){re.escape(parts[0])}\.(weight|bias)", name)
            if match:
                names = [f"{match[1]}{part}.{match[2]}" for part in parts]
                if all(one in found for one in names):
                    found[f"{match[1]}{whole}.{match[2]}"] = torch.cat([found.pop(one) for one in names])
        return found

    return join


_BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
_LAYER = r"(?:\w+\.)?encoder\.layer\.(\d+)\."
_STAGE = r"(?:\w+\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\."

LAYOUTS = (
    Layout(
        "lightly: a ResNet as a sequence of its children",
        r"backbone\.4\.0\.conv1\.weight",
        _sequential(r"backbone\."),
        (*_HEADS, *_OTHERS, r"\w+_momentum\..*"),
    ),
    Layout(
        "torchvision: a vision transformer",
        r"(.*\.)?encoder\.layers\.encoder_layer_0\.ln_1\.weight",
        (
            (r"class_token", "cls_token"),
            (r"conv_proj\.(.*)", r"patch_embed.proj.\1"),
            (r"encoder\.pos_embedding", "pos_embed"),
            (r"encoder\.ln\.(.*)", r"norm.\1"),
            (_BLOCK + r"ln_([12])\.(.*)", r"blocks.\1.norm\2.\3"),
            (_BLOCK + r"self_attention\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
            (_BLOCK + r"self_attention\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
            (_BLOCK + r"mlp\.(?:0|linear_1)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
            (_BLOCK + r"mlp\.(?:3|linear_2)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
        ),
        (r"heads\..*",),
    ),
    Layout(
        "Hugging Face: ViT or DINOv2",
        r"(?:\w+\.)?encoder\.layer\.0\.attention\.attention\.query\.weight",
        (
            (r"(?:\w+\.)?embeddings\.cls_token", "cls_token"),
            (r"(?:\w+\.)?embeddings\.position_embeddings", "pos_embed"),
            (r"(?:\w+\.)?embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
            (r"(?:\w+\.)?layernorm\.(.*)", r"norm.\1"),
            (_LAYER + r"(?:layernorm_before|norm1)\.(.*)", r"blocks.\1.norm1.\2"),
            (_LAYER + r"(?:layernorm_after|norm2)\.(.*)", r"blocks.\1.norm2.\2"),
            (_LAYER + r"attention\.attention\.(query|key|value)\.(.*)", r"blocks.\1.attn.\2.\3"),
            (_LAYER + r"attention\.output\.dense\.(.*)", r"blocks.\1.attn.proj.\2"),
            (_LAYER + r"(?:intermediate\.dense|mlp\.fc1)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
            (_LAYER + r"(?:output\.dense|mlp\.fc2)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
            (_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
        ),
        (r"classifier\..*", r"(?:\w+\.)?pooler\..*", r"(?:\w+\.)?embeddings\.mask_token"),
        _joined(("query", "key", "value"), "qkv"),
    ),
    Layout(
        "Hugging Face: ResNet",
        r"(?:\w+\.)?embedder\.embedder\.convolution\.weight",
        (
            (r"(?:\w+\.)?embedder\.embedder\.convolution\.(.*)", r"conv1.\1"),
            (r"(?:\w+\.)?embedder\.embedder\.normalization\.(.*)", r"bn1.\1"),
            (_STAGE + r"shortcut\.convolution\.(.*)", r"layer{\1+1}.\2.downsample.0.\3"),
            (_STAGE + r"shortcut\.normalization\.(.*)", r"layer{\1+1}.\2.downsample.1.\3"),
            (_STAGE + r"layer\.(\d+)\.convolution\.(.*)", r"layer{\1+1}.\2.conv{\3+1}.\4"),
            (_STAGE + r"layer\.(\d+)\.normalization\.(.*)", r"layer{\1+1}.\2.bn{\3+1}.\4"),
        ),
        (r"classifier\..*",),
    ),
    Layout(
        "DINOv2",
        r"(?:teacher\.)?(?:backbone\.)?blocks\.(?:\d+\.)?\d+\.ls1\.gamma",
        (
            (r"(?:teacher\.)?(?:backbone\.)?register_tokens", "reg_token"),
            (r"(?:teacher\.)?(?:backbone\.)?blocks\.\d+\.(\d+)\.(.*)", r"blocks.\1.\2"),
            (r"(?:teacher\.)?(?:backbone\.)?(.*)", r"\1"),
        ),
        (r"(?:teacher\.)?(?:backbone\.)?mask_token", r"(teacher\.)?(dino|ibot)_head\..*", r"student\..*"),
    ),
    Layout(
        "solo-learn, stable-pretraining, lightly: timm's names below backbone",
        r"(?:module\.|model\.)?backbone\.(?:conv1|patch_embed|layer1|blocks|cls_token|stem|stages).*",
        ((r"(?:module\.|model\.)?backbone\.(.*)", r"\1"),),
        (*_HEADS, *_OTHERS),
    ),
    Layout(
        "MAE: an encoder beside its decoder",
        r"decoder_embed\.weight",
        ((r"(?:module\.)?(.*)", r"\1"),),
        (r"decoder_.*", r"mask_token"),
    ),
    Layout("timm, torchvision's ResNets, DINO", r".*", ((r"(?:module\.)?(.*)", r"\1"),)),
)  # fmt: skip
"""In the order in which they are looked for; the last is timm's own."""


def to_timm(tensors: Mapping[str, Tensor]) -> Mapped:
    """The tensors of an encoder under timm's names.

    Args:
        tensors: of a checkpoint, as others name them.
    """
    layout = next(one for one in LAYOUTS if any(re.fullmatch(one.marks, name) for name in tensors))
    found: Tensors = {}
    left: list[str] = []
    for name, value in tensors.items():
        if any(re.fullmatch(part, name) for part in layout.parts):
            left.append(name)
        else:
            found[_renamed(name, layout.rules)] = value
    found = layout.join(found) if layout.join else found
    return Mapped(found, layout.name, tuple(left))


def _renamed(name: str, rules: Rules) -> str:
    """A name by the first rule that matches it; ``{2+1}`` in the result is 3."""
    for pattern, result in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return re.sub(r"\{(\d+)\+1\}", lambda m: str(int(m[1]) + 1), match.expand(result))
    return name
