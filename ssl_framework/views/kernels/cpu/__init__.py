"""The kernel for CPUs: each view made in one pass from its uint8 pixels, compiled by Numba.

It gives what `reference` gives, within 2e-5 for pixels in [0, 1] (solarize is a step: a pixel on its threshold may fall on
either side). A view has the same bits alone, in a batch and with any number of threads. The first use in a process loads the
machine code, the very first on a machine compiles it (about 20 s).
"""

import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_framework.views.draw import (
    ATTEMPTS,
    GLOBAL_STREAM,
    LOCAL_STREAM,
    NO_AFFINE,
    ImageDraw,
    Plan,
    ViewSpec,
    affine_ranges,
    centre_box,
    jitter_ranges,
)
from ssl_framework.views.kernels.cpu import threads

_LEAST_PIXELS = 1 << 16  # what a thread makes in the time that it takes to hand it over, several times
_ENTRIES: dict[str, Callable[..., None]] = {}
_COMPILING = threading.Lock()
_FIELDS = {
    "flip": (torch.bool, ()),
    "affine": (torch.float32, (5,)),
    "jitter": (torch.float32, (4,)),
    "order": (torch.int64, (4,)),
    "grey": (torch.bool, ()),
    "blur": (torch.float32, ()),
    "solarize": (torch.bool, ()),
}


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
        images: ``(B, C, H, W)`` uint8 on the CPU, with any strides.
        boxes: ``(V + L, B, 4)`` int64: top, left, height, width.
        draw: on the CPU.
        plan: the views and their sizes.
        mean: per channel, of images in [0, 1].
        std: per channel.
        dtype: float32 or bfloat16.

    Returns:
        ``(V, B, C, h, w)`` and ``(L, B, C, h', w')`` or None, normalised, channels last in memory.
    """
    made = [
        _normalised(images.expand(len(specs), *images.shape), boxes[which], _some(draw, which), specs, size, mean, std, dtype)
        for specs, size, which in _groups(plan)
    ]
    return made[0], made[1] if plan.local_views else None


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
        global_crops: ``(V, B, C, h, w)`` uint8, with any strides.
        local_crops: ``(L, B, C, h', w')`` uint8, or None.
        draw: on the CPU.
        plan: the views and their sizes.
        mean: per channel, of images in [0, 1].
        std: per channel.
        dtype: float32 or bfloat16.

    Returns:
        As `make_views`.
    """
    made: list[Tensor] = []
    given = (global_crops, local_crops) if plan.local_views else (global_crops,)
    for crops, (specs, size, which) in zip(given, _groups(plan), strict=True):
        assert crops is not None, "the plan has local views, and no crops of them came"
        views = crops.shape[:2]
        whole = torch.tensor([0, 0, *crops.shape[3:]]).expand(*views, 4)
        still = _some(draw, which)._replace(
            flip=torch.zeros(1, 1, dtype=torch.bool).expand(views), affine=torch.tensor(NO_AFFINE).expand(*views, 5)
        )
        made.append(_normalised(crops, whole, still, specs, size, mean, std, dtype))
    return made[0], made[1] if plan.local_views else None


def cut(images: Tensor, boxes: Tensor, draw: ImageDraw, plan: Plan) -> tuple[Tensor, Tensor | None]:
    """Crop, resize, flip and warp, and round to 8 bits: what a loader's worker does.

    Args:
        images: ``(B, C, H, W)`` uint8, with any strides.
        boxes: ``(V + L, B, 4)`` float64 in pixels of these images; not whole numbers where these were decoded smaller.
        draw: on the CPU.
        plan: the views and their sizes.

    Returns:
        uint8 ``(V, B, C, h, w)`` and ``(L, B, C, h', w')`` or None.
    """
    made: list[Tensor] = []
    for specs, size, which in _groups(plan):
        out = torch.empty(len(specs) * len(images), images.shape[1], *size, dtype=torch.uint8)
        channels = np.zeros(images.shape[1], np.float32)
        sources = images.expand(len(specs), *images.shape)
        _render(sources, boxes[which], _some(draw, which), specs, size, channels, channels, (out, None, None))
        made.append(out.view(len(specs), *images.shape[:2], *size))
    return made[0], made[1] if plan.local_views else None


