"""Encoders by name, with fresh weights. Pretrained ones come from `timm_encoder` and `torchvision_encoder`."""

from collections.abc import Sequence
from typing import Literal

from ssl_framework.encoders.base import height_width
from ssl_framework.encoders.timm import TimmEncoder, TimmViT, narrow_resnet, timm_encoder, vision_transformer


def resnet_micro(in_chans: int = 3, img_size: int | Sequence[int] = 32, drop_path: float = 0.0) -> TimmEncoder:
    """A ResNet for minutes on a CPU: 4 stages of one basic block, 16 to 128 wide, small stem; 0.3 M parameters.

    Args:
        in_chans: channels of the images.
        img_size: height and width, one number or two; it takes any size.
        drop_path: rate of stochastic depth at the last stage.
    """
    encoder = narrow_resnet(in_chans=in_chans, widths=(16, 32, 64, 128), drop_path=drop_path)
    return encoder.named("resnet_micro", in_chans=in_chans, img_size=list(height_width(img_size)), drop_path=drop_path)


def resnet18(
    in_chans: int = 3, img_size: int | Sequence[int] = 32, small_stem: bool = True, drop_path: float = 0.0
) -> TimmEncoder:
    """ResNet-18, by default with the stem for small images; 11.2 M parameters.

    He et al., 2015, https://arxiv.org/abs/1512.03385

    Args:
        in_chans: channels of the images.
        img_size: height and width, one number or two; it takes any size.
        small_stem: 3x3 with stride 1 and no pooling (SimCLR, Appendix B.9), else 7x7 with stride 2 and pooling.
        drop_path: rate of stochastic depth at the last stage.
    """
    encoder = timm_encoder("resnet18", in_chans, img_size, small_stem=small_stem, drop_path=drop_path)
    size = list(height_width(img_size))
    return encoder.named("resnet18", in_chans=in_chans, img_size=size, small_stem=small_stem, drop_path=drop_path)


def resnet50(
    in_chans: int = 3, img_size: int | Sequence[int] = 224, small_stem: bool = False, drop_path: float = 0.0
) -> TimmEncoder:
    """ResNet-50; 23.5 M parameters. Arguments as in `resnet18`."""
    encoder = timm_encoder("resnet50", in_chans, img_size, small_stem=small_stem, drop_path=drop_path)
    size = list(height_width(img_size))
    return encoder.named("resnet50", in_chans=in_chans, img_size=size, small_stem=small_stem, drop_path=drop_path)


def convnext_tiny(
    in_chans: int = 3, img_size: int | Sequence[int] = 224, patch_size: int = 4, drop_path: float = 0.0
) -> TimmEncoder:
    """ConvNeXt-T; 27.8 M parameters.

    Liu et al., 2022, https://arxiv.org/abs/2201.03545

    Args:
        in_chans: channels of the images.
        img_size: height and width, one number or two; it takes any size.
        patch_size: stride of the stem; 1 or 2 for small images.
        drop_path: rate of stochastic depth at the last block.
    """
    args: dict[str, bool | int | float | str] = {"patch_size": patch_size}
    encoder = timm_encoder("convnext_tiny", in_chans, img_size, drop_path=drop_path, model_args=args)
    size = list(height_width(img_size))
    return encoder.named("convnext_tiny", in_chans=in_chans, img_size=size, patch_size=patch_size, drop_path=drop_path)


def vit_micro(
    in_chans: int = 3,
    img_size: int | Sequence[int] = 32,
    patch_size: int | None = None,
    drop_path: float = 0.0,
    pool: Literal["cls", "mean"] = "cls",
    pos_embed: Literal["learn", "sincos"] = "learn",
) -> TimmViT:
    """A vision transformer for minutes on a CPU: 6 blocks, 192 wide, 3 heads; 2.7 M parameters.

    Args:
        in_chans: channels of the images.
        img_size: height and width, one number or two; multiples of `patch_size`.
        patch_size: side of a patch; None is 4, and less for images so small that fewer than 4 x 4 tokens were left: tasks that
            hide tokens in blocks (I-JEPA) need that many.
        drop_path: rate of stochastic depth at the last block.
        pool: `pooled` is the class token, or the mean of the others, after the final norm.
        pos_embed: learned positions as timm initialises them, or "sincos": fixed, as in MAE.
    """
    patch = _patch_for(height_width(img_size)) if patch_size is None else patch_size
    return _vit("vit_micro", 192, 6, 3, in_chans, img_size, patch, drop_path, pool, pos_embed)


def vit_tiny(
    in_chans: int = 3,
    img_size: int | Sequence[int] = 32,
    patch_size: int = 4,
    drop_path: float = 0.0,
    pool: Literal["cls", "mean"] = "cls",
    pos_embed: Literal["learn", "sincos"] = "learn",
) -> TimmViT:
    """DeiT's tiny vision transformer: 12 blocks, 192 wide, 3 heads; 5.4 M parameters. Arguments as in `vit_micro`.

    Touvron et al., 2020, https://arxiv.org/abs/2012.12877, table 1.
    """
    return _vit("vit_tiny", 192, 12, 3, in_chans, img_size, patch_size, drop_path, pool, pos_embed)


def vit_small(
    in_chans: int = 3,
    img_size: int | Sequence[int] = 224,
    patch_size: int = 16,
    drop_path: float = 0.0,
    pool: Literal["cls", "mean"] = "cls",
    pos_embed: Literal["learn", "sincos"] = "learn",
) -> TimmViT:
    """DeiT's small vision transformer: 12 blocks, 384 wide, 6 heads; 21.7 M parameters. Arguments as in `vit_micro`.

    Touvron et al., 2020, https://arxiv.org/abs/2012.12877, table 1. For images of 32 pixels take ``patch_size=4``.
    """
    return _vit("vit_small", 384, 12, 6, in_chans, img_size, patch_size, drop_path, pool, pos_embed)


def _patch_for(size: tuple[int, int]) -> int:
    """The largest of 4, 2 and 1 that cuts each side into at least 4; 1 for what is smaller still."""
    return next((patch for patch in (4, 2) if min(size) >= 4 * patch), 1)


def _vit(
    name: str,
    width: int,
    depth: int,
    heads: int,
    in_chans: int,
    img_size: int | Sequence[int],
    patch_size: int,
    drop_path: float,
    pool: Literal["cls", "mean"],
    pos_embed: Literal["learn", "sincos"],
) -> TimmViT:
    encoder = vision_transformer(
        in_chans=in_chans,
        img_size=img_size,
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=heads,
        drop_path=drop_path,
        pool=pool,
        pos_embed=pos_embed,
    )
    return encoder.named(
        name,
        in_chans=in_chans,
        img_size=list(height_width(img_size)),
        patch_size=patch_size,
        drop_path=drop_path,
        pool=pool,
        pos_embed=pos_embed,
    )
