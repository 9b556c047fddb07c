"""Where a two-view SimCLR step on a CPU spends its time: groups of operators, milliseconds, shares and rates.

    python benchmarks/profile_step.py --case resnet18-32

Each operator is timed as it runs, the weight and the input gradient of a convolution apart; medians over steps. The rate of a
large matrix product of the same precision stands below: what is as fast as that is at the machine's limit. With ``--threads 1``
processor time is taken, so that other programs on the machine hardly count.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import machine_record
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from typing_extensions import override

from ssl_framework import machine, optim
from ssl_framework.encoders import presets
from ssl_framework.pretext import SimCLR
from ssl_framework.types import Views

Row = dict[str, Any]

CASES: dict[str, tuple[Callable[[], Any], int, int]] = {  # encoder, side of a view in pixels, images of a step
    "resnet18-32": (presets.resnet18, 32, 256),
    "resnet18-224": (lambda: presets.resnet18(img_size=224, small_stem=False), 224, 64),
    "micro-32": (presets.resnet_micro, 32, 256),
    "vit-tiny-32": (presets.vit_tiny, 32, 256),
}

PRODUCT = 2048  # rows and columns of the matrices whose product says what the machine can do

_GROUPS = (  # the first whose words are in an operator's name
    ("convolution", ("convolution",)),
    ("optimiser", ("_fused_", "_foreach_")),
    ("BatchNorm and LayerNorm", ("batch_norm", "layer_norm")),
    ("matrix products", ("aten.mm", "addmm", "bmm")),
    ("activations and softmax", ("relu", "threshold", "gelu", "softmax", "clamp_min")),
    ("copies and casts", ("copy", "clone", "aten.cat", "empty")),
    ("fused attention", ("attention",)),
)


@dataclass
class Spent:
    """Time and work of one operator at one shape, within one step.

    Attributes:
        seconds: spent.
        flops: floating-point operations, 2 for a multiplication and its addition; 0 where torch counts none.
        calls: of it.
    """

    seconds: float = 0.0
    flops: int = 0
    calls: int = 0


@dataclass
class Clock(TorchDispatchMode):
    """Times every operator below autograd and autocast, on a CPU, where an operator is done when it returns.

    Attributes:
        now: seconds.
        spent: by group of operators and shapes.
    """

    now: Callable[[], float] = time.perf_counter
    spent: dict[tuple[str, str], Spent] = field(default_factory=lambda: defaultdict(Spent))

    def __post_init__(self) -> None:
        super().__init__()

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.aten.convolution_backward.default:
            return self._run(_group(str(func)), func, args, kwargs)
        wanted: Sequence[bool] = args[-1]
        parts: list[Tensor | None] = [None, None, None]
        for name, whole in (("input gradient", (True, False, False)), ("weight gradient", (False, True, True))):
            mask = [m and w for m, w in zip(whole, wanted, strict=True)]
            if any(mask):
                found = self._run(f"convolution, {name}", func, (*args[:-1], mask), kwargs)
                parts = [f if m else p for f, p, m in zip(found, parts, mask, strict=True)]
        return tuple(parts)

    def _run(self, group: str, func: Any, args: Any, kwargs: Any) -> Any:
        started = self.now()
        out = func(*args, **kwargs)
        seconds = self.now() - started
        shapes = " ".join("x".join(map(str, arg.shape)) for arg in args if isinstance(arg, Tensor) and arg.dim() > 1)
        spent = self.spent[group, shapes]
        count = flop_registry.get(func._overloadpacket)
        spent.seconds, spent.calls = spent.seconds + seconds, spent.calls + 1
        spent.flops += int(count(*args, **kwargs, out_val=out)) if count else 0
        return out


def profile(step: Callable[[], object], steps: int, now: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Time the operators of a step.

    Args:
        step: runs one; the first is not counted.
        steps: of which medians are taken.
        now: seconds.

    Returns:
        ``step_ms`` without the clock; ``groups`` and ``shapes``, slowest first: rows of ``group``, ``ms`` a step, ``share`` of
        the operators' time, ``calls``, ``tflops`` (TFLOP/s) or None, and in the second ``shape``, of the operands.
    """
    step()
    bare: list[float] = []
    clocks: list[Clock] = []
    for _ in range(steps):  # taking turns, so that a slow minute of the machine meets both
        started = now()
        step()
        bare.append(now() - started)
        with Clock(now) as clock:
            step()
        clocks.append(clock)
    shapes = [_row(key, [clock.spent[key] for clock in clocks]) for key in clocks[0].spent]
    groups: dict[str, list[Spent]] = {}
    for group, _ in clocks[0].spent:
        groups[group] = [_total(spent for (name, _), spent in clock.spent.items() if name == group) for clock in clocks]
    rows = [_row((group, ""), spent) for group, spent in groups.items()]
    for some in (rows, shapes):
        every = sum(row["ms"] for row in some)
        for row in some:
            row["share"] = row["ms"] / every
    return {
        "step_ms": 1e3 * statistics.median(bare),
        "groups": sorted(rows, key=lambda row: -row["ms"]),
        "shapes": sorted(shapes, key=lambda row: -row["ms"]),
    }


