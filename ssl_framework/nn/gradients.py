"""Histograms of oriented gradients."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def gradient_histograms(x: Tensor, cells: tuple[int, int], bins: int) -> Tensor:
    """In which directions brightness changes, in each cell of a grid: HOG, Dalal and Triggs, 2005.

    As MaskFeat has it (https://arxiv.org/abs/2112.09133, section 3.2): each channel by itself, directions without a sign,
    weighted by the size of the change, and the histogram of each cell normalised to length 1.

    Args:
        x: ``(B, C, H, W)`` floats.
        cells: rows and columns; they divide H and W.
        bins: directions over half a turn.

    Returns:
        ``(B, C, bins, rows, columns)``.

    Raises:
        ValueError: the grid does not divide the input.
    """
    height, width = x.shape[-2:]
    if height % cells[0] or width % cells[1]:
        raise ValueError(f"{cells[0]} x {cells[1]} cells do not divide views of {height} x {width}: set pretext.cells.")
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    size = torch.hypot(across, down)
    direction = torch.atan2(down, across) / math.pi % 1.0 * bins  # half a turn is bins
    which = direction.floor().long() % bins  # (B, C, H, W)
    counted = torch.zeros(*x.shape[:2], bins, height, width, dtype=x.dtype, device=x.device)
    counted.scatter_(2, which[:, :, None], size[:, :, None])
    pooled = counted.unflatten(-1, (cells[1], -1)).sum(-1).unflatten(-2, (cells[0], -1)).sum(-2)  # (B, C, bins, rows, columns)
    return F.normalize(pooled, dim=2)
