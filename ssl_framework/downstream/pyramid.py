"""Feature maps at several resolutions, of any encoder: what detectors look for things in."""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
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
        ValueError: the encoder has no maps.
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
            self.strides = [round(height / rows) for rows, _ in grids]
        else:
            self.join = _SimplePyramid(found[0].shape[-1], channels)
            self.strides = [max(1, round(height / grids[0][0] * share)) for share in (1 / 4, 1 / 2, 1, 2)]

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """``(B, C, H, W)`` to maps by number, the finest first, and one more at half the coarsest."""
        found = OrderedDict((str(i), one) for i, one in enumerate(maps(self.encoder(x, layers=self.layers))))
        joined: OrderedDict[str, Tensor] = self.join(found)
        last = joined[next(reversed(joined))]
        joined["pool"] = F.max_pool2d(last, 1, 2, 0)
        return joined


class _SimplePyramid(nn.Module):
    """One map at four resolutions."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        half, quarter = max(1, width // 2), max(1, width // 4)
        scales: list[tuple[list[nn.Module], int]] = [
            (
                [
                    nn.ConvTranspose2d(width, half, 2, 2),
                    nn.GroupNorm(1, half),
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
                nn.GroupNorm(1, channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.GroupNorm(1, channels),
            )
            for parts, inside in scales
        )

    def forward(self, found: "OrderedDict[str, Tensor]") -> "OrderedDict[str, Tensor]":
        """The only map to four."""
        (x,) = found.values()
        return OrderedDict((str(i), scale(x)) for i, scale in enumerate(self.scales))
