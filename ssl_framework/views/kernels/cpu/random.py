"""Parameters and boxes of a whole batch, with the bits of `draw.draw_views` and `draw.boxes`."""

import math

import numpy as np

from ssl_framework.views.kernels.cpu.compile import exact
from ssl_framework.views.kernels.cpu.kinds import Bools, Doubles, Floats, Ints

_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)

DRAW_SIGNATURE = (
    "void(int64, int64[:], int64[:], int64[::1], float64[:,::1], float64[:,:,::1], int64[::1], float32[:,:,:,::1], "
    "boolean[:,::1], float32[:,:,::1], float32[:,:,::1], int64[:,:,::1], boolean[:,::1], float32[:,::1], boolean[:,::1])"
)
BOXES_SIGNATURE = "void(float32[:,:,:,:], int64[::1], float64[:,::1], int64[:,::1], int64, int64, int64[:,:,::1])"


def draw(
    seed: int,
    epoch: Ints,
    index: Ints,
    stream: Ints,
    chance: Doubles,
    ranges: Doubles,
    key: Ints,
    crop: Floats,
    flip: Bools,
    affine: Floats,
    factors: Floats,
    order: Ints,
    greyed: Bools,
    sigma: Floats,
    solarized: Bools,
) -> None:
    """Draw everything.

    Args:
        seed: of the views.
        epoch: ``(B,)``.
        index: ``(B,)``.
        stream: ``(V,)`` stream of each view.
        chance: ``(V, 5)`` probabilities of flip, jitter, grey, blur and solarize.
        ranges: ``(V, 10, 2)`` lowest value and extent of the affine (5), of the jitter (4) and of sigma.
        key: ``(B,)``, written; from here on the fields of `ImageDraw`, ``(V, B, ...)``.
        crop: written.
        flip: written.
        affine: written.
        factors: written.
        order: written.
        greyed: written.
        sigma: written.
        solarized: written.
    """
    for b in range(len(index)):
        hashed = _mix(_mix(_mix(np.uint64(0), np.uint64(seed)), np.uint64(epoch[b])), np.uint64(index[b]))
        key[b] = np.int64(hashed)
        for v in range(len(stream)):
            state = _mix(_mix(np.uint64(0), hashed), np.uint64(stream[v]))
            flip[v, b] = _uniform(state, 0) < chance[v, 0]
            for k in range(5):
                affine[v, b, k] = np.float32(ranges[v, k, 0] + _uniform(state, 1 + k) * ranges[v, k, 1])
            jittered = _uniform(state, 6) < chance[v, 1]
            for k in range(4):
                neutral = 1.0 if k < 3 else 0.0
                value = ranges[v, 5 + k, 0] + _uniform(state, 7 + k) * ranges[v, 5 + k, 1]
                factors[v, b, k] = np.float32(value if jittered else neutral)
            _rank(state, order[v, b])
            greyed[v, b] = _uniform(state, 15) < chance[v, 2]
            blurred = _uniform(state, 16) < chance[v, 3]
            value = ranges[v, 9, 0] + _uniform(state, 17) * ranges[v, 9, 1]
            sigma[v, b] = np.float32(value if blurred else 0.0)
            solarized[v, b] = _uniform(state, 18) < chance[v, 4]
            for k in range(40):
                crop[v, b, k // 4, k % 4] = np.float32(_uniform(state, 24 + k))


def boxes(uniforms: Floats, crops: Ints, ranges: Doubles, centre: Ints, height: int, width: int, out: Ints) -> None:
    """Where each view is cropped.

    Args:
        uniforms: ``(V, B, 10, 4)``: `ImageDraw.crop`.
        crops: ``(V,)``, 1 for a random resized crop, 0 for the box in the centre.
        ranges: ``(V, 4)`` lowest area and extent, lowest logarithm of the ratio and extent.
        centre: ``(V, 4)`` the box where no attempt fits.
        height: of the images.
        width: of the images.
        out: ``(V, B, 4)``, written.
    """
    for v in range(uniforms.shape[0]):
        for b in range(uniforms.shape[1]):
            out[v, b] = centre[v]
            for attempt in range(uniforms.shape[2] if crops[v] else 0):
                u = uniforms[v, b, attempt]
                area = height * width * (ranges[v, 0] + np.float64(u[0]) * ranges[v, 1])
                ratio = math.exp(ranges[v, 2] + np.float64(u[1]) * ranges[v, 3])
                rows, columns = np.rint(math.sqrt(area / ratio)), np.rint(math.sqrt(area * ratio))
                if 0 < rows <= height and 0 < columns <= width:
                    # float32 numbers close to 1 round up to it: min keeps such a box inside
                    out[v, b, 0] = np.int64(min(math.floor(np.float64(u[2]) * (height - rows + 1)), height - rows))
                    out[v, b, 1] = np.int64(min(math.floor(np.float64(u[3]) * (width - columns + 1)), width - columns))
                    out[v, b, 2], out[v, b, 3] = np.int64(rows), np.int64(columns)
                    break


@exact
def _finish(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _30)) * _MIX1
    x = (x ^ (x >> _27)) * _MIX2
    return x ^ (x >> _31)


@exact
def _mix(state: np.uint64, part: np.uint64) -> np.uint64:
    return _finish(state * _MIX1 + part + _GOLDEN)


@exact
def _uniform(state: np.uint64, column: int) -> float:
    bits = _finish(state + np.uint64(column + 1) * _GOLDEN)
    return np.float64(bits >> _11) * 2.0**-53


@exact
def _rank(state: np.uint64, order: Ints) -> None:
    """The order of four numbers, the smallest first."""
    for k in range(4):
        value, place = _uniform(state, 11 + k), 0
        for other in range(4):
            smaller = _uniform(state, 11 + other)
            place += smaller < value or (smaller == value and other < k)
        order[place] = k