def draw_views(
    global_views: Sequence[ViewSpec], local_views: Sequence[ViewSpec], seed: int, epoch: Tensor | int, index: Tensor
) -> ImageDraw:
    """What `draw.draw_views` draws for the key ``keyed.mix(seed, epoch, index)``, to the bit.

    Args:
        global_views: ``V`` specifications.
        local_views: ``L`` specifications.
        seed: of the views.
        epoch: ``(B,)`` int64, or one number for all.
        index: ``(B,)`` int64.
    """
    specs = (*global_views, *local_views)
    views, batch = len(specs), len(index)
    streams, chances, ranges = _distributions(tuple(global_views), tuple(local_views))
    passes = (epoch if isinstance(epoch, Tensor) else torch.tensor(epoch)).expand(batch)
    for name, numbers in (("index", index), ("epoch", passes)):
        _expect(name, numbers, torch.int64, (batch,))
    made = ImageDraw(
        torch.empty(batch, dtype=torch.int64),
        torch.empty(views, batch, ATTEMPTS, 4),
        torch.empty(views, batch, dtype=torch.bool),
        torch.empty(views, batch, 5),
        torch.empty(views, batch, 4),
        torch.empty(views, batch, 4, dtype=torch.int64),
        torch.empty(views, batch, dtype=torch.bool),
        torch.empty(views, batch),
        torch.empty(views, batch, dtype=torch.bool),
    )
    fields = [field.numpy() for field in made]
    _entry("draw")(seed, passes.numpy(), index.numpy(), streams, chances, ranges, *fields)
    return made


def boxes(uniforms: Tensor, plan: Plan, source: tuple[int, int]) -> Tensor:
    """What `draw.boxes` gives for each view.

    Args:
        uniforms: ``(V + L, B, 10, 4)``: `ImageDraw.crop`.
        plan: the views and their sizes.
        source: height and width of the images.

    Returns:
        ``(V + L, B, 4)`` int64: top, left, height, width in pixels.
    """
    _expect(
        "uniforms", uniforms, torch.float32, (len(plan.global_views) + len(plan.local_views), uniforms.shape[1], ATTEMPTS, 4)
    )
    crops, ranges, centre = _croppings(plan, source)
    made = torch.empty(*uniforms.shape[:2], 4, dtype=torch.int64)
    _entry("boxes")(uniforms.numpy(), crops, ranges, centre, *source, made.numpy())
    return made


def _groups(plan: Plan) -> list[tuple[tuple[ViewSpec, ...], tuple[int, int], slice]]:
    """Specifications, size and place of the views of each size."""
    num_global = len(plan.global_views)
    groups = [(plan.global_views, plan.size, slice(num_global))]
    return [*groups, (plan.local_views, plan.local_size, slice(num_global, None))] if plan.local_views else groups


def _some(draw: ImageDraw, which: slice) -> ImageDraw:
    return ImageDraw(draw.key, *(field[which] for field in draw[1:]))


def _normalised(
    images: Tensor,
    boxes: Tensor,
    draw: ImageDraw,
    specs: tuple[ViewSpec, ...],
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
) -> Tensor:
    """Views of one size: ``(V, B, C, H, W)`` to ``(V, B, C, h, w)``."""
    out = torch.empty(*images.shape[:2], *size, images.shape[2], dtype=dtype)
    flat = out.view(images.shape[0] * images.shape[1], -1)
    outputs = (None, flat.view(torch.uint16), None) if dtype == torch.bfloat16 else (None, None, flat)
    centre, scale = np.array(mean, np.float32), np.reciprocal(np.array(std, np.float32))
    _render(images, boxes, draw, specs, size, centre, scale, outputs)
    return out.permute(0, 1, 4, 2, 3)


