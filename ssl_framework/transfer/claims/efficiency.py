"""How many labels are the pretrained encoder worth? Those that training from scratch needs to be as accurate."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.isotonic import IsotonicRegression

from ssl_framework.metrics import budget_in_words
from ssl_framework.transfer.claims.measured import SCRATCH, Budget, Measured, Rows, measured
from ssl_framework.transfer.claims.ranges import Middle, Range, exactly, middle


class Efficiency(NamedTuple):
    """What labels are worth.

    Attributes:
        method: that learns from few.
        reference: that needs more.
        budget: of the method.
        factor: how many times as many the reference needs.
        sentence: the same in words.
    """

    method: str
    reference: str
    budget: Budget
    factor: Middle
    sentence: str


def label_efficiency(
    rows: Rows, method: str, budget: Budget, *, reference: str = SCRATCH, confidence: float = 0.95
) -> Efficiency:
    """How many times as many labels the reference needs to be as accurate.

    For each seed the reference's accuracies become a curve that never falls (isotonic regression: more labels do not harm, what
    looks like it is noise), straight over the logarithm of labels, and the curve is asked where it first reaches the method's
    accuracy. Beyond its ends nothing is known: "more than" the largest budget, "at most" the smallest.

    Args:
        rows: of a study; each has ``labels``.
        method: to be reached.
        budget: that it learnt from.
        reference: that has to reach it.
        confidence: wanted of the interval.

    Raises:
        ValueError: a cell is missing, or does not say its labels.
    """
    study = measured(rows)
    mine, _ = study.pairs(method, reference, budget)
    seeds = sorted(study.cells[method, budget])
    factors: list[Range] = []
    for seed, one in zip(seeds, mine, strict=True):
        labels, accuracies = _curve(study, reference, seed)
        own = _labels(one.labels, method, budget)
        needed = labels_for(one.accuracy, labels, accuracies)
        factors.append(Range(needed.low / own, needed.high / own))
    factor = middle(factors, confidence)
    return Efficiency(method, reference, budget, factor, _sentence(method, reference, budget, factor))


def labels_for(accuracy: float, labels: Sequence[float], accuracies: Sequence[float]) -> Range:
    """The fewest labels with which a curve reaches an accuracy.

    Args:
        accuracy: to reach.
        labels: ``(B,)``, of any order.
        accuracies: ``(B,)`` there, with noise.
    """
    x, back = np.unique(np.log(np.asarray(labels, dtype=np.float64)), return_inverse=True)
    y: np.ndarray[Any, np.dtype[np.float64]] = np.empty(len(x))
    y[back] = IsotonicRegression().fit_transform(x[back], np.asarray(accuracies, dtype=np.float64))
    fewest, most = float(min(labels)), float(max(labels))
    if accuracy <= y[0]:
        return Range(0.0, fewest)
    if accuracy > y[-1]:
        return Range(most, math.inf)
    after = int(np.searchsorted(y, accuracy))  # y[after - 1] < accuracy <= y[after]
    share = (accuracy - y[after - 1]) / (y[after] - y[after - 1])
    return exactly(math.exp(x[after - 1] + share * (x[after] - x[after - 1])))


def _curve(study: Measured, reference: str, seed: int) -> tuple[list[int], list[float]]:
    found = [
        (_labels(cells[seed].labels, reference, budget), cells[seed].accuracy)
        for (method, budget), cells in study.cells.items()
        if method == reference and seed in cells
    ]
    return [labels for labels, _ in found], [accuracy for _, accuracy in found]


def _labels(labels: int | None, method: str, budget: Budget) -> int:
    if labels is None:
        raise ValueError(f"{method}, budget {budget!r} does not say how many labels it learnt from: give its rows 'labels'.")
    return labels


def _sentence(method: str, reference: str, budget: Budget, factor: Middle) -> str:
    to_be = f"To be as accurate as {method} with {budget_in_words(budget)}, {reference}"
    known = factor.low is not None and factor.high is not None
    ends = (
        f"{100 * factor.coverage:.1f} % interval {factor.low} to {factor.high}, {factor.seeds} seeds" if known else "one seed"
    )
    if factor.median.low == 0 and factor.median.high == 1:  # the smallest budget
        return f"{to_be} needs no more labels ({ends})."
    if math.isinf(factor.median.high) and factor.median.low == 1:  # the largest
        if known and str(factor.low) == str(factor.high):
            ends = f"with each of {factor.seeds} seeds"
        return f"{to_be} needs more labels than were measured ({ends})."
    return f"{to_be} needs {factor.median} times as many labels ({ends})."
