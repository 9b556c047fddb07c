"""Encoders of any other origin: torchvision's backbones by name, and modules of your own."""

import copy
import difflib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, Self

import torch
import torchvision
from torch import Tensor, nn
from torch.fx.proxy import TraceError
from torchvision.models import SwinTransformer, VisionTransformer
from torchvision.models.feature_extraction import DualGraphModule, create_feature_extractor

from ssl_framework.encoders.base import EncoderModule, as_tokens, height_width
from ssl_framework.encoders.weights import load_strictly, read_tensors
from ssl_framework.types import Encoding

Layout = Literal["NCHW", "NHWC", "NLC"]


class Adapter(EncoderModule):
    """Any module as an `Encoder`: some of its submodules are called its layers, and the rest after the last one is dropped.

    The module is traced by `torch.fx`, so its ``forward`` takes one tensor and has no branches on values. To use your own::

        def my_encoder(width: int = 64, in_chans: int = 3, img_size: int = 32) -> Adapter:
            net = Net(in_chans, width)
            adapter = Adapter(net, stages=["block1", "block2"], in_chans=in_chans, img_size=img_size)
            return adapter.named("my_package.my_encoder", width=width, in_chans=in_chans, img_size=img_size)

    `named` says how to build it again: with it the encoder can be saved, and is opened by
    ``load_encoder(FILE, allow_target=["my_package.my_encoder"])``.

    Args:
        module: takes ``(B, C, H, W)``; its weights are shared, not copied.
        stages: names of submodules in the order of the data, as ``module.named_modules()`` lists them: each is a layer.
        in_chans: channels of the images; one blank image goes through to learn the widths.
        img_size: height and width, one number or two.
        layout: of the stages' outputs: "NCHW" maps, "NHWC" maps, or "NLC" sequences.
        prefix_tokens: of sequences: tokens at the front that are not patches; with one or more, `pooled` is the first of them,
            else the mean of the tokens.
    """

    def __init__(
        self,
        module: nn.Module,
        stages: Sequence[str],
        *,
        in_chans: int = 3,
        img_size: int | Sequence[int] = 224,
        layout: Layout = "NCHW",
        prefix_tokens: int = 0,
    ) -> None:
        names = dict(module.named_modules())
        for stage in stages:
            if stage not in names:
                near = difflib.get_close_matches(stage, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(list(names)[1:20])}."
                raise ValueError(f"stages={list(stages)}: {type(module).__name__} has no submodule {stage}: {hint}")
        if not stages:
            raise ValueError("stages=[]: name at least one submodule whose output is a layer.")
        extractor = _extract(module, stages)
        super().__init__(embed_dim=0, num_layers=len(stages))
        self.model = extractor
        self._stages = list(stages)
        self._layout: Layout = layout
        self._prefix = prefix_tokens
        self._widths = self._measure(torch.zeros(1, in_chans, *height_width(img_size)))
        self._embed_dim = self._widths[-1]

    def forward(self, x: Tensor, *, layers: Sequence[int] = ()) -> Encoding:
        """Encode ``(B, C, H, W)`` normalised floats."""
        positions = self._positions(layers)
        outputs: dict[str, Tensor] = self.model(x)
        pooled, tokens, grid = self._seen(outputs[self._stages[-1]])
        found = [self._seen(outputs[self._stages[i]]) for i in positions]
        grids = tuple(grid for _, _, grid in found if grid is not None)
        return Encoding(pooled, tokens, grid, tuple(seen[1] for seen in found), grids, tuple(seen[0] for seen in found))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        _set_modes(copied.model, _modes(self.model))
        return copied

    def _seen(self, output: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...] | None]:
        """One vector a sample, tokens, and their grid."""
        tokens, grid = self._tokens(output)
        return output[:, 0] if self._prefix else tokens.mean(1), tokens, grid

    def _tokens(self, output: Tensor) -> tuple[Tensor, tuple[int, ...] | None]:
        if self._layout == "NLC":
            return output[:, self._prefix :], None
        if self._layout == "NHWC":
            return output.flatten(1, 2), tuple(output.shape[1:3])
        return as_tokens(output), tuple(output.shape[-2:])

    @torch.no_grad()
    def _measure(self, blank: Tensor) -> list[int]:
        """Width of each stage; leaves mode and statistics as they were."""
        modes = _modes(self.model)
        outputs: dict[str, Tensor] = self.model.eval()(blank)
        _set_modes(self.model, modes)
        expected = 3 if self._layout == "NLC" else 4
        for stage, output in outputs.items():
            if output.ndim != expected:
                raise ValueError(f"The output of {stage} is {tuple(output.shape)}, which is not {self._layout}: name another.")
        return [self._tokens(outputs[stage])[0].shape[-1] for stage in self._stages]

    @property
    def layer_modules(self) -> tuple[str, ...]:
        """The stages."""
        return tuple(f"model.{stage}" for stage in self._stages)

    def _drop(self, k: int) -> int:
        self._stages = self._stages[:-k]
        self._widths = self._widths[:-k]
        self.model = _shortened(self.model, self._stages)
        return self._widths[-1]


