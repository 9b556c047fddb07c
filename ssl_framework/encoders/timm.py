"""Encoders that timm makes: any CNN or vision transformer of it by name. The only file of this room that imports timm."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import timm
import torch
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.models import ResNet, VisionTransformer, is_model_in_modules
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from ssl_framework.encoders.attention import prefix_pattern
from ssl_framework.encoders.base import EncoderModule, Plain, as_tokens, height_width
from ssl_framework.encoders.layouts import LAYOUTS, to_timm
from ssl_framework.encoders.weights import load_strictly, read_tensors
from ssl_framework.machine import plain_attention_is_faster
from ssl_framework.types import Encoding

# timm's first feature of many CNNs is the stem, before the first stage; it is not a layer
_STEMS = ("act1", "bn1", "conv1", "stem", "conv_stem", "features.norm0")

# what may be said to timm about an architecture: numbers and names, nothing that reads a file or an address
# fmt: off
_MODEL_ARGS = frozenset((
    "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm", "init_values", "class_token",
    "no_embed_class", "reg_tokens", "pre_norm", "final_norm", "fix_init", "weight_init", "drop_rate", "pos_drop_rate",
    "proj_drop_rate", "attn_drop_rate", "drop_block_rate", "act_layer", "norm_layer", "output_stride", "cardinality",
    "base_width", "stem_width", "stem_type", "replace_stem_pool", "avg_down", "down_kernel_size", "block_reduce_first",
    "zero_init_last", "kernel_sizes", "ls_init_value", "conv_mlp", "use_grn", "window_size",
))
# fmt: on


class TimmEncoder(EncoderModule):
    """A backbone of timm whose layers are what its ``forward_intermediates`` counts, without the stem: the stages of a CNN.

    Until it is cut, `Encoding.pooled` is timm's ``forward_head(..., pre_logits=True)``, and tokens are ``forward_features``.
    A cut CNN has lost that head with its last layers: `pooled` is then the mean of the last map. In the few architectures with
    a wide head (MobileNetV3, GhostNet, VGG) the tokens are narrower than `pooled`. `Encoding.pooled_layers` are means of
    maps, but for the last layer.

    Args:
        model: a timm model without classifier.
    """

    def __init__(self, model: nn.Module) -> None:
        m: Any = model
        infos = m.feature_info if isinstance(m.feature_info, list) else list(m.feature_info.info)
        taps = [i for i, info in enumerate(infos) if not (i == 0 and info["module"].startswith(_STEMS))]
        super().__init__(embed_dim=m.head_hidden_size, num_layers=len(taps))
        self.model = m
        self._taps = taps
        self._widths = [infos[i]["num_chs"] for i in taps]
        self._modules_of_layers = [f"model.{infos[i]['module']}" for i in taps]
        self._has_head = True

    @property
    def layer_modules(self) -> tuple[str, ...]:
        """As timm's ``feature_info`` names them."""
        return tuple(self._modules_of_layers[: self.num_layers])

    def forward(self, x: Tensor, *, layers: Sequence[int] = ()) -> Encoding:
        """Encode ``(B, C, H, W)`` normalised floats."""
        taps = [self._taps[i] for i in self._positions(layers)]
        wanted = sorted({*taps, self._taps[self.num_layers - 1]})
        features, maps = self.model.forward_intermediates(x, indices=wanted)  # maps: each (B, D_i, H_i, W_i)
        seen = dict(zip(wanted, maps, strict=True))
        tokens, grid = self._split(features, seen[wanted[-1]])
        pooled = self.model.forward_head(features, pre_logits=True) if self._has_head else tokens.mean(1)
        grids = tuple(tuple(seen[tap].shape[-2:]) for tap in taps)
        found = tuple(as_tokens(seen[tap]) for tap in taps)
        pools = tuple(pooled if tap == wanted[-1] else own.mean(1) for tap, own in zip(taps, found, strict=True))
        return Encoding(pooled, tokens, grid, found, grids, pools)

    def _split(self, features: Tensor, last: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Tokens ``(B, N, D)`` and their grid, from what timm calls features, in any of its layouts."""
        if features.ndim == 3:  # (B, prefix + N, D)
            return features[:, getattr(self.model, "num_prefix_tokens", 0) :], tuple(last.shape[-2:])
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            return features.flatten(1, 2), tuple(features.shape[1:3])
        return as_tokens(features), tuple(features.shape[-2:])

    def _drop(self, k: int) -> int:
        left = self.num_layers - k
        self._has_head = len(set(self._widths)) == 1  # equal widths: transformers, whose final norm and pooling still fit
        self.model.prune_intermediate_layers([self._taps[left - 1]], prune_norm=False, prune_head=not self._has_head)
        return self._widths[left - 1]


class TimmViT(TimmEncoder):
    """A plain vision transformer that can see some tokens only: a `TokenEncoder`. Its layers are its blocks.

    Images of other sizes than `img_size` are taken too (multi-crop): the positions are interpolated. `Encoding.pooled` and
    `tokens` come after the final norm, which stays when blocks are cut; `layers` come before it, `pooled_layers` after.

    Args:
        model: timm's, built with ``dynamic_img_size=True`` and without classifier.
        pos_embed: "learn" as timm initialises it, or "sincos": fixed two-dimensional sine and cosine, as in MAE.
    """

    def __init__(self, model: VisionTransformer, pos_embed: Literal["learn", "sincos"] = "learn") -> None:
        super().__init__(model)
        size, patch = model.patch_embed.img_size, model.patch_embed.patch_size
        _check_divides((size[0], size[1]), patch, "img_size")
        if pos_embed not in ("learn", "sincos"):
            raise ValueError(f'pos_embed="{pos_embed}": choose "learn" or "sincos".')
        if pos_embed == "sincos":
            _fix_positions(model)
        # frozen until a task learns it: DDP stops at trainable parameters without gradient, and most tasks hide nothing
        self.mask_token = nn.Parameter(torch.empty(model.embed_dim), requires_grad=False)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns of the tokens of an image of the size it was built for."""
        rows, columns = self.model.patch_embed.grid_size
        return rows, columns

    @property
    def num_tokens(self) -> int:
        """Tokens ``N`` of an image of the size it was built for, without prefix tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch, which divide those of every image."""
        height, width = self.model.patch_embed.patch_size
        return height, width

    @property
    def pools_class_token(self) -> bool:
        """Whether `Encoding.pooled` is the class token, which some tasks do not train."""
        return self.model.global_pool == "token"

    @property
    def patch_dim(self) -> int:
        """Numbers ``P`` in one patch: channels times height times width."""
        return self.model.patch_embed.proj.weight[0].numel()

    def learn_mask_token(self) -> None:
        """Make the mask token trainable; a task that hides tokens behind it calls this in its constructor."""
        self.mask_token.requires_grad_(True)

    def patchify(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, N, P)``: tokens row by row, the numbers of one in the order channel, row, column."""
        h, w = self.model.patch_embed.patch_size
        _check_divides(tuple(x.shape[-2:]), (h, w), "an image of")
        return nn.functional.unfold(x, (h, w), stride=(h, w)).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        *,
        keep: Tensor | None = None,
        mask: Tensor | None = None,
        prefix: Tensor | None = None,
        layers: Sequence[int] = (),
    ) -> Encoding:
        """Encode ``(B, C, H, W)`` normalised floats.

        Args:
            x: images; height and width are multiples of the patch.
            keep: ``(B, K)`` int64, the only tokens to encode, in this order; then `Encoding.grid` is None, `grids`
                and `pooled_layers` are empty.
            mask: ``(B, N)`` bool, tokens that the mask token replaces.
            prefix: ``(B,)`` int64, how many tokens at the front see each other; later ones see what is before them alone, see
                `prefix_pattern`. None: all see all.
            layers: blocks whose tokens to return, before the final norm.

        Raises:
            ValueError: an image that the patch does not divide, a layer that is not there, a mask or prefix that does not fit.
        """
        wanted = self._positions(layers)
        m, skip = self.model, self.model.num_prefix_tokens
        _check_divides(tuple(x.shape[-2:]), m.patch_embed.patch_size, "an image of")
        patches = m.patch_embed(x)  # (B, rows, columns, D)
        grid = tuple(patches.shape[1:3])
        if mask is not None:
            patches = self._hide(patches, mask)
        t = m._pos_embed(patches)  # (B, skip + N, D)
        if keep is not None:
            kept = t[:, skip:].gather(1, keep[..., None].expand(-1, -1, t.shape[-1]))  # (B, K, D)
            t = torch.cat([t[:, :skip], kept], dim=1)
        t = m.norm_pre(t)
        pattern = None if prefix is None else prefix_pattern(prefix, t.shape[1] - skip, skip)
        fused = not plain_attention_is_faster(t)
        for attention in (module for module in m.blocks.modules() if isinstance(module, Attention)):
            attention.fused_attn = fused  # pyright: ignore[reportAttributeAccessIssue]  (Final for TorchScript only)
        seen: dict[int, Tensor] = {}
        for i, block in enumerate(m.blocks):
            t = block(t, attn_mask=pattern)
            if i in wanted:
                seen[i] = t
        t = m.norm(t)
        pooled = m.forward_head(t, pre_logits=True)
        tokens, found = t[:, skip:], tuple(seen[i][:, skip:] for i in wanted)
        if keep is not None:
            return Encoding(pooled, tokens, None, found)
        last = self.num_layers - 1
        pools = {i: pooled if i == last else m.forward_head(m.norm(one), pre_logits=True) for i, one in seen.items()}
        return Encoding(pooled, tokens, grid, found, (grid,) * len(wanted), tuple(pools[i] for i in wanted))

    @property
    def shows_attention(self) -> bool:
        """Whether `attention` can be asked: the last block has timm's plain one."""
        return type(self.model.blocks[-1].attn) is Attention

    def attention(self, x: Tensor) -> Tensor:
        """Where each head of the last block looks in ``(B, C, H, W)`` normalised floats.

        From the class token where that is pooled (DINO, figure 1), else from all tokens in the mean.

        Returns:
            ``(B, heads, rows, columns)``: shares; what goes to prefix tokens is not among them.

        Raises:
            ValueError: the attention of the last block is of another kind than timm's plain one.
        """
        last: Attention = self.model.blocks[-1].attn
        if not self.shows_attention:
            raise ValueError(f"{type(last).__name__} does not say where it looks: only timm's plain Attention does.")
        held: list[Tensor] = []

        def hold(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            held.append(given[0])

        hook = last.register_forward_pre_hook(hold)
        try:
            grid = self(x).grid
        finally:
            hook.remove()
        batch, tokens, _ = held[0].shape
        q, k, _ = last.qkv(held[0]).view(batch, tokens, 3, last.num_heads, last.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        shares = (last.q_norm(q) * last.scale @ last.k_norm(k).transpose(-2, -1)).softmax(dim=-1)  # (B, heads, T, T)
        skip = self.model.num_prefix_tokens
        seen = shares[:, :, 0, skip:] if self.pools_class_token else shares[:, :, skip:, skip:].mean(2)
        return seen.unflatten(-1, grid)

    def _hide(self, patches: Tensor, mask: Tensor) -> Tensor:
        count = patches.shape[1] * patches.shape[2]
        if mask.dtype != torch.bool or tuple(mask.shape) != (len(patches), count):
            raise ValueError(
                f"mask {tuple(mask.shape)} {mask.dtype} does not say of each token whether it is hidden: "
                f"give {(len(patches), count)} torch.bool."
            )
        if self.training and torch.is_grad_enabled() and not self.mask_token.requires_grad:
            raise ValueError("The mask token would not learn: call encoder.learn_mask_token() in the task's constructor.")
        return torch.where(mask.view(*patches.shape[:3], 1), self.mask_token.to(patches.dtype), patches)


def timm_encoder(
    name: str = "resnet18",
    in_chans: int = 3,
    img_size: int | Sequence[int] = 224,
    pretrained: bool = False,
    weights: str | None = None,
    small_stem: bool = False,
    drop_path: float = 0.0,
    pool: Literal["cls", "mean"] | None = None,
    pos_embed: Literal["learn", "sincos"] = "learn",
    model_args: Mapping[str, bool | int | float | str] | None = None,
) -> TimmEncoder:
    """Any CNN or vision transformer of timm.

    Args:
        name: as timm lists it, with or without the tag of its weights: ``resnet50``, ``vit_small_patch16_224.dino``.
        in_chans: channels of the images.
        img_size: height and width, one number or two; CNNs take any size later, plain vision transformers too.
        pretrained: load timm's weights, adapted by timm to `in_chans` and `img_size`; downloads them.
        weights: a local file with weights of exactly this architecture (``.safetensors``, or ``.pth`` and ``.ckpt`` of plain
            tensors), or the directory of a Hugging Face model. Names of torchvision, lightly, solo-learn, stable-pretraining,
            DINOv2, MAE and Hugging Face are known, see `layouts`. A classifier and other parts than the encoder are left
            out, anything else that does not fit is an error.
        small_stem: for ResNets: a 3x3 convolution with stride 1 and no pooling, for small images (SimCLR, Appendix B.9).
        drop_path: rate of stochastic depth at the last layer.
        pool: what `pooled` is in a plain vision transformer: the class token, or the mean of the others, both after the final
            norm; None is timm's own.
        pos_embed: "learn" is timm's; "sincos" is fixed, for plain vision transformers.
        model_args: further numbers of the architecture, by timm's names: ``{"patch_size": 8}``.

    Raises:
        ValueError: a name, a number or a combination that cannot be built, or weights that do not fit; the message says which.
    """
    size = height_width(img_size)
    given = _checked_args(model_args)
    if pretrained and (small_stem or pos_embed == "sincos" or weights):
        raise ValueError(
            "pretrained=true brings its own stem and positions: leave out small_stem, pos_embed=sincos and weights."
        )
    model = _create(name, in_chans, size, pretrained, drop_path, given)
    if small_stem:
        _shrink_stem(model)
    plain_vit = isinstance(model, VisionTransformer) and model.dynamic_img_size and type(model.patch_embed) is PatchEmbed
    if plain_vit:
        _set_pool(model, pool)
    elif pool is not None or pos_embed != "learn":
        raise ValueError(f"{name} is not a plain vision transformer: leave out pool={pool} and pos_embed={pos_embed}.")
    encoder = TimmViT(model, pos_embed) if plain_vit else TimmEncoder(model)
    if weights is not None:
        mapped = to_timm(read_tensors(weights))
        named = "" if mapped.layout == LAYOUTS[-1].name else f" (named as by {mapped.layout})"
        load_strictly(model, _without_classifier(mapped.tensors, name), f"{weights}{named}")
    return encoder.named(
        "timm_encoder",
        name=name,
        in_chans=in_chans,
        img_size=list(size),
        small_stem=small_stem,
        drop_path=drop_path,
        pool=pool,
        pos_embed=pos_embed,
        model_args=given or None,
    )


def vision_transformer(
    *,
    in_chans: int,
    img_size: int | Sequence[int],
    patch_size: int,
    width: int,
    depth: int,
    heads: int,
    drop_path: float,
    pool: Literal["cls", "mean"],
    pos_embed: Literal["learn", "sincos"],
) -> TimmViT:
    """A plain vision transformer of any measures, with a class token; arguments as in `timm_encoder`."""
    size = height_width(img_size)
    _check_divides(size, (patch_size, patch_size), "img_size")
    model = VisionTransformer(
        img_size=size,
        patch_size=patch_size,
        in_chans=in_chans,
        num_classes=0,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        drop_path_rate=drop_path,
        dynamic_img_size=True,
    )
    _set_pool(model, pool)
    return TimmViT(model, pos_embed)


def narrow_resnet(*, in_chans: int, widths: Sequence[int], drop_path: float) -> TimmEncoder:
    """A ResNet with one basic block a stage and the small stem, as wide as the first stage."""
    block: Any = BasicBlock  # timm's annotation asks for an instance
    model = ResNet(
        block,
        tuple(1 for _ in widths),
        num_classes=0,
        in_chans=in_chans,
        channels=tuple(widths),
        stem_type="deep",  # timm's plain stem is always 64 wide, the deep one twice stem_width; only its width is kept
        stem_width=widths[0] // 2,
        drop_path_rate=drop_path,
        zero_init_last=False,  # with one block a stage, branches that start at zero leave a stack of 1x1 convolutions
    )
    _small_conv1(model, in_chans, widths[0])
    return TimmEncoder(model)


def _create(
    name: str, in_chans: int, size: tuple[int, int], pretrained: bool, drop_path: float, given: dict[str, Plain]
) -> Any:
    """The timm model without classifier."""
    bare = name.partition(".")[0]
    if ":" in name or "/" in name or not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them."
        raise ValueError(f"timm has no model {name}: {hint} Weights from elsewhere: weights=FILE.")
    known = timm.list_pretrained(f"{bare}.*")
    if (name != bare and name not in known) or (pretrained and not known):
        raise ValueError(f"timm has no weights {name}: it has {', '.join(known) or 'none of this architecture'}.")
    config: Any = timm.get_pretrained_cfg(name)
    args: dict[str, Any] = dict(given)
    if is_model_in_modules(bare, ["vision_transformer", "deit"]):
        args |= {"img_size": size, "dynamic_img_size": True}
    elif config.fixed_input_size:
        args |= {"img_size": size}
    if drop_path:
        args["drop_path_rate"] = drop_path
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=in_chans, **args)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"timm cannot build {name} with {args}: {error}") from error
    except OSError as error:  # huggingface_hub's LocalEntryNotFoundError is one
        raise ValueError(
            f"The weights of {name} could not be downloaded ({error}): get the file and give weights=FILE."
        ) from error


def _checked_args(model_args: Mapping[str, Any] | None) -> dict[str, Plain]:
    """Only names that say what to build."""
    given: dict[str, Plain] = dict(model_args or {})
    for key, value in given.items():
        if key not in _MODEL_ARGS:
            near = difflib.get_close_matches(key, _MODEL_ARGS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it may have {', '.join(sorted(_MODEL_ARGS))}."
            raise ValueError(f"model_args has no {key}: {hint}")
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"model_args.{key}={value}: give a number or a name.")
    return given


def _check_divides(size: tuple[int, ...], patch: tuple[int, int], what: str) -> None:
    if size[0] % patch[0] or size[1] % patch[1]:
        near = tuple(max(p, round(s / p) * p) for s, p in zip(size, patch, strict=True))
        raise ValueError(
            f"{what} {size[0]}x{size[1]} is not a multiple of the patch {patch[0]}x{patch[1]}: "
            f"take a patch_size that divides it, or {near[0]}x{near[1]}."
        )


def _set_pool(model: VisionTransformer, pool: str | None) -> None:
    """Choose the pooling and leave the norms where they are, before the pooling."""
    if pool is None:
        return
    if pool not in ("cls", "mean"):
        raise ValueError(f'pool="{pool}": choose "cls" or "mean".')
    if type(model) is not VisionTransformer or (pool == "cls" and not model.has_class_token):
        raise ValueError(f'pool="{pool}": {type(model).__name__} has its own pooling here; leave pool out.')
    model.reset_classifier(0, "token" if pool == "cls" else "avg")


def _shrink_stem(model: nn.Module) -> None:
    if not isinstance(model, ResNet) or not isinstance(model.conv1, nn.Conv2d):
        raise ValueError(
            f"small_stem=true is for ResNets with a 7x7 stem, and this is a {type(model).__name__}: leave it out "
            "(ConvNeXt and vision transformers: a smaller patch_size)."
        )
    _small_conv1(model, model.conv1.in_channels, model.conv1.out_channels)


def _small_conv1(model: ResNet, in_chans: int, width: int) -> None:
    """3x3, stride 1, no pooling; initialised as timm initialises ResNets."""
    model.conv1 = nn.Conv2d(in_chans, width, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


def _fix_positions(model: Any) -> None:
    """Sine and cosine of column and row, zero for prefix tokens, no gradient (MAE's util/pos_embed.py)."""
    if model.pos_embed is None or model.embed_dim % 4:
        raise ValueError("pos_embed=sincos needs absolute positions and a width that 4 divides: take pos_embed=learn.")
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in model.patch_embed.grid_size)
    quarter = model.embed_dim // 4
    omega = 10_000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    y, x = (axis.flatten()[:, None] * omega for axis in torch.meshgrid(rows, columns, indexing="ij"))  # (N, D / 4)
    table = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1).float()  # (N, D)
    prefix = torch.zeros(model.pos_embed.shape[1] - len(table), model.embed_dim)
    model.pos_embed = nn.Parameter(torch.cat([prefix, table])[None], requires_grad=False)


def _without_classifier(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    config: Any = timm.get_pretrained_cfg(name)
    heads = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    drop = {f"{head}.{part}" for head in heads for part in ("weight", "bias")}
    return {key: value for key, value in tensors.items() if key not in drop}
