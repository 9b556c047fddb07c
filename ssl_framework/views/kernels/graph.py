"""What the device kernel does with pixels: functions of tensors and constants that ``torch.compile`` takes as one graph.

- *No synchronisation.* No shape depends on data. An operator that a `ViewSpec` allows runs for all samples, with neutral
  parameters where it does nothing; one that no view of this size can use is left out of the graph.
- *float32, whatever is allowed.* Resizing and blurring are weighted sums of whole rows of pixels (``embedding_bag``), not
  matrix products: TF32 and autocast cannot touch them. A product with a banded matrix would do 224 multiplications for each
  output pixel where 3 (a crop of 256 pixels to 224) or 23 (its blur) are not 0; plain indexing would write each of these to
  memory.
- *Any accelerator.* No number is double precision, and MPS has every operator (``embedding_bag`` since torch 2.10).
- *Memory.* The source becomes float once, for all views. Views are made together as long as their rows fit `_AT_ONCE`.

Pixels lie as ``(N, w, C, h)`` while colours change: rows were summed first, then columns, so that each sum runs over whole
lines. ``N`` counts views times samples, views first.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""Columns of `ImageDraw.jitter`."""

_LUMA = (0.2989, 0.587, 0.114)  # as in `reference`
_AT_ONCE = 2**28  # bytes of half-resized views: 1 GB at the peak, and launches cost little at this size


class Recipe(NamedTuple):
    """What can happen to the views of one size. All of it is constant in the graph.

    Attributes:
        size: height and width.
        channels: ``C``.
        affine: whether a view may be warped.
        blends: which of brightness, contrast and saturation may change.
        hue: whether the hue may turn.
        grey: whether a view may become grey.
        kernel: height and width of the largest blur; (1, 1) for none.
        solarize: whether pixels may be inverted.
    """

    size: tuple[int, int]
    channels: int
    affine: bool
    blends: tuple[int, ...]
    hue: bool
    grey: bool
    kernel: tuple[int, int]
    solarize: bool


class Parameters(NamedTuple):
    """What happens to ``N`` views, all float32. ``S`` is the number of blends, before and after the hue turns.

    Attributes:
        box: ``(N, 4)`` top, left, height, width.
        flip: ``(N, 1)``, 1 for mirrored.
        affine: ``(N, 5)`` as in `ImageDraw`.
        blend: ``(N, S * 3)``: factor of the image, of the mean of its greyscale, of its greyscale.
        hue: ``(N, 1)`` share of the circle.
        grey: ``(N, 1)``, 1 for grey.
        rows: ``(N, kernel height)`` weights of the blur.
        columns: ``(N, kernel width)``.
        threshold: ``(N, 1)`` from which pixels are inverted; infinite for none.
        mean: ``(N, C)``.
        std: ``(N, C)``.
    """

    box: Tensor
    flip: Tensor
    affine: Tensor
    blend: Tensor
    hue: Tensor
    grey: Tensor
    rows: Tensor
    columns: Tensor
    threshold: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def unpack(cls, packed: Tensor, recipe: Recipe) -> "Parameters":
        """``(N, P)`` split into its columns."""
        blends = len(recipe.blends) * (2 if recipe.hue else 1)
        widths = [4, 1, 5, blends * 3, 1, 1, *recipe.kernel, 1, recipe.channels, recipe.channels]
        return cls(*packed.split(widths, dim=1))


