"""Views a second of SimCLR's recipe: ours, and other ways to augment, in one process on one machine.

    python benchmarks/views.py --out rows.json

32 px: crop, flip, jitter (0.8, 0.8, 0.8, 0.2) in 80 of 100 views, grey in 20. 224 px from images of 256 px: a blur too, in 50,
with a kernel of 23. Every contestant makes normalised bfloat16 views of uint8 images in memory, its random numbers included. In
each round each has one window of some seconds, and each round begins with another contestant. kornia and albumentations take
part where they are installed. Two processes of one thread each, which share nothing, say what a second core of the machine adds
at most.
"""

import argparse
import functools
import importlib
import importlib.util
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import machine_record
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from ssl_framework import machine
from ssl_framework.types import Batch
from ssl_framework.views import ImageViews, ViewSpec
from ssl_framework.views.draw import Plan
from ssl_framework.views.kernels import cpu, device, reference

Row = dict[str, Any]
Maker = Callable[[int], Tensor]  # from the number of the call to the views (2, B, 3, h, w)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = (0.8, 0.8, 0.8, 0.2)
SIGMA = (0.1, 2.0)


class Case(NamedTuple):
    """What is made of what.

    Attributes:
        size: of the views, in pixels.
        source: of the images.
        batch: images of a call.
        blur_p: probability of a blur.
        kernel: of the blur, in pixels.
    """

    size: int
    source: int
    batch: int
    blur_p: float
    kernel: int


class Contestant(NamedTuple):
    """A way to make views.

    Attributes:
        build: from the case and its images to what makes views.
        threads: numbers of threads to try: one, where every sample goes through Python.
        needs: packages that we do not install.
    """

    build: Callable[[Case, Tensor], Maker]
    threads: tuple[int, ...]
    needs: tuple[str, ...] = ()


CASES = {"32": Case(32, 32, 512, 0.0, 3), "224": Case(224, 256, 16, 0.5, 23)}


