"""A run that made fewer steps than it was to make is not finished."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_framework import run

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}


class Line(pl.LightningModule):
    """On a loader of so many batches."""

    def __init__(self, stops: bool = False) -> None:
        super().__init__()
        self.layer, self.stops = torch.nn.Linear(1, 1), stops

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.trainer.should_stop = self.stops
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(samples: int) -> Any:
    return DataLoader(torch.ones(samples, 1), batch_size=4, drop_last=True)


@pytest.mark.promise("R7", "run without batches: an error")
@pytest.mark.filterwarnings("ignore:.* does not have many workers", "ignore:.*Total length of .* is zero")
@pytest.mark.parametrize("samples", [0, 3])  # none, and fewer than a batch
def test_no_batch_is_no_training(samples: int):
    data = DataLoader([], batch_size=4) if samples == 0 else loader(samples)
    with pytest.raises(ValueError, match="Training ended after 0 of 5 steps, because its loader had no more batches"):
        run.trainer(steps=5, **QUIET).fit(Line(), data)


@pytest.mark.filterwarnings("ignore:.* does not have many workers")
def test_a_whole_run_and_one_that_was_stopped_early_are_ends():
    whole = run.trainer(steps=5, **QUIET)
    whole.fit(Line(), loader(8))  # Lightning begins the loader again
    assert whole.global_step == 5
    early = run.trainer(steps=5, **QUIET)
    early.fit(Line(stops=True), loader(8))
    assert early.global_step < 5


@pytest.mark.promise("R7", "control")
@pytest.mark.filterwarnings("ignore:.* does not have many workers", "ignore:.*Total length of .* is zero")
def test_lightning_calls_it_finished():
    trainer = pl.Trainer(max_steps=5, enable_checkpointing=False, **QUIET)
    trainer.fit(Line(), loader(3))
    assert (trainer.global_step, trainer.state.status.value) == (0, "finished")
