"""Tiles of a picture, and orders of them: what Jigsaw, relative location and PIRL cut their samples into."""

import numpy as np
import torch
from torch import Tensor

from ssl_framework import keyed

_STREAM = 1_000_017
_POOL = 20_000  # random orders among which the next is chosen


def require_tiles(encoder: object, size: tuple[int, int] | None, side: int, gap: float) -> tuple[int, int]:
    """Find out, before anything runs, whether an encoder can take the tiles of a view.

    Args:
        encoder: a vision transformer has a ``patch_size`` that divides what it takes; others take anything.
        size: height and width of the views, if they are known.
        side: tiles along each axis.
        gap: see `tiles`.

    Returns:
        What the sides of a tile are multiples of.

    Raises:
        ValueError: a cell is smaller than a patch, or the numbers are none.
    """
    height, width = getattr(encoder, "patch_size", (1, 1))
    if size is not None:
        tiles(torch.zeros(1, 1, *size), side, gap, torch.zeros(1, dtype=torch.int64), (height, width))
    return height, width


def tiles(x: Tensor, side: int, gap: float, key: Tensor, unit: tuple[int, int] = (1, 1)) -> Tensor:
    """Cut a grid of ``side * side`` cells, and out of each cell, at a random place, a tile that is smaller.

    Args:
        x: ``(B, C, H, W)``; the last two axes are cut, whatever they are.
        side: cells along each axis.
        gap: share of a cell that is left out at each end, if the tile stands in the middle.
        key: ``(B,)`` int64, from which the places are drawn.
        unit: height and width that those of a tile are multiples of: the patch of a vision transformer.

    Returns:
        ``(B, side * side, C, h, w)``, row by row.

    Raises:
        ValueError: the gap leaves nothing, or the input has fewer numbers than cells along an axis, or no unit fits a cell.
    """
    if not 0 <= gap < 0.5:
        raise ValueError(f"gap={gap} must be at least 0 and below 0.5: it is cut off at both ends of a tile.")
    batch, height, width = len(x), x.shape[-2], x.shape[-1]
    if min(height, width) < side:
        raise ValueError(f"Views of {height} x {width} cannot be cut into {side} x {side} tiles: set a larger views.size.")
    if height // side < unit[0] or width // side < unit[1]:
        raise ValueError(
            f"Views of {height} x {width} are cut into {side} x {side} cells of {height // side} x {width // side}, and the "
            f"encoder's patch of {unit[0]} x {unit[1]} is larger: set views.size={side * max(unit)} or more, or a smaller "
            "encoder.patch_size."
        )
    shift = keyed.uniform(key, _STREAM, 2 * side * side).unflatten(1, (2, side, side))  # (B, 2, side, side)
    rows = _places(height, side, gap, shift[:, 0], axis=1, unit=unit[0])  # (B, side, side, h)
    columns = _places(width, side, gap, shift[:, 1], axis=2, unit=unit[1])
    which = torch.arange(batch, device=x.device)[:, None, None, None, None]
    found = x.movedim(1, -1)[which, rows[..., :, None], columns[..., None, :]]  # (B, side, side, h, w, C)
    return found.movedim(-1, 3).flatten(1, 2)


def _places(length: int, side: int, gap: float, shift: Tensor, *, axis: int, unit: int) -> Tensor:
    """Positions ``(B, side, side, tile)`` along one axis of the input."""
    cell = length // side
    tile = max(1, round(cell * (1 - 2 * gap)) // unit) * unit
    start = torch.arange(side, device=shift.device).view(-1, 1) if axis == 1 else torch.arange(side, device=shift.device)
    first = start * cell + (shift * (cell - tile + 1)).long()  # (B, side, side)
    return first[..., None] + torch.arange(tile, device=shift.device)


def distant_orders(count: int, length: int) -> Tensor:
    """Orders that differ in many places, in the manner of Noroozi and Favaro, 2016, https://arxiv.org/abs/1603.09246.

    The next is the one of 20,000 random orders whose nearest neighbour among those chosen is farthest; always the same. That of
    the paper's algorithm 1 is the farthest on average, of all orders, so that two may differ in few places.

    Args:
        count: how many orders.
        length: things to be put in order.

    Returns:
        ``(count, length)`` int64, each row a permutation, no two alike.

    Raises:
        ValueError: there are not as many.
    """
    pool = np.unique(np.argsort(np.random.default_rng(0).random((_POOL, length)), axis=1), axis=0)
    if not 2 <= count <= len(pool):
        raise ValueError(f"permutations={count}: choose 2 to {len(pool)} orders of {length} tiles.")
    chosen = [0]
    nearest = (pool != pool[0]).sum(axis=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, (pool != pool[chosen[-1]]).sum(axis=1))
    return torch.from_numpy(pool[chosen])
