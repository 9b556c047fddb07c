"""The kernel for accelerators: batched torch, every sample with parameters of its own, and the host never waits.

It gives what `reference` gives, within 2e-5 for pixels in [0, 1]; within 1e-4 where a view is warped, because the places that
it looks at are rounded differently (solarize is a step: a pixel on its threshold may fall on either side). Here the
parameters are made ready, on the CPU: packed into one small tensor for each size of view, which is copied behind the host's
back from pinned memory. What happens to pixels stands in `graph`.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssl_framework.views.draw import ImageDraw, Plan, ViewSpec
from ssl_framework.views.kernels.graph import BRIGHTNESS, CONTRAST, HUE, SATURATION, Recipe, finish, render


def make_views(
    images: Tensor,
    boxes: Tensor,
    draw: ImageDraw,
    plan: Plan,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
    *,
    compiled: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Make all views of a batch.

    Args:
        images: ``(B, C, H, W)`` uint8, on any device, with any strides.
        boxes: ``(V + L, B, 4)`` int64 on the CPU: top, left, height, width.
        draw: on the CPU.
        plan: the views and their sizes.
        mean: per channel, of images in [0, 1].
        std: per channel.
        dtype: of the result.
        compiled: run `render` through ``torch.compile``.

    Returns:
        ``(V, B, C, h, w)`` and ``(L, B, C, h', w')`` or None, normalised, on the images' device, channels last in memory.
    """
    recipes, packed = _prepare(boxes, draw, plan, mean, std, images.device)
    run = _compiled_render() if compiled else render
    return _pair(run(images, packed, recipes, dtype))


