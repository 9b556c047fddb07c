"""Rates and training steps of the machine at hand, beside what the cost model says: ``cost_model.py --measure`` calls it."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import cost_model as model
import torch
from torch import Tensor, nn
from torchvision.io import decode_jpeg, encode_jpeg

from ssl_framework import keyed, machine
from ssl_framework.views.draw import Plan, ViewSpec
from ssl_framework.views.kernels import cpu

MEASURED = ("ResNet-18, 32 px", "ViT-tiny/4, 32 px")
BATCH = 64


def measure(costs: dict[str, model.Cost]) -> dict[str, list[dict[str, Any]]]:
    """Measure rates, then steps, and predict these from those.

    Args:
        costs: of a sample, by the workload's name.

    Returns:
        Tables of rows: "rates", "predicted and measured".
    """
    machine.limit_threads()
    machine.keep_freed_memory()
    cores = torch.get_num_threads()
    product, memory = _product_rate(torch.bfloat16), _memory_rate()
    rates: list[dict[str, Any]] = [
        {"what": "bfloat16 product, 2048^3", "unit": "TFLOP/s", "value": product / 1e12},
        {"what": "float32 product, 2048^3", "unit": "TFLOP/s", "value": _product_rate(torch.float32) / 1e12},
        {"what": "copy of 256 MB, read and written", "unit": "GB/s", "value": memory / 1e9},
        {"what": "views of 32 px", "unit": "1/s", "value": _views_rate(32, 32, 512)},
        {"what": "views of 224 px from 256 px, blurred", "unit": "1/s", "value": _views_rate(224, 256, 32)},
        {"what": "crops of 32 px, not coloured", "unit": "1/s", "value": _cuts_rate(32, 32, 512)},
        {"what": "crops of 224 px from 256 px, not coloured", "unit": "1/s", "value": _cuts_rate(224, 256, 32)},
        {"what": "JPEG of 32 px decoded, one core", "unit": "1/s", "value": _decode_rate(32)},
        {"what": "JPEG of 256 px decoded, one core", "unit": "1/s", "value": _decode_rate(256)},
    ]
    here = model.Device("here", product, memory, 1.0, f"measured on {cores} cores: reached, not promised")
    steps = [_compare(workload, costs[workload.name], here) for workload in model.WORKLOADS if workload.name in MEASURED]
    return {"rates": rates, "predicted and measured": steps}


def _compare(workload: model.Workload, cost: model.Cost, here: model.Device) -> dict[str, Any]:
    predicted = model.step_seconds(cost, BATCH, here)
    measured = _step_seconds(workload)
    return {
        "workload": workload.name,
        "predicted images/s": BATCH / predicted,
        "measured images/s": BATCH / measured,
        "measured / predicted": predicted / measured,
    }


def _step_seconds(workload: model.Workload) -> float:
    """A bare two-view step: bfloat16, channels last, one forward a view, a fused optimiser, a loss that costs nothing."""
    encoder = workload.encoder().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4, fused=True)
    shape = (BATCH, 3, workload.size, workload.size)
    views = [torch.randn(shape).to(memory_format=torch.channels_last) for _ in range(2)]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            first, second = (_pooled(encoder, view) for view in views)
        (first.float() * second.float()).mean().backward()
        optimizer.step()

    return _seconds(step, repeats=5)


def _pooled(encoder: nn.Module, view: Tensor) -> Tensor:
    return encoder(view).pooled


def _product_rate(dtype: torch.dtype, side: int = 2048) -> float:
    left, right = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    return 2 * side**3 / _seconds(lambda: left @ right)


def _memory_rate(size: int = 1 << 28) -> float:
    source, target = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    return 2 * size / _seconds(lambda: target.copy_(source))


def _scene(size: int, stored: int, batch: int) -> tuple[Tensor, Plan, Tensor, Tensor]:
    """Images, a plan, epochs and indices of SimCLR's views."""
    blur = 0.5 if size > 32 else 0.0
    spec = ViewSpec(
        True, flip=0.5, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, jitter_p=0.8, grey_p=0.2, blur_p=blur
    )
    images = torch.randint(0, 256, (batch, 3, stored, stored), dtype=torch.uint8)
    return (
        images,
        Plan((spec, spec), (), (size, size), (size, size)),
        torch.zeros(batch, dtype=torch.int64),
        torch.arange(batch),
    )


def _views_rate(size: int, stored: int, batch: int) -> float:
    """Views a second on all cores, drawing included."""
    images, plan, epoch, index = _scene(size, stored, batch)

    def make() -> None:
        draw = cpu.draw_views(plan.global_views, (), 0, epoch, index)
        cut = cpu.boxes(draw.crop, plan, (stored, stored))
        cpu.make_views(images, cut, draw, plan, (0.5,) * 3, (0.25,) * 3, torch.bfloat16)

    return 2 * batch / _seconds(make)


def _cuts_rate(size: int, stored: int, batch: int) -> float:
    """Crops a second on all cores, as a loader's workers make them."""
    images, plan, _, index = _scene(size, stored, batch)
    draw = cpu.draw_views(plan.global_views, (), 0, 0, index)
    cut = cpu.boxes(draw.crop, plan, (stored, stored)).double()
    return 2 * batch / _seconds(lambda: cpu.cut(images, cut, draw, plan))


def _decode_rate(size: int) -> float:
    """Images a second on one core: clouds with a little grain, which compress like photographs."""
    clouds = keyed.uniform(torch.arange(3 * 64), 0, 1).view(1, 3, 8, 8).float()
    image = torch.nn.functional.interpolate(clouds, (size, size), mode="bicubic")[0]
    image = (255 * image + 8 * torch.randn(3, size, size)).clamp(0, 255).to(torch.uint8)
    data = encode_jpeg(image, quality=90)
    count = math.ceil(4e6 / size**2)
    return count / _seconds(lambda: [decode_jpeg(data) for _ in range(count)])


def _seconds(work: Callable[[], object], repeats: int = 9) -> float:
    """Median, after two runs that are not counted."""
    for _ in range(2):
        work()
    taken: list[float] = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)
