"""Feature maps at several resolutions, of any encoder: what detectors look for things in."""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from ssl_framework.types import Encoder, Encoding

_LEVELS = 4  # resolutions at most


def maps(seen: Encoding) -> list[Tensor]:
    """The layers asked for, as maps ``(B, D_i, h_i, w_i)``."""
    return [x.transpose(1, 2).unflatten(2, grid) for x, grid in zip(seen.layers, seen.grids, strict=True)]


class Pyramid(nn.Module):
    """A backbone for torchvision's detectors.

    Of a CNN the last layer of each resolution, at most four, joined from the top (Lin et al., 2017,
    https://arxiv.org/abs/1612.03144). Of a plain vision transformer, whose layers have one resolution, the last map at four
    times, twice, once and half its resolution (ViTDet's simple feature pyramid: Li et al., 2022,
    https://arxiv.org/abs/2203.16527, section 3).

    Args:
        encoder: whose layers have maps.
        example: ``(1, C, H, W)``.
        channels: of every map.

    Attributes:
        out_channels: ``channels``, as torchvision asks.
        strides: of the maps, in pixels.

    Raises:
        ValueError: the encoder has no maps, or a stride is no power of two, which torchvision's detectors need.
    """

    def __init__(self, encoder: Encoder, example: Tensor, channels: int = 256) -> None:
        super().__init__()
        self.encoder, self.out_channels = encoder, channels
        module = cast(nn.Module, encoder)
        module.eval()
        with torch.no_grad():
            seen = encoder(example, layers=tuple(range(encoder.num_layers)))
        if not seen.layers or any(len(grid) != 2 for grid in seen.grids):
            raise ValueError(
                f"detection needs feature maps, and this {type(encoder).__name__} has none: take a CNN or a transformer."
            )
        by_size = {grid: layer for layer, grid in enumerate(seen.grids)}  # the last of each
        self.layers = tuple(sorted(by_size.values()))[-_LEVELS:]
        found = [seen.layers[layer] for layer in self.layers]
        grids = [seen.grids[layer] for layer in self.layers]
        height = example.shape[-2]
        if len(self.layers) > 1:
            self.join: nn.Module = FeaturePyramidNetwork([x.shape[-1] for x in found], channels)
            self.strides = [_stride(height, rows) for rows, _ in grids]
        else:
            self.join = _SimplePyramid(found[0].shape[-1], channels)
            patch = _stride(height, grids[0][0], whole=True)
            self.strides = [max(1, round(patch * share)) for share in (1 / 4, 1 / 2, 1, 2)]

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """``(B, C, H, W)`` to maps by number, the finest first, and one more at half the coarsest."""
        found = OrderedDict((str(i), one) for i, one in enumerate(maps(self.encoder(x, layers=self.layers))))
        joined: OrderedDict[str, Tensor] = self.join(found)
        last = joined[next(reversed(joined))]
        joined["pool"] = F.max_pool2d(last, 1, 2, 0)
        return joined


def _stride(pixels: int, rows: int, whole: bool = False) -> int:
    """The power of two that a map of so many rows has as its stride; where patches are cut, they leave nothing over."""
    stride = 1
    while -(-pixels // stride) > rows:
        stride *= 2
    if -(-pixels // stride) != rows or (whole and pixels % stride):
        raise ValueError(
            f"detection: a map of {rows} rows for {pixels} pixels has a stride of {pixels / rows:.3g}, and torchvision's "
            "detectors look for powers of two, and would look elsewhere: take an encoder with patches of 8, 16 or 32."
        )
    return stride


class _SimplePyramid(nn.Module):
    """One map at four resolutions."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        half, quarter = max(1, width // 2), max(1, width // 4)
        scales: list[tuple[list[nn.Module], int]] = [
            (
                [
                    nn.ConvTranspose2d(width, half, 2, 2),
                    LayerNorm2d(half),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, 2, 2),
                ],
                quarter,
            ),
            ([nn.ConvTranspose2d(width, half, 2, 2)], half),
            ([nn.Identity()], width),
            ([nn.MaxPool2d(2, 2, ceil_mode=True)], width),
        ]
        self.scales = nn.ModuleList(
            nn.Sequential(
                *parts,
                nn.Conv2d(inside, channels, 1, bias=False),
                LayerNorm2d(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                LayerNorm2d(channels),
            )
            for parts, inside in scales
        )

    def forward(self, found: "OrderedDict[str, Tensor]") -> "OrderedDict[str, Tensor]":
        """The only map to four."""
        (x,) = found.values()
        return OrderedDict((str(i), scale(x)) for i, scale in enumerate(self.scales))
