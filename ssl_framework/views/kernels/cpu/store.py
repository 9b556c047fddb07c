"""The last step: solarize, normalise, cast and write channels last."""

import numpy as np

from ssl_framework.views.kernels.cpu.compile import relaxed
from ssl_framework.views.kernels.cpu.kinds import Floats, Halves

_ONE = np.float32(1)
_SIXTEEN, _LOWEST, _ALMOST_HALF = np.uint32(16), np.uint32(1), np.uint32(0x7FFF)


@relaxed
def store(
    planes: Floats,
    limit: np.float32,
    mean: Floats,
    scale: Floats,
    n: int,
    halves: Halves,
    floats: Floats,
) -> None:
    """Write a view.

    Args:
        planes: ``(C, h * w)`` pixels in [0, 1].
        limit: from it up they are inverted; infinite for none.
        mean: ``(C,)``.
        scale: ``(C,)``.
        n: which view.
        halves: ``(N, h * w * C)`` bits of bfloat16, written if it is not empty.
        floats: ``(N, h * w * C)``, otherwise written.
    """
    if len(halves) > 0:
        out = halves[n]
        if len(planes) == 3:
            _three_halves(planes, limit, mean, scale, out)
            return
        for c in range(len(planes)):
            for i in range(planes.shape[1]):
                out[i * len(planes) + c] = _half(_value(planes[c, i], limit, mean[c], scale[c]))
        return
    into = floats[n]
    if len(planes) == 3:
        _three_floats(planes, limit, mean, scale, into)
        return
    for c in range(len(planes)):
        for i in range(planes.shape[1]):
            into[i * len(planes) + c] = _value(planes[c, i], limit, mean[c], scale[c])


@relaxed
def _three_halves(planes: Floats, limit: np.float32, mean: Floats, scale: Floats, out: Halves) -> None:
    m0, m1, m2, s0, s1, s2 = mean[0], mean[1], mean[2], scale[0], scale[1], scale[2]
    for i in range(planes.shape[1]):
        out[3 * i] = _half(_value(planes[0, i], limit, m0, s0))
        out[3 * i + 1] = _half(_value(planes[1, i], limit, m1, s1))
        out[3 * i + 2] = _half(_value(planes[2, i], limit, m2, s2))


@relaxed
def _three_floats(planes: Floats, limit: np.float32, mean: Floats, scale: Floats, out: Floats) -> None:
    m0, m1, m2, s0, s1, s2 = mean[0], mean[1], mean[2], scale[0], scale[1], scale[2]
    for i in range(planes.shape[1]):
        out[3 * i] = _value(planes[0, i], limit, m0, s0)
        out[3 * i + 1] = _value(planes[1, i], limit, m1, s1)
        out[3 * i + 2] = _value(planes[2, i], limit, m2, s2)


@relaxed
def _value(pixel: np.float32, limit: np.float32, mean: np.float32, scale: np.float32) -> np.float32:
    pixel = pixel if pixel < limit else _ONE - pixel
    return (pixel - mean) * scale


@relaxed
def _half(value: np.float32) -> np.uint16:
    """The upper half of a float32, rounded to nearest, ties to even: bfloat16."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + _ALMOST_HALF + ((bits >> _SIXTEEN) & _LOWEST)) >> _SIXTEEN)
