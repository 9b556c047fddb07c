"""The measurement: fit on train, choose on validation, read test once."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_framework.metrics import accuracy
from ssl_framework.probes.linear import COARSE, SMALL, logistic, ridge
from ssl_framework.probes.scaling import check, rescaler, standardizer

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
        weights: ``(D + 1, C)``, the bias last, of features as they were given: scores are ``x @ w[:-1] + w[-1]``.
    """

    accuracy: float
    penalty: float
    val_accuracy: float
    prediction: Tensor
    weights: Tensor


def fit_probe(
    train: Split,
    val: Split,
    test: Split,
    *,
    kind: Literal["logistic", "ridge"] = "logistic",
    penalties: Sequence[float] = PENALTIES,
    scaling: Literal["each", "common"] = "each",
    tolerance: float | None = None,
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
        tolerance: of the largest entry of the gradient, see `logistic`. By default 1e-7 for up to 2 million numbers in the
            features of train, and 1e-5 for more: accuracies are then within 0.1 points of those at 1e-7.

    Raises:
        ValueError: a split is empty, holds NaN or infinity, or its shapes do not fit; no penalty, or one that is not positive.
    """
    for name, (x, y) in (("train", train), ("val", val), ("test", test)):
        check(name, x, y)
    num_classes = 1 + max(int(y.max()) for _, y in (train, val, test))
    scale = {"each": standardizer, "common": rescaler}[scaling](train[0].double())
    x = scale(train[0])
    if kind == "ridge":
        weights = ridge(x, train[1], penalties, num_classes=num_classes)
    else:
        asked = (COARSE if x.numel() > SMALL else 1e-7) if tolerance is None else tolerance
        weights = logistic(x, train[1], penalties, num_classes=num_classes, tolerance=asked)
    reached = [accuracy(_scores(scale(val[0]), w), val[1]) for w in weights]
    best = max(range(len(penalties)), key=lambda i: (reached[i], penalties[i]))
    prediction = _scores(scale(test[0]), weights[best]).argmax(dim=1)
    own = weights[best, :-1] / scale.std[:, None]
    raw = torch.cat([own, weights[best, -1:] - (scale.mean @ own)[None]])
    return ProbeResult(accuracy(prediction, test[1]), float(penalties[best]), reached[best], prediction, raw)


def _scores(x: Tensor, weights: Tensor) -> Tensor:
    """``(N, D)`` features and ``(D + 1, C)`` weights to ``(N, C)``."""
    return x @ weights[:-1] + weights[-1]
