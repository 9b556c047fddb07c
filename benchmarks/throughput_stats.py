"""Medians, quartiles, and ratios of windows that were measured side by side."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Paired(NamedTuple):
    """What two contestants' windows say of each other.

    Attributes:
        median: of the values of all rounds.
        low: lower end of the interval that holds the true median in at least 95 of 100 races; None with fewer than 6 rounds.
        high: its upper end.
        rounds: how many there were.
    """

    median: float
    low: float | None
    high: float | None
    rounds: int


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; of one value, itself."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def ratio(of: Sequence[float], to: Sequence[float]) -> Paired:
    """Rates of one contestant over those of another, round by round: what slows both down falls out.

    Raises:
        ValueError: they have not as many windows.
    """
    return _paired([a / b for a, b in _rounds(of, to)])


def difference(of: Sequence[float], to: Sequence[float]) -> Paired:
    """Values of one contestant less those of another, round by round.

    Raises:
        ValueError: they have not as many windows.
    """
    return _paired([a - b for a, b in _rounds(of, to)])


def _rounds(of: Sequence[float], to: Sequence[float]) -> list[tuple[float, float]]:
    if len(of) != len(to) or not of:
        raise ValueError(f"{len(of)} and {len(to)} windows cannot be paired: both rows must come from one race.")
    return list(zip(of, to, strict=True))


def _paired(values: Sequence[float]) -> Paired:
    ordered = sorted(values)
    cut = _cut(len(ordered))
    low, high = (None, None) if cut is None else (ordered[cut], ordered[-1 - cut])
    return Paired(statistics.median(ordered), low, high, len(ordered))


def _cut(count: int) -> int | None:
    """Values to leave out at either end, so that the rest covers the median with 95 %: the sign test, without any assumption.

    The true median lies below the k + 1st value if at most k of them fall under it: a binomial probability.
    """
    below, cut = 0.0, None
    for k in range(count):
        below += math.comb(count, k) / 2**count
        if below > 0.025:
            return cut
        cut = k
    return cut
