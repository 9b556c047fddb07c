"""Two global crops of a sample, and as many local ones as the views make: how joint-embedding tasks encode and compare them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ssl_framework.types import Views


def encode_crops(encoder: nn.Module, views: Views, *, joined: bool = False, every: bool = False) -> Tensor:
    """Encode the first two global crops, or every one, and all local crops behind them.

    Args:
        encoder: maps inputs to an `Encoding`.
        views: of a batch.
        joined: crops of one size go through in one forward, so that BatchNorm sees them together, for papers whose code does
            so; else each crop goes by itself.
        every: take all global crops, for tasks that compare any number of views alike.

    Returns:
        ``(V, B, D)`` pooled embeddings, with V = 2 + L; L is 0 without multi-crop.
    """
    groups = [views.global_crops if every else views.global_crops[:2]] + (
        [] if views.local_crops is None else [views.local_crops]
    )
    if joined:
        return torch.cat([encoder(crops.flatten(0, 1)).pooled.unflatten(0, crops.shape[:2]) for crops in groups])
    return torch.stack([encoder(crop).pooled for crops in groups for crop in crops])


def encode_local_crops(encoder: nn.Module, views: Views) -> list[Tensor]:
    """Encode all local crops in one forward: one ``(L, B, D)``, or nothing where there are none."""
    crops = views.local_crops
    return [] if crops is None else [encoder(crops.flatten(0, 1)).pooled.unflatten(0, crops.shape[:2])]


def place_positions(boxes: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Where the places of a crop's map lie in the picture that it was cut from.

    Args:
        boxes: ``(B, 5)`` of one crop, see `Views.boxes`.
        grid: rows and columns of its map, with product ``N``.

    Returns:
        ``(B, N, 2)`` row and column of each centre, in pixels of the picture; float32 or wider.
    """
    top, left, height, width, flipped = boxes.T[:, :, None]  # (B, 1) each
    row, column = (
        (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5) / side for side in grid
    )  # shares of the crop
    column = torch.where(flipped > 0, 1 - column, column)  # (B, columns)
    rows = (top + row * height)[:, :, None].expand(-1, -1, grid[1])
    columns = (left + column * width)[:, None, :].expand(-1, grid[0], -1)
    return torch.stack([rows, columns], dim=-1).flatten(1, 2)


def together(head: nn.Module, crops: Tensor) -> Tensor:
    """A head on all crops in one forward: ``(V, B, D)`` to ``(V, B, P)``."""
    return head(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])


def each(head: nn.Module, crops: Tensor | Sequence[Tensor]) -> Tensor:
    """A head on every crop by itself, so that its BatchNorm does not mix them: V times ``(B, D)`` to ``(V, B, P)``."""
    return torch.stack([head(crop) for crop in crops])


def compare_crops(criterion: Callable[[Tensor, Tensor], Tensor], crops: Tensor, targets: Tensor | None = None) -> Tensor:
    """The mean of a loss over pairs of crops: every global crop with every other crop, as in multi-crop.

    Caron et al., 2020, https://arxiv.org/abs/2006.09882, multi-crop: only the two global crops are targets.

    Args:
        criterion: of two crops, ``(B, P)`` each; with `targets`, of a crop and a target.
        crops: ``(V, B, P)``, the two global ones first.
        targets: ``(2, B, P)`` what the loss of each other crop is taken against, or None for a loss that is symmetric.

    Returns:
        ``()``. With two crops: of the one pair, or the mean of both directions.
    """
    if targets is None:
        losses = [criterion(crops[i], crops[j]) for i in range(2) for j in range(i + 1, len(crops))]
    else:
        losses = [criterion(crops[j], targets[i]) for i in range(2) for j in range(len(crops)) if j != i]
    return torch.stack(losses).mean()
