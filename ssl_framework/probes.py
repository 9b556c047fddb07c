"""Simple classifiers on frozen features: how much of the classes can be read off them.

Features are ``(N, D)``, labels ``(N,)`` int64 from 0. Everything is deterministic and runs where the features lie.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.metrics import accuracy

PENALTIES = tuple(10.0**k for k in range(-6, 3))
"""Grid for `fit_probe`, on standardised features and a mean loss: scikit-learn's ``C`` is ``1 / (penalty * N)``."""

Split = tuple[Tensor, Tensor]


class ProbeResult(NamedTuple):
    """What a probe reached.

    Attributes:
        accuracy: on test, read once, with the penalty chosen on validation.
        penalty: chosen on validation; of equally good ones the strongest.
        val_accuracy: what it reached there.
        prediction: ``(N_test,)`` classes.
    """

    accuracy: float
    penalty: float
    val_accuracy: float
    prediction: Tensor


class Standardizer(NamedTuple):
    """Shift and scale of each feature, taken from train only."""

    mean: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, D)`` features on the scale of train, in float64."""
        return (x.to(self.mean.dtype) - self.mean) / self.std


def standardizer(train_x: Tensor) -> Standardizer:
    """Learn shift and scale from ``(N, D)`` train features; a constant feature keeps its scale."""
    x = train_x.double()
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    constant = std <= torch.finfo(torch.float32).eps * x.abs().amax(dim=0)
    return Standardizer(mean, torch.where(constant, torch.ones_like(std), std))


def rescaler(train_x: Tensor) -> Standardizer:
    """Learn the shift of each feature, and one scale for all, from ``(N, D)`` train features.

    A few samples say little of the spread of a single feature. On digits with 1 and 10 labels per class, scaling each feature
    took 64 principal components from 65 % and 89 % down to 30 % and 76 %, and raw pixels from 65 % to 56 %.
    """
    x = train_x.to(torch.promote_types(train_x.dtype, torch.float32))
    mean = x.mean(dim=0)
    spread = (x - mean).square().mean().sqrt()
    constant = spread <= torch.finfo(x.dtype).eps * x.abs().max()
    return Standardizer(mean, torch.where(constant, torch.ones_like(spread), spread).expand_as(mean))


def knn(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Weighted nearest neighbours by cosine similarity (Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4).

    Args:
        train_x: ``(N, D)``.
        train_y: ``(N,)``.
        test_x: ``(M, D)``.
        num_classes: ``C``; every label is below.
        k: neighbours that vote, at most all. DINO takes 20.
        temperature: a neighbour at similarity ``s`` has the weight ``exp(s / temperature)``. Wu et al. take 0.07.
        chunk: test samples that are compared at once; bounds memory to ``chunk * N`` numbers.

    Returns:
        ``(M,)`` predicted classes.

    Raises:
        ValueError: a split is empty or holds NaN, labels do not fit, or a number is not positive.
    """
    _check("train", train_x, train_y)
    if k < 1 or temperature <= 0:
        raise ValueError(f"k = {k} and temperature = {temperature} must be positive: papers take 20 and 0.07")
    if int(train_y.max()) >= num_classes:
        raise ValueError(f"label {int(train_y.max())} does not fit num_classes = {num_classes}: give the number of classes")
    bank = F.normalize(train_x.float(), dim=1)
    predicted: list[Tensor] = []
    for part in test_x.float().split(chunk):
        similarity, neighbour = (F.normalize(part, dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
        weight = torch.exp((similarity - 1) / temperature)  # the shift by 1 keeps small temperatures finite
        votes = weight.new_zeros(len(part), num_classes).scatter_add_(1, train_y[neighbour], weight)
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)


def logistic(
    train_x: Tensor,
    train_y: Tensor,
    penalties: Sequence[float],
    *,
    num_classes: int,
    max_steps: int = 500,
    tolerance: float = 1e-7,
) -> Tensor:
    """Multinomial logistic regression for all penalties at once, by full-batch L-BFGS.

    Minimises ``mean cross entropy + penalty / 2 * |W|^2``; the bias is free. scikit-learn's ``C`` is ``1 / (penalty * N)``.

    Args:
        train_x: ``(N, D)``, standardised. Its dtype is that of the computation: in float64 the line search stays exact, which
            takes fewer steps and so less time than float32.
        train_y: ``(N,)``.
        penalties: ``P`` positive numbers.
        num_classes: ``C``.
        max_steps: where the weakest penalties are cut off on separable data, whose accuracy no longer moves.
        tolerance: of the largest entry of the gradient. At 1e-7 the accuracy agrees with scikit-learn's for every penalty.

    Returns:
        ``(P, D + 1, C)`` weights, the bias in the last row; scores are ``x @ w[:, :-1] + w[:, -1:]``.

    Raises:
        ValueError: as in `fit_probe`.
    """
    _check("train", train_x, train_y)
    strength = _strengths(penalties, train_x)
    n, d = train_x.shape
    x = torch.cat([train_x, train_x.new_ones(n, 1)], dim=1)
    truth = F.one_hot(train_y, num_classes).to(x.dtype)[:, None]  # (N, 1, C)
    shrink = strength[:, None, None] * torch.ones_like(x[0])[None, :, None]  # (P, D + 1, 1)
    shrink[:, -1] = 0

    def objective(weights: Tensor) -> tuple[Tensor, Tensor]:
        # one matrix product for all problems: (N, D + 1) @ (D + 1, P * C)
        scores = (x @ weights.transpose(0, 1).flatten(1)).view(n, len(strength), num_classes)
        log_p = scores.log_softmax(dim=2)
        loss = -(log_p * truth).sum(dim=(0, 2)) / n + (shrink * weights**2).sum(dim=(1, 2)) / 2
        slope = x.T @ ((log_p.exp() - truth) / n).flatten(1)
        return loss, slope.view(d + 1, len(strength), num_classes).transpose(0, 1) + shrink * weights

    return _lbfgs(objective, x.new_zeros(len(strength), d + 1, num_classes), max_steps, tolerance)


def ridge(train_x: Tensor, train_y: Tensor, penalties: Sequence[float], *, num_classes: int) -> Tensor:
    """Least squares on one-hot labels for all penalties, in closed form from one eigendecomposition, in float64.

    Minimises ``mean squared error + penalty * |W|^2``; the bias is free. scikit-learn's ``alpha`` is ``penalty * N``.

    Args:
        train_x: ``(N, D)``, standardised.
        train_y: ``(N,)``.
        penalties: ``P`` positive numbers.
        num_classes: ``C``.

    Returns:
        ``(P, D + 1, C)`` weights as `logistic`, in the dtype of `train_x`.

    Raises:
        ValueError: as in `fit_probe`.
    """
    _check("train", train_x, train_y)
    strength = _strengths(penalties, train_x).double()
    n, d = train_x.shape
    x = train_x.double()
    y = F.one_hot(train_y, num_classes).double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    values, vectors = torch.linalg.eigh((x.T @ x if d <= n else x @ x.T) / n)
    target = x.T @ y / n if d <= n else y / n
    solved = vectors @ ((vectors.T @ target) / (values.clamp(min=0)[:, None] + strength[:, None, None]))  # (P, D or N, C)
    weights = solved if d <= n else x.T @ solved
    bias = y_mean - x_mean @ weights  # (P, C)
    return torch.cat([weights, bias[:, None]], dim=1).to(train_x.dtype)


def fit_probe(
    train: Split,
    val: Split,
    test: Split,
    *,
    kind: Literal["logistic", "ridge"] = "logistic",
    penalties: Sequence[float] = PENALTIES,
    scaling: Literal["each", "common"] = "each",
) -> ProbeResult:
    """Fit a linear probe for every penalty on train, choose on validation, read test once.

    Features are scaled by the statistics of train. The splits are taken as given: with one label a class, train has
    nothing to give away, and validation is a split of its own.

    Args:
        train: features ``(N, D)`` and labels ``(N,)``.
        val: the same for the choice of the penalty.
        test: the same for the final measurement.
        kind: "logistic" or "ridge".
        penalties: grid, positive numbers.
        scaling: "each" feature to its own standard deviation (`standardizer`), or one "common" scale (`rescaler`), which few
            samples can tell.

    Raises:
        ValueError: a split is empty, holds NaN or infinity, or its shapes do not fit; no penalty, or one that is not positive.
    """
    for name, (x, y) in (("train", train), ("val", val), ("test", test)):
        _check(name, x, y)
    num_classes = 1 + max(int(y.max()) for _, y in (train, val, test))
    # float64: in float32 the line search of `logistic` stumbles over rounding, and takes up to 25 times as long
    scale = {"each": standardizer, "common": rescaler}[scaling](train[0].double())
    fit = {"logistic": logistic, "ridge": ridge}[kind]
    weights = fit(scale(train[0]), train[1], penalties, num_classes=num_classes)
    reached = [accuracy(_scores(scale(val[0]), w), val[1]) for w in weights]
    best = max(range(len(penalties)), key=lambda i: (reached[i], penalties[i]))
    prediction = _scores(scale(test[0]), weights[best]).argmax(dim=1)
    return ProbeResult(accuracy(prediction, test[1]), float(penalties[best]), reached[best], prediction)


def _scores(x: Tensor, weights: Tensor) -> Tensor:
    """``(N, D)`` features and ``(D + 1, C)`` weights to ``(N, C)``."""
    return x @ weights[:-1] + weights[-1]


def _check(name: str, x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.shape != x.shape[:1] or len(y) == 0:
        raise ValueError(f"{name}: features {tuple(x.shape)} and labels {tuple(y.shape)}: give (N, D) and (N,), N at least 1")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name}: the features hold NaN or infinity: the encoder diverged, or its input is not normalised")
    if int(y.min()) < 0:
        raise ValueError(f"{name}: label {int(y.min())}: number the classes from 0, and leave unlabelled samples out")


def _strengths(penalties: Sequence[float], like: Tensor) -> Tensor:
    if len(penalties) == 0 or min(penalties) <= 0:
        raise ValueError(f"penalties are {list(penalties)}: give at least one, all positive")
    return torch.tensor(list(penalties), dtype=like.dtype, device=like.device)


def _lbfgs(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, max_steps: int, tolerance: float, memory: int = 10
) -> Tensor:
    """L-BFGS (Nocedal and Wright 2006, algorithm 7.4) on P independent convex problems, each with its own step length.

    Args:
        objective: ``(P, ...)`` points to ``(P,)`` values and gradients of the points' shape.
        start: ``(P, ...)``.
        max_steps: at most.
        tolerance: of the largest entry of a gradient.
        memory: pairs kept.
    """
    point = start
    value, grad = objective(point)
    pairs: list[tuple[Tensor, Tensor]] = []
    done = torch.zeros_like(value, dtype=torch.bool)
    for _ in range(max_steps):
        done |= grad.flatten(1).abs().amax(dim=1) <= tolerance
        if bool(done.all()):
            break
        direction = -_inverse_hessian(grad, pairs)
        length = torch.ones_like(value) if pairs else 1 / grad.flatten(1).norm(dim=1).clamp(min=1)
        slope = _dot(grad, direction)
        enough, new, new_value, new_grad = done, point, value, grad
        for _ in range(25):
            new = point + _spread(torch.where(done, 0, length), point) * direction
            new_value, new_grad = objective(new)
            enough = new_value <= value + 1e-4 * length * slope  # Armijo
            if bool((enough | done).all()):
                break
            length = torch.where(enough, length, length / 2)
        done |= ~enough | (new_value >= value)  # no step makes it smaller: the precision of the numbers is reached
        new, new_value, new_grad = (
            torch.where(_spread(done, b), a, b) for a, b in ((point, new), (value, new_value), (grad, new_grad))
        )
        pairs = [*pairs[-memory + 1 :], (new - point, new_grad - grad)]
        point, value, grad = new, new_value, new_grad
    return point


def _inverse_hessian(grad: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Two-loop recursion; a pair without curvature (a problem that stands still) counts for nothing."""
    q, gamma = grad, torch.ones_like(_dot(grad, grad))
    kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for s, y in reversed(pairs):
        sy, yy = _dot(s, y), _dot(y, y)
        curved = sy > torch.finfo(sy.dtype).eps * yy
        rho = torch.where(curved, 1 / torch.where(curved, sy, 1), 0)
        alpha = rho * _dot(s, q)
        q = q - _spread(alpha, q) * y
        kept.append((s, y, rho, alpha))
    for s, y in pairs:
        sy, yy = _dot(s, y), _dot(y, y)
        gamma = torch.where(sy > torch.finfo(sy.dtype).eps * yy, sy / yy.clamp(min=torch.finfo(yy.dtype).tiny), gamma)
    r = _spread(gamma, q) * q
    for s, y, rho, alpha in reversed(kept):
        r = r + _spread(alpha - rho * _dot(y, r), r) * s
    return r


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1)


def _spread(per_problem: Tensor, like: Tensor) -> Tensor:
    return per_problem.view(-1, *[1] * (like.ndim - 1))
