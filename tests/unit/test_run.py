import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from ssl_framework import run


def data(batches: float) -> SimpleNamespace:
    return SimpleNamespace(batches_per_epoch=batches)


@pytest.mark.parametrize(
    ("epochs", "batches", "accumulate", "steps"),
    [(1, 10.0, 1, 10), (2, 6.5, 1, 13), (1, 6.3, 1, 7), (3, 10.0, 4, 8), (0.5, 10.0, 1, 5), (10, 0.1 * 3 * 10 / 3, 1, 10)],
)
def test_epochs_become_steps(epochs: float, batches: float, accumulate: int, steps: int):
    trainer = run.trainer(epochs, data=data(batches), accumulate=accumulate, logger=False, enable_progress_bar=False)
    assert trainer.max_steps == steps
    assert trainer.max_epochs == -1
    assert trainer.check_val_every_n_epoch is None
    assert trainer.accumulate_grad_batches == accumulate


def test_validation_is_about_once_an_epoch():
    trainer = run.trainer(3, data=data(6.6), logger=False, enable_progress_bar=False)
    assert trainer.val_check_interval == 7
    assert trainer.limit_val_batches == 1.0
    assert run.trainer(steps=3, logger=False, enable_progress_bar=False).limit_val_batches == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "either epochs or steps"),
        ({"epochs": 1, "steps": 1}, "either epochs or steps"),
        ({"epochs": 1}, "needs data="),
        ({"steps": 0}, "Nothing to train"),
        ({"steps": -1}, "Nothing to train"),
        ({"steps": 3, "max_steps": 4}, "give steps= instead"),
        ({"steps": 3, "max_epochs": 4}, "give epochs= instead"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, int], says: str):
    with pytest.raises(ValueError, match=says):
        run.trainer(**arguments)


def test_the_bar_shows_epochs_in_the_middle_of_a_run():
    bar = run.EpochBar(steps_per_epoch=4)
    described = []
    bar.train_progress_bar = SimpleNamespace(
        set_description=lambda text, refresh: described.append(text), reset=lambda total: None, initial=0
    )
    bar._trainer = SimpleNamespace(global_step=6, max_steps=20)
    bar.on_train_batch_start(bar._trainer, None, None, 6)
    assert described == ["epoch 1.5/5.0"]


def test_a_step_is_logged_if_its_values_reach_the_loggers():
    trainer: Any = SimpleNamespace(max_steps=25, log_every_n_steps=10)
    logged = [step + 1 for step in range(25) if run.is_logged(SimpleNamespace(**vars(trainer), global_step=step))]
    assert logged == [1, 10, 20, 25]
    trainer.log_every_n_steps = 0
    assert [s for s in range(25) if run.is_logged(SimpleNamespace(**vars(trainer), global_step=s))] == [0, 24]


def test_an_encoder_is_compiled_by_the_preset_and_keeps_its_names(monkeypatch: pytest.MonkeyPatch):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: asked.append(options))
    for preset in (False, True, "reduce-overhead", "max-autotune"):
        run.compile_in_place(nn.Linear(1, 1), preset)
    assert asked == [{"mode": "default"}, {"mode": "reduce-overhead"}, {"mode": "max-autotune"}]
    with pytest.raises(ValueError, match="compile=fast: give false, true, default, reduce-overhead"):
        run.compile_in_place(nn.Linear(1, 1), "fast")
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """As at a terminal: a shell has SIGINT ignored by what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Swallows(pl.Callback):
    """Ctrl-C at a step, below code that swallows every exception."""

    def __init__(self, step: int, times: int) -> None:
        self.step, self.times, self.raised = step, times, 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            for _time in range(self.times):
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.01)
                except KeyboardInterrupt:
                    self.raised += 1


class Line(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[torch.Tensor]:
        return DataLoader(torch.ones(20, 1), batch_size=2)


@pytest.mark.filterwarnings("ignore:.* does not have many workers")
@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize(("times", "raised"), [(1, 0), (2, 1)])
def test_ctrl_c_lets_the_step_end_and_is_not_swallowed(times: int, raised: int, capfd: pytest.CaptureFixture[str]):
    swallows = Swallows(3, times)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = run.trainer(steps=9, callbacks=[swallows], **quiet)
    with pytest.raises(SystemExit):
        trainer.fit(Line())
    assert trainer.interrupted
    assert trainer.global_step == 4
    assert swallows.raised == raised  # the second one comes at once
    assert capfd.readouterr().err.count("stopping after this step") == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore:.* does not have many workers")
def test_a_handler_of_somebody_else_stays():
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        run.trainer(steps=5, callbacks=[Swallows(3, 1)], logger=False, enable_progress_bar=False, accelerator="cpu").fit(Line())
        assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