def photographs(case: Case) -> Tensor:
    """``(B, 3, source, source)`` uint8: noise that is smooth over some pixels, the same every time."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(case.batch, 3, max(2, case.source // 8), max(2, case.source // 8), generator=generator)
    fine = F.interpolate(coarse, (case.source, case.source), mode="bicubic")
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8)


def view(case: Case) -> ViewSpec:
    """The recipe, for our kernels."""
    brightness, contrast, saturation, hue = JITTER
    return ViewSpec(
        crop=True,
        flip=0.5,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        jitter_p=0.8,
        grey_p=0.2,
        blur_p=case.blur_p,
        blur_sigma=SIGMA,
    )


def ours(case: Case, images: Tensor) -> Maker:
    """The kernel for CPUs, as a training step calls it."""
    maker = ImageViews([view(case)] * 2, case.size, MEAN, STD, dtype="bfloat16")
    index = torch.arange(len(images))
    return lambda call: maker.apply(Batch(images, None, index), maker.draw(index, call)).global_crops


def _kernel(make: Callable[..., tuple[Tensor, Tensor | None]], case: Case, images: Tensor) -> Maker:
    """Another kernel of ours, on the CPU, with the same draws."""
    size, index = (case.size, case.size), torch.arange(len(images))
    plan = Plan((view(case),) * 2, (), size, size)

    def views(call: int) -> Tensor:
        draw = cpu.draw_views(plan.global_views, (), 0, call, index)
        boxes = cpu.boxes(draw.crop, plan, (case.source, case.source))
        return make(images, boxes, draw, plan, MEAN, STD, torch.bfloat16)[0]

    return views


def torchvision_tensors(case: Case, images: Tensor) -> Maker:
    """Of torchvision, sample by sample, uint8 tensors until the end."""
    return _by_sample(_torchvision(case, []), list(images))


def torchvision_pil(case: Case, images: Tensor) -> Maker:
    """Of torchvision, sample by sample, PIL images."""
    return _by_sample(_torchvision(case, [v2.PILToTensor()]), [v2.functional.to_pil_image(image) for image in images])


def _torchvision(case: Case, converted: list[Any]) -> Callable[[Any], Tensor]:
    blur = [v2.RandomApply([v2.GaussianBlur(case.kernel, SIGMA)], case.blur_p)] if case.blur_p else []
    return v2.Compose(
        [
            v2.RandomResizedCrop(case.size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*JITTER)], 0.8),
            v2.RandomGrayscale(0.2),
            *blur,
            *converted,
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(MEAN), list(STD)),
        ]
    )


def _by_sample(transform: Callable[[Any], Tensor], images: Sequence[Any]) -> Maker:
    return lambda _call: torch.stack([torch.stack([transform(image) for image in images]) for _ in range(2)]).bfloat16()


def kornia(case: Case, images: Tensor) -> Maker:
    """kornia, whole batches of float images."""
    K: Any = importlib.import_module("kornia.augmentation")

    size = (case.size, case.size)
    blur = [K.RandomGaussianBlur((case.kernel, case.kernel), SIGMA, p=case.blur_p)] if case.blur_p else []
    transform = K.AugmentationSequential(
        K.RandomResizedCrop(size),
        K.RandomHorizontalFlip(),
        K.ColorJitter(*JITTER, p=0.8),
        K.RandomGrayscale(p=0.2),
        *blur,
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
    return lambda _call: torch.stack([transform(images.float() / 255) for _ in range(2)]).bfloat16()


def albumentations(case: Case, images: Tensor) -> Maker:
    """albumentations, sample by sample."""
    A: Any = importlib.import_module("albumentations")

    blur = [A.GaussianBlur(blur_limit=(case.kernel, case.kernel), sigma_limit=SIGMA, p=case.blur_p)] if case.blur_p else []
    transform = A.Compose(
        [
            A.RandomResizedCrop((case.size, case.size)),
            A.HorizontalFlip(),
            A.ColorJitter(*[(max(0.0, 1 - strength), 1 + strength) for strength in JITTER[:3]], JITTER[3:] * 2, p=0.8),
            A.ToGray(p=0.2),
            *blur,
            A.Normalize(MEAN, STD),
        ]
    )
    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images]
    return _by_sample(lambda array: torch.from_numpy(transform(image=array)["image"]).permute(2, 0, 1), arrays)


CONTESTANTS = {
    "ours": Contestant(ours, (1, 2)),
    "ours, device kernel": Contestant(functools.partial(_kernel, device.make_views), (1, 2)),
    "plain batched torch": Contestant(functools.partial(_kernel, reference.make_views), (1, 2)),
    "torchvision v2, tensors": Contestant(torchvision_tensors, (1,)),
    "torchvision v2, PIL": Contestant(torchvision_pil, (1,)),
    "kornia": Contestant(kornia, (1, 2), ("kornia",)),
    "albumentations": Contestant(albumentations, (1,), ("albumentations",)),
}


def window(make: Maker, case: Case, seconds: float, call: int) -> tuple[float, int]:
    """Make views for some seconds, one call at least.

    Returns:
        Views a second, and the number of the next call.
    """
    start, first = time.perf_counter(), call
    while call == first or time.perf_counter() - start < seconds:
        make(call)
        call += 1
    return 2 * case.batch * (call - first) / (time.perf_counter() - start), call


def race(case: Case, entries: Sequence[tuple[str, int]], rounds: int, seconds: float) -> list[list[float]]:
    """One window each in every round, another contestant first each time.

    Args:
        case: what is made.
        entries: names and numbers of threads.
        rounds: windows of each.
        seconds: of a window.

    Returns:
        Views a second, for each entry and round.
    """
    images = photographs(case)
    makers = {name: CONTESTANTS[name].build(case, images) for name, _ in entries}
    for make in makers.values():
        make(0)
    calls = dict.fromkeys(makers, 1)
    rates: list[list[float]] = [[] for _ in entries]
    before = torch.get_num_threads()
    try:
        for number in range(rounds):
            for place in range(len(entries)):
                which = (place + number) % len(entries)
                name, threads = entries[which]
                torch.set_num_threads(threads)
                rate, calls[name] = window(makers[name], case, seconds, calls[name])
                rates[which].append(rate)
    finally:
        torch.set_num_threads(before)
    return rates


def race_processes(case: Case, rounds: int, seconds: float) -> list[tuple[float, float]]:
    """Our kernel with one thread in one process, then in two at once that share nothing: what the cores can do at most.

    Args:
        case: what is made.
        rounds: windows of each.
        seconds: of a window.

    Returns:
        Views a second of one process alone, and of both together, for each round.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(2):
        ours_end, theirs = context.Pipe()
        processes.append(context.Process(target=_answer_windows, args=(theirs, case, seconds), daemon=True))
        processes[-1].start()
        theirs.close()  # so that a child that dies is noticed
        pipes.append(ours_end)
    for pipe in pipes:
        pipe.recv()
    rates = [(_together(pipes[:1]), _together(pipes)) for _ in range(rounds)]
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(False)
        process.join()
    return rates


