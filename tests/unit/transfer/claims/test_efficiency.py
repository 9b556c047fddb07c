import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_framework.transfer.claims import Range, label_efficiency
from ssl_framework.transfer.claims.efficiency import labels_for

LABELS = (10, 100, 1000)


def rows(method, values, budgets=(1, 10, 100), labels=LABELS, seed=0):
    cells = zip(budgets, labels, values, strict=True)
    return [{"method": method, "budget": b, "labels": n, "seed": seed, "accuracy": v} for b, n, v in cells]


def test_between_budgets_the_curve_is_straight_over_the_logarithm():
    assert labels_for(0.45, LABELS, [0.3, 0.6, 0.8]) == (pytest.approx(10**1.5), pytest.approx(10**1.5))
    assert labels_for(0.6, LABELS, [0.3, 0.6, 0.8]).low == pytest.approx(100)
    assert labels_for(0.8, LABELS, [0.3, 0.6, 0.8]) == (pytest.approx(1000), pytest.approx(1000))


def test_beyond_the_ends_nothing_is_known():
    assert labels_for(0.81, LABELS, [0.3, 0.6, 0.8]) == Range(1000, math.inf)
    assert labels_for(0.3, LABELS, [0.3, 0.6, 0.8]) == Range(0, 10)
    assert labels_for(0.2, LABELS, [0.3, 0.6, 0.8]) == Range(0, 10)
    assert labels_for(0.6, [10], [0.5]) == Range(10, math.inf)


def test_a_curve_that_falls_is_levelled():
    """0.6 then 0.4 are both 0.5, which is first reached at 100 labels."""
    found = labels_for(0.5, (10, 100, 1000, 10000), [0.3, 0.6, 0.4, 0.8])
    assert found.low == pytest.approx(100)
    assert labels_for(0.51, (10, 100, 1000, 10000), [0.3, 0.6, 0.4, 0.8]).low > 1000


def naive(accuracy, labels, accuracies):
    """Isotonic regression by its max-min formula, then the first crossing on a fine grid."""
    k = len(labels)
    level = [max(min(np.mean(accuracies[i : j + 1]) for j in range(m, k)) for i in range(m + 1)) for m in range(k)]
    grid = np.linspace(math.log(labels[0]), math.log(labels[-1]), 20001)
    above = np.interp(grid, np.log(labels), level) >= accuracy
    return level, math.exp(grid[above.argmax()]) if above.any() else None


@given(st.lists(st.integers(1, 99), min_size=2, max_size=6), st.integers(1, 99))
def test_it_is_the_naive_crossing(values, goal):
    accuracies, accuracy = [v / 100 for v in values], goal / 100 + 0.001234
    labels = [10 * 4**k for k in range(len(values))]
    level, crossing = naive(accuracy, labels, accuracies)
    found = labels_for(accuracy, labels, accuracies)
    if accuracy > level[-1]:
        assert found == (labels[-1], math.inf)
    elif accuracy <= level[0]:
        assert found == (0, labels[0])
    else:
        assert found.low == found.high == pytest.approx(crossing, rel=1e-3)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_to_be_more_accurate_never_needs_fewer_labels(accuracies, a, b):
    labels = [10 * 4**k for k in range(len(accuracies))]
    less, more = (labels_for(goal, labels, accuracies) for goal in sorted((a, b)))
    assert less.low <= more.low * (1 + 1e-9)
    assert less.high <= more.high * (1 + 1e-9)


def test_a_factor_is_paired_by_seed_and_says_where_it_is_censored():
    found = []
    for seed, reached in enumerate((0.45, 0.6, 0.7, 0.9, 0.9)):
        found += rows("scratch", [0.3, 0.6, 0.8], seed=seed) + rows("frozen", [reached], (1,), (10,), seed=seed)
    one = label_efficiency(found, "frozen", 1)
    assert one.factor.median.low == one.factor.median.high == pytest.approx(10**1.5)
    assert one.factor.low.low == pytest.approx(10**0.5)
    assert one.factor.high == Range(100, math.inf)
    assert one.sentence == (
        "To be as accurate as frozen with 1 label a class, scratch needs 32 times as many labels "
        "(93.8 % interval 3.2 to more than 100, 5 seeds)."
    )
    shuffled = label_efficiency(found[::-1], "frozen", 1)
    assert shuffled == one


def test_worse_than_the_fewest_labels():
    found = rows("scratch", [0.3, 0.6, 0.8]) + rows("full", [0.2], (100,), (1000,))
    one = label_efficiency(found, "full", 100)
    assert one.factor.median == Range(0, 0.01)
    assert (
        one.sentence
        == "To be as accurate as full with 100 labels a class, scratch needs at most 0.01 times as many labels (one seed)."
    )


def test_all_labels_are_a_point_like_others():
    found = rows("scratch", [0.3, 0.9], (1, "all"), (10, 1000)) + rows("full", [0.6], ("all",), (1000,))
    assert label_efficiency(found, "full", "all").factor.median.low == pytest.approx(0.1)
    assert label_efficiency(found, "full", "all").sentence.startswith("To be as accurate as full with all labels")


def test_rows_have_to_say_their_labels():
    found = [*rows("scratch", [0.3, 0.6, 0.8]), {"method": "full", "budget": 1, "seed": 0, "accuracy": 0.5}]
    with pytest.raises(ValueError, match="full, budget 1 does not say how many labels"):
        label_efficiency(found, "full", 1)


def test_with_the_most_labels_more_is_all_that_is_known():
    scratch = [row for seed in range(5) for row in rows("scratch", [0.3, 0.6, 0.8], seed=seed)]
    better = [row for seed in range(5) for row in rows("full", [0.9], budgets=(100,), labels=(1000,), seed=seed)]
    said = label_efficiency([*scratch, *better], "full", 100).sentence
    assert said.endswith("scratch needs more labels than were measured (with each of 5 seeds).")
