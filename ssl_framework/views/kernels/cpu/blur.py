"""Gaussian blur of one image, line by line: down the columns, then along the line, with reflected borders."""

import math

import numpy as np

from ssl_framework.views.kernels.cpu.compile import exact, relaxed
from ssl_framework.views.kernels.cpu.kinds import Floats

_LEAST = 2.0**-27  # a smaller weight is lost in the rounding of a float32 pixel


@exact
def gaussian(sigma: float, most: int, weight: Floats) -> int:
    """Half of a Gaussian kernel, normalised as a whole.

    Args:
        sigma: standard deviation in pixels.
        most: pixels on either side that the kernel may reach.
        weight: ``(at least most + 1,)``, written, the middle first.

    Returns:
        Pixels on either side whose weight counts.
    """
    total = 1.0
    for k in range(1, most + 1):
        total += 2 * math.exp(-0.5 * (k / sigma) ** 2)
    reach = 0
    for k in range(most + 1):
        share = math.exp(-0.5 * (k / sigma) ** 2) / total
        weight[k] = np.float32(share)
        reach = k if share >= _LEAST else reach
    return reach


@relaxed
def blur_line(
    planes: Floats, y: int, rows: tuple[int, Floats], columns: tuple[int, Floats], padded: Floats, out: Floats
) -> None:
    """Blur line `y` of ``(C, h, w)``.

    Args:
        planes: the image.
        y: which line.
        rows: reach and weight of `gaussian`, down the columns.
        columns: likewise, along the line.
        padded: ``(C, at least w + 2 * reach)`` scratch.
        out: ``(C, w)``, written.
    """
    channels, _, width = planes.shape
    reach, weight = columns
    for c in range(channels):
        _down(planes[c], y, rows, padded[c, reach : reach + width])
        for k in range(reach):
            padded[c, reach - 1 - k] = padded[c, reach + _reflected(-1 - k, width)]
            padded[c, reach + width + k] = padded[c, reach + _reflected(width + k, width)]
        _along(padded[c], reach, weight, out[c])


@relaxed
def _down(plane: Floats, y: int, rows: tuple[int, Floats], out: Floats) -> None:
    """Weighted sum of lines around `y`, two on either side at a time: half the trips to memory."""
    (height, width), (reach, weight) = plane.shape, rows
    middle = weight[0]
    for x in range(width):
        out[x] = middle * plane[y, x]
    k = 1
    while k < reach:
        near, far = weight[k], weight[k + 1]
        a, b = _reflected(y - k, height), _reflected(y + k, height)
        c, d = _reflected(y - k - 1, height), _reflected(y + k + 1, height)
        for x in range(width):
            out[x] += near * (plane[a, x] + plane[b, x]) + far * (plane[c, x] + plane[d, x])
        k += 2
    if k == reach:
        near, a, b = weight[k], _reflected(y - k, height), _reflected(y + k, height)
        for x in range(width):
            out[x] += near * (plane[a, x] + plane[b, x])


@relaxed
def _along(padded: Floats, reach: int, weight: Floats, out: Floats) -> None:
    """Weighted sum of the neighbours on a line that begins `reach` pixels before the first output."""
    middle = weight[0]
    for x in range(len(out)):
        out[x] = middle * padded[reach + x]
    k = 1
    while k < reach:
        near, far = weight[k], weight[k + 1]
        a, b, c, d = reach - k, reach + k, reach - k - 1, reach + k + 1
        for x in range(len(out)):
            out[x] += near * (padded[a + x] + padded[b + x]) + far * (padded[c + x] + padded[d + x])
        k += 2
    if k == reach:
        near, a, b = weight[k], reach - k, reach + k
        for x in range(len(out)):
            out[x] += near * (padded[a + x] + padded[b + x])


@relaxed
def _reflected(position: int, length: int) -> int:
    """Where a position beyond the border falls, the border itself not repeated."""
    return length - 1 - abs(length - 1 - abs(position))
