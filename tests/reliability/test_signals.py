"""A signal to any of a run's processes, wherever they are, saves the run and ends all of them with code 75 (R4)."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from faults import TIMED_OUT, At, Disk, codes, forked, nothing, ranks, saver
from ssl_framework import run
from ssl_framework.checkpoint import last_checkpoint, store
from ssl_framework.guards import Preemption, preemption
from support import digits_data, fit, small

STEPS, STEP, LIMIT = 400, 3, 60
PLACES = ("fetch", "backward", "save", "validation")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


def at(place: str, do: Callable[[], object], rank: int) -> At:
    """Something in the step after `STEP`, while its batch is fetched, in its backward, in its save, or in its validation."""
    if place == "save" and rank == 0:  # which writes; the others wait for it
        return At("on_train_batch_start", STEP, Disk(do, 2).attach)
    hooks = {
        "fetch": "on_train_batch_start",
        "backward": "on_before_backward",
        "validation": "on_validation_batch_end",
        "save": "on_save_checkpoint",
    }
    return At(hooks[place], STEP, do)


def train(folder: Path, *callbacks: pl.Callback, world: int = 1, every: int = STEP + 1) -> None:
    several: dict[str, Any] = {"strategy": "ddp", "devices": world} if world > 1 else {}
    fit(
        small("rotation"), digits_data(batch_size=32), STEPS, folder, callbacks=[*callbacks, *saver(every)],
        val_every=STEP + 1, limit_val_batches=2, **several,
    )  # fmt: skip


def trial(
    folder: Path, world: int, number: int, receivers: Sequence[int], place: str, limit: float = LIMIT, **more: int
) -> list[int]:
    """How the processes of a run end of which some are sent a signal."""

    def begin(rank: int) -> None:
        sends = [at(place, lambda: os.kill(os.getpid(), number), rank)] if rank in receivers else []
        train(folder, *sends, world=world, **more)

    return codes(ranks(world, begin) if world > 1 else [forked(lambda: begin(0))], limit)


def trials() -> list[object]:
    fast = {(1, signal.SIGTERM, (0,), "backward"), (1, signal.SIGINT, (0,), "save"), (2, signal.SIGUSR1, (1,), "validation")}
    every = [
        (world, number, receivers, place)
        for world, choices in ((1, ((0,),)), (2, ((0,), (1,), (0, 1))))
        for receivers in choices
        for number in SIGNALS
        for place in PLACES
    ]
    return [
        pytest.param(*one, marks=() if one in fast else pytest.mark.slow, id=f"{one[0]}-{one[1].name}-{one[2]}-{one[3]}")
        for one in every
    ]


@pytest.mark.promise("R4", "signal to some processes of one or two: saved, code 75")
@pytest.mark.parametrize(("world", "number", "receivers", "place"), trials())
@pytest.mark.filterwarnings("ignore:going on is not bit-exact, because processes is 1 and was 2")
def test_all_save_and_leave_with_one_code(
    world: int, number: signal.Signals, receivers: tuple[int, ...], place: str, tmp_path: Path
):
    assert trial(tmp_path, world, number, receivers, place) == [preemption.EXIT_CODE] * world
    left = last_checkpoint(tmp_path)
    assert store.verify(left)["step"] == STEP + 1
    assert codes([forked(lambda: resumed(tmp_path))], LIMIT) == [0]


def resumed(folder: Path) -> None:
    """Goes on where it stopped, and a little further."""
    trainer = run.trainer(
        steps=STEP + 3, data=(data := digits_data(batch_size=32)), default_root_dir=folder / "further", logger=False,
        enable_progress_bar=False, accelerator="cpu", val_every=0, callbacks=saver(0),
    )  # fmt: skip
    trainer.fit(small("rotation"), data, ckpt_path=last_checkpoint(folder), weights_only=True)
    assert trainer.global_step == STEP + 3


@pytest.mark.slow
@pytest.mark.promise("R4", "control")
@pytest.mark.parametrize("receivers", [(0,), (1,), (0, 1)])
def test_lightnings_own_handler_saves_nothing(receivers: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It ends one process while the other waits for it, or all of them with nothing saved and the code of a success."""
    monkeypatch.setattr(Preemption, "on_train_start", nothing)
    ended = trial(tmp_path, 2, signal.SIGTERM, receivers, "backward", limit=20, every=STEPS)
    assert ended != [preemption.EXIT_CODE] * 2
    assert TIMED_OUT in ended or not store.checkpoints(tmp_path)


@pytest.mark.promise("R4", "second Ctrl-C: left at once")
def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path: Path):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)

    started = time.monotonic()
    (code,) = codes([forked(lambda: train(tmp_path, At("on_before_backward", STEP, twice)))], LIMIT)
    assert code not in (0, TIMED_OUT, preemption.EXIT_CODE)
    assert time.monotonic() - started < 25
    assert not store.checkpoints(tmp_path)