def render(images: Tensor, packed: tuple[Tensor, ...], recipes: tuple[Recipe, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Everything that happens on the device, without a break: a function of tensors and constants.

    Args:
        images: ``(B, C, H, W)`` uint8.
        packed: for each size of view, ``(V, B, P)`` float32 on the images' device: see `Parameters`.
        recipes: for each size of view.
        dtype: of the result.

    Returns:
        For each size of view, ``(V, B, C, h, w)``.
    """
    pixels = images.transpose(1, 2).contiguous().div(255)  # (B, H, C, W), read by all views
    made: list[Tensor] = []
    for parameters, recipe in zip(packed, recipes, strict=True):
        out = _empty(parameters, recipe, dtype)
        for some in _pieces(parameters, recipe, images.shape[3]):
            values = Parameters.unpack(parameters[some].flatten(0, 1), recipe)
            _write(out[some], _colour(_cut(pixels, values, recipe), values, recipe))
        made.append(out.permute(0, 1, 4, 2, 3))
    return tuple(made)


def finish(
    crops: tuple[Tensor, ...], packed: tuple[Tensor, ...], recipes: tuple[Recipe, ...], dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The colours alone, without a break. Arguments as in `render`, with uint8 crops ``(V, B, C, h, w)`` of each size."""
    made: list[Tensor] = []
    for cut, parameters, recipe in zip(crops, packed, recipes, strict=True):
        out = _empty(parameters, recipe, dtype)
        for some in _pieces(parameters, recipe, recipe.size[1]):
            values = Parameters.unpack(parameters[some].flatten(0, 1), recipe)
            pixels = cut[some].flatten(0, 1).permute(0, 3, 1, 2).contiguous().div(255)  # (N, w, C, h)
            _write(out[some], _colour(pixels, values, recipe))
        made.append(out.permute(0, 1, 4, 2, 3))
    return tuple(made)


def _pieces(parameters: Tensor, recipe: Recipe, width: int) -> list[slice]:
    """Which views are made together: as many as fit `_AT_ONCE` while their rows are summed and their columns not yet."""
    views, batch = parameters.shape[:2]
    at_once = max(1, _AT_ONCE // (4 * batch * recipe.channels * recipe.size[0] * width))
    return [slice(first, first + at_once) for first in range(0, views, at_once)]


def _empty(parameters: Tensor, recipe: Recipe, dtype: torch.dtype) -> Tensor:
    return parameters.new_empty((*parameters.shape[:2], *recipe.size, recipe.channels), dtype=dtype)


def _write(out: Tensor, pixels: Tensor) -> None:
    """Cast ``(N, C, h, w)`` and lay it out as ``(V, B, h, w, C)``, in one pass."""
    out.copy_(pixels.permute(0, 2, 3, 1).unflatten(0, out.shape[:2]))


def _cut(pixels: Tensor, values: Parameters, recipe: Recipe) -> Tensor:
    """Crop, resize, flip and warp: ``(B, H, C, W)`` to ``(N, w, C, h)``, N a multiple of B."""
    batch, height, channels, width = pixels.shape
    top, left, box_height, box_width = values.box.unbind(1)
    sample = torch.arange(len(top), device=pixels.device)[:, None, None]
    index, weight = _taps(top, box_height, height, recipe.size[0])
    rows = _weighted(pixels.view(batch * height, -1), index + sample % batch * height, weight)
    columns = rows.view(-1, recipe.size[0], channels, width).transpose(1, 3).reshape(-1, channels * recipe.size[0])
    index, weight = _taps(left, box_width, width, recipe.size[1])
    mirrored = values.flip[:, :, None] > 0
    index, weight = torch.where(mirrored, index.flip(1), index), torch.where(mirrored, weight.flip(1), weight)
    cut = _weighted(columns, index + sample * width, weight).view(-1, recipe.size[1], channels, recipe.size[0])
    return _warp(cut, values.affine) if recipe.affine else cut


def _taps(start: Tensor, length: Tensor, source: int, target: int) -> tuple[Tensor, Tensor]:
    """Which pixels of a line give how much to each output pixel: torch's antialiased triangle.

    Args:
        start: ``(N,)`` first pixel of the box.
        length: ``(N,)`` its pixels.
        source: pixels of the line.
        target: pixels of the output.

    Returns:
        Index int64 and weight, both ``(N, target, K)``. A triangle covers at most K pixels in any box of this line.
    """
    taps = math.ceil(2 * max(1, source / target))
    step, length, start = (length / target)[:, None, None], length[:, None, None], start[:, None, None]
    reach = step.clamp(min=1)
    centre = step * (torch.arange(target, device=step.device, dtype=step.dtype)[:, None] + 0.5)  # (N, target, 1)
    position = (centre - reach + 0.5).floor() + torch.arange(taps, device=step.device)  # (N, target, K), from the box's edge
    weight = (1 - (position + 0.5 - centre).abs() / reach).clamp(min=0) * ((position >= 0) & (position < length))
    return (position.clamp(min=0).minimum(length - 1) + start).long(), weight / weight.sum(dim=2, keepdim=True)


def _weighted(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of K rows of ``(R, D)``: indices and weights ``(N, n, K)``, sums ``(N * n, D)``."""
    return F.embedding_bag(index.flatten(0, 1), table, mode="sum", per_sample_weights=weight.flatten(0, 1))


def _warp(pixels: Tensor, parameters: Tensor) -> Tensor:
    """`reference.affine` of ``(N, w, C, h)``: the same numbers for an image that lies on its side."""
    width, _, height = pixels.shape[1:]
    angle, shift_x, shift_y, scale, shear = parameters[:, :, None, None].unbind(1)
    cos, sin, tan = angle.deg2rad().cos(), angle.deg2rad().sin(), shear.deg2rad().tan()
    x = (torch.arange(width, device=pixels.device) - (width - 1) / 2)[:, None] - shift_x * width  # (N, w, 1)
    y = torch.arange(height, device=pixels.device) - (height - 1) / 2 - shift_y * height  # (N, 1, h)
    look_x = ((cos - sin * tan) * x + (cos * tan + sin) * y) / scale / (width / 2)
    look_y = (cos * y - sin * x) / scale / (height / 2)
    grid = torch.stack([look_y, look_x], dim=3)  # (N, w, h, 2)
    warped = F.grid_sample(pixels.transpose(1, 2), grid, "bilinear", "zeros", align_corners=False)  # (N, C, w, h)
    return warped.transpose(1, 2).contiguous()


def _colour(pixels: Tensor, values: Parameters, recipe: Recipe) -> Tensor:
    """Jitter, grey, blur, solarize and normalise ``(N, w, C, h)`` in [0, 1], which is overwritten: ``(N, C, h, w)``."""
    blends = (
        [factors[:, :, None, None, None] for factors in values.blend.unflatten(1, (-1, 3)).unbind(1)] if recipe.blends else []
    )
    before = len(recipe.blends)
    for factors in blends[:before]:
        _blend(pixels, factors, recipe)
    if recipe.hue:
        _hue(pixels, values.hue[:, :, None])
    for factors in blends[before:]:
        _blend(pixels, factors, recipe)
    if recipe.grey:
        pixels = torch.where(values.grey[:, :, None, None] > 0, _luma(pixels), pixels)
    image = _blur(pixels, values, recipe)
    if recipe.solarize:
        image = torch.where(image >= values.threshold[:, :, None, None], 1 - image, image)
    return image.sub_(values.mean[:, :, None, None]).div_(values.std[:, :, None, None])


def _blend(pixels: Tensor, factors: Tensor, recipe: Recipe) -> None:
    """Change brightness, contrast or saturation of ``(N, w, C, h)`` in place: each sample what its factors ``(N, 3)`` say."""
    itself, of_mean, of_luma = factors.unbind(1)
    other: Tensor | None = None
    if CONTRAST in recipe.blends or SATURATION in recipe.blends:
        luma = _luma(pixels)
        other = luma.mean(dim=(1, 2, 3), keepdim=True) * of_mean
        other = other + luma * of_luma if SATURATION in recipe.blends else other
    pixels.mul_(itself)
    if other is not None:
        pixels.add_(other)
    pixels.clamp_(0, 1)


def _luma(pixels: Tensor) -> Tensor:
    """Greyscale of ``(N, w, C, h)``: ``(N, w, 1, h)``."""
    if pixels.shape[2] == 1:
        return pixels
    red, green, blue = pixels.unbind(2)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])[:, :, None]


def _hue(pixels: Tensor, shift: Tensor) -> None:
    """Turn the hue of ``(N, w, 3, h)`` in place by `shift` ``(N, 1, 1)``, a share of the circle: `reference.hue`."""
    red, green, blue = pixels.unbind(2)
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    is_red, is_green = high == red, high == green
    ahead = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    sector = torch.where(is_red, 0.0, torch.where(is_green, 2.0, 4.0))
    turned = ahead.div_(torch.where(chroma == 0, 1.0, chroma)).add_(sector).add_(6 * shift)
    for channel, offset in enumerate((5, 3, 1)):
        k = (turned + offset).remainder_(6)
        pixels[:, :, channel] = high - torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma)


def _blur(pixels: Tensor, values: Parameters, recipe: Recipe) -> Tensor:
    """Blur ``(N, w, C, h)`` with reflected borders, columns first: ``(N, C, h, w)``."""
    if recipe.kernel == (1, 1):
        return pixels.permute(0, 2, 3, 1)
    for taps in (values.columns, values.rows):
        length, other = pixels.shape[1], pixels.shape[3]
        offset = torch.arange(taps.shape[1], device=pixels.device) - taps.shape[1] // 2
        position = torch.arange(length, device=pixels.device)[:, None] + offset  # (length, kernel)
        position = (length - 1) - (length - 1 - position.abs()).abs()
        index = torch.arange(len(taps), device=pixels.device)[:, None, None] * length + position
        weight = taps[:, None].expand_as(index)
        blurred = _weighted(pixels.reshape(-1, recipe.channels * other), index, weight)
        pixels = blurred.view(-1, length, recipe.channels, other).transpose(1, 3)
    return pixels.permute(0, 2, 3, 1)
