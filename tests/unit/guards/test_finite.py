"""A step of numbers that are no numbers is not made; too many of them stop the run, with what replays them."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssl_framework import run
from ssl_framework.checkpoint import SaveRun, checkpoints, last_checkpoint, load_encoder
from ssl_framework.guards import FiniteGate, NonFiniteError
from ssl_framework.guards.finite import gradient_norm, was_skipped
from support import digits_data, fit, small


class Poison(pl.Callback):
    """A loss or a gradient that is not finite at some steps."""

    def __init__(self, what: str, steps: range | list[int], value: float = float("nan")) -> None:
        self.what, self.steps, self.value = what, steps, value

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        first = next(layer for layer in pl_module.encoder.modules() if isinstance(layer, nn.Conv2d))
        poisons = self.what == "activations"
        first.register_forward_hook(lambda *io: io[2] * self.value if poisons and trainer.global_step in self.steps else None)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Tensor) -> None:
        if self.what == "loss" and trainer.global_step in self.steps:
            loss.data.mul_(self.value)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.what == "gradient" and trainer.global_step in self.steps:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.view(-1)[0] = self.value


def state(module: Any, trainer: pl.Trainer) -> list[Tensor]:
    """Weights, teachers, queues, statistics and moments."""
    optimizer = trainer.optimizers[0]
    moments = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, Tensor)]
    return [value.detach().clone() for value in (*module.parameters(), *module.buffers(), *moments)]


class Looks(pl.Callback):
    """At the whole state after each step."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.seen.append(state(pl_module, trainer))


@pytest.mark.promise("R7", "loss, gradient or activations that are not finite: the step is not made")
@pytest.mark.parametrize("task", ["byol", "moco_v2"])  # a teacher, and a queue
@pytest.mark.parametrize(
    ("what", "value"),
    [("loss", float("nan")), ("gradient", float("nan")), ("gradient", float("inf")), ("activations", float("nan"))],
)
def test_a_step_that_is_not_finite_changes_nothing(task: str, what: str, value: float, tmp_path: Path):
    looks, module = Looks(), small(task)
    with pytest.warns(UserWarning, match=r"step 2 is not finite \(loss .*, gradient norm .*\) and was skipped; 3 in a row"):
        trainer = fit(module, digits_data(task), 5, tmp_path, callbacks=[looks, Poison(what, [2], value), SaveRun()])
    moved = [any(not torch.equal(*two) for two in zip(*pair, strict=True)) for pair in itertools.pairwise(looks.seen)]
    assert moved == [True, False, True, True]
    assert trainer.global_step == 5
    assert all(bool(value.isfinite().all()) for value in looks.seen[-1])
    assert all(bool(value.isfinite().all()) for value in load_encoder(tmp_path).encoder.state_dict().values())


@pytest.mark.promise("R7", "many such steps: the run stops, and they can be replayed")
@pytest.mark.filterwarnings("ignore:step .* is not finite")
def test_too_many_in_a_row_stop_the_run_and_leave_what_replays_them(tmp_path: Path):
    before = 3
    with pytest.raises(
        NonFiniteError, match=r"3 steps in a row until step 5 were not finite .* none of them changed the weights"
    ) as stopped:
        fit(
            small("byol"),
            digits_data(),
            9,
            tmp_path,
            callbacks=[Poison("gradient", range(3, 9)), SaveRun(every_n_steps=before)],
        )
    assert last_checkpoint(tmp_path).name == "step-000000003.ckpt"
    facts = json.loads((tmp_path / "failure" / "failure.json").read_text())
    assert facts["step"] == stopped.value.facts["step"] == 5
    assert facts["positions"] == [5]
    assert facts["gradient_norm"] == "nan"
    assert len(facts["parameters"]) == 1
    dump = torch.load(tmp_path / "failure" / "state.ckpt", weights_only=True)
    kept = torch.load(last_checkpoint(tmp_path), weights_only=True)
    names = [name for name, _ in small("byol").named_parameters()]
    assert all(torch.equal(dump["state_dict"][name], kept["state_dict"][name]) for name in names)
    assert len(checkpoints(tmp_path)) == 1


@pytest.mark.promise("R7", "many such steps: the run stops, and they can be replayed")
@pytest.mark.filterwarnings("ignore:step .* is not finite")
def test_too_many_among_the_last_stop_it_too_and_a_resumed_run_goes_on_counting(tmp_path: Path):
    gate = {"in_a_row": 3, "of_last": 3, "window": 6}
    steps = [1, 3, 8, 10, 12]  # three of six at the last

    def trained(upto: int, resume: Path | None = None) -> None:
        options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "val_every": 0}
        data = digits_data()
        trainer = run.trainer(
            steps=upto, data=data, default_root_dir=tmp_path, callbacks=[Poison("loss", steps), SaveRun()], **options
        )
        trainer.callbacks[1] = FiniteGate(**gate)
        trainer.fit(small("byol"), data, ckpt_path=resume, weights_only=True if resume else None)

    trained(11)
    with pytest.raises(NonFiniteError, match="3 of the last 6 steps until step 12"):
        trained(14, last_checkpoint(tmp_path))


@pytest.mark.promise("R7", "control")
def test_the_undefended_run_is_ruined(tmp_path: Path):
    """Without the gate one such step ends in weights that are NaN, and Lightning calls the run finished."""
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "val_every": 0}
    data, module = digits_data(), small("byol")
    trainer = run.trainer(steps=4, data=data, default_root_dir=tmp_path, callbacks=[Poison("gradient", [2])], **options)
    del trainer.callbacks[1]
    with pytest.raises(NonFiniteError, match="left weights that are not finite"):  # the second line of defence
        trainer.fit(module, data)
    assert not all(bool(p.isfinite().all()) for p in module.parameters())


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimiser_without_gradients_does_nothing(make: Any):
    layer = nn.Linear(3, 2)
    optimizer = make(layer.parameters(), lr=0.1, weight_decay=0.5)
    layer(torch.ones(4, 3)).sum().backward()
    assert float(gradient_norm(optimizer)) == pytest.approx((2 * 3 * 16 + 2 * 16) ** 0.5)
    assert not was_skipped(optimizer)
    optimizer.zero_grad()
    before = layer.weight.clone()
    optimizer.step()
    assert was_skipped(optimizer)
    assert torch.equal(layer.weight, before)


def test_numbers_of_the_gate_are_checked():
    with pytest.raises(ValueError, match=r"in_a_row=0, .*: give numbers from 1"):
        FiniteGate(in_a_row=0)
