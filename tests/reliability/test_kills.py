"""A run that is killed anywhere, and again, ends on the bits of the one that was not (R1)."""

import os
import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from faults import At, Disk, codes, forked, killed, newest, nothing, saver
from ssl_framework.checkpoint import last_checkpoint
from ssl_framework.data import DataModule
from support import TASKS, bits, digits_data, fit, small

STEPS, SAVED, VALIDATED, BATCH = 12, 3, 4, 32  # of 180 samples: the epoch ends in the 6th step
HOOKS = (
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
)
DISK = 60  # a save does about 20 to 50 things to the disk
FAST = ("simclr", "dino", "mae")
CHAINS = 3


def train(task: str, folder: Path, *callbacks: At) -> None:
    """Begin, or go on where the last checkpoint stands."""
    data = digits_data(task, batch_size=BATCH, val_share=0.87)
    found = newest(folder)
    resume = None if found is None else last_checkpoint(folder)
    fit(
        small(task), data, STEPS, folder, resume=resume, val_every=VALIDATED, limit_val_batches=2,
        callbacks=[*callbacks, *saver(SAVED)],
    )  # fmt: skip


def state(folder: Path) -> str:
    """A hash of all that the last checkpoint holds: weights, teachers, queues, optimiser, schedules, counters, position."""
    return bits(torch.load(last_checkpoint(folder), weights_only=True))


@cache
def whole(task: str, folder: Path) -> tuple[str, float]:
    """The state of the run that nobody kills, and the seconds that it takes."""
    started = time.monotonic()
    assert codes([forked(lambda: train(task, folder))], 120) == [0]
    return state(folder), time.monotonic() - started


def at_a_hook(draw: random.Random, step: int) -> Callable[[], At]:
    hook = draw.choice(HOOKS)
    return lambda: At(hook, step, killed)


def in_a_save(draw: random.Random, step: int) -> Callable[[], At]:
    event = draw.randrange(1, DISK)
    return lambda: At("on_train_batch_start", step, Disk(killed, event).attach)


def kill(task: str, folder: Path, make: Callable[[], At]) -> bool:
    """Whether it came to it: a run may end before its disk has done so much."""
    (code,) = codes([forked(lambda: train(task, folder, make()))], 120)
    assert code in (0, 128 + 9)
    return code != 0


def kill_by_the_clock(task: str, folder: Path, seconds: float) -> bool:
    """At whatever it does then."""
    pid = forked(lambda: train(task, folder))
    time.sleep(seconds)
    os.kill(pid, 9)
    return codes([pid], 60) == [128 + 9]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(tmp_path_factory.mktemp)


@pytest.mark.promise("R1", "SIGKILL, and the same bits in the end")
@pytest.mark.parametrize(
    ("task", "chain"),
    [
        pytest.param(task, chain, marks=() if task in FAST and chain < 1 else pytest.mark.slow)
        for task in TASKS
        for chain in range(CHAINS)
    ],
)
def test_killed_and_killed_again_it_ends_on_the_same_bits(
    task: str, chain: int, homes: Callable[[str], Path], tmp_path: Path, record_property: Callable[[str, object], None]
):
    """Chains of kills at hooks, inside saves, and by the clock, drawn by the task's name; then the run goes on to its end."""
    expected, seconds = whole(task, homes(task))
    draw = random.Random(f"{task} {chain}")
    steps = sorted(draw.sample(range(STEPS - 1), 3))
    kinds = [at_a_hook, in_a_save] if chain < CHAINS - 1 else [at_a_hook, in_a_save, at_a_hook]
    came = sum(kill(task, tmp_path, kind(draw, step)) for kind, step in zip(kinds, steps, strict=False))
    if chain == CHAINS - 1:
        came += kill_by_the_clock(task, tmp_path, draw.random() * 0.8 * seconds)
    assert codes([forked(lambda: train(task, tmp_path))], 120) == [0]
    assert state(tmp_path) == expected
    assert came > 0
    record_property("times", came)


@pytest.mark.promise("R1", "control")
def test_a_position_that_is_lost_is_seen(homes: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As with a stock loader, whose next pass begins anew."""
    expected, _ = whole("simclr", homes("simclr"))
    assert kill("simclr", tmp_path, lambda: At("on_before_backward", 8, killed))
    monkeypatch.setattr(DataModule, "load_state_dict", nothing)
    assert codes([forked(lambda: train("simclr", tmp_path))], 120) == [0]
    assert state(tmp_path) != expected
