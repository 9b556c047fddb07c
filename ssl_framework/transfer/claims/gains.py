"""By how much is one method better than another? Paired over seeds, and never surer than the test set allows."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy import special

from ssl_framework import keyed
from ssl_framework.metrics import paired_interval
from ssl_framework.transfer.claims.measured import TRANSFER, Bits, Budget, Measured, Outcome, Rows, measured

_STREAM = 0xC205  # names this use of the key
_WORD = 2**64 - 1
_ROUNDING = 1e-9  # of differences of shares: no test set is so large that its accuracies lie as close

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class Comparison(NamedTuple):
    """A paired t test.

    Attributes:
        mean: of the differences.
        half_width: of its interval; infinite where there is none.
        p: two-sided; None where nothing tells how far the mean may be off.
        p_better: one-sided, against "not better"; None likewise.
        floored: the seeds agree better than the test set can tell, so that its own error is used.
    """

    mean: float
    half_width: float
    p: float | None
    p_better: float | None
    floored: bool


class Gain(NamedTuple):
    """What a method gains over another at one budget.

    Attributes:
        method: that gains.
        reference: that it is compared with.
        budget: of labels.
        seeds: pairs.
        test: the t test that verdicts rest on.
        crossed: percentile interval over seeds and test samples together; None with a single seed or without ``correct``.
    """

    method: str
    reference: str
    budget: Budget
    seeds: int
    test: Comparison
    crossed: tuple[float, float] | None = None


def gain(
    rows: Rows, method: str, reference: str, budget: Budget, *, confidence: float = 0.95, key: int = 0, draws: int = 2000
) -> Gain:
    """Compare two methods at one budget.

    The interval and the p-values are of Student's t over seeds: a percentile bootstrap of five numbers is far too narrow. They
    speak of other seeds on this test set. The standard error is floored by what the test set itself can tell (see
    `sampling_error`), so that seeds that agree, on few test samples, are not taken for certainty.

    The crossed interval is for the eye only: seeds and test samples are both drawn with replacement (Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1, 2007), and with few seeds it is too narrow as well.

    Args:
        rows: of a study, in any order.
        method: the one that gains.
        reference: the other.
        budget: of labels.
        confidence: of both intervals.
        key: of the draws.
        draws: of the crossed bootstrap.

    Raises:
        ValueError: one was not measured there, or they have different seeds.
    """
    a, b = measured(rows).pairs(method, reference, budget)
    found = Gain(method, reference, budget, len(a), compare(a, b, confidence))
    if len(a) == 1 or any(one.correct is None for one in (*a, *b)):
        return found
    return found._replace(crossed=_crossed(_differences(a, b), confidence, key, draws))


def compare(a: Sequence[Outcome], b: Sequence[Outcome], confidence: float) -> Comparison:
    """The t test of two lists of outcomes, paired in order."""
    return paired_test([one.accuracy for one in a], [one.accuracy for one in b], sampling_error(a, b), confidence)


def paired_test(a: Sequence[float], b: Sequence[float], floor: float | None, confidence: float) -> Comparison:
    """Student's paired t test, whose standard error is at least `floor`.

    Args:
        a: one number a seed.
        b: the other's, for the same seeds.
        floor: of the standard error; None: unknown, and differences that are all the same tell nothing.
        confidence: of the interval.
    """
    mean, half_width = paired_interval(a, b, confidence)
    freedom = len(a) - 1
    if freedom == 0:
        return Comparison(mean, math.inf, None, None, floored=False)
    quantile = float(special.stdtrit(freedom, (1 + confidence) / 2))
    over_seeds = half_width / quantile
    error = max(over_seeds, floor or 0.0)
    if error < _ROUNDING:
        return Comparison(mean, math.inf, None, None, floored=False)
    t = mean / error
    p, better = 2 * float(special.stdtr(freedom, -abs(t))), float(special.stdtr(freedom, -t))
    return Comparison(mean, quantile * error, p, better, floored=error > over_seeds)


def sampling_error(a: Sequence[Outcome], b: Sequence[Outcome]) -> float | None:
    """Standard error of the mean difference that comes of the test set having no more samples than it has.

    The paired difference of each sample, averaged over seeds, spread over samples: McNemar's comparison. Half a sample is added
    to each of the four cells (Agresti and Min, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24, 2005), so that it is never 0, not even where both predict the same.

    Returns:
        None where a row has no ``correct``.
    """
    if any(one.correct is None for one in (*a, *b)):
        return None
    each = _differences(a, b).mean(axis=0)  # (N,)
    count = len(each) + 2
    return math.sqrt(((float(each @ each) + 1) / count - (float(each.sum()) / count) ** 2) / count)


def chosen(rows: Rows, budget: Budget, methods: Sequence[str] = TRANSFER) -> str | None:
    """The method with the highest validation accuracy: the pilot's, where there is one, else averaged over seeds.

    Args:
        rows: of a study.
        budget: of labels.
        methods: to choose among, the simplest first: it wins a tie.

    Returns:
        None where no method was measured.

    Raises:
        ValueError: a method has no ``val_accuracy``, or no pilot where others have one, and there are several.
    """
    study = measured(rows)
    there = [method for method in methods if (method, budget) in study.cells]
    return there[0] if len(there) == 1 else max(there, key=lambda name: _validation(study, name, budget), default=None)


def _validation(study: Measured, method: str, budget: Budget) -> float:
    if study.pilot:
        if (method, budget) not in study.pilot:
            raise ValueError(f"{method}, budget {budget!r} has no row of the pilot, which others have: measure it.")
        return study.pilot[method, budget]
    scores = [one.val_accuracy for one in study.cells[method, budget].values()]
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        raise ValueError(
            f"{method}, budget {budget!r} has no val_accuracy for {len(scores) - len(known)} of {len(scores)} seeds: a choice "
            "by test is no choice. Give it, or fix the method in advance."
        )
    return math.fsum(known) / len(known)


def _differences(a: Sequence[Outcome], b: Sequence[Outcome]) -> Floats:
    """``(S, N)``: 1 where only `a` is right, -1 where only `b` is."""

    def bits(outcomes: Sequence[Outcome]) -> Floats:
        rows: list[Bits] = [one.correct for one in outcomes if one.correct is not None]
        return np.stack(rows).astype(np.float64)

    return bits(a) - bits(b)


def _crossed(differences: Floats, confidence: float, key: int, draws: int) -> tuple[float, float]:
    """Samples with the same differences over all seeds are alike, so that their numbers are drawn instead of them."""
    generator = np.random.Generator(np.random.Philox(key=keyed.mix_numbers(key, _STREAM) & _WORD))
    seeds, samples = differences.shape
    patterns, counts = np.unique(differences, axis=1, return_counts=True)  # (S, K), (K,)
    of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds  # (draws, S)
    of_samples = generator.multinomial(samples, counts / samples, size=draws) / samples  # (draws, K)
    means = ((of_seeds @ patterns) * of_samples).sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
