"""The cut that is chosen: from training labels alone, every layer from one pass, the later layer where it is as good."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from ssl_framework.data import ArraySource, Labelled, Table
from ssl_framework.evaluation import DepthCurve, depth_curve
from ssl_framework.evaluation.depth import _folds
from ssl_framework.types import Encoding

from .conftest import make_split, prepare


class Layered(nn.Module):
    """Layers that know the rows' brightness more or less: ``noise`` of each layer is added to it."""

    def __init__(self, noise: list[float]) -> None:
        super().__init__()
        self.noise, self.passes = noise, 0
        self.anchor = nn.Parameter(torch.zeros(()))

    embed_dim = 8

    @property
    def num_layers(self) -> int:
        return len(self.noise)

    def forward(self, x: Tensor, *, layers=()) -> Encoding:
        self.passes += 1
        rows = x.mean(dim=(1, 3))
        made = []
        for layer in layers:
            generator = torch.Generator().manual_seed(layer)
            made.append(rows + self.noise[layer] * torch.randn(rows.shape, generator=generator))
        return Encoding(rows, layers=tuple(x[:, None] for x in made), pooled_layers=tuple(made))


def curve(noise: list[float], count: int = 60, **options) -> DepthCurve:
    split = make_split(count)
    return depth_curve(Layered(noise), split, prepare, options.pop("targets", split.targets), precision="32-true", **options)


def test_layers_that_know_less_are_cut():
    found = curve([1.0, 0.02, 1.0, 2.0])
    assert (found.best, found.chosen, found.cut) == (1, 1, 2)
    assert found.scores.shape == (5, 4)
    assert found.mean[1] > 0.9 > found.mean[3]
    assert "cut=2: layer 2 of 4" in found.reason


def test_nothing_is_cut_that_is_as_good():
    found = curve([0.02, 0.02, 0.02])
    assert found.cut == 0
    assert found.reason.startswith("cut=0")


def test_the_rule_is_one_standard_error_towards_the_later_layer():
    scores = torch.tensor([[0.5, 0.9, 0.85, 0.70], [0.5, 0.8, 0.80, 0.72], [0.5, 1.0, 0.90, 0.68]]).double()
    found = DepthCurve(scores, "accuracy")
    error = np.std([0.9, 0.8, 1.0], ddof=1) / 3**0.5
    assert found.bar == pytest.approx(0.9 - error)
    assert found.bar < found.mean[2] < found.mean[1]  # the third layer reaches the bar, the fourth does not
    assert (found.best, found.chosen, found.cut) == (1, 2, 1)


def test_all_layers_come_from_one_pass():
    encoder, split = Layered([0.1, 0.1, 0.1]), make_split(60)
    depth_curve(encoder, split, prepare, split.targets)
    assert encoder.passes == 1


def test_scores_are_those_of_scikit_learn():
    split = make_split(45)
    found = curve([0.3], 45, penalties=[0.01], seed=3)
    x = Layered([0.3])(prepare(split.images(range(45))), layers=(0,)).pooled_layers[0].detach().numpy().astype(np.float64)
    fold, y = _folds(split, split.targets, 5, 3).numpy(), split.targets.numpy()
    for f in range(5):
        held = fold == f
        mean = x[~held].mean(0)
        scale = np.sqrt(((x[~held] - mean) ** 2).mean())
        model = LogisticRegression(C=1 / (0.01 * (~held).sum()), tol=1e-10, max_iter=5000)
        model.fit((x[~held] - mean) / scale, y[~held])
        assert found.scores[f, 0].item() == pytest.approx(model.score((x[held] - mean) / scale, y[held]))


def test_numbers_are_explained_as_by_scikit_learn():
    split = make_split(40)
    targets = torch.stack([split.targets * 3.0 + 1, torch.arange(40).double()], dim=1)
    found = depth_curve(Layered([0.1]), split, prepare, targets, folds=4, penalties=[0.1], precision="32-true")
    x = Layered([0.1])(prepare(split.images(range(40))), layers=(0,)).pooled_layers[0].detach().numpy().astype(np.float64)
    fold, y = _folds(split, targets, 4, 0).numpy(), targets.numpy()
    assert found.measure == "r2"
    for f in range(4):
        held = fold == f
        scale = np.sqrt(((x[~held] - x[~held].mean(0)) ** 2).mean())
        std = y[~held].std(0)
        model = Ridge(alpha=0.1 * (~held).sum()).fit((x[~held] - x[~held].mean(0)) / scale, y[~held] / std)
        missed = y[held] - model.predict((x[held] - x[~held].mean(0)) / scale) * std
        expected = (1 - (missed**2).mean(0) / y.var(0)).mean()
        assert found.scores[f, 0].item() == pytest.approx(expected, abs=1e-6)


def test_a_column_that_is_constant_in_a_fold_and_folds_of_one_sample():
    split = make_split(40)
    rare = torch.zeros(40)
    rare[3] = 1
    for targets in (torch.stack([split.targets.float(), rare], dim=1), split.targets[:, None].float()):
        few = split if targets.shape[1] == 2 else split._of(split.rows[:7])
        found = depth_curve(Layered([0.1, 0.1]), few, prepare, targets[: len(few)], precision="32-true")
        assert float(found.scores.min()) > -100
        assert float(found.scores.max()) <= 1


def test_each_fold_has_its_share_of_each_class():
    split = make_split(31)
    fold = _folds(split, split.targets, 5, 0)
    counts = torch.stack([fold[split.targets == c].bincount(minlength=5) for c in range(3)])
    assert int((counts.max(1).values - counts.min(1).values).max()) <= 1
    assert torch.equal(fold, _folds(split, split.targets, 5, 0))
    assert not torch.equal(fold, _folds(split, split.targets, 5, 1))


def test_the_rarest_class_says_how_many_folds():
    split = make_split(60)
    few = split.subset(2, 0)
    assert len(depth_curve(Layered([0.1]), few, prepare, few.targets).scores) == 2


def test_one_label_of_a_class_cannot_be_held_out(tmp_path: Path):
    (tmp_path / "steps.csv").write_text("image,step\n0,0\n")
    split = make_split(60).subset(1, 0)
    with pytest.raises(ValueError, match=r"class '0' has 1: give more labels"):
        depth_curve(Layered([0.1]), split, prepare, split.targets)
    table = Table(tmp_path / "steps.csv")
    steps = Labelled(split.source, (8, 8), split="train", table=table)
    with pytest.raises(ValueError, match="class 7 has 1"):  # a step, of which the classes know nothing
        depth_curve(Layered([0.1]), steps, prepare, torch.tensor([0] * 30 + [7] + [3] * 29))
    one = Labelled(ArraySource(np.zeros((1, 8, 8), np.uint8), np.zeros(1, np.int64)), (8, 8), split="train")
    with pytest.raises(ValueError, match="there is 1"):
        depth_curve(Layered([0.1]), one, prepare, torch.zeros(1, 1))
