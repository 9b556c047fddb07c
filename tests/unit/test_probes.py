import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from torch import Tensor

from ssl_framework.probes import PENALTIES, ProbeResult, fit_probe, knn, linear, logistic, rescaler, ridge, standardizer
from ssl_framework.probes import fit as fit_module
from ssl_framework.probes.lbfgs import minimise
from ssl_framework.probes.neighbours import largest
from ssl_framework.probes.scaling import check

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


@pytest.fixture
def solved(monkeypatch) -> list[tuple[torch.dtype, int]]:
    """Dtype of the features and number of problems, for every evaluation of the cross entropy."""
    seen: list[tuple[torch.dtype, int]] = []
    plain = linear._CrossEntropy.__call__

    def counted(self, points, which):
        seen.append((self.x.dtype, len(which)))
        return plain(self, points, which)

    monkeypatch.setattr(linear._CrossEntropy, "__call__", counted)
    return seen


def test_the_fit_ends_where_precision_ends(digits, solved):
    """float32 cannot reach 1e-7: the search says so after a few evaluations for each iteration, and not at max_steps."""
    x, y = digits[0][:300], digits[1][:300]
    weights = logistic(rescaler(x)(x), y, PENALTIES, num_classes=10)
    assert weights.dtype == torch.float32
    assert {dtype for dtype, _ in solved} == {torch.float32}
    assert len(solved) < 1000


def test_the_fit_does_not_wait_for_digits_that_there_are_not(solved):
    x, y = skewed(2000)
    logistic(x.float(), y, [1e-2], num_classes=4, tolerance=1e-12)
    assert len(solved) < 200  # 500 steps otherwise


