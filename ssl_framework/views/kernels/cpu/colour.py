"""Colours of one image: planes ``(C, n)`` of float32 pixels in [0, 1], changed in place, by the formulas of `reference`."""

import numpy as np

from ssl_framework.views.kernels.cpu.compile import relaxed
from ssl_framework.views.kernels.cpu.kinds import Floats, Ints

_ONE, _ZERO, _TWO, _FOUR, _SIX = np.float32(1), np.float32(0), np.float32(2), np.float32(4), np.float32(6)
_SIXTH = np.float32(1 / 6)
_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)  # luma, as in `reference`


@relaxed
def jitter(planes: Floats, factors: Floats, order: Ints) -> None:
    """Brightness, contrast, saturation and hue in the order drawn; what is neutral costs nothing."""
    coloured = planes.shape[0] == 3
    for place in range(4):
        number = order[place]
        factor = factors[number]
        if number == 0 and factor != _ONE:
            _brightness(planes, factor)
        elif number == 1 and factor != _ONE:
            _contrast(planes, factor)
        elif number == 2 and factor != _ONE and coloured:
            _saturation(planes, factor)
        elif number == 3 and factor != _ZERO and coloured:
            _hue(planes, factor)


@relaxed
def grey(planes: Floats) -> None:
    """Greyscale in all three channels."""
    for i in range(planes.shape[1]):
        luma = _RED * planes[0, i] + _GREEN * planes[1, i] + _BLUE * planes[2, i]
        planes[0, i] = luma
        planes[1, i] = luma
        planes[2, i] = luma


@relaxed
def _clamp(value: np.float32) -> np.float32:
    value = value if value > _ZERO else _ZERO
    return value if value < _ONE else _ONE


@relaxed
def _brightness(planes: Floats, factor: np.float32) -> None:
    for c in range(planes.shape[0]):
        for i in range(planes.shape[1]):
            planes[c, i] = _clamp(planes[c, i] * factor)


@relaxed
def _contrast(planes: Floats, factor: np.float32) -> None:
    channels, pixels = planes.shape
    mean = _ZERO
    for c in range(channels):
        total = _ZERO
        for i in range(pixels):
            total += planes[c, i]
        share = _ONE if channels == 1 else _RED if c == 0 else _GREEN if c == 1 else _BLUE
        mean += share * total
    rest = (_ONE - factor) * (mean / np.float32(pixels))
    for c in range(channels):
        for i in range(pixels):
            planes[c, i] = _clamp(planes[c, i] * factor + rest)


@relaxed
def _saturation(planes: Floats, factor: np.float32) -> None:
    rest = _ONE - factor
    for i in range(planes.shape[1]):
        red, green, blue = planes[0, i], planes[1, i], planes[2, i]
        luma = rest * (_RED * red + _GREEN * green + _BLUE * blue)
        planes[0, i] = _clamp(red * factor + luma)
        planes[1, i] = _clamp(green * factor + luma)
        planes[2, i] = _clamp(blue * factor + luma)


@relaxed
def _hue(planes: Floats, shift: np.float32) -> None:
    """Turn the hue, without a branch: every comparison becomes a mask."""
    turn = _SIX * shift
    for i in range(planes.shape[1]):
        red, green, blue = planes[0, i], planes[1, i], planes[2, i]
        high = red if red > green else green
        high = high if high > blue else blue
        low = red if red < green else green
        low = low if low < blue else blue
        chroma = high - low
        inverse = _ONE / (chroma if chroma != _ZERO else _ONE)  # a grey has no hue: 0
        is_red, is_green = high == red, high == green
        ahead = green - blue if is_red else blue - red if is_green else red - green
        sector = _ZERO if is_red else _TWO if is_green else _FOUR
        turned = ahead * inverse + sector + turn
        planes[0, i] = _channel(high, chroma, turned + np.float32(5))
        planes[1, i] = _channel(high, chroma, turned + np.float32(3))
        planes[2, i] = _channel(high, chroma, turned + _ONE)


@relaxed
def _channel(high: np.float32, chroma: np.float32, k: np.float32) -> np.float32:
    """One channel of an HSV colour, k sectors around the circle."""
    k -= _SIX * np.floor(k * _SIXTH)
    other = _FOUR - k
    return high - chroma * _clamp(k if k < other else other)
