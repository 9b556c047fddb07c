"""The bootstrap over test samples: its ends, its coverage, and that it sees each sample of every process once."""

from typing import Any

import pytest
import torch
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from ssl_framework.downstream.intervals import Readouts, bootstrap


def accuracy() -> dict[str, MulticlassAccuracy]:
    return {"accuracy": MulticlassAccuracy(2, average="micro", validate_args=False)}


def test_processes_do_not_talk_about_each_draw():
    """All of them have all samples already; a group of GPUs could not even gather what lies on the CPU."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("gathered")

    def talkative() -> dict[str, Metric]:
        return {"mean": MeanMetric(distributed_available_fn=lambda: True, dist_sync_fn=refuse)}

    low, high = bootstrap(talkative, torch.arange(20.0), torch.ones(20), seed=0, draws=50)["mean"]
    assert low < 9.5 < high


def rows(right: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.zeros(count, dtype=torch.int64)
    outputs = torch.tensor([[1.0, 0.0]] * right + [[0.0, 1.0]] * (count - right))
    return outputs, targets


def test_the_ends_are_those_of_the_binomial():
    """Resampling right and wrong answers is drawing from a binomial distribution."""
    low, high = bootstrap(accuracy, *rows(160, 200), seed=0, draws=2000)["accuracy"]
    spread = 1.96 * (0.8 * 0.2 / 200) ** 0.5
    assert low == pytest.approx(0.8 - spread, abs=0.008)
    assert high == pytest.approx(0.8 + spread, abs=0.008)


def test_it_covers_the_truth_as_often_as_it_says():
    torch.manual_seed(0)
    hits = 0
    for trial in range(200):
        right = int((torch.rand(100) < 0.7).sum())
        low, high = bootstrap(accuracy, *rows(right, 100), seed=trial, draws=200)["accuracy"]
        hits += low <= 0.7 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_a_seed_gives_its_interval():
    assert bootstrap(accuracy, *rows(5, 9), seed=1) == bootstrap(accuracy, *rows(5, 9), seed=1)
    assert bootstrap(accuracy, *rows(50, 99), seed=1) != bootstrap(accuracy, *rows(50, 99), seed=2)


def test_readouts_keep_every_row_in_order():
    kept = Readouts()
    outputs, targets = rows(3, 5)
    kept.update(outputs[:2], targets[:2])
    kept.update(outputs[2:], targets[2:])
    found = kept.compute()
    assert torch.equal(found[0], outputs)
    assert torch.equal(found[1], targets)
    kept.reset()
    kept.update(outputs[:1], targets[:1])
    assert len(kept.compute()[0]) == 1
