"""One view after another, from uint8 pixels to normalised ones: what a thread runs, without Python's lock."""

import math
from typing import NamedTuple

import numpy as np

from ssl_framework.views.kernels.cpu.blur import blur_line, gaussian
from ssl_framework.views.kernels.cpu.colour import grey, jitter
from ssl_framework.views.kernels.cpu.compile import exact, relaxed
from ssl_framework.views.kernels.cpu.kinds import Bools, Bytes, Doubles, Floats, Halves, Ints
from ssl_framework.views.kernels.cpu.resize import resize, taps, warp
from ssl_framework.views.kernels.cpu.store import store

_HALF, _INFINITE = np.float32(0.5), np.float32(np.inf)

SIGNATURE = (
    "void(int64, int64, uint8[:,:,:,:,:], float64[:,:,:], boolean[:,:], float32[:,:,:], float32[:,:,:], int64[:,:,:], "
    "boolean[:,:], float32[:,:], boolean[:,:], int64[:,::1], float32[::1], float32[::1], float32[::1], "
    "int64, int64, uint8[:,:,:,::1], uint16[:,::1], float32[:,::1])"
)


class Scratch(NamedTuple):
    """Memory that one thread works in, for all its views."""

    planes: Floats  # (C, h, w)
    warped: Floats  # (C, h, w)
    down: tuple[Ints, Floats]  # (h,), (h, taps)
    along: tuple[Ints, Floats]  # (w,), (w, taps)
    line: Floats  # (C, W)
    ring: Floats  # (taps, C, w)
    weights: Floats  # (2, reach + 1)
    padded: Floats  # (C, w + 2 * reach)
    blurred: Floats  # (C, w)


def render(
    begin: int,
    end: int,
    images: Bytes,
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
        images: ``(V, B, C, H, W)``, with any strides.
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
    samples, channels = images.shape[1], images.shape[2]
    scratch = _scratch(images.shape, height, width, max(kernel[:, 0].max(), kernel[:, 1].max()))
    for n in range(begin, end):
        v, b = n // samples, n % samples
        share = 1.0 if len(cut) > 0 else 1 / 255
        planes = _cut(images[v, b], boxes[v, b], flip[v, b], share, affine[v, b], scratch)
        if len(cut) > 0:
            _round(planes.reshape(-1), cut[n].reshape(-1))
            continue
        pixels = planes.reshape(channels, height * width)
        jitter(pixels, factors[v, b], order[v, b])
        if greyed[v, b] and channels == 3:
            grey(pixels)
        limit = threshold[v] if solarized[v, b] else _INFINITE
        if sigma[v, b] > 0 and kernel[v, 0] + kernel[v, 1] > 0:
            _blur(planes, sigma[v, b], kernel[v], scratch, limit, mean, scale, n, halves, floats)
        else:
            store(pixels, limit, mean, scale, n, 0, halves, floats)


@exact
def _scratch(shape: tuple[int, int, int, int, int], height: int, width: int, reach: int) -> Scratch:
    channels = shape[2]
    down, along = math.ceil(2 * max(1.0, shape[3] / height)), math.ceil(2 * max(1.0, shape[4] / width))
    return Scratch(
        np.empty((channels, height, width), np.float32),
        np.empty((channels, height, width), np.float32),
        (np.empty(height, np.int64), np.empty((height, down), np.float32)),
        (np.empty(width, np.int64), np.empty((width, along), np.float32)),
        np.empty((channels, shape[4]), np.float32),
        np.empty((down, channels, width), np.float32),
        np.empty((2, reach + 1), np.float32),
        np.empty((channels, width + 2 * reach), np.float32),
        np.empty((channels, width), np.float32),
    )


@exact
def _cut(image: Bytes, box: Doubles, mirrored: bool, share: float, affine: Floats, scratch: Scratch) -> Floats:
    """Crop, resize, flip and warp: ``(C, h, w)``, 255 times `share` at most."""
    planes = scratch.planes
    (down, down_weight), (along, along_weight) = scratch.down, scratch.along
    rows = taps(box[0], box[2], planes.shape[1], False, share, down, down_weight)
    columns = taps(box[1], box[3], planes.shape[2], mirrored, 1.0, along, along_weight)
    top, left = math.floor(box[0]), math.floor(box[1])
    pixels = math.ceil(box[1] + box[3]) - left
    resize(
        image,
        top,
        left,
        pixels,
        (rows, down, down_weight),
        (columns, along, along_weight),
        scratch.line,
        scratch.ring,
        planes,
    )
    # `NO_AFFINE`
    if affine[0] == 0 and affine[1] == 0 and affine[2] == 0 and affine[3] == 1 and affine[4] == 0:
        return planes
    warp(planes, affine, scratch.warped)
    return scratch.warped


@relaxed
def _round(pixels: Floats, out: Bytes) -> None:
    for i in range(len(out)):
        out[i] = np.uint8(np.int32(pixels[i] + _HALF))  # never below 0, and never above 255.49: weights sum to 1


@relaxed
def _blur(
    planes: Floats,
    sigma: float,
    kernel: Ints,
    scratch: Scratch,
    limit: np.float32,
    mean: Floats,
    scale: Floats,
    n: int,
    halves: Halves,
    floats: Floats,
) -> None:
    """Blur view `n` and store it line by line."""
    rows = gaussian(sigma, kernel[0], scratch.weights[0])
    columns = gaussian(sigma, kernel[1], scratch.weights[1])
    for y in range(planes.shape[1]):
        blur_line(planes, y, (rows, scratch.weights[0]), (columns, scratch.weights[1]), scratch.padded, scratch.blurred)
        store(scratch.blurred, limit, mean, scale, n, y * planes.shape[0] * planes.shape[2], halves, floats)
