"""The plain kernel: batched torch, every sample with parameters of its own, on any device.

It says what each operator means; faster kernels are measured against it. The operators are those of
``torchvision.transforms.v2.functional`` for float images in [0, 1]. Images are ``(B, C, H, W)`` and stay on their device.
Parameters come from the CPU, so the choice of the rows that an operator touches costs no synchronisation.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_framework.views.draw import NO_AFFINE, NO_JITTER, ImageDraw, Plan, ViewSpec

_LUMA = (0.2989, 0.587, 0.114)  # torchvision's rounding of ITU-R BT.601


def make_views(
    images: Tensor,
    boxes: Tensor,
    draw: ImageDraw,
    plan: Plan,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """Make all views of a batch.

    Args:
        images: ``(B, C, H, W)`` uint8.
        boxes: ``(V + L, B, 4)`` int64 on the CPU: top, left, height, width.
        draw: on the CPU.
        plan: the views and their sizes.
        mean: per channel, of images in [0, 1].
        std: per channel.
        dtype: of the result.

    Returns:
        ``(V, B, C, h, w)`` and ``(L, B, C, h', w')`` or None, normalised.
    """
    pixels = images.float() / 255
    sizes = [plan.size] * len(plan.global_views) + [plan.local_size] * len(plan.local_views)
    views = [affine(resized_crop(pixels, boxes[v], draw.flip[v], size), draw.affine[v]) for v, size in enumerate(sizes)]
    return _recolour(views, draw, plan, mean, std, dtype)


def finish_crops(
    global_crops: Tensor,
    local_crops: Tensor | None,
    draw: ImageDraw,
    plan: Plan,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """Change the colours of views that were cut out elsewhere.

    Args:
        global_crops: ``(V, B, C, h, w)`` uint8.
        local_crops: ``(L, B, C, h', w')`` uint8, or None.
        draw: on the CPU.
        plan: the views and their sizes.
        mean: per channel, of images in [0, 1].
        std: per channel.
        dtype: of the result.

    Returns:
        As `make_views`.
    """
    crops = [*global_crops, *(() if local_crops is None else local_crops)]
    return _recolour([view.float() / 255 for view in crops], draw, plan, mean, std, dtype)


def _recolour(
    views: list[Tensor], draw: ImageDraw, plan: Plan, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """``V + L`` times ``(B, C, h, w)`` in [0, 1] to what `make_views` returns."""

    def finish(view: Tensor, spec: ViewSpec, v: int) -> Tensor:
        view = jitter(view, draw.jitter[v], draw.order[v])
        view = grey(view, draw.grey[v])
        view = gaussian_blur(view, draw.blur[v], spec.blur_kernel_size((view.shape[-2], view.shape[-1])))
        view = solarize(view, draw.solarize[v], spec.solarize_threshold)
        return normalize(view, mean, std).to(dtype)

    specs = (*plan.global_views, *plan.local_views)
    made = [finish(view, spec, v) for v, (view, spec) in enumerate(zip(views, specs, strict=True))]
    num_global = len(plan.global_views)
    return torch.stack(made[:num_global]), torch.stack(made[num_global:]) if plan.local_views else None


def resized_crop(images: Tensor, boxes: Tensor, flip: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop a box out of each image, resize it bilinearly (antialiased where it shrinks) and flip some.

    Args:
        images: ``(B, C, H, W)`` float.
        boxes: ``(B, 4)`` int64: top, left, height, width. Pixels outside the box do not bleed into it.
        flip: ``(B,)`` bool, mirrored from left to right.
        size: height and width of the output.

    Returns:
        ``(B, C, *size)`` float.
    """
    height, width = images.shape[-2:]
    top, left, box_height, box_width = boxes.to(images.device, images.dtype).unbind(1)
    rows = _resize_weights(top, box_height, height, size[0])  # (B, h, H)
    columns = _resize_weights(left, box_width, width, size[1])  # (B, w, W)
    columns = torch.where(flip.to(images.device)[:, None, None], columns.flip(1), columns)
    return torch.einsum("bcyw,bxw->bcyx", torch.einsum("byh,bchw->bcyw", rows, images), columns)