def training_step(case: str, precision: str, batch: int | None = None) -> Callable[[], object]:
    """A step as `ssl-framework pretrain` takes it, on one batch of noise.

    Args:
        case: of `CASES`.
        precision: "bf16-mixed" or "32-true".
        batch: images of a step; None for the case's.
    """
    make, side, size = CASES[case]
    size = batch or size
    torch.manual_seed(0)
    task = SimCLR(make()).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (missing in torch's types)
    optimizer, _ = optim.adamw().build(task, total_steps=100, global_batch=size, fused=True)
    half = precision == "bf16-mixed"
    images = torch.randn(2 * size, 3, side, side)
    views = Views(images.to(memory_format=torch.channels_last).unflatten(0, (2, size)))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = task(views).loss
        loss.backward()
        optimizer.step()

    return step


def product_rate(precision: str, now: Callable[[], float] = time.perf_counter) -> float:
    """TFLOP/s of the product of two matrices of `PRODUCT` rows and columns; the median of nine."""
    a = torch.randn(PRODUCT, PRODUCT, dtype=torch.bfloat16 if precision == "bf16-mixed" else torch.float32)
    times: list[float] = []
    for _ in range(10):
        started = now()
        _ = a @ a
        times.append(now() - started)
    return 2 * PRODUCT**3 / statistics.median(times[1:]) / 1e12


def main(words: Sequence[str] | None = None) -> None:
    """Profile a case and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="resnet18-32")
    parser.add_argument("--precision", choices=("bf16-mixed", "32-true"), default=machine.precision("cpu").name)
    parser.add_argument("--batch", type=int, help="images of a step; the case's by default")
    parser.add_argument("--steps", type=int, default=5, help="of which medians are taken")
    parser.add_argument("--threads", type=int, help="of torch; 1: processor time is taken")
    parser.add_argument("--shapes", type=int, default=10, help="how many single operators are printed")
    parser.add_argument("--json", action="store_true", help="print JSON, with the machine")
    given = parser.parse_args(words)
    machine.limit_threads()
    machine.keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    now = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    found = profile(training_step(given.case, given.precision, given.batch), given.steps, now)
    found["product_tflops"] = product_rate(given.precision, now)
    found |= {"case": given.case, "step_precision": given.precision, "batch": given.batch or CASES[given.case][2]}
    print(json.dumps(found | {"machine": machine_record.record()}) if given.json else table(found, given.shapes))


def table(found: dict[str, Any], shapes: int = 10) -> str:
    """What `main` found, for people.

    Args:
        found: by `profile`, with the case and the rate of a product.
        shapes: how many single operators are shown.
    """
    lines = [f"{found['case']}, {found['step_precision']}, {found['batch']} images: {found['step_ms']:.0f} ms a step", ""]
    for title, rows in (("group", found["groups"]), ("single operators", found["shapes"][:shapes])):
        lines.append(f"{title:66}{'ms':>9}{'share':>8}{'calls':>7}{'TFLOP/s':>9}")
        for row in rows:
            rate = "" if row["tflops"] is None else f"{row['tflops']:.2f}"
            lines.append(
                f"{row['group']:30.30}{row['shape']:36.36}{row['ms']:9.1f}{row['share']:8.1%}{row['calls']:7}{rate:>9}"
            )
        lines.append("")
    return "\n".join([*lines, f"a product of {PRODUCT} rows and columns runs at {found['product_tflops']:.2f} TFLOP/s"])


def _group(name: str) -> str:
    found = next((group for group, words in _GROUPS if any(word in name for word in words)), "the rest")
    return "convolution, forward" if found == "convolution" else found


def _total(parts: Any) -> Spent:
    whole = Spent()
    for part in parts:
        whole = Spent(whole.seconds + part.seconds, whole.flops + part.flops, whole.calls + part.calls)
    return whole


def _row(key: tuple[str, str], spent: Sequence[Spent]) -> Row:
    """Medians over steps."""
    seconds = statistics.median(s.seconds for s in spent)
    rate = spent[0].flops / seconds / 1e12 if spent[0].flops else None
    return {"group": key[0], "shape": key[1], "ms": 1e3 * seconds, "calls": spent[0].calls, "tflops": rate}


if __name__ == "__main__":
    main()
