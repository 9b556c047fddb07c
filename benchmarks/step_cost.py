"""What a pretext task costs beside its encoder: seconds of a step over those of its encoder passes alone.

    python benchmarks/step_cost.py --out benchmarks/step_cost.json     # SSL_FRAMEWORK_DATA holds cifar10/
    python benchmarks/step_cost.py --tasks simclr vicreg
    python benchmarks/step_cost.py --device cuda --data data=arrays data.path=IMAGES.npz

A step is forward, backward, and what follows without a gradient; the passes are the very calls of the encoder that the step
makes, teacher's and tiles' included, each with its backward where it had one. Both are measured by turns, in seconds of the
processor, or on a GPU by the clock. ResNet-18 on 256 images of 32 pixels; `vit_tiny` for tasks that need tokens, with decoders
that suit it. Heads are at most 2048 wide, queues and prototypes at most 4096 long, as the recipes for CIFAR have them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import machine_record
import torch
import yaml
from torch import Tensor, nn

from ssl_framework import machine
from ssl_framework.commands import build, compose, pretrain
from ssl_framework.nn import Follower, Teacher
from ssl_framework.paths import conf_dir
from ssl_framework.pretext import PretextModule
from ssl_framework.types import Batch, Encoding

LIMIT = 1.15
LARGEST = {
    "hidden_dim": 2048,
    "projection_dim": 2048,
    "predictor_dim": 2048,
    "prototypes": 4096,
    "queue_size": 4096,
    "negatives": 4096,
    "decoder_dim": 128,
    "decoder_depth": 2,
    "decoder_heads": 4,
    "head_dim": 256,
    "head_depth": 2,
    "predictor_depth": 2,
}

OWN = {"ijepa": {"predictor_dim": 96, "predictor_heads": 3}}
"""Half as wide as `vit_tiny`, as the paper's is half as wide as ViT-B."""

Row = dict[str, Any]


class Call(NamedTuple):
    """One pass of an encoder.

    Attributes:
        encoder: the student's or a teacher's.
        args: what it was given.
        kwargs: by name.
        grad: whether a gradient went back through it.
    """

    encoder: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grad: bool


def words_of(task: str, data: Sequence[str] = ("data=cifar10",)) -> list[str]:
    """What the command line is told of a task."""
    config = yaml.safe_load((conf_dir() / "pretext" / f"{task}.yaml").read_text())
    vit = any("vit" in str(entry.get("override /encoder", "")) for entry in config["defaults"])
    limited = {name: limit for name, limit in LARGEST.items() if (config["pretext"].get(name) or 0) > limit} | OWN.get(task, {})
    return [
        *data,
        f"pretext={task}",
        f"encoder={'vit_tiny' if vit else 'resnet18'}",
        *(f"pretext.{name}={limit}" for name, limit in limited.items()),
    ]


def measure(task: str, words: Sequence[str], batch_size: int, rounds: int, device: str = "cpu") -> Row:
    """A row: median seconds of step and passes, and the median of their ratios, round by round, with its quartiles.

    Args:
        task: of the catalogue.
        words: what the command line is told.
        batch_size: samples of a step.
        rounds: of both; one more comes first, to warm up.
        device: "cpu" or "cuda".
    """
    settings = compose.compose("pretrain", words)
    data = build.data(settings)
    module = pretrain.pretext(settings, data).to(device)
    keep_channels_last(module)
    followers = [part for part in module.modules() if isinstance(part, Follower)]
    for follower in followers:
        follower.begin(data.num_samples)
    module.progress = 0.5
    index = torch.arange(batch_size)
    assert module.views is not None
    batch = Batch(data.split("train").images(index), None, index).to(torch.device(device))
    views = module.views.apply(batch, module.views.draw(index, 0))
    lower = machine.precision(device).name == "bf16-mixed"

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(device, torch.bfloat16, enabled=lower)

    def step() -> None:
        with autocast():
            loss: Tensor = module(views).loss
        loss.backward()
        for follower in followers:
            follower.follow(0.5)
        module.zero_grad()

    calls = recorded(module, step)

    def passes() -> None:
        for call in calls:
            with torch.set_grad_enabled(call.grad), autocast():
                out: Encoding = call.encoder(*call.args, **call.kwargs)
                total = out.pooled.float().sum() + (out.tokens.float().sum() if out.tokens is not None else 0)
            if call.grad:
                total.backward()
        module.zero_grad()

    pairs = [(taken(step, device), taken(passes, device)) for _ in range(rounds + 1)][1:]
    ratios = [whole / alone for whole, alone in pairs]
    first, middle, third = statistics.quantiles(ratios, n=4, method="inclusive") if rounds > 1 else ratios * 3
    seconds = {"step_s": statistics.median(p[0] for p in pairs), "passes_s": statistics.median(p[1] for p in pairs)}
    return {"task": task, "ratio": middle, "quartiles": [first, third], **seconds, "passes": len(calls), "words": [*words]}


def recorded(module: PretextModule, step: Callable[[], None]) -> list[Call]:
    """The passes of encoders that a step makes."""
    teachers = [part.module for part in module.modules() if isinstance(part, Teacher)]
    encoders = [module.encoder, *(getattr(teacher, "encoder", teacher) for teacher in teachers)]
    calls: list[Call] = []

    def note(encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept = tuple(x.detach() if isinstance(x, Tensor) else x for x in args)
        calls.append(Call(encoder, kept, kwargs, torch.is_grad_enabled()))

    handles = [encoder.register_forward_pre_hook(note, with_kwargs=True) for encoder in dict.fromkeys(encoders)]
    step()
    for handle in handles:
        handle.remove()
    return calls


def keep_channels_last(module: nn.Module) -> None:
    """Weights of convolutions as training has them."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)


def taken(work: Callable[[], None], device: str = "cpu") -> float:
    """Seconds of the processor; on a GPU of the clock, until its work is done."""
    if device == "cpu":
        before = time.process_time()
        work()
        return time.process_time() - before
    torch.cuda.synchronize()
    before = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - before


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = sorted(path.stem for path in (conf_dir() / "pretext").glob("*.yaml"))
    parser.add_argument("--tasks", nargs="+", default=every)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", nargs="+", default=["data=cifar10"], help="what the command line is told of the data")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # seconds of the processor then say the same as a clock
    machine.keep_freed_memory()
    known: list[Row] = json.loads(given.out.read_text())["rows"] if given.out and given.out.is_file() else []
    rows = {row["task"]: row for row in known}
    for task in given.tasks:
        row = measure(task, words_of(task, given.data), given.batch, given.rounds, given.device)
        rows[task] = {**row, "batch": given.batch, "rounds": given.rounds, "machine": machine_record.record()}
        over = "" if row["ratio"] <= LIMIT else f"  above {LIMIT}"
        print(
            f"{task:22} {row['ratio']:.2f}  ({row['step_s']:.3f} s, {row['passes']} passes {row['passes_s']:.3f} s){over}",
            flush=True,
        )
        if given.out:
            given.out.write_text(json.dumps({"rows": list(rows.values())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