def _render(
    images: Tensor,
    boxes: Tensor,
    draw: ImageDraw,
    specs: tuple[ViewSpec, ...],
    size: tuple[int, int],
    mean: np.ndarray[Any, np.dtype[np.float32]],
    scale: np.ndarray[Any, np.dtype[np.float32]],
    outputs: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> None:
    """Have the threads fill the one output that is there: 8 bits, bfloat16 or float32."""
    _check(images, boxes, draw)
    kernels = np.array([spec.blur_kernel_size(size) for spec in specs]) // 2
    thresholds = np.array([spec.solarize_threshold for spec in specs], np.float32)
    nothing = (np.empty((0, 0, 0, 0), np.uint8), np.empty((0, 0), np.uint16), np.empty((0, 0), np.float32))
    written = [none if out is None else out.numpy() for out, none in zip(outputs, nothing, strict=True)]
    fields = [field.numpy() for field in draw[2:]]
    # strides beside plain memory: a loop over neighbours is then known to be one when it is compiled
    memory = images.as_strided((images.untyped_storage().nbytes(),), (1,), 0).numpy()
    layout = (images.storage_offset(), *images.stride())
    where = (memory, tuple(images.shape), layout, boxes.double().numpy())
    shared = (*where, *fields, kernels, thresholds, mean, scale, *size, *written)
    render = _entry("render")
    threads.share(
        lambda begin, end: render(begin, end, *shared), images.shape[0] * images.shape[1], _LEAST_PIXELS // math.prod(size) + 1
    )


def _check(images: Tensor, boxes: Tensor, draw: ImageDraw) -> None:
    """What compiled code believes, because it looks at addresses: a box outside of its image would be other memory."""
    views = tuple(images.shape[:2])
    _expect("images", images, torch.uint8, (*views, *images.shape[2:]))
    for name, (dtype, shape) in _FIELDS.items():
        _expect(f"draw.{name}", getattr(draw, name), dtype, (*views, *shape))
    _expect("boxes", boxes, boxes.dtype, (*views, 4))
    corner, sides = boxes.split(2, dim=2)
    inside = (corner >= 0) & (sides > 0) & (corner + sides <= torch.tensor(images.shape[3:]))
    assert inside.all(), (
        f"boxes {boxes[~inside.all(dim=2)].tolist()} are not inside of images of {list(images.shape[3:])} pixels"
    )


def _expect(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    found = (tensor.device.type, tensor.dtype, tuple(tensor.shape))
    assert found == ("cpu", dtype, shape), f"{name} is {found}, not {('cpu', dtype, shape)}"


def _entry(name: str) -> Callable[..., None]:
    """One of the compiled functions: a process that makes no views on the CPU never loads Numba.

    One thread compiles at a time: the settings that it changes meanwhile are those of the whole process.
    """
    if name not in _ENTRIES:
        with _COMPILING:
            if name not in _ENTRIES:
                from ssl_framework.views.kernels.cpu import entries  # noqa: PLC0415

                _ENTRIES[name] = getattr(entries, name)()
    return _ENTRIES[name]


@functools.lru_cache(maxsize=64)
def _distributions(
    global_views: tuple[ViewSpec, ...], local_views: tuple[ViewSpec, ...]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Stream, probabilities and ranges of every view, as `random.draw` takes them."""
    specs = (*global_views, *local_views)
    streams = [GLOBAL_STREAM + v for v in range(len(global_views))] + [LOCAL_STREAM + v for v in range(len(local_views))]
    chances = [(spec.flip, spec.jitter_p, spec.grey_p, spec.blur_p, spec.solarize_p) for spec in specs]
    ranges = [[*affine_ranges(spec), *jitter_ranges(spec), spec.blur_sigma] for spec in specs]
    return np.array(streams, np.int64), np.array(chances, np.float64), _extents(np.array(ranges, np.float64))


@functools.lru_cache(maxsize=64)
def _croppings(plan: Plan, source: tuple[int, int]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What `random.boxes` takes of every view."""
    views = [(spec, size) for specs, size, _ in _groups(plan) for spec in specs]
    ranges = [[spec.crop_scale, [math.log(ratio) for ratio in spec.crop_ratio]] for spec, _ in views]
    shapes = [spec.crop_ratio if spec.crop else (size[1] / size[0],) * 2 for spec, size in views]
    centre = [centre_box(*source, (shape[0], shape[1])) for shape in shapes]
    crops = np.array([spec.crop for spec, _ in views], np.int64)
    return crops, _extents(np.array(ranges, np.float64)).reshape(-1, 4), torch.stack(centre).numpy()


def _extents(ranges: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Lowest and highest values ``(..., 2)`` to lowest value and extent."""
    return np.stack([ranges[..., 0], ranges[..., 1] - ranges[..., 0]], axis=-1)
