"""A signal to any process ends the run after its step, saved; and the run goes on as if it had never been stopped."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_framework import run
from ssl_framework.checkpoint import SaveRun, last_checkpoint
from ssl_framework.guards import Preempted, Preemption, preemption
from support import digits_data, fit, small

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _as_at_a_terminal() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Sends(pl.Callback):
    """A signal to this process at a point of the step that begins after so many."""

    def __init__(self, number: int, step: int, point: str = "on_before_backward", times: int = 1) -> None:
        self.number, self.step, self.times, self.done = number, step, times, False
        setattr(self, point, self.send)

    def send(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not self.done:
            self.done = True
            for _time in range(self.times):
                os.kill(os.getpid(), self.number)


def weights(module: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


POINTS = ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_before_zero_grad", "on_train_batch_end")


@pytest.mark.promise("R4", "signal at a point of the step: the same bits in the end")
@pytest.mark.parametrize(("number", "point"), [*((n, POINTS[1]) for n in SIGNALS), *((signal.SIGTERM, p) for p in POINTS)])
def test_the_step_ends_is_saved_and_the_run_goes_on_to_the_same_bits(number: int, point: str, tmp_path: Path):
    whole = small("byol")
    fit(whole, digits_data(), 6, tmp_path / "whole")
    stopped, home = small("byol"), tmp_path / "stopped"
    with pytest.raises(Preempted) as left:
        fit(stopped, digits_data(), 6, home, callbacks=[Sends(number, 2, point), SaveRun(every_n_steps=0)])
    assert left.value.code == preemption.EXIT_CODE
    assert left.value.signal == number
    kept = last_checkpoint(home)
    assert kept.name == f"step-{3 if point != 'on_train_batch_end' else 2:09d}.ckpt"
    assert all(signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler) for each in SIGNALS)
    resumed = small("byol")
    fit(resumed, digits_data(), 6, home, resume=kept)
    assert same(weights(resumed), weights(whole))


class Counts(pl.Callback):
    """Validations: begun, ended, and batches."""

    def __init__(self) -> None:
        self.begun = self.ended = self.batches = 0
        self.losses: list[float] = []

    def on_validation_start(self, *_: Any) -> None:
        self.begun += 1

    def on_validation_batch_end(self, *_: Any) -> None:
        self.batches += 1

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self.ended += 1
        self.losses.append(float(trainer.callback_metrics["val/loss"]))


def test_a_validation_that_is_cut_off_is_done_when_the_run_goes_on(tmp_path: Path):
    options: dict[str, Any] = {"val_every": 2}
    expected, whole = Counts(), small("byol")
    fit(whole, digits_data(batch_size=32), 6, tmp_path / "whole", callbacks=[expected], **options)
    assert (expected.ended, len(expected.losses)) == (3, 3)
    assert expected.batches > 6  # so that there is a middle
    first, home = Counts(), tmp_path / "stopped"
    cut = Sends(signal.SIGTERM, 4, "on_validation_batch_start")
    with pytest.raises(Preempted):
        fit(small("byol"), digits_data(batch_size=32), 6, home, callbacks=[first, cut, SaveRun(every_n_steps=0)], **options)
    assert (first.begun, first.ended) == (2, 1)
    kept = last_checkpoint(home)
    assert kept.name == "step-000000004.ckpt"
    second, resumed = Counts(), small("byol")
    fit(resumed, digits_data(batch_size=32), 6, home, resume=kept, callbacks=[second], **options)
    assert (second.begun, second.ended) == (2, 2)
    assert first.losses + second.losses == expected.losses
    assert same(weights(resumed), weights(whole))


def test_a_run_saved_before_its_validation_validates_when_it_goes_on(tmp_path: Path):
    """A kill between a save and the validation of the same step."""
    data = digits_data(batch_size=32)
    fit(small("byol"), data, 4, tmp_path, callbacks=[SaveRun(every_n_steps=2)], val_every=2)
    counts = Counts()
    at_two = tmp_path / "checkpoints" / "step-000000002.ckpt"
    fit(small("byol"), digits_data(batch_size=32), 4, tmp_path, resume=at_two, callbacks=[counts], val_every=2)
    assert counts.ended == 2  # of step 2, and of step 4


@pytest.mark.filterwarnings("ignore:.* does not have many workers")
def test_without_checkpoints_it_leaves_too():
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = run.trainer(steps=6, callbacks=[Sends(signal.SIGTERM, 2)], **quiet)
    with pytest.raises(Preempted):
        trainer.fit(Line(), torch.utils.data.DataLoader(torch.ones(20, 1), batch_size=2))
    assert trainer.global_step == 3


class Line(pl.LightningModule):
    """No module of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.promise("R4", "second Ctrl-C: left at once")
def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path):
    with pytest.raises(SystemExit) as left:
        fit(small("byol"), digits_data(), 6, tmp_path, callbacks=[Sends(signal.SIGINT, 2, times=2), SaveRun(every_n_steps=0)])
    assert not isinstance(left.value, Preempted)
    assert not list(tmp_path.glob("checkpoints/*.ckpt"))


def test_what_somebody_else_handles_or_ignores_is_left_to_them(tmp_path: Path):
    heard: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sends = [Sends(signal.SIGUSR1, 0), Sends(signal.SIGHUP, 0)]
    fit(small("byol"), digits_data(), 2, tmp_path, callbacks=sends)
    assert heard == [signal.SIGUSR1]


@pytest.mark.parametrize(
    ("number", "environment", "asked"),
    [
        (signal.SIGUSR1, {"SLURM_JOB_ID": "7"}, ["scontrol", "requeue", "7"]),
        (
            signal.SIGUSR1,
            {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"},
            ["scontrol", "requeue", "5_2"],
        ),
        (signal.SIGTERM, {"SLURM_JOB_ID": "7"}, None),
        (signal.SIGUSR1, {}, None),
    ],
)
def test_slurm_is_asked_for_the_job_again(
    number: int, environment: dict[str, str], asked: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda words, check: said.append(words))
    callback = Preemption()
    callback._got = number
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    trainer: Any = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(Preempted):
        callback.leave(trainer)
    assert said == ([] if asked is None else [asked])