def skewed(n: int, width: int = 64, seed: int = 0) -> Split:
    """Features whose variances fall from 1 to 1e-4, turned so that each feature holds all of them; classes overlap."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 4
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(7), dtype=torch.float64)).Q
    centres = torch.randn(4, width, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    hidden = 0.3 * centres[y] + torch.randn(n, width, generator=draw, dtype=torch.float64)
    return hidden * torch.logspace(0, -2, width, dtype=torch.float64) @ turn, y


def test_correlated_features_take_few_steps(solved):
    x, y = skewed(600)
    logistic(x, y, [1e-5], num_classes=4)
    assert len(solved) < 80  # 170 without the preconditioner


def test_what_is_solved_is_computed_no_further(solved):
    x, y = skewed(600)
    logistic(x, y, [1.0, 1e-5], num_classes=4)
    sizes = [problems for _, problems in solved]
    assert sizes.count(2) < 30
    assert sizes[-20:] == [1] * 20


def steepest(x: Tensor, y: Tensor, penalty: float, weights: Tensor, classes: int) -> float:
    """The largest entry of the gradient of the loss as it is documented."""
    w = weights.double().clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x.double() @ w[:-1] + w[-1], y) + penalty / 2 * (w[:-1] ** 2).sum()
    (slope,) = torch.autograd.grad(loss, w)
    return float(slope.abs().max())


@pytest.mark.parametrize("case", ["fewer samples", "constant", "copies", "one label", "uncentred", "skewed", "one class"])
def test_the_gradient_vanishes_whatever_the_features(case: str) -> None:
    x, y = skewed(200)
    classes = 4
    if case == "fewer samples":
        x, y = x[:30], y[:30]
    elif case == "constant":
        x[:, :3] = torch.tensor([0.0, 0.1, 7.0]).double()
    elif case == "copies":
        x = x[:, :20].repeat(1, 3)
    elif case == "one label":
        x, y = x[:4], y[:4]
    elif case == "uncentred":
        x = x + 30
    elif case == "one class":
        y, classes = torch.zeros_like(y), 3  # two classes have no label at all
    penalties = [1e-4, 1e-1]
    for penalty, w in zip(penalties, logistic(x, y, penalties, num_classes=classes), strict=True):
        assert torch.isfinite(w).all()
        assert steepest(x, y, penalty, w, classes) < 2e-7


def test_many_samples_are_read_in_float32_first_and_end_in_float64(monkeypatch, solved):
    x, y = skewed(600)
    exact = logistic(x, y, [1e-4, 1e-2], num_classes=4)
    assert {dtype for dtype, _ in solved} == {torch.float64}
    monkeypatch.setattr(linear, "SMALL", 0)
    solved.clear()
    mixed = logistic(x, y, [1e-4, 1e-2], num_classes=4)
    order = [dtype for dtype, _ in solved]
    assert order == sorted(order, key=[torch.float32, torch.float64].index)
    assert order.count(torch.float64) < order.count(torch.float32)
    assert torch.allclose(mixed, exact, atol=1e-3)
    for penalty, w in zip((1e-4, 1e-2), mixed, strict=True):
        assert steepest(x, y, penalty, w, 4) < 2e-7
    solved.clear()
    loose = logistic(x, y, [1e-4, 1e-2], num_classes=4, tolerance=1e-5)
    assert {dtype for dtype, _ in solved} == {torch.float32}
    assert steepest(x, y, 1e-4, loose[0], 4) < 2e-5


def test_a_preconditioner_of_a_wide_probe_is_a_diagonal_and_the_minimum_the_same(monkeypatch):
    x, y = skewed(300)
    exact = logistic(x, y, [1e-3, 1e-1], num_classes=4)
    monkeypatch.setattr(linear, "_DENSE", 0)
    shapes = []
    precondition = linear._CrossEntropy.precondition

    def noted(self, grad, which):
        shapes.append(tuple(self.factors.shape))
        return precondition(self, grad, which)

    monkeypatch.setattr(linear._CrossEntropy, "precondition", noted)
    wide = logistic(x, y, [1e-3, 1e-1], num_classes=4)
    assert set(shapes) == {(2, x.shape[1] + 1)}
    assert torch.allclose(wide, exact, atol=1e-4)
    for penalty, w in zip((1e-3, 1e-1), wide, strict=True):
        assert steepest(x, y, penalty, w, 4) < 2e-7


def test_a_probe_of_many_samples_is_less_exact_unless_it_is_asked(monkeypatch):
    asked = []
    plain = fit_module.logistic

    def noted(*splits, tolerance, **options):
        asked.append(tolerance)
        return plain(*splits, tolerance=tolerance, **options)

    monkeypatch.setattr(fit_module, "logistic", noted)
    splits = (skewed(300), skewed(300, seed=1), skewed(500, seed=2))
    small = fit_probe(*splits)
    monkeypatch.setattr(fit_module, "SMALL", 0)
    large, exact = fit_probe(*splits), fit_probe(*splits, tolerance=1e-9)
    assert asked == [1e-7, 1e-5, 1e-9]
    assert small.accuracy == exact.accuracy
    assert abs(large.accuracy - exact.accuracy) <= 0.004


def test_each_problem_gets_its_own_minimum():
    """Quadratics of very different curvature; the last one cannot be solved in the steps that are given."""
    curvature = torch.tensor([1.0, 1e4, 1.0]).double()
    goal = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).double()

    def objective(points, which):
        away = points - goal[which]
        kind = (which == 2)[:, None]
        curved = curvature[which][:, None]
        value = torch.where(kind, torch.cosh(away.clamp(-30, 30)), curved / 2 * away**2).sum(dim=1)
        return value, torch.where(kind, torch.sinh(away.clamp(-30, 30)), curved * away)

    def same(grad, which):
        return grad

    found = minimise(objective, torch.zeros(3, 2).double(), same, max_steps=200, tolerance=1e-9)
    assert found.reached.all()
    assert torch.allclose(found.points, goal, atol=1e-8)
    short = minimise(objective, torch.zeros(3, 2).double(), same, max_steps=3, tolerance=1e-9)
    assert not short.reached[2]
    assert short.steps == 3


@pytest.mark.parametrize("columns", [5, 640, 10_000, 10_001])
def test_the_largest_numbers_are_those_of_a_full_sort(columns: int):
    rows = torch.randn(7, columns, generator=torch.Generator().manual_seed(columns)).round(decimals=1)  # many ties
    values, places = largest(rows, 5)
    assert torch.equal(values, rows.sort(dim=1, descending=True).values[:, :5])
    assert torch.equal(rows.gather(1, places), values)
    assert all(len(set(row.tolist())) == 5 for row in places)


def test_neighbours_among_many_are_those_among_all():
    draw = torch.Generator().manual_seed(0)
    bank, x = torch.randn(3001, 8, generator=draw), torch.randn(50, 8, generator=draw)
    y = torch.arange(3001) % 3
    predicted = knn(bank, y, x, num_classes=3, k=5, chunk=16)
    assert predicted.tolist() == [naive_knn(bank, y, one, 5, 0.07, 3) for one in x]
    assert knn(bank, y, x[:0], num_classes=3).shape == (0,)


def test_large_numbers_are_not_taken_for_infinity():
    x = torch.full((4, 2), 3e38)
    check("train", x, torch.zeros(4, dtype=torch.int64))
    x[3, 1] = -torch.inf
    with pytest.raises(ValueError, match="infinity"):
        check("train", x, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("scaling", ["common", "each"])
def test_the_weights_say_what_the_probe_predicts(digits: Split, scaling: str) -> None:
    """On the vectors as they came, whatever the probe was fitted on; so that it can stand behind an encoder."""
    x, y = digits
    found = fit_probe((x[:200], y[:200]), (x[200:300], y[200:300]), (x[300:], y[300:]), scaling=scaling)
    assert found.weights.shape == (65, 10)
    assert torch.equal((x[300:].double() @ found.weights[:-1] + found.weights[-1]).argmax(1), found.prediction)