def finish_crops(
    global_crops: Tensor,
    local_crops: Tensor | None,
    draw: ImageDraw,
    plan: Plan,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
    *,
    compiled: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Change the colours of views that were cut out elsewhere.

    Args:
        global_crops: ``(V, B, C, h, w)`` uint8, on any device.
        local_crops: ``(L, B, C, h', w')`` uint8, or None.
        draw: on the CPU.
        plan: the views and their sizes.
        mean: per channel, of images in [0, 1].
        std: per channel.
        dtype: of the result.
        compiled: run `finish` through ``torch.compile``.

    Returns:
        As `make_views`.
    """
    crops = (global_crops,) if local_crops is None else (global_crops, local_crops)
    nowhere = torch.zeros(*draw.flip.shape, 4)
    recipes, packed = _prepare(nowhere, draw, plan, mean, std, global_crops.device)
    run = _compiled_finish() if compiled else finish
    return _pair(run(crops, packed, recipes, dtype))


def pack(draw: ImageDraw, boxes: Tensor, specs: Sequence[ViewSpec], recipe: Recipe, constants: Tensor) -> Tensor:
    """Everything that `Parameters` holds, side by side, on the CPU.

    Args:
        draw: of these views only.
        boxes: ``(V, B, 4)``.
        specs: of these views.
        recipe: of these views.
        constants: ``(2, C)``, mean and standard deviation.

    Returns:
        ``(V, B, P)`` float32.
    """
    thresholds = torch.tensor([spec.solarize_threshold for spec in specs])[:, None]
    fields = (
        boxes,
        draw.flip[..., None],
        draw.affine,
        _blend_factors(draw.jitter, draw.order, recipe),
        draw.jitter[..., HUE, None],
        draw.grey[..., None],
        *(_blur_taps(draw.blur, specs, recipe, axis) for axis in range(2)),
        torch.where(draw.solarize, thresholds, math.inf)[..., None],
        constants.flatten().expand(*draw.flip.shape, -1),
    )
    return torch.cat([field.float() for field in fields], dim=2)


def make_recipe(specs: Sequence[ViewSpec], size: tuple[int, int], channels: int) -> Recipe:
    """What at least one of the views may do."""
    jittering = [spec for spec in specs if spec.jitter_p > 0]
    possible = {
        BRIGHTNESS: any(spec.brightness > 0 for spec in jittering),
        CONTRAST: any(spec.contrast > 0 for spec in jittering),
        SATURATION: channels == 3 and any(spec.saturation > 0 for spec in jittering),
    }
    kernels = [spec.blur_kernel_size(size) for spec in specs if spec.blur_p > 0]
    return Recipe(
        size,
        channels,
        affine=any(spec.degrees or spec.translate or spec.shear or spec.scale != (1, 1) for spec in specs),
        blends=tuple(number for number, may in possible.items() if may),
        hue=channels == 3 and any(spec.hue > 0 for spec in jittering),
        grey=channels == 3 and any(spec.grey_p > 0 for spec in specs),
        kernel=(max((k[0] for k in kernels), default=1), max((k[1] for k in kernels), default=1)),
        solarize=any(spec.solarize_p > 0 for spec in specs),
    )


def _prepare(
    boxes: Tensor, draw: ImageDraw, plan: Plan, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[tuple[Recipe, ...], tuple[Tensor, ...]]:
    """Recipe and packed parameters for each size of view, on their way to the device."""
    num_global = len(plan.global_views)
    groups = [(plan.global_views, plan.size, slice(num_global))]
    if plan.local_views:
        groups.append((plan.local_views, plan.local_size, slice(num_global, None)))
    recipes = tuple(make_recipe(specs, size, len(mean)) for specs, size, _ in groups)
    constants = torch.tensor([mean, std])
    packed: list[Tensor] = []
    for recipe, (specs, _, which) in zip(recipes, groups, strict=True):
        some = ImageDraw(draw.key, *(field[which] for field in draw[1:]))
        packed.append(_send(pack(some, boxes[which], specs, recipe, constants), device))
    return recipes, tuple(packed)


def _send(values: Tensor, device: torch.device) -> Tensor:
    # only pinned memory is read while the host goes on; its allocator keeps it until CUDA has
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _pair(made: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
    return made[0], made[1] if len(made) == 2 else None


@functools.cache
def _compiled_render() -> Callable[[Tensor, tuple[Tensor, ...], tuple[Recipe, ...], torch.dtype], tuple[Tensor, ...]]:
    return torch.compile(render, fullgraph=True, dynamic=False)


@functools.cache
def _compiled_finish() -> Callable[
    [tuple[Tensor, ...], tuple[Tensor, ...], tuple[Recipe, ...], torch.dtype], tuple[Tensor, ...]
]:
    return torch.compile(finish, fullgraph=True, dynamic=False)


def _blend_factors(jitter: Tensor, order: Tensor, recipe: Recipe) -> Tensor:
    """`Parameters.blend`, ``(V, B, S * 3)``.

    Each sample turns its hue at a place of its own. So that this, the dearest operator, runs once for all, every blend has
    one place before it and one after it; at the one that is not its own it does nothing.
    """
    numbers = [*recipe.blends, *([HUE] if recipe.hue else [])]
    possible = torch.isin(order, torch.tensor(numbers))
    number = order[possible].view(*order.shape[:2], len(numbers))
    factor = jitter.gather(2, number)
    if recipe.hue:
        place = torch.arange(len(numbers))
        turn = (number == HUE).int().argmax(dim=2, keepdim=True)
        number = torch.cat([number[..., :-1], number[..., 1:]], dim=2)
        factor = torch.cat([factor[..., :-1], factor[..., 1:]], dim=2)
        factor = torch.where(torch.cat([(place < turn)[..., :-1], (place > turn)[..., 1:]], dim=2), factor, 1.0)
    rest = 1 - factor
    return torch.stack([factor, rest * (number == CONTRAST), rest * (number == SATURATION)], dim=3).flatten(2)


def _blur_taps(sigma: Tensor, specs: Sequence[ViewSpec], recipe: Recipe, axis: int) -> Tensor:
    """Weights of the blur along one axis, ``(V, B, kernel)``; a view with a smaller kernel has zeros at both ends."""
    offset = torch.arange(recipe.kernel[axis]) - recipe.kernel[axis] // 2
    own = torch.tensor([spec.blur_kernel_size(recipe.size)[axis] // 2 for spec in specs])[:, None, None]
    exponent = -0.5 * (offset / sigma[..., None].clamp(min=1e-6)) ** 2  # without blur the weight is 1 in the middle
    return torch.softmax(torch.where(offset.abs() <= own, exponent, -math.inf), dim=2)
