"""Gaussian blur of one image: along its lines, then down its columns, with reflected borders.

Neighbours are added four on either side at a time: as many as the compiler still puts into one vector loop, and each addition
to the output is a trip to memory.
"""

import math

import numpy as np

from ssl_framework.views.kernels.cpu.compile import exact, relaxed
from ssl_framework.views.kernels.cpu.kinds import Floats

_LEAST = 2.0**-22  # all that is left out together is less than the rounding of such a sum in float32


@exact
def padded(reach: int) -> int:
    """`reach`, filled up to whole fours."""
    return max(4, (reach + 3) // 4 * 4)


@exact
def gaussian(sigma: float, most: int, weight: Floats) -> int:
    """Half of a Gaussian kernel, normalised as a whole.

    Args:
        sigma: standard deviation in pixels.
        most: pixels on either side that the kernel may reach.
        weight: ``(at least padded(most) + 1,)``, written, the middle first.

    Returns:
        Pixels on either side that count, filled up to whole fours with weights of 0.
    """
    total = 1.0
    for k in range(1, most + 1):
        total += 2 * math.exp(-0.5 * (k / sigma) ** 2)
    reach = 0
    weight[:] = 0
    for k in range(most + 1):
        share = math.exp(-0.5 * (k / sigma) ** 2) / total
        if share >= _LEAST:
            weight[k], reach = np.float32(share), k
    return padded(reach)


@relaxed
def blur(planes: Floats, rows: tuple[int, Floats], columns: tuple[int, Floats], line: Floats, lines: Floats) -> None:
    """Blur ``(C, h, w)`` in place.

    Args:
        planes: the image.
        rows: reach and weight of `gaussian`, down the columns.
        columns: likewise, along the lines.
        line: ``(at least w + 2 * reach,)`` scratch.
        lines: ``(at least (h + 2 * reach) * w,)`` scratch.
    """
    channels, height, width = planes.shape
    reach = rows[0]
    for c in range(channels):
        for y in range(height):
            _pad(planes[c, y], columns[0], line)
            _along(line, columns, lines[(reach + y) * width : (reach + y + 1) * width])
        for k in range(reach):
            _copy(lines, reach + _reflected(-1 - k, height), reach - 1 - k, width)
            _copy(lines, reach + _reflected(height + k, height), reach + height + k, width)
        _down(lines, width, rows, planes[c].reshape(-1))


@relaxed
def _pad(pixels: Floats, reach: int, line: Floats) -> None:
    """A line with its reflections at both ends."""
    width = len(pixels)
    middle = line[reach:]
    for x in range(width):  # a slice assigned to a slice is slower: it is checked for overlap and broadcast
        middle[x] = pixels[x]
    for k in range(reach):
        line[reach - 1 - k] = pixels[_reflected(-1 - k, width)]
        line[reach + width + k] = pixels[_reflected(width + k, width)]


@relaxed
def _copy(lines: Floats, source: int, target: int, width: int) -> None:
    """Of lines that are `width` long, one to another."""
    from_here, to_here = lines[source * width :], lines[target * width :]
    for x in range(width):
        to_here[x] = from_here[x]


@relaxed
def _reflected(position: int, length: int) -> int:
    """Where a position beyond the border falls, the border itself not repeated; anywhere for the weights of 0."""
    return max(0, length - 1 - abs(length - 1 - abs(position)))


@relaxed
def _along(line: Floats, columns: tuple[int, Floats], out: Floats) -> None:
    """Weighted sum of the neighbours on a line that begins `reach` pixels before the first output."""
    (reach, weight), width = columns, len(out)
    w0, w1, w2, w3, w4 = weight[0], weight[1], weight[2], weight[3], weight[4]
    near = line[reach - 4 :]
    for x in range(width):
        out[x] = (
            w0 * near[x + 4]
            + w1 * (near[x + 3] + near[x + 5])
            + w2 * (near[x + 2] + near[x + 6])
            + w3 * (near[x + 1] + near[x + 7])
            + w4 * (near[x] + near[x + 8])
        )
    for k in range(5, reach + 1, 4):
        w1, w2, w3, w4 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        left, right = line[reach - k - 3 :], line[reach + k :]
        for x in range(width):
            out[x] += (
                w1 * (left[x + 3] + right[x])
                + w2 * (left[x + 2] + right[x + 1])
                + w3 * (left[x + 1] + right[x + 2])
                + w4 * (left[x] + right[x + 3])
            )


@relaxed
def _down(lines: Floats, width: int, rows: tuple[int, Floats], out: Floats) -> None:
    """Weighted sum of the lines above and below; all lines of the output as one long one."""
    (reach, weight), size = rows, len(out)
    middle, w0 = lines[reach * width :], weight[0]
    for k in range(1, reach + 1, 4):
        w1, w2, w3, w4 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        above, below = (reach - k) * width, (reach + k) * width
        a1, a2, a3, a4 = lines[above:], lines[above - width :], lines[above - 2 * width :], lines[above - 3 * width :]
        b1, b2, b3, b4 = lines[below:], lines[below + width :], lines[below + 2 * width :], lines[below + 3 * width :]
        if k == 1:
            for i in range(size):
                out[i] = (
                    w0 * middle[i] + w1 * (a1[i] + b1[i]) + w2 * (a2[i] + b2[i]) + w3 * (a3[i] + b3[i]) + w4 * (a4[i] + b4[i])
                )
        else:
            for i in range(size):
                out[i] += w1 * (a1[i] + b1[i]) + w2 * (a2[i] + b2[i]) + w3 * (a3[i] + b3[i]) + w4 * (a4[i] + b4[i])
