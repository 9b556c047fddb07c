"""The drawing half of image augmentation: what may happen to a view, and what happens to each view of each sample.

Everything is drawn on the CPU, for the whole batch at once, by the counter-based generator of `ssl_framework.keyed`: a view is
a pure function of (seed, epoch, index, view). Nothing reads or moves a global generator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_framework import keyed

Range = tuple[float, float]

ATTEMPTS = 10  # torchvision's RandomResizedCrop tries as often before it takes the centre
NO_AFFINE = (0.0, 0.0, 0.0, 1.0, 0.0)
NO_JITTER = (1.0, 1.0, 1.0, 0.0)

# Streams and columns name what a number is for: one view or one column more leaves the others as they were. The streams lie
# far from 0, where the users of `Views.key` (masks, permutations) begin to count.
GLOBAL_STREAM = 1 << 20
LOCAL_STREAM = GLOBAL_STREAM + (1 << 10)
_FLIP, _AFFINE, _JITTER, _FACTORS, _ORDER = 0, slice(1, 6), 6, slice(7, 11), slice(11, 15)
_GREY, _BLUR, _SIGMA, _SOLARIZE, _CROP = 15, 16, 17, 18, slice(24, 24 + 4 * ATTEMPTS)


@dataclass(frozen=True)
class ViewSpec:
    """What may happen to one view, in this order; the default is nothing at all.

    Attributes:
        crop: a random resized crop; without it the view is the largest centred part of the image with the shape of the output.
        crop_scale: area of the crop as a share of the image, uniform in this range.
        crop_ratio: width / height of the crop, log-uniform in this range.
        flip: probability of a horizontal flip.
        degrees: rotation, uniform in [-degrees, degrees].
        translate: shift as a share of height and width, uniform in [-translate, translate]; not rounded to pixels.
        scale: magnification, uniform in this range.
        shear: horizontal shear in degrees, uniform in [-shear, shear].
        brightness: factor uniform in [max(0, 1 - brightness), 1 + brightness].
        contrast: likewise.
        saturation: likewise; nothing happens to images of one channel.
        hue: shift of the hue as a share of the circle, uniform in [-hue, hue]; nothing happens to images of one channel.
        jitter_p: probability that the four above are applied, in a random order.
        grey_p: probability of greyscale; nothing happens to images of one channel.
        blur_p: probability of a Gaussian blur.
        blur_sigma: its standard deviation in output pixels, uniform in this range.
        blur_kernel: its kernel as a share of the output's side, cut to the odd number ``2 * floor(share * side / 2) + 1``
            (SimCLR, Appendix A: 10 %). At 224 pixels that is 23, at 32 it is 3, below 20 it is 1: no blur.
        solarize_p: probability that pixels from the threshold up are inverted.
        solarize_threshold: for pixels in [0, 1].

    Raises:
        ValueError: a number is outside its range.
    """

    crop: bool = False
    crop_scale: Range = (0.08, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    flip: float = 0.0
    degrees: float = 0.0
    translate: float = 0.0
    scale: Range = (1.0, 1.0)
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_p: float = 0.0
    grey_p: float = 0.0
    blur_p: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    blur_kernel: float = 0.1
    solarize_p: float = 0.0
    solarize_threshold: float = 0.5

    def __post_init__(self) -> None:
        for name in ("flip", "jitter_p", "grey_p", "blur_p", "solarize_p"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability in [0, 1]")
        for name in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a number from 0 (none) up")
        _require(0 <= self.hue <= 0.5, "hue", self.hue, "a share of the colour circle in [0, 0.5]")
        _require(0 <= self.degrees <= 180, "degrees", self.degrees, "an angle in [0, 180]")
        _require(0 <= self.shear < 90, "shear", self.shear, "an angle in [0, 90)")
        _require(0 <= self.translate <= 1, "translate", self.translate, "a share of the image in [0, 1]")
        _require(0 < self.blur_kernel <= 1, "blur_kernel", self.blur_kernel, "a share of the view in (0, 1]")
        _require(0 <= self.solarize_threshold <= 1, "solarize_threshold", self.solarize_threshold, "a brightness in [0, 1]")
        self._require_range("crop_scale", 1.0, "shares of the image's area in (0, 1], the smaller first")
        for name in ("crop_ratio", "scale", "blur_sigma"):
            self._require_range(name, math.inf, "two positive numbers, the smaller first")

    def _require_range(self, name: str, largest: float, remedy: str) -> None:
        value: Range = getattr(self, name)
        _require(len(value) == 2 and 0 < value[0] <= value[1] <= largest and value[0] < math.inf, name, value, remedy)

    @property
    def recolours(self) -> bool:
        """Whether it may change colours in a way that is defined for one or three channels only."""
        jitter = max(self.brightness, self.contrast, self.saturation, self.hue)
        return (self.jitter_p > 0 and jitter > 0) or self.grey_p > 0

    @property
    def warps(self) -> bool:
        """Whether it may move pixels otherwise than by a crop and a flip."""
        return max(self.degrees, self.translate, self.shear) > 0 or self.scale != (1.0, 1.0)

    def blur_kernel_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the blur's kernel, odd, for views of `size`."""
        height, width = (2 * int(self.blur_kernel * side / 2) + 1 for side in size)
        return height, width


