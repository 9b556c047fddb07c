"""One view after another, from uint8 pixels to normalised ones: what a thread runs, without Python's lock."""

import math
from typing import NamedTuple

import numpy as np

from ssl_framework.views.kernels.cpu.blur import blur, gaussian, padded
from ssl_framework.views.kernels.cpu.colour import grey, jitter
from ssl_framework.views.kernels.cpu.compile import exact, relaxed
from ssl_framework.views.kernels.cpu.kinds import Bools, Bytes, Doubles, Floats, Halves, Ints, Places
from ssl_framework.views.kernels.cpu.resize import Lines, Source, lanes, resize, taps, warp
from ssl_framework.views.kernels.cpu.store import store

_BLOCK = 1024  # pixels of output rows that are made at once: they stay in the nearest cache
_HALF, _INFINITE = np.float32(0.5), np.float32(np.inf)

SIGNATURE = (
    "void(int64, int64, uint8[::1], UniTuple(int64, 5), UniTuple(int64, 6), float64[:,:,:], boolean[:,:], float32[:,:,:], "
    "float32[:,:,:], int64[:,:,:], boolean[:,:], float32[:,:], boolean[:,:], int64[:,::1], float32[::1], float32[::1], "
    "float32[::1], int64, int64, uint8[:,:,:,::1], uint16[:,::1], float32[:,::1])"
)


class Scratch(NamedTuple):
    """Memory that one thread works in, for all its views."""

    planes: Floats  # (C, h, w)
    warped: Floats  # (C, h, w)
    down: tuple[Places, Floats]  # (h,), (taps, h)
    along: tuple[Places, Floats]  # (w,), (taps, w)
    lines: Lines
    weights: tuple[Floats, Floats]  # (reach + 1,) each
    padded: Floats  # (w + 2 * reach,)
    blurred: Floats  # ((h + 2 * reach) * w,)


def render(
    begin: int,
    end: int,
    memory: Bytes,
    shape: tuple[int, int, int, int, int],
    layout: tuple[int, int, int, int, int, int],
    boxes: Doubles,
    flip: Bools,
    affine: Floats,
    factors: Floats,
    order: Ints,
    greyed: Bools,
    sigma: Floats,
    solarized: Bools,
    kernel: Ints,
    threshold: Floats,
    mean: Floats,
    scale: Floats,
    height: int,
    width: int,
    cut: Bytes,
    halves: Halves,
    floats: Floats,
) -> None:
    """Make some views of one size. Of `cut`, `halves` and `floats` one is not empty, and written.

    Args:
        begin: first view, counted through all samples of the first view, then of the second...
        end: the one after the last.
        memory: that the images are in, from its first byte to its last.
        shape: V, B, C, H, W of the images.
        layout: where in this memory the first pixel is, and the strides of the five dimensions.
        boxes: ``(V, B, 4)``, in pixels of these images.
        flip: ``(V, B)``; this and the next six are fields of `ImageDraw`.
        affine: ``(V, B, 5)``.
        factors: ``(V, B, 4)``.
        order: ``(V, B, 4)``.
        greyed: ``(V, B)``.
        sigma: ``(V, B)``.
        solarized: ``(V, B)``.
        kernel: ``(V, 2)`` pixels on either side that a blur may reach, down and along.
        threshold: ``(V,)`` of solarize.
        mean: ``(C,)``.
        scale: ``(C,)``, one over the standard deviation.
        height: of the views.
        width: of the views.
        cut: ``(V * B, C, h, w)``: pixels before any change of colour.
        halves: ``(V * B, h * w * C)``: the bits of bfloat16, channels last.
        floats: ``(V * B, h * w * C)``, channels last.
    """
    samples, channels = shape[1], shape[2]
    scratch = _scratch(shape, height, width, max(kernel[:, 0].max(), kernel[:, 1].max()))
    for n in range(begin, end):
        v, b = n // samples, n % samples
        share = 1.0 if len(cut) > 0 else 1 / 255
        image = Source(memory, layout[0] + v * layout[1] + b * layout[2], layout[3], layout[4], layout[5])
        planes = _cut(image, boxes[v, b], flip[v, b], share, affine[v, b], scratch)
        if len(cut) > 0:
            _round(planes.reshape(-1), cut[n].reshape(-1))
            continue
        pixels = planes.reshape(channels, height * width)
        jitter(pixels, factors[v, b], order[v, b])
        if greyed[v, b] and channels == 3:
            grey(pixels)
        if sigma[v, b] > 0 and kernel[v, 0] + kernel[v, 1] > 0:
            rows = gaussian(sigma[v, b], kernel[v, 0], scratch.weights[0])
            columns = gaussian(sigma[v, b], kernel[v, 1], scratch.weights[1])
            blur(planes, (rows, scratch.weights[0]), (columns, scratch.weights[1]), scratch.padded, scratch.blurred)
        limit = threshold[v] if solarized[v, b] else _INFINITE
        store(pixels, limit, mean, scale, n, halves, floats)


@exact
def _scratch(shape: tuple[int, int, int, int, int], height: int, width: int, most: int) -> Scratch:
    channels, reach = shape[2], padded(most)
    down, along = math.ceil(2 * max(1.0, shape[3] / height)), math.ceil(2 * max(1.0, shape[4] / width))
    block = max(1, min(height, _BLOCK // max(shape[4], width)))
    return Scratch(
        _aligned(channels * height * width).reshape(channels, height, width),
        _aligned(channels * height * width).reshape(channels, height, width),
        (np.empty(height, np.uint64), np.empty((down, height), np.float32)),
        (np.empty(width, np.uint64), np.empty((along, width), np.float32)),
        Lines(
            np.empty((down, lanes(channels) * shape[4]), np.float32),
            np.empty((block, lanes(channels) * shape[4]), np.float32),
            np.empty(5 * block * width, np.float32),
        ),
        (np.empty(reach + 1, np.float32), np.empty(reach + 1, np.float32)),
        np.empty(width + 2 * reach, np.float32),
        _aligned((height + 2 * reach) * width),
    )


@exact
def _aligned(size: int) -> Floats:
    """Floats that begin with a line of the cache: registers of 64 bytes are then read from one line, not from two."""
    made = np.empty(size + 16, np.float32)
    skipped = -(made.ctypes.data // 4) % 16
    return made[skipped : skipped + size]


@exact
def _cut(image: Source, box: Doubles, mirrored: bool, share: float, affine: Floats, scratch: Scratch) -> Floats:
    """Crop, resize, flip and warp: ``(C, h, w)``, 255 times `share` at most."""
    planes = scratch.planes
    rows = taps(box[0], box[2], planes.shape[1], False, share, scratch.down[0], scratch.down[1])
    columns = taps(box[1], box[3], planes.shape[2], mirrored, 1.0, scratch.along[0], scratch.along[1])
    top, left = math.floor(box[0]), math.floor(box[1])
    start = image.start + top * image.row + left * image.column
    part = Source(image.memory, start, image.channel, image.row, image.column)
    resize(part, math.ceil(box[1] + box[3]) - left, rows, columns, scratch.lines, planes)
    # `NO_AFFINE`
    if affine[0] == 0 and affine[1] == 0 and affine[2] == 0 and affine[3] == 1 and affine[4] == 0:
        return planes
    warp(planes, affine, scratch.warped)
    return scratch.warped


@relaxed
def _round(pixels: Floats, out: Bytes) -> None:
    for i in range(len(out)):
        out[i] = np.uint8(np.int32(pixels[i] + _HALF))  # never below 0, and never above 255.49: weights sum to 1
