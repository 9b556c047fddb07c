import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from torch import Tensor

from ssl_framework import probes
from ssl_framework.probes import PENALTIES, ProbeResult, fit_probe, knn, logistic, rescaler, ridge, standardizer

Split = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> Split:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.data, dtype=torch.float32)[order], torch.tensor(data.target)[order]


def blobs(per_class: int, seed: int, classes: int = 4, width: int = 16, noise: float = 0.1) -> Split:
    """Well separated classes; the centres do not depend on the seed."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    y = torch.arange(classes).repeat(per_class)
    return centres[y] + noise * torch.randn(len(y), width, generator=torch.Generator().manual_seed(seed)), y


def naive_knn(train_x: Tensor, train_y: Tensor, x: Tensor, k: int, temperature: float, classes: int) -> int:
    similar = sorted(
        (
            (float(torch.cosine_similarity(a.double(), x.double(), dim=0)), int(y))
            for a, y in zip(train_x, train_y, strict=True)
        ),
        reverse=True,
    )
    votes = [0.0] * classes
    for similarity, label in similar[:k]:
        votes[label] += math.exp(similarity / temperature)
    return votes.index(max(votes))


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5)])
def test_knn_agrees_with_its_formula(digits: Split, k: int, temperature: float) -> None:
    x, y = digits[0] - 5, digits[1]
    predicted = knn(x[:150], y[:150], x[150:200], num_classes=10, k=k, temperature=temperature, chunk=7)
    assert predicted.tolist() == [naive_knn(x[:150], y[:150], one, k, temperature, 10) for one in x[150:200]]


def test_knn_votes_are_weighted() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    test = torch.tensor([[1.0, 0.5]])
    assert knn(train, torch.tensor([0, 1, 1]), test, num_classes=2, k=3, temperature=0.07).item() == 0
    assert knn(train, torch.tensor([0, 1, 1]), test, num_classes=2, k=3, temperature=100).item() == 1


def test_knn_is_finite_at_small_temperatures_and_takes_all_neighbours_where_k_is_more() -> None:
    x, y = blobs(3, 0)
    assert torch.equal(knn(x, y, x, num_classes=4, k=1000, temperature=1e-3), y)


def test_knn_refuses_what_it_cannot_use() -> None:
    x, y = blobs(2, 0)
    for options, remedy in (({"k": 0}, "positive"), ({"temperature": 0.0}, "positive"), ({"num_classes": 3}, "num_classes")):
        with pytest.raises(ValueError, match=remedy):
            knn(x, y, x, **{"num_classes": 4, **options})


@pytest.mark.parametrize("n", [10, 300])
def test_logistic_agrees_with_scikit_learn_at_every_penalty(digits: Split, n: int) -> None:
    scale = standardizer(digits[0][:n])
    train_x, test_x, train_y, test_y = scale(digits[0][:n]), scale(digits[0][1000:]), digits[1][:n], digits[1][1000:]
    penalties = [1e-4, 1e-2, 1.0, 100.0]
    for penalty, w in zip(penalties, logistic(train_x, train_y, penalties, num_classes=10), strict=True):
        theirs = LogisticRegression(C=1 / (penalty * n), max_iter=5000, tol=1e-8).fit(train_x.numpy(), train_y.numpy())
        ours = ((test_x @ w[:-1] + w[-1]).argmax(dim=1) == test_y).double().mean()
        assert abs(float(ours) - theirs.score(test_x.numpy(), test_y.numpy())) <= 0.002
        if penalty >= 0.01 and n == 300:
            classes = theirs.classes_
            assert np.abs(w[:-1].T.numpy()[classes] - theirs.coef_).max() < 1e-4


def test_problems_solved_together_do_not_touch_each_other(digits: Split) -> None:
    x, y = standardizer(digits[0][:60])(digits[0][:60]), digits[1][:60]
    together = logistic(x, y, [1e-3, 1e-1], num_classes=10)
    alone = torch.cat([logistic(x, y, [p], num_classes=10) for p in (1e-3, 1e-1)])
    assert torch.allclose(together, alone, atol=2e-4)


@pytest.mark.parametrize("n", [30, 300])  # fewer samples than the 64 dimensions, and more
def test_ridge_agrees_with_scikit_learn_at_every_penalty(digits: Split, n: int) -> None:
    scale = standardizer(digits[0][:n])
    train_x, test_x, train_y = scale(digits[0][:n]), scale(digits[0][1000:]), digits[1][:n]
    for penalty, w in zip(PENALTIES, ridge(train_x, train_y, PENALTIES, num_classes=10), strict=True):
        theirs = RidgeClassifier(alpha=penalty * n).fit(train_x.numpy(), train_y.numpy())
        ours = (test_x @ w[:-1] + w[-1]).argmax(dim=1)
        assert (ours.numpy() == theirs.predict(test_x.numpy())).mean() >= 0.998


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_planted_classes_are_found_and_shuffled_labels_give_chance(kind: str) -> None:
    train, val, test = blobs(20, 0), blobs(10, 1), blobs(100, 2)
    assert fit(kind, train, val, test).accuracy == 1
    mixed = [(x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(7))]) for x, y in (train, val, test)]
    assert fit(kind, *mixed).accuracy == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_one_label_a_class_is_enough(kind: str) -> None:
    result = fit(kind, blobs(1, 0), blobs(5, 1), blobs(50, 2))
    assert result.accuracy > 0.95
    assert result.penalty in PENALTIES


def test_the_penalty_is_chosen_on_validation_and_test_cannot_move_it(digits: Split) -> None:
    x, y = digits
    noisy = torch.randint(10, (40,), generator=torch.Generator().manual_seed(0))
    train, val, test = (x[:40], torch.where(torch.arange(40) < 20, noisy, y[:40])), (x[40:240], y[40:240]), (x[240:], y[240:])
    result = fit("logistic", train, val, test)
    single = {p: fit("logistic", train, val, test, [p]) for p in PENALTIES}
    best = max(one.val_accuracy for one in single.values())
    assert result.val_accuracy == best
    assert result.penalty == max(p for p, one in single.items() if one.val_accuracy == best)
    assert result.accuracy == single[result.penalty].accuracy
    assert result.accuracy == float((result.prediction == test[1]).double().mean())
    other = fit("logistic", train, val, (test[0], (test[1] + 1) % 10))
    assert other.penalty == result.penalty


def fit(kind: str, train: Split, val: Split, test: Split, penalties: list[float] | None = None) -> ProbeResult:
    return fit_probe(train, val, test, kind="ridge" if kind == "ridge" else "logistic", penalties=penalties or PENALTIES)


def test_of_equally_good_penalties_the_strongest_is_taken() -> None:
    assert fit("ridge", blobs(20, 0), blobs(10, 1), blobs(10, 2), [1e-2, 1e-1, 1e-3]).penalty == 1e-1


def test_features_are_standardised_by_train_alone() -> None:
    train, val, test = blobs(5, 0), blobs(5, 1), blobs(20, 2)
    stretch, shift = torch.logspace(-3, 3, 16), torch.full((16,), 50.0)
    plain = fit_probe(train, val, test)
    moved = fit_probe(*((x * stretch + shift, y) for x, y in (train, val, test)))
    assert moved.accuracy == plain.accuracy
    scale = standardizer(train[0])
    assert torch.allclose(scale(train[0]).mean(dim=0), torch.zeros(16).double(), atol=1e-6)
    assert torch.allclose(scale(train[0]).std(dim=0, correction=0), torch.ones(16).double(), atol=1e-6)
    assert not torch.allclose(scale(test[0]).mean(dim=0), torch.zeros(16).double(), atol=1e-6)


def test_a_constant_feature_is_left_alone() -> None:
    x = torch.cat([torch.full((10, 1), 0.1), torch.randn(10, 1, generator=torch.Generator().manual_seed(0))], dim=1)
    assert standardizer(x).std[0] == 1
    assert torch.isfinite(standardizer(x)(x)).all()


def test_bad_input_is_refused_by_name() -> None:
    good = blobs(2, 0)
    for bad, remedy in (
        ((good[0] * float("nan"), good[1]), "diverged"),
        ((good[0], good[1][:-1]), "give"),
        ((good[0][:0], good[1][:0]), "N at least 1"),
        ((good[0], good[1] - 1), "unlabelled"),
    ):
        with pytest.raises(ValueError, match=f"val: .*{remedy}"):
            fit_probe(good, bad, good)
    for penalties in ([], [0.0], [-1.0]):
        with pytest.raises(ValueError, match="positive"):
            fit_probe(good, good, good, penalties=penalties)


def test_the_same_input_gives_the_same_bits_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    a, b = (fit_probe(blobs(3, 0), blobs(3, 1), blobs(9, 2, noise=1.0)) for _ in range(2))
    assert torch.equal(a.prediction, b.prediction)
    assert torch.equal(before, torch.get_rng_state())


def test_one_scale_for_all_features_keeps_their_proportions():
    x = torch.tensor([[0.0, 10.0, 3.0], [2.0, 30.0, 3.0], [4.0, 20.0, 3.0]])
    scaled = rescaler(x)(x)
    assert torch.allclose(scaled.mean(dim=0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(scaled.square().mean().sqrt(), torch.ones(()))
    assert scaled[1, 1] / scaled[2, 0] == pytest.approx(5)  # 10 and 2 from their means
    assert torch.equal(rescaler(torch.ones(4, 2))(torch.ones(4, 2)), torch.zeros(4, 2))


def test_few_labels_want_one_scale(digits):
    """Whitened principal components are noise for the most part, and ten samples cannot tell which."""
    x, y = digits
    directions = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False).Vh
    x = x @ directions.T
    first = torch.stack([torch.nonzero(y == c)[0, 0] for c in range(10)])
    splits = [(x[rows], y[rows]) for rows in (first, slice(1000, 1300), slice(1300, None))]
    each, common = (fit_probe(*splits, scaling=scaling).accuracy for scaling in ("each", "common"))
    assert common > each + 0.1


def test_the_fit_ends_where_precision_ends(digits, monkeypatch):
    """Where float32 sees no difference any more, a smaller step is no better: a few evaluations for each iteration do."""
    evaluations = 0
    search = probes._lbfgs

    def counted(objective, *rest, **options):
        def count(weights):
            nonlocal evaluations
            evaluations += 1
            return objective(weights)

        return search(count, *rest, **options)

    monkeypatch.setattr(probes, "_lbfgs", counted)
    x, y = digits[0][:300], digits[1][:300]
    logistic(rescaler(x)(x), y, PENALTIES, num_classes=10)
    assert evaluations < 1000