class ImageDraw(NamedTuple):
    """Every random parameter of every view of a batch. The ``V`` global views come first, then the ``L`` local ones.

    Attributes:
        key: ``(B,)`` int64 hash of (seed, epoch, index).
        crop: ``(V + L, B, 10, 4)`` uniform numbers, 10 attempts at a box; `boxes` makes pixels of them where the size of
            the image is known.
        flip: ``(V + L, B)`` bool.
        affine: ``(V + L, B, 5)`` angle in degrees, shift in x and y as shares of width and height, magnification, shear in
            degrees; `NO_AFFINE` where nothing happens.
        jitter: ``(V + L, B, 4)`` factors of brightness, contrast and saturation, shift of the hue; `NO_JITTER` where nothing
            happens.
        order: ``(V + L, B, 4)`` int64, the order in which these four are applied.
        grey: ``(V + L, B)`` bool.
        blur: ``(V + L, B)`` standard deviation in pixels; 0 where nothing happens.
        solarize: ``(V + L, B)`` bool.
    """

    key: Tensor
    crop: Tensor
    flip: Tensor
    affine: Tensor
    jitter: Tensor
    order: Tensor
    grey: Tensor
    blur: Tensor
    solarize: Tensor

    def at(self, position: int) -> "ImageDraw":
        """The draw of one sample of the batch, B = 1: what `crop` takes."""
        one = slice(position, position + 1)
        return ImageDraw(self.key[one], *(field[:, one] for field in self[1:]))


class Plan(NamedTuple):
    """Which views a batch gets, and how large.

    Attributes:
        global_views: ``V`` specifications.
        local_views: ``L`` specifications.
        size: height and width of the global views.
        local_size: height and width of the local views.
    """

    global_views: tuple[ViewSpec, ...]
    local_views: tuple[ViewSpec, ...]
    size: tuple[int, int]
    local_size: tuple[int, int]


def draw_views(global_views: Sequence[ViewSpec], local_views: Sequence[ViewSpec], key: Tensor) -> ImageDraw:
    """Draw all parameters of all views.

    Args:
        global_views: ``V`` specifications.
        local_views: ``L`` specifications; their draws do not depend on how many global views there are.
        key: ``(B,)`` int64 on the CPU.

    Returns:
        float32, bool and int64 tensors on the CPU.
    """
    streams = [GLOBAL_STREAM + v for v in range(len(global_views))] + [LOCAL_STREAM + v for v in range(len(local_views))]
    drawn = [_draw_view(spec, key, stream) for spec, stream in zip((*global_views, *local_views), streams, strict=True)]
    return ImageDraw(key, *(torch.stack(field) for field in zip(*drawn, strict=True)))