def _together(pipes: Sequence["Connection[bool, float | None]"]) -> float:
    """One window of each at the same time: views a second of all."""
    for pipe in pipes:
        pipe.send(True)
    return sum(rate for pipe in pipes if (rate := pipe.recv()) is not None)


def _answer_windows(pipe: "Connection[float | None, bool]", case: Case, seconds: float) -> None:
    machine.keep_freed_memory()
    torch.set_num_threads(1)
    make = ours(case, photographs(case))
    make(0)
    pipe.send(None)
    call = 1
    while pipe.recv():
        rate, call = window(make, case, seconds, call)
        pipe.send(rate)


def entries_of(names: Sequence[str], most_threads: int) -> list[tuple[str, int]]:
    """Those that are installed, once for each number of threads."""
    present = [name for name in names if all(importlib.util.find_spec(package) for package in CONTESTANTS[name].needs)]
    return [(name, threads) for name in present for threads in CONTESTANTS[name].threads if threads <= most_threads]


def run(case_name: str, names: Sequence[str], rounds: int, seconds: float) -> list[Row]:
    """Race one case.

    Returns:
        A row for each contestant and number of threads. With two, ``second_core`` is the median of what the second adds, as a
        share of the first's rate, round by round.
    """
    case, here = CASES[case_name], machine_record.record()
    entries = entries_of(names, here["cores"] if isinstance(here["cores"], int) else 1)
    rates = dict(zip(entries, race(case, entries, rounds, seconds), strict=True))
    if ("ours", 2) in rates:
        pairs = race_processes(case, rounds, seconds)
        rates |= {("ours, a process each", threads): [pair[threads - 1] for pair in pairs] for threads in (1, 2)}
    rows: list[Row] = []
    for (name, threads), values in rates.items():
        first, median, third = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        row: Row = {"case": case_name, "contestant": name, "threads": threads, "median": median, "quartiles": [first, third]}
        if threads == 2:
            row["second_core"] = statistics.median(two / one - 1 for one, two in zip(rates[name, 1], values, strict=True))
        rows.append({**row, "views_per_s": values, "settings": {**case._asdict(), "window_s": seconds}, "machine": here})
    return rows


def line(row: Row) -> str:
    """A row for people."""
    low, high = row["quartiles"]
    added = f"   second core {row['second_core']:+.2f}" if "second_core" in row else ""
    return (
        f"{row['case']:>4} px  {row['contestant']:<24} {row['threads']} thread(s)"
        f" {row['median']:>10,.0f} views/s  ({low:,.0f} to {high:,.0f}){added}"
    )


def main() -> None:
    """Race, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="all, if not given")
    parser.add_argument(
        "--only", choices=CONTESTANTS, action="append", help="contestants; all that are installed, if not given"
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a window")
    parser.add_argument("--out", type=Path, help="file for the rows, JSON")
    asked = parser.parse_args()
    machine.keep_freed_memory()  # as our commands do; to give memory back and fault it in again takes longer than small views
    rows: list[Row] = []
    for case in asked.case or CASES:
        made = run(case, asked.only or list(CONTESTANTS), asked.rounds, asked.seconds)
        print("\n".join(map(line, made)))
        rows += made
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
