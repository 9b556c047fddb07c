"""Crop, resize, flip and warp one image of uint8 pixels with any strides: down the columns, then along the lines.

A line of an image with three channels is kept pixel by pixel, a fourth number beside the three: then a pixel is one vector
register, and what an output pixel looks up, anywhere on the line, is one read. Other images are kept channel by channel.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_framework.views.kernels.cpu.compile import exact, relaxed
from ssl_framework.views.kernels.cpu.kinds import Bytes, Floats, Places

_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1), np.float32(0)
_1, _2, _3, _FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)


class Source(NamedTuple):
    """One image in memory: where its first pixel is, and how far it is to the next of each kind."""

    memory: Bytes
    start: int
    channel: int
    row: int
    column: int


class Taps(NamedTuple):
    """Which pixels of a line give how much to each output pixel."""

    number: int  # of them for each output pixel
    first: Places  # (target,) the first of them, counted from the box's own first
    weight: Floats  # (at least number, target)


class Lines(NamedTuple):
    """Scratch for lines on their way from the source to the output, with ``lanes(C)`` numbers for each pixel."""

    ring: Floats  # (at least rows.number, lanes * W): lines of the box that the next output row may need
    lines: Floats  # (n, lanes * W): n output rows, resized down the box
    pixels: Floats  # (n * w * 5,): the same resized along the lines too, four numbers a pixel, and place for the fourth ones


@exact
def taps(start: float, length: float, target: int, mirrored: bool, scale: float, first: Places, weight: Floats) -> Taps:
    """The antialiased triangle of torch, as in `reference`.

    Args:
        start: of the box on the line; not a whole number where an image was decoded at a reduced size.
        length: of the box.
        target: pixels of the output.
        mirrored: whether the output runs backwards.
        scale: multiplied with every weight.
        first: ``(target,)``, written.
        weight: ``(at least Taps.number, target)``, written.
    """
    begin = math.floor(start)
    pixels = math.ceil(start + length) - begin
    offset = np.float32(start - begin)
    step = np.float32(length) / np.float32(target)
    reach = max(step, _ONE)
    steepness = _ONE / reach
    count = min(pixels, math.ceil(np.float32(2) * reach))
    for i in range(target):
        centre = step * (np.float32(i) + _HALF)
        lowest = min(max(math.floor(centre + offset - reach - _HALF) + 1, 0), pixels - count)
        place = target - 1 - i if mirrored else i
        total = _ZERO
        for k in range(count):
            distance = abs(np.float32(lowest + k) - offset + _HALF - centre)
            share = max(_ONE - distance * steepness, _ZERO)
            weight[k, place] = share
            total += share
        whole = np.float32(scale) / total
        for k in range(count):
            weight[k, place] *= whole
        first[place] = lowest
    return Taps(count, first, weight)


@relaxed
def resize(source: Source, width: int, rows: Taps, columns: Taps, scratch: Lines, planes: Floats) -> None:
    """Resize a box of an image.

    Args:
        source: the box, which begins at its first pixel.
        width: its columns.
        rows: down the box.
        columns: along its lines.
        scratch: lines on their way.
        planes: ``(C, h, w)``, written.
    """
    channels, height, target = planes.shape
    ring, lines, pixels = scratch
    block, done = len(lines), 0
    for begin in range(0, height, block):
        end = min(begin + block, height)
        for y in range(begin, end):
            first = np.int64(rows.first[y])
            done = max(done, first)
            while done < first + rows.number:
                _read_line(source, done, channels, width, ring[done % rows.number])
                done += 1
            _mix_lines(ring, first, rows, y, lines[y - begin, : lanes(channels) * width])
        if channels == 3:
            _along_pixels(lines, end - begin, columns, pixels)
            _separate(pixels, planes.reshape(3, height * target), begin * target, end * target)
        else:
            _along(lines, width, columns, planes, begin, end)


@exact
def lanes(channels: int) -> int:
    """Numbers that a pixel takes on a line."""
    return 4 if channels == 3 else channels


@relaxed
def _read_line(source: Source, y: int | np.int64, channels: int, width: int, out: Floats) -> None:
    """One line of the source. Neighbours in memory are read many at once, others one by one."""
    memory, start, channel, row, column = source
    here = memory[start + y * row :]
    if channels == 3 and column == 1:
        red, green, blue = here, here[channel:], here[2 * channel :]
        for x in range(width):
            out[4 * x], out[4 * x + 1], out[4 * x + 2] = np.float32(red[x]), np.float32(green[x]), np.float32(blue[x])
            out[4 * x + 3] = _ZERO
    elif channels == 3 and column == 3 and channel == 1:
        for x in range(width):
            out[4 * x], out[4 * x + 1] = np.float32(here[3 * x]), np.float32(here[3 * x + 1])
            out[4 * x + 2], out[4 * x + 3] = np.float32(here[3 * x + 2]), _ZERO
    elif column == 1 and channels == 1:
        for x in range(width):
            out[x] = np.float32(here[x])
    else:
        across, next_pixel = (4, 1) if channels == 3 else (1, width)
        for c in range(channels):
            for x in range(width):
                out[x * across + c * next_pixel] = np.float32(here[x * column + c * channel])


@relaxed
def _mix_lines(ring: Floats, first: np.int64, rows: Taps, y: int, out: Floats) -> None:
    """One output row, not yet resized along, from the lines that it lies between, two at a time."""
    count, weight = rows.number, rows.weight
    for k in range(0, count, 2):
        near, one = weight[k, y], ring[(first + k) % count]
        far, other = (weight[k + 1, y], ring[(first + k + 1) % count]) if k + 1 < count else (_ZERO, one)
        if k == 0:
            for i in range(len(out)):
                out[i] = near * one[i] + far * other[i]
        else:
            for i in range(len(out)):
                out[i] += near * one[i] + far * other[i]


@relaxed
def _along(lines: Floats, width: int, columns: Taps, planes: Floats, begin: int, end: int) -> None:
    """Along lines that are kept channel by channel, ``(n, C * width)``, to some rows of ``(C, h, w)``."""
    count, first, weight = columns
    for y in range(begin, end):
        for c in range(len(planes)):
            start = np.uint64(c * width)
            for x in range(planes.shape[2]):
                total = _ZERO
                for k in range(count):
                    total += weight[k, x] * lines[y - begin, start + first[x] + np.uint64(k)]
                planes[c, y, x] = total


@relaxed
def _along_pixels(lines: Floats, rows: int, columns: Taps, out: Floats) -> None:
    """Along some lines of pixels of four numbers: ``(rows, 4 * width)`` to ``(rows * w * 4,)``."""
    if columns.number == 2:  # every enlargement
        _two_taps(lines, rows, columns, out)
    elif columns.number == 3:
        _three_taps(lines, rows, columns, out)
    elif columns.number == 4:
        _four_taps(lines, rows, columns, out)
    else:
        _any_taps(lines, rows, columns, out)


def _taps(known: int | None) -> Callable[[Floats, int, Taps, Floats], None]:
    """`_along_pixels` for a count that the compiler knows, so that there is no inner loop, or for any."""

    @relaxed
    def along(lines: Floats, rows: int, columns: Taps, out: Floats) -> None:
        count = columns.number if known is None else known
        first, weight = columns.first, columns.weight
        width = len(first)
        for y in range(rows):
            for x in range(width):
                red, green, blue, none = _ZERO, _ZERO, _ZERO, _ZERO
                for k in range(count):
                    share, place = weight[k, x], _FOUR * (first[x] + np.uint64(k))
                    red += share * lines[y, place]
                    green += share * lines[y, place + _1]
                    blue += share * lines[y, place + _2]
                    none += share * lines[y, place + _3]
                here = 4 * (y * width + x)
                out[here], out[here + 1], out[here + 2], out[here + 3] = red, green, blue, none

    return along


_two_taps, _three_taps, _four_taps, _any_taps = _taps(2), _taps(3), _taps(4), _taps(None)


@relaxed
def _separate(pixels: Floats, planes: Floats, begin: int, end: int) -> None:
    """Pixels of four numbers to three channels; the fourth number goes back: taken apart without a gap they are faster."""
    red, green, blue, none = planes[0, begin:end], planes[1, begin:end], planes[2, begin:end], pixels[-(end - begin) :]
    for i in range(end - begin):
        red[i], green[i], blue[i], none[i] = pixels[4 * i], pixels[4 * i + 1], pixels[4 * i + 2], pixels[4 * i + 3]


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
