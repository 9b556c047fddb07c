"""Numbers that are known only to lie beyond an end, and the middle of several of them."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from scipy import special

_ROUNDING = 1e-9  # 0.3 / 0.1 is less than 3


class Range(NamedTuple):
    """What is known of a number: exactly, or that it is more or less than an end.

    Attributes:
        low: it is at least so large.
        high: it is at most so large; infinite where nothing is known.
    """

    low: float
    high: float

    @property
    def exact(self) -> bool:
        """Whether it is known."""
        return self.low == self.high

    def __str__(self) -> str:
        """Two digits at least; ends are rounded outwards, so that what is said stays true."""
        if self.exact:
            return _digits(self.low, "nearest")
        if math.isinf(self.high):
            return f"more than {_digits(self.low, 'down')}"
        if self.low <= 0:
            return f"at most {_digits(self.high, 'up')}"
        return f"between {_digits(self.low, 'down')} and {_digits(self.high, 'up')}"


def exactly(value: float) -> Range:
    """A number that is known."""
    return Range(value, value)


class Middle(NamedTuple):
    """The median over seeds, with an interval that assumes nothing of how seeds spread.

    Attributes:
        median: of the seeds.
        low: lower end of the interval; None with a single seed.
        high: its upper end; None likewise.
        coverage: how often such an interval holds the true median; 0 with a single seed.
        seeds: how many.
    """

    median: Range
    low: Range | None
    high: Range | None
    coverage: float
    seeds: int

    def __str__(self) -> str:
        """For people, without the coverage."""
        return str(self.median) if self.low is None or self.high is None else f"{self.median} ({self.low} to {self.high})"


def middle(values: Sequence[Range], confidence: float = 0.95) -> Middle:
    """The median of numbers some of which are known as ranges only.

    The interval goes from the k-th smallest to the k-th largest: a binomial count decides k (Conover, Practical Nonparametric
    Statistics, section 3.2). Five seeds reach 93.75 % at most, and the coverage says so. As order statistics grow with
    each number, lower ends bound them from below and upper ends from above.

    Args:
        values: one a seed.
        confidence: wanted.

    Raises:
        ValueError: there is no value.
    """
    count = len(values)
    if count == 0:
        raise ValueError("a median needs at least one value: run at least one seed.")
    lows, highs = sorted(one.low for one in values), sorted(one.high for one in values)
    median = Range(statistics.median(lows), statistics.median(highs))
    if count == 1:
        return Middle(median, None, None, 0.0, 1)
    coverages = [1 - 2 * float(special.bdtr(k, count, 0.5)) for k in range(count // 2)]
    k = max((k for k, reached in enumerate(coverages) if reached >= confidence), default=0)
    return Middle(median, Range(lows[k], highs[k]), Range(lows[-1 - k], highs[-1 - k]), coverages[k], count)


def _digits(value: float, rounding: Literal["nearest", "down", "up"]) -> str:
    """Two significant digits, or all before the point."""
    if value == 0:
        return "0"
    unit = 10.0 ** min(0, math.floor(math.log10(abs(value))) - 1)
    steps = value / unit
    if rounding == "nearest":
        return f"{round(steps) * unit:.10g}"
    return f"{(math.floor(steps + _ROUNDING) if rounding == 'down' else math.ceil(steps - _ROUNDING)) * unit:.10g}"