def torchvision_encoder(
    name: str = "resnet18",
    in_chans: int = 3,
    img_size: int | Sequence[int] = 224,
    pretrained: bool = False,
    weights: str | None = None,
    stages: Sequence[str] | None = None,
) -> Adapter:
    """Any classification backbone of torchvision. `pooled` is the mean of the last map, or the class token.

    Args:
        name: as torchvision lists it: ``resnet18``, ``efficientnet_b0``, ``swin_t``, ``vit_b_16``.
        in_chans: channels of the images; other than 3 draws the first convolution anew.
        img_size: height and width, one number or two; vision transformers need a square and keep to it.
        pretrained: load torchvision's default weights; downloads them, and they are opened as data only.
        weights: a local file with weights of exactly this architecture, the classifier included, for 3 channels.
        stages: names of submodules to call layers; None takes the last ones before each change of resolution.

    Raises:
        ValueError: a name or number that cannot be built, or weights that do not fit.
    """
    size = height_width(img_size)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}."
        raise ValueError(f"torchvision has no backbone {name}: {hint}")
    if pretrained and weights:
        raise ValueError(f"pretrained=true and weights={weights}: give one of them.")
    model = torchvision.models.get_model(name, weights=None)
    vit = isinstance(model, VisionTransformer)
    if isinstance(model, VisionTransformer):
        if size[0] != size[1] or size[0] % model.patch_size:
            raise ValueError(f"img_size={list(size)}: {name} takes squares whose side is a multiple of {model.patch_size}.")
        model = torchvision.models.get_model(name, weights=None, image_size=size[0])
    if pretrained:
        state = torchvision.models.get_model_weights(name)["DEFAULT"].get_state_dict(check_hash=True, weights_only=True)
        load_strictly(model, state, f"torchvision's weights of {name}")
    if weights is not None:
        load_strictly(model, read_tensors(weights), weights)
    chosen = _default_stages(model) if stages is None else stages
    if in_chans != 3:
        _set_channels(model, in_chans)
    layout: Layout = "NLC" if vit else "NHWC" if isinstance(model, SwinTransformer) else "NCHW"
    adapter = Adapter(
        model,
        chosen,
        in_chans=in_chans,
        img_size=size,
        layout=layout,
        prefix_tokens=1 if vit else 0,
    )
    named = None if stages is None else [str(stage) for stage in stages]
    return adapter.named("torchvision_encoder", name=name, in_chans=in_chans, img_size=list(size), stages=named)


def _extract(module: nn.Module, stages: Sequence[str]) -> DualGraphModule:
    """The part of a module that leads to these outputs; nothing else stays in memory."""
    modes = _modes(module)
    try:
        extractor: Any = create_feature_extractor(module, {stage: stage for stage in stages})
    except (TraceError, TypeError) as error:
        raise ValueError(
            f"{type(module).__name__} cannot be traced by torch.fx ({error}): its forward may not branch on values. "
            "Give the branch a module of its own, or write an EncoderModule."
        ) from error
    _set_modes(extractor, modes)
    return extractor


def _shortened(extractor: DualGraphModule, stages: Sequence[str]) -> DualGraphModule:
    """Fewer outputs, and only what leads to them. Tracing it again would lose where a stage ends: additions have no module."""
    graphs: tuple[Any, Any] = extractor.train_graph, extractor.eval_graph
    for graph in graphs:
        output = next(node for node in reversed(graph.nodes) if node.op == "output")
        output.args = ({stage: output.args[0][stage] for stage in stages},)
        graph.owning_module = extractor
        graph.eliminate_dead_code()
    modes = _modes(extractor)
    shorter = DualGraphModule(extractor, *graphs)
    _set_modes(shorter, modes)
    return shorter


def _modes(module: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}


def _set_modes(traced: nn.Module, modes: dict[str, bool]) -> None:
    """Training or not, part by part: torchvision puts every new or copied extractor, and what is in it, into training mode."""
    traced.train(modes[""])  # chooses the graph
    for name, part in traced.named_modules():
        if name:
            part.training = modes.get(name, modes[""])


def _default_stages(model: nn.Module) -> list[str]:
    """The last part before each change of resolution; all blocks of a vision transformer. A final norm belongs to the last.

    A lone operation before the first composite part (the activation of a stem) is no layer.
    """
    if isinstance(model, VisionTransformer):
        blocks = [f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children()]
        return [*blocks[:-1], "encoder.ln"]
    sketch = copy.deepcopy(model).to("meta").eval()  # shapes without arithmetic
    parts = _parts(sketch)
    heights: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] > 1:  # not the pooling before the classifier
                heights[name] = output.shape[2]  # rows of NCHW, columns of NHWC: the image is square

        return hook

    for name, part in parts.items():
        part.register_forward_hook(note(name))
    sketch(torch.zeros(1, 3, 224, 224, device="meta"))
    stages = [name for name, after in pairwise([*heights, ""]) if heights.get(after) != heights[name]]
    composite = [any(True for _ in parts[name].children()) for name in stages]
    if any(composite) and not composite[0]:
        stages = stages[1:]
    return [*stages[:-1], "norm"] if isinstance(model, SwinTransformer) else stages


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """What a torchvision CNN is made of, in order: the children of its trunk, or its own."""
    children = dict(model.named_children())
    for trunk in ("features", "trunk_output", "layers", "blocks"):
        if trunk in children:
            return {f"{trunk}.{name}": part for name, part in children[trunk].named_children()}
    return children


def _set_channels(model: nn.Module, in_chans: int) -> None:
    """Replace the first convolution by one for other channels, with torch's initialisation."""
    name, first = next((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    if first.groups != 1:
        raise ValueError(f"in_chans={in_chans}: the first convolution is grouped; this backbone takes 3 channels only.")
    fresh = nn.Conv2d(
        in_chans,
        first.out_channels,
        (first.kernel_size[0], first.kernel_size[1]),
        (first.stride[0], first.stride[1]),
        (int(first.padding[0]), int(first.padding[1])),
        bias=first.bias is not None,
    )
    model.set_submodule(name, fresh)
