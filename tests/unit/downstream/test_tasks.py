"""Each task beside its formula, through training, and on targets that do not belong to it."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch.nn import functional as F

from ssl_framework import run
from ssl_framework.data import ArraySource, Labelled, Table
from ssl_framework.downstream import Classification, Full, LabelledData, MultiLabel, Ordinal, Regression
from ssl_framework.downstream.heads import CosineHead, MLPHead, OrdinalHead
from ssl_framework.downstream.tasks.classes import weights_of
from ssl_framework.types import Encoding

from .conftest import make_module


@pytest.fixture
def table(tmp_path):
    """Of bars: their row in pixels, and what follows from it."""
    rows = ["sample,row,metres,low,high,odd,empty"]
    rows += [
        f"{i},{i % 3},{100 + 25 * (i % 3)},{int(i % 3 == 0)},{int(i % 3 > 0)},{i % 2 + 0.5},{'' if i == 4 else 1}"
        for i in range(60)
    ]
    path = tmp_path / "bars.csv"
    path.write_text("\n".join(rows) + "\n")
    return Table(path)


def bars(table: Table | None, count: int = 60, split: str = "train") -> Labelled:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 120, (count, 8, 8), dtype=np.uint8)
    images[np.arange(count), 1 + 2 * (np.arange(count) % 3)] = 250
    return Labelled(ArraySource(images), (8, 8), split=split, table=table)


TASKS = {
    "regression": (Regression(columns=["metres"]), "mean_absolute_error", 0, 8.0),
    "huber": (Regression(columns=["metres", "row"], distance="huber"), "r2", 0.8, 1.01),
    "ordinal": (Ordinal(column="row"), "mean_absolute_error", 0, 0.25),
    "multi_label": (MultiLabel(columns=["low", "high"]), "f1", 0.9, 1.01),
}


@pytest.mark.parametrize("name", TASKS)
def test_it_learns_and_is_measured_in_the_units_of_the_table(encoder, table, name):
    task, metric, low, high = TASKS[name]
    split = bars(table)
    task = task.prepared(task.targets(split))
    module = make_module(encoder, task=task, freezing=Full())
    trainer = run.trainer(steps=60, accelerator="cpu", logger=False, enable_progress_bar=False)
    data = LabelledData(split, None, bars(table, split="test"), batch_size=20)
    trainer.fit(module, datamodule=data)
    measured = module.measure(split)
    assert low <= measured[metric] < high
    tested = trainer.test(module, datamodule=data, verbose=False)[0]
    for key, value in measured.items():
        assert tested[f"test/{key}"] == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_regression_is_of_standardised_numbers_and_restores_units():
    targets = torch.tensor([[1.0, 10.0], [3.0, 50.0], [5.0, 30.0]])
    task = Regression(columns=["a", "b"]).prepared(targets)
    assert task.mean == (3.0, 30.0)
    assert task.std == pytest.approx((math.sqrt(8 / 3), math.sqrt(800 / 3)))
    outputs = torch.randn(3, 2)
    standard = (targets - torch.tensor(task.mean)) / torch.tensor(task.std)
    assert task.loss(outputs, targets).item() == pytest.approx((outputs - standard).square().mean().item(), rel=1e-5)
    restored, same = task.readout(standard, targets)
    torch.testing.assert_close(restored, targets.double())
    assert torch.equal(same, targets.double())
    assert task.state()["mean"] == [3.0, 30.0]


def test_the_share_of_the_variance_of_years():
    """A mean that is large against the deviation: sums of squares lose it in float32."""
    torch.manual_seed(0)
    targets = 1e5 + torch.randn(500, 1)
    task = Regression(columns=["year"]).prepared(targets)
    outputs = (targets - 1e5) + 0.5 * torch.randn(500, 1)
    metric = task.metrics()["r2"]
    for part in range(0, 500, 64):
        metric.update(*task.readout(outputs[part : part + 64], targets[part : part + 64]))
    expected = r2_score(targets.numpy().astype(float), task.predicted(outputs).value.numpy())
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-4)
    assert 0.5 < expected < 0.9


def test_classes_that_do_not_occur_say_nothing():
    scores = torch.tensor([[9.0, 1.0, 0.0], [8.0, 2.0, 0.0], [0.0, 9.0, 1.0], [0.0, 1.0, 9.0]])
    metric = Classification(3).metrics()["balanced_accuracy"]
    metric.update(scores, torch.tensor([0, 0, 1, 1]))
    assert float(metric.compute()) == pytest.approx(0.75)  # class 2 is predicted once, and nobody is of it
    flags = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    logits = torch.tensor([[3.0, -1.0, 5.0], [-3.0, -1.0, 5.0], [2.0, -1.0, 5.0], [-2.0, -1.0, 5.0]])
    for name, metric in MultiLabel(columns=("a", "never", "always")).metrics().items():
        metric.update(logits[:2], flags[:2])
        metric.update(logits[2:], flags[2:])
        assert float(metric.compute()) == pytest.approx(1.0), name
        metric.reset()
        metric.update(-logits, flags)
        assert float(metric.compute()) < 0.9, name


def test_ordinal_is_coral():
    task = Ordinal(column="x", steps=4)
    head = OrdinalHead(5, 4)
    z, steps = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 3, 0])
    outputs = head(Encoding(z)).detach()
    total = 0.0
    for b in range(6):
        for k in range(3):
            score = float((z[b] @ head.direction.weight[0] - head.thresholds[k]).detach())
            p = 1 / (1 + math.exp(-score))
            total -= math.log(p if steps[b] > k else 1 - p)
    assert task.loss(outputs, steps).item() == pytest.approx(total / 18, rel=1e-5)
    assert torch.equal(task.readout(torch.tensor([[1.0, 0.5, -1.0]]), steps[:1])[0], torch.tensor([2]))
    assert (outputs.sigmoid().diff(dim=1) <= 0).all()


def test_heads():
    torch.manual_seed(0)
    z = torch.randn(4, 6)
    cosine = CosineHead(6, 3)
    expected = torch.stack([F.cosine_similarity(z, w[None].expand_as(z)) for w in cosine.weight], dim=1) * 10
    torch.testing.assert_close(cosine(Encoding(z)), expected)
    torch.testing.assert_close(cosine(Encoding(3 * z)), cosine(Encoding(z)))
    first, second = MLPHead(6, 3).layers[0], MLPHead(6, 3).layers[2]
    assert (first.weight.shape, second.weight.shape) == ((6, 6), (3, 6))
    for kind, cls in (("mlp", MLPHead), ("cosine", CosineHead)):
        assert isinstance(Classification(3, head_kind=kind).head(6), cls)


@pytest.mark.parametrize("kind", ["inverse", "effective"])
def test_rare_classes_weigh_more(kind):
    frequencies = (90, 9, 1)
    weights = weights_of(frequencies, kind)
    assert sum(w * n for w, n in zip(weights, frequencies, strict=True)) == pytest.approx(100)
    if kind == "inverse":
        assert weights[2] / weights[0] == pytest.approx(90)
    else:
        rest = 0.99
        assert weights[2] / weights[0] == pytest.approx((1 - rest**90) / (1 - rest))
    targets = torch.tensor([0] * 90 + [1] * 9 + [2])
    task = Classification(3, class_weights=kind).prepared(targets)
    logits = torch.randn(100, 3)
    each = F.cross_entropy(logits, targets, reduction="none")
    expected = sum(weights[int(t)] * e for t, e in zip(targets, each.tolist(), strict=True)) / 100
    assert task.loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)
    assert weights_of((5, 0, 5), kind)[1] == 0  # a class that does not occur


def test_balanced_accuracy_is_the_mean_over_classes(encoder):
    metric = Classification(2).metrics()["balanced_accuracy"]
    metric.update(torch.tensor([[2.0, 1], [2, 1], [2, 1], [2, 1]]), torch.tensor([0, 0, 0, 1]))
    assert metric.compute() == 0.5


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Regression(columns=["empty"]), r"task.columns=\['empty'\] of 1 of 60 train samples is NaN or infinite \(.*\[4\]\)"),
        (Regression(columns=["height"]), "has no column 'height'"),
        (Ordinal(column="odd"), "steps are whole numbers from 0"),
        (MultiLabel(columns=["metres"]), "labels are 0 or 1, and there is 100"),
        (MultiLabel(columns=["empty"]), "is NaN"),
    ],
)
def test_targets_of_another_task_are_refused(table, task, message):
    with pytest.raises(ValueError, match=message):
        task.check(task.targets(bars(table)))


def test_a_task_of_numbers_needs_a_table(encoder):
    images = Labelled(ArraySource(np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2), (8, 8), split="train")
    with pytest.raises(
        ValueError, match=r"metres is to be learnt, and no table says it of the train split: give labels.path=FILE"
    ):
        Regression(columns=["metres"]).targets(images)
    with pytest.raises(ValueError, match="knows no scale yet"):
        Regression(columns=["x"]).loss(torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="does not know its steps yet"):
        Ordinal(column="x").head(4)
    with pytest.raises(ValueError, match="metres is the same for all training samples"):
        Regression(columns=["metres"]).prepared(torch.ones(4, 1))
    with pytest.raises(ValueError, match="every sample has the same labels"):
        MultiLabel(columns=["a"]).check(torch.ones(4, 1))
    with pytest.raises(ValueError, match="nothing can be learnt"):
        Ordinal(column="x").check(torch.ones(4, dtype=torch.int64))
