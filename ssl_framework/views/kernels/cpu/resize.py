"""Crop, resize, flip and warp one image: rows first, then columns, of uint8 pixels with any strides."""

import math

import numpy as np

from ssl_framework.views.kernels.cpu.compile import exact, relaxed
from ssl_framework.views.kernels.cpu.kinds import Bytes, Floats, Ints

_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1), np.float32(0)


@exact
def taps(start: float, length: float, target: int, mirrored: bool, scale: float, first: Ints, weight: Floats) -> int:
    """Which pixels of a line give how much to each output pixel: torch's antialiased triangle, as in `reference`.

    Args:
        start: of the box on the line; not a whole number where an image was decoded at a reduced size.
        length: of the box.
        target: pixels of the output.
        mirrored: whether the output runs backwards.
        scale: multiplied with every weight.
        first: ``(target,)``, written: first pixel that counts, from the box's own first.
        weight: ``(target, at least K)``, written.

    Returns:
        K, the pixels that count for each output pixel.
    """
    begin = math.floor(start)
    pixels = math.ceil(start + length) - begin
    offset = np.float32(start - begin)
    step = np.float32(length) / np.float32(target)
    reach = max(step, _ONE)
    count = min(pixels, math.ceil(np.float32(2) * reach))
    for i in range(target):
        centre = step * (np.float32(i) + _HALF)
        lowest = min(max(math.floor(centre + offset - reach - _HALF) + 1, 0), pixels - count)
        place = target - 1 - i if mirrored else i
        total = _ZERO
        for k in range(count):
            distance = abs(np.float32(lowest + k) - offset + _HALF - centre)
            share = max(_ONE - distance / reach, _ZERO)
            weight[place, k] = share
            total += share
        for k in range(count):
            weight[place, k] = weight[place, k] / total * np.float32(scale)
        first[place] = lowest
    return count


@relaxed
def resize(
    image: Bytes,
    top: int,
    left: int,
    width: int,
    rows: tuple[int, Ints, Floats],
    columns: tuple[int, Ints, Floats],
    line: Floats,
    ring: Floats,
    planes: Floats,
) -> None:
    """Resize a box of an image.

    Args:
        image: ``(C, H, W)`` uint8.
        top: first row of the box.
        left: its first column.
        width: its columns.
        rows: number, first and weight of `taps`, down the box.
        columns: likewise, along its lines.
        line: ``(C, at least width)`` scratch.
        ring: ``(at least rows, C, w)`` scratch: lines of the source, resized, that the next output row may need.
        planes: ``(C, h, w)``, written.
    """
    count, first, weight = rows
    done = 0
    for y in range(planes.shape[1]):
        done = max(done, first[y])
        while done < first[y] + count:
            for c in range(image.shape[0]):
                for x in range(width):
                    line[c, x] = np.float32(image[c, top + done, left + x])
            _resize_line(line, columns, ring[done % count])
            done += 1
        _mix_lines(ring, first[y], count, weight[y], planes, y)


@relaxed
def _resize_line(line: Floats, columns: tuple[int, Ints, Floats], out: Floats) -> None:
    """Along one line of the source: ``(C, width)`` to ``(C, w)``."""
    count, first, weight = columns
    if count == 2 and line.shape[0] == 3:  # the usual enlargement of a colour crop: what three channels share is read once
        for x in range(out.shape[1]):
            i, near, far = first[x], weight[x, 0], weight[x, 1]
            out[0, x] = near * line[0, i] + far * line[0, i + 1]
            out[1, x] = near * line[1, i] + far * line[1, i + 1]
            out[2, x] = near * line[2, i] + far * line[2, i + 1]
        return
    for c in range(line.shape[0]):
        for x in range(out.shape[1]):
            total = _ZERO
            for k in range(count):
                total += weight[x, k] * line[c, first[x] + k]
            out[c, x] = total


@relaxed
def _mix_lines(ring: Floats, first: int, count: int, weight: Floats, planes: Floats, y: int) -> None:
    """One output row, from the resized lines that it lies between."""
    channels, width = planes.shape[0], planes.shape[2]
    if count == 2:
        one, other = first % 2, 1 - first % 2
        near, far = weight[0], weight[1]
        for c in range(channels):
            for x in range(width):
                planes[c, y, x] = near * ring[one, c, x] + far * ring[other, c, x]
        return
    for c in range(channels):
        share = weight[0]
        for x in range(width):
            planes[c, y, x] = share * ring[first % count, c, x]
        for k in range(1, count):
            share, place = weight[k], (first + k) % count
            for x in range(width):
                planes[c, y, x] += share * ring[place, c, x]


@relaxed
def warp(planes: Floats, parameters: Floats, out: Floats) -> None:
    """`reference.affine` of one image: ``(C, h, w)`` to `out`, with the ``(5,)`` numbers of `ImageDraw.affine`."""
    channels, height, width = planes.shape
    angle, shear = math.radians(parameters[0]), math.radians(parameters[4])
    cos, sin, tan = math.cos(angle), math.sin(angle), math.tan(shear)
    along_x, across_x = (cos - sin * tan) / parameters[3], (cos * tan + sin) / parameters[3]
    along_y, across_y = -sin / parameters[3], cos / parameters[3]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    for y in range(height):
        down = y - middle_y - parameters[2] * height
        for x in range(width):
            right = x - middle_x - parameters[1] * width
            look_x = along_x * right + across_x * down + middle_x
            look_y = along_y * right + across_y * down + middle_y
            i, j = math.floor(look_y), math.floor(look_x)
            low, far = np.float32(look_y - i), np.float32(look_x - j)
            for c in range(channels):
                above = (_ONE - far) * _pixel(planes, c, i, j) + far * _pixel(planes, c, i, j + 1)
                below = (_ONE - far) * _pixel(planes, c, i + 1, j) + far * _pixel(planes, c, i + 1, j + 1)
                out[c, y, x] = (_ONE - low) * above + low * below


@relaxed
def _pixel(planes: Floats, c: int, y: int, x: int) -> np.float32:
    """A pixel; 0 outside the image."""
    inside = 0 <= y < planes.shape[1] and 0 <= x < planes.shape[2]
    return planes[c, y, x] if inside else _ZERO
