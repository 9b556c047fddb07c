"""Histograms of oriented gradients."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.nn.precision import widen


def gradient_histograms(x: Tensor, cells: tuple[int, int], bins: int) -> Tensor:
    """In which directions brightness changes, in each cell of a grid: HOG, Dalal and Triggs, 2005.

    As MaskFeat has it (https://github.com/facebookresearch/SlowFast, slowfast/models/operators.py, ``HOGLayerC``): Sobel's
    filters on each channel by itself, mirrored at the border, directions without a sign, weighted by the size of the change,
    and the histogram of each cell normalised to length 1.

    Args:
        x: ``(B, C, H, W)`` floats, two along each side at least.
        cells: rows and columns; they divide H and W.
        bins: directions over half a turn.

    Returns:
        ``(B, C, bins, rows, columns)``, in float32 or wider.

    Raises:
        ValueError: the grid does not divide the input.
    """
    height, width = x.shape[-2:]
    if height % cells[0] or width % cells[1]:
        raise ValueError(f"{cells[0]} x {cells[1]} cells do not divide views of {height} x {width}: set pretext.cells.")
    x = widen(x)
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]  # (B, C, H, W + 2), smoothed downwards
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]  # (B, C, H + 2, W), smoothed across
    across, down = rows[..., :-2] - rows[..., 2:], columns[..., :-2, :] - columns[..., 2:, :]
    size = torch.hypot(across, down)
    direction = torch.atan2(across, down) / math.pi * bins  # half a turn is bins
    which = direction.floor().long() % bins  # (B, C, H, W)
    counted = torch.zeros(*x.shape[:2], bins, height, width, dtype=x.dtype, device=x.device)
    counted.scatter_(2, which[:, :, None], size[:, :, None])
    pooled = counted.unflatten(-1, (cells[1], -1)).sum(-1).unflatten(-2, (cells[0], -1)).sum(-2)  # (B, C, bins, rows, columns)
    return F.normalize(pooled, dim=2)