def _resize_weights(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """How much each pixel of a line gives to each output pixel, ``(B, target, source)``: torch's antialiased triangle."""
    step = (length / target)[:, None, None]
    centre = step * (torch.arange(target, device=start.device, dtype=start.dtype)[:, None] + 0.5)  # (B, target, 1)
    position = torch.arange(source, device=start.device, dtype=start.dtype) - start[:, None, None]  # (B, 1, source)
    weights = (1 - (position + 0.5 - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((position >= 0) & (position < length[:, None, None]))
    return weights / weights.sum(dim=2, keepdim=True)


def affine(images: Tensor, parameters: Tensor) -> Tensor:
    """Rotate, shift, magnify and shear about the centre, bilinearly; what comes from outside is 0, as in torchvision.

    Args:
        images: ``(B, C, H, W)`` float.
        parameters: ``(B, 5)``: `ImageDraw.affine` of one view.

    Returns:
        ``(B, C, H, W)``; images with `NO_AFFINE` are untouched.
    """

    def warp(chosen: Tensor, parameter: Tensor) -> Tensor:
        return F.grid_sample(chosen, _affine_grid(parameter, chosen), "bilinear", "zeros", align_corners=False)

    moved = (parameters != torch.tensor(NO_AFFINE, device=parameters.device)).any(dim=1)
    return _change(images.clone(), moved, parameters, warp)


def _affine_grid(parameters: Tensor, images: Tensor) -> Tensor:
    """Where each output pixel looks, ``(B, H, W, 2)`` in [-1, 1]: the inverse of torchvision's matrix."""
    height, width = images.shape[-2:]
    angle, shift_x, shift_y, scale, shear = parameters.unbind(1)
    cos, sin, tan = angle.deg2rad().cos(), angle.deg2rad().sin(), shear.deg2rad().tan()
    # torchvision moves pixels, counted from the centre, by scale [[cos, -(cos tan + sin)], [sin, cos - sin tan]], then shifts
    linear = torch.stack([cos - sin * tan, cos * tan + sin, -sin, cos], dim=1).view(-1, 2, 2) / scale[:, None, None]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (H, W, 2)
    shift = torch.stack([shift_x * width, shift_y * height], dim=1)[:, None, None]
    looked_at = torch.einsum("bij,bhwj->bhwi", linear, pixels - shift)
    return looked_at / torch.tensor([width / 2, height / 2], device=images.device)


def jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, each image in an order of its own.

    Args:
        images: ``(B, C, H, W)`` float in [0, 1].
        factors: ``(B, 4)``: `ImageDraw.jitter` of one view.
        order: ``(B, 4)`` int64, which of the four comes first, second...

    Returns:
        ``(B, C, H, W)`` in [0, 1]. Images of one channel have neither saturation nor hue to change.
    """
    operators = (brightness, contrast, saturation, hue) if images.shape[1] == 3 else (brightness, contrast)
    images = images.clone()
    for place in range(4):
        for number, operator in enumerate(operators):
            chosen = (order[:, place] == number) & (factors[:, number] != NO_JITTER[number])
            _change(images, chosen, factors[:, number], operator)
    return images


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply ``(B, C, H, W)`` by `factor` ``(B,)``."""
    return (images * _column(factor)).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move ``(B, C, H, W)`` away from the mean of its greyscale by `factor` ``(B,)``."""
    return _blend(images, luma(images).flatten(1).mean(dim=1)[:, None, None, None], factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move ``(B, 3, H, W)`` away from its greyscale by `factor` ``(B,)``."""
    return _blend(images, luma(images), factor)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of ``(B, 3, H, W)`` in HSV by `shift` ``(B,)``, a share of the circle."""
    red, green, blue = images.unbind(1)
    low, high = images.aminmax(dim=1)
    chroma = high - low
    divisor = torch.where(chroma == 0, 1, chroma)  # a grey has no hue: 0
    sector = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    turned = sector + 6 * shift[:, None, None]  # (B, H, W), six sectors a circle
    channels = [(turned + offset).remainder(6) for offset in (5, 3, 1)]
    return torch.stack([high - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in channels], dim=1)


def luma(images: Tensor) -> Tensor:
    """Greyscale of ``(B, C, H, W)``: ``(B, 1, H, W)``."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def grey(images: Tensor, chosen: Tensor) -> Tensor:
    """Greyscale in all channels of ``(B, C, H, W)`` where `chosen` ``(B,)`` bool."""
    return _change(images.clone(), chosen, chosen, lambda some, _: luma(some).expand_as(some))


def gaussian_blur(images: Tensor, sigma: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Blur with reflected borders.

    Args:
        images: ``(B, C, H, W)`` float.
        sigma: ``(B,)`` standard deviation in pixels; where it is 0 the image is untouched.
        kernel: height and width of the kernel, odd; 1 does nothing.
    """
    if kernel == (1, 1):
        return images

    def blur(some: Tensor, some_sigma: Tensor) -> Tensor:
        rows = _blur_weights(some_sigma, kernel[0], some.shape[2])  # (B, H, H)
        columns = _blur_weights(some_sigma, kernel[1], some.shape[3])  # (B, W, W)
        return torch.einsum("bcyw,bxw->bcyx", torch.einsum("byh,bchw->bcyw", rows, some), columns)

    return _change(images.clone(), sigma > 0, sigma, blur)


def _blur_weights(sigma: Tensor, kernel: int, length: int) -> Tensor:
    """How much each pixel of a line gives to each blurred pixel, ``(B, length, length)``."""
    offset = torch.arange(kernel, device=sigma.device) - kernel // 2
    taps = torch.softmax(-0.5 * (offset / sigma[:, None]) ** 2, dim=1)  # (B, kernel)
    source = torch.arange(length, device=sigma.device)[:, None] + offset  # (length, kernel)
    source = (length - 1) - (length - 1 - source.abs()).abs()  # reflected at both ends
    reaches = F.one_hot(source, length).to(taps.dtype)  # (length, kernel, length)
    return torch.einsum("bk,ikj->bij", taps, reaches)


def solarize(images: Tensor, chosen: Tensor, threshold: float) -> Tensor:
    """Invert the pixels of ``(B, C, H, W)`` that are not below `threshold`, where `chosen` ``(B,)`` bool."""
    return _change(images.clone(), chosen, chosen, lambda some, _: torch.where(some >= threshold, 1 - some, some))


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract the mean of each channel of ``(B, C, H, W)`` and divide by its standard deviation."""
    centre, width = (torch.tensor(values, device=images.device)[:, None, None] for values in (mean, std))
    return (images - centre) / width


def _change(images: Tensor, chosen: Tensor, parameters: Tensor, operator: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Replace the chosen images in place by what the operator makes of them and their rows of the parameters."""
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return images
    here = rows.to(images.device)
    return images.index_copy_(0, here, operator(images[here], parameters[rows].to(images.device)))


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (images * _column(factor) + other * (1 - _column(factor))).clamp(0, 1)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]
