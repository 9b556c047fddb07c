"""A process that stands still says where, and leaves; one that works is let be."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from ssl_framework.data import DataModule
from ssl_framework.guards import Watchdog, watchdog
from support import digits_data, fit, in_a_child, small


class Stands(pl.Callback):
    """Still, at a hook of some step, for so long."""

    def __init__(self, hook: str, seconds: float, step: int = 2) -> None:
        self.seconds, self.step = seconds, step
        setattr(self, hook, self.stand)

    def stand(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            time.sleep(self.seconds)


class Slow(DataModule):
    """The batch behind the second step takes its time."""

    seconds = 0.0

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer is not None and self.trainer.global_step == 2:
            time.sleep(self.seconds)
        return super().on_before_batch_transfer(batch, dataloader_idx)


def run(folder: Path, hook: str, seconds: float, **limits: float) -> None:
    data = digits_data(batch_size=32)
    if hook == "data":
        data.__class__, data.seconds = Slow, seconds
    callbacks = [] if hook == "data" else [Stands(hook, seconds)]
    fit(small("rotation"), data, 4, folder, callbacks=callbacks, val_every=2, **limits)


@pytest.mark.promise("R8", "stuck loader, step or validation: said where, and ended")
@pytest.mark.parametrize(
    ("hook", "limits", "said"),
    [
        (
            "data",
            {"data_timeout": 1},
            "process 0 of 1 stands still: 1 s waiting for a batch of",
        ),
        ("on_before_backward", {"step_timeout": 1}, "1 s in its step, after step 2 and 3 batches"),
        ("on_validation_batch_end", {"step_timeout": 1}, "1 s in its validation, after step 2 and 2 batches"),
    ],
)
def test_a_process_that_stands_still_says_where_and_leaves(
    hook: str, limits: dict[str, float], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    started = time.monotonic()
    assert in_a_child(lambda: run(tmp_path, hook, 60, **limits)) == watchdog.EXIT_CODE << 8
    assert time.monotonic() - started < 30
    told = capfd.readouterr().err
    assert said in told
    assert next(iter(limits)) in told
    assert "most recent call first" in told  # where threads are
    assert "time.sleep" in told or "in stand" in told or "on_before_batch_transfer" in told


def test_one_that_works_is_let_be(tmp_path: Path):
    assert in_a_child(lambda: run(tmp_path, "on_before_backward", 1.5, step_timeout=20, data_timeout=1)) == 0


def test_an_error_says_where_it_was(tmp_path: Path):
    class Fails(pl.Callback):
        def on_before_backward(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 1:
                raise RuntimeError("by hand")

    with pytest.raises(RuntimeError, match="by hand") as failed:
        fit(small("rotation"), digits_data(), 4, tmp_path, callbacks=[Fails()])
    assert failed.value.__notes__ == ["process 0 of 1 was in its step, after step 1 and 2 batches"]


def test_limits_are_checked():
    with pytest.raises(ValueError, match="data=0, step=5: give seconds above 0"):
        Watchdog(0, 5)


@pytest.mark.promise("R8", "control")
@pytest.mark.slow
def test_the_undefended_run_stands_for_ever(tmp_path: Path):
    child = os.fork()
    if child == 0:
        run(tmp_path, "on_before_backward", 60)
        os._exit(0)
    time.sleep(12)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