def _draw_view(spec: ViewSpec, key: Tensor, stream: int) -> tuple[Tensor, ...]:
    """The fields of `ImageDraw` after the key, for one view: each ``(B, ...)``."""
    u = keyed.uniform(key, stream, _CROP.stop)
    jittered = (u[:, _JITTER] < spec.jitter_p)[:, None]
    blurred = u[:, _BLUR] < spec.blur_p
    return (
        u[:, _CROP].unflatten(1, (ATTEMPTS, 4)).float(),
        u[:, _FLIP] < spec.flip,
        _between(u[:, _AFFINE], affine_ranges(spec)).float(),
        torch.where(jittered, _between(u[:, _FACTORS], jitter_ranges(spec)), torch.tensor(NO_JITTER, dtype=u.dtype)).float(),
        u[:, _ORDER].argsort(dim=1),
        u[:, _GREY] < spec.grey_p,
        torch.where(blurred, _between(u[:, _SIGMA, None], [spec.blur_sigma])[:, 0], 0.0).float(),
        u[:, _SOLARIZE] < spec.solarize_p,
    )


def affine_ranges(spec: ViewSpec) -> list[Range]:
    """Lowest and highest values of the five columns of `ImageDraw.affine`."""
    shift = (-spec.translate, spec.translate)
    return [(-spec.degrees, spec.degrees), shift, shift, spec.scale, (-spec.shear, spec.shear)]


def jitter_ranges(spec: ViewSpec) -> list[Range]:
    """Lowest and highest values of the four columns of `ImageDraw.jitter`."""
    factors = [(max(0.0, 1 - factor), 1 + factor) for factor in (spec.brightness, spec.contrast, spec.saturation)]
    return [*factors, (-spec.hue, spec.hue)]


def _between(u: Tensor, ranges: Sequence[Range]) -> Tensor:
    low, high = torch.tensor(ranges, dtype=u.dtype).unbind(1)
    return low + u * (high - low)


def boxes(uniforms: Tensor, spec: ViewSpec, source: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Where each sample is cropped, by the rules of torchvision's ``RandomResizedCrop``.

    The first of ten attempts that fits in the image is taken; if none fits, the largest centred box whose ratio is allowed.
    A specification without a crop takes the largest centred box with the shape of the output.

    Args:
        uniforms: ``(B, 10, 4)`` for area, ratio, top and left: `ImageDraw.crop` of one view.
        spec: the view.
        source: height and width of the images.
        size: height and width of the output.

    Returns:
        ``(B, 4)`` int64 on the CPU, the same wherever the views are made: top, left, height, width in pixels.
    """
    u = uniforms.to("cpu", torch.float64)
    height, width = source
    if not spec.crop:
        return centre_box(height, width, (size[1] / size[0], size[1] / size[0])).expand(len(u), 4)
    area = height * width * _between(u[..., :1], [spec.crop_scale])
    ratio = _between(u[..., 1:2], [(math.log(spec.crop_ratio[0]), math.log(spec.crop_ratio[1]))]).exp()
    shape = torch.cat([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=-1).round()  # (B, 10, 2)
    room = torch.tensor([height, width]) - shape
    fits = ((shape > 0) & (room >= 0)).all(dim=-1)  # (B, 10)
    # float32 numbers close to 1 round up to it: minimum keeps such a box inside
    corner = torch.minimum((u[..., 2:] * (room + 1)).floor(), room)
    first = fits.int().argmax(dim=1)  # (B,)
    found = torch.cat([corner, shape], dim=-1)[torch.arange(len(u)), first].long()
    return torch.where(fits.any(dim=1, keepdim=True), found, centre_box(height, width, spec.crop_ratio))


def centre_box(height: int, width: int, ratio: Range) -> Tensor:
    """The largest centred box whose width / height lies in the range."""
    h, w = height, width
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    return torch.tensor([(height - h) // 2, (width - w) // 2, h, w])


def _require(holds: bool, name: str, value: object, remedy: str) -> None:
    if not holds:
        raise ValueError(f"{name}={value!r} of a view is out of range: give {remedy}.")
