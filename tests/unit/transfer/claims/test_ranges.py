import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ssl_framework.transfer.claims import Range, middle
from ssl_framework.transfer.claims.ranges import exactly

numbers = st.floats(0.001, 1e6)
INF = math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (exactly(4.321), "4.3"),
        (exactly(0.0456), "0.046"),
        (exactly(0.3), "0.3"),
        (exactly(123.4), "123"),
        (exactly(0.0), "0"),
        (Range(12.49, INF), "more than 12"),
        (Range(1.29, INF), "more than 1.2"),
        (Range(0.3, INF), "more than 0.3"),
        (Range(0.0, 0.123), "at most 0.13"),
        (Range(0.0, 2.0), "at most 2"),
        (Range(-INF, -3.21), "at most -3.2"),
        (Range(1.29, 2.31), "between 1.2 and 2.4"),
    ],
)
def test_ends_are_rounded_outwards(value, text):
    assert str(value) == text


@given(numbers)
def test_what_is_said_of_an_end_stays_true(end):
    assert float(str(Range(end, INF)).removeprefix("more than ")) <= end * (1 + 1e-9)
    assert float(str(Range(0.0, end)).removeprefix("at most ")) >= end * (1 - 1e-9)


def test_five_seeds_cover_so_much_and_no_more():
    found = middle([exactly(x) for x in (3, 1, 5, 2, 4)])
    assert found == (exactly(3), exactly(1), exactly(5), 0.9375, 5)
    assert str(found) == "3 (1 to 5)"
    assert str(middle([exactly(3)])) == "3"
    assert middle([exactly(3)])[1:4] == (None, None, 0.0)
    with pytest.raises(ValueError, match="at least one seed"):
        middle([])


@given(st.integers(2, 40), st.floats(0.5, 0.99))
def test_the_interval_is_the_narrowest_that_covers(count, confidence):
    """From the k-th smallest to the k-th largest: covered unless fewer than k values lie on a side."""
    found = middle([exactly(k) for k in range(1, count + 1)], confidence)
    k = int(found.low.low)
    coverage = [1 - 2 * stats.binom.cdf(j - 1, count, 0.5) for j in range(1, count // 2 + 1)]
    good = [j for j, c in enumerate(coverage, start=1) if c >= confidence]
    assert k == max(good, default=1)
    assert found.high.low == count + 1 - k
    assert found.coverage == pytest.approx(coverage[k - 1])


@given(st.lists(st.tuples(numbers, numbers, st.sampled_from(["exact", "less", "more", "between"])), min_size=1, max_size=7))
def test_the_truth_lies_in_the_middle_of_ranges(drawn):
    """Whatever the numbers behind the ranges are, their median and order statistics are inside what is said."""
    truths = [truth for truth, _, _ in drawn]
    ranges = {
        "exact": lambda x, _: exactly(x),
        "less": lambda x, e: Range(0.0, x + e),
        "more": lambda x, e: Range(max(0.0, x - e), INF),
        "between": lambda x, e: Range(max(0.0, x - e), x + e),
    }
    found = middle([ranges[kind](truth, extra) for truth, extra, kind in drawn])
    known = middle([exactly(truth) for truth in truths])
    assert known.median.low == statistics.median(truths)
    for said, truth in zip(found[:3], known[:3], strict=True):
        assert (said is None) == (truth is None)
        if said is not None:
            assert said.low <= truth.low <= said.high


def test_censored_ends_are_kept():
    found = middle([exactly(2), exactly(3), Range(12, INF), Range(12, INF), Range(0, 0.5)])
    assert (found.median, found.low, found.high) == (exactly(3), Range(0, 0.5), Range(12, INF))
    assert str(found) == "3 (at most 0.5 to more than 12)"
    assert str(middle([exactly(2), Range(12, INF), Range(12, INF)]).median) == "more than 12"
