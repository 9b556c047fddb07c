"""Numbers that are no numbers in one of two processes are seen by both (R7)."""

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from faults import codes, nothing, ranks, saver
from ssl_framework.checkpoint import store
from ssl_framework.checkpoint.training import FAILURE
from ssl_framework.guards import FiniteGate
from support import digits_data, fit, small

STEPS = 6


class Poison(pl.Callback):
    """NaN in this process, in some steps: in the loss's gradient, or in what the encoder puts out."""

    def __init__(self, where: str, steps: set[int]) -> None:
        self.where, self.steps, self.now = where, steps, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        parameter = next(pl_module.parameters())
        if self.where == "activations":
            pl_module.encoder.register_forward_hook(lambda _, __, out: self._spoil(out))
        else:
            parameter.register_hook(lambda gradient: gradient * float("nan") if self.now else gradient)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.now = trainer.global_step in self.steps

    def _spoil(self, out: Any) -> Any:
        return out._replace(pooled=out.pooled * float("nan")) if self.now else out


def two(home: Path, where: str, steps: set[int]) -> list[int]:
    """Of two processes, the second is poisoned."""

    def begin(rank: int) -> None:
        callbacks = [*([Poison(where, steps)] if rank == 1 else []), *saver(2)]
        module = small("rotation")
        fit(module, digits_data(batch_size=32), STEPS, home, callbacks=callbacks, strategy="ddp", devices=2)
        torch.save(weights(module), home / f"rank-{rank}.pt")

    return codes(ranks(2, begin), 60)


def weights(module: pl.LightningModule) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if value.is_floating_point() and "running" not in name}


@pytest.mark.slow
@pytest.mark.promise("R7", "one of two processes not finite: neither makes the step")
@pytest.mark.filterwarnings("ignore:step .* is not finite")
@pytest.mark.parametrize("where", ["gradient", "activations"])
def test_one_process_is_enough(where: str, tmp_path: Path):
    assert two(tmp_path, where, {3}) == [0, 0]
    one, other = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in (0, 1))
    assert all(value.isfinite().all() and torch.equal(value, other[name]) for name, value in one.items())
    assert store.checkpoints(tmp_path)[-1].name == f"step-{STEPS:09d}.ckpt"


@pytest.mark.slow
@pytest.mark.promise("R7", "one of two processes not finite, again and again: both stop, and it can be replayed")
@pytest.mark.filterwarnings("ignore:step .* is not finite")
def test_both_stop(tmp_path: Path):
    ended = two(tmp_path, "activations", {3, 4, 5})
    assert ended == [1, 1]
    assert store.checkpoints(tmp_path)[-1].name == "step-000000004.ckpt"  # of whose steps the last was not made
    facts = json.loads((tmp_path / FAILURE / "failure.json").read_text())
    assert facts["ranks"] == [1]


@pytest.mark.slow
@pytest.mark.promise("R7", "control")
def test_without_the_gate_both_are_ruined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FiniteGate, "on_before_optimizer_step", nothing)
    assert 0 not in two(tmp_path, "activations", {3})  # the next save refuses weights that are not finite
    assert store.checkpoints(tmp_path)[-1].name == "step-000000002.ckpt"
