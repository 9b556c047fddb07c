import base64
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ssl_framework.transfer.claims import Measured, chosen, gain
from ssl_framework.transfer.claims.gains import paired_test, sampling_error


def rows(method, budget, values, **more):
    return [{"method": method, "budget": budget, "seed": seed, "accuracy": float(v), **more} for seed, v in enumerate(values)]


def judged(method, bits, budget=1):
    """Rows from ``(seeds, samples)`` of right and wrong."""
    coded = [base64.b64encode(np.packbits(line).tobytes()).decode() for line in bits]
    return [one | {"correct": code} for one, code in zip(rows(method, budget, bits.mean(axis=1)), coded, strict=True)]


shares = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=2, max_size=8).map(
    lambda pairs: (np.array(pairs) / 1000).T
)


@given(shares)
def test_interval_and_p_are_those_of_the_paired_t_test(pair):
    a, b = pair
    found = gain(rows("frozen", 1, a) + rows("scratch", 1, b), "frozen", "scratch", 1).test
    assert found.mean == pytest.approx(np.mean(a - b))
    if np.ptp(np.round(a - b, 9)) == 0:
        assert (found.half_width, found.p, found.p_better) == (math.inf, None, None)
        return
    expected = stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-15)
    assert found.p_better == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue, rel=1e-6, abs=1e-15)
    assert (found.mean - found.half_width, found.mean + found.half_width) == (pytest.approx(low), pytest.approx(high))


def test_a_gain_by_hand():
    """Differences of 1, 2 and 3 points: mean 2, standard error 1 / sqrt(3), and t of 2 sqrt(3) with 2 degrees of freedom."""
    found = gain(rows("full", 5, [0.51, 0.52, 0.53]) + rows("scratch", 5, [0.5] * 3), "full", "scratch", 5)
    t = 2 * 3**0.5
    assert found.seeds == 3
    assert found.test.mean == pytest.approx(0.02)
    assert found.test.half_width == pytest.approx(4.302653 * 0.01 / 3**0.5)
    assert found.test.p == pytest.approx(1 - t / (2 + t**2) ** 0.5)  # the closed form of Student's t with 2 degrees of freedom
    assert found.test.p_better == pytest.approx(found.test.p / 2)
    assert not found.test.floored


def test_one_seed_has_no_interval():
    found = gain(rows("full", 1, [0.9]) + rows("scratch", 1, [0.1]), "full", "scratch", 1)
    assert (found.test.half_width, found.test.p, found.crossed) == (math.inf, None, None)


def test_differences_that_are_equal_but_for_rounding_are_not_certainty():
    """0.7 - 0.6 and 0.8 - 0.7 differ by 1e-16, which a t test would take for a spread."""
    a, b = [0.7, 0.8, 0.9, 0.4, 0.6], [0.6, 0.7, 0.8, 0.3, 0.5]
    assert len({x - y for x, y in zip(a, b, strict=True)}) > 1
    assert paired_test(a, b, None, 0.95)[1:4] == (math.inf, None, None)


@given(st.integers(0, 2**32 - 1), st.integers(8, 60))
def test_the_floor_is_agresti_and_mins_standard_error(seed, samples):
    a, b = np.random.default_rng(seed).random((2, 1, samples)) < 0.6
    study = Measured(judged("full", a | True) + judged("frozen", a) + judged("scratch", b))
    found = sampling_error(*study.pairs("frozen", "scratch", 1))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    expected = ((only_a + only_b + 1) - (only_a - only_b) ** 2 / (samples + 2)) ** 0.5 / (samples + 2)  # their Wald+2
    assert found == pytest.approx(expected)


def test_seeds_that_agree_on_few_samples_are_not_certain():
    """Each of five seeds has 2 samples of 10 more right: t is not infinite, it is 0.2 over the error of 10 samples."""
    b = np.tile(np.arange(10) < 5, (5, 1))
    a = np.tile(np.arange(10) < 7, (5, 1))
    test = gain(judged("frozen", a) + judged("scratch", b), "frozen", "scratch", 1).test
    error = ((2 + 1) - 4 / 12) ** 0.5 / 12
    assert test.floored
    assert test.p == pytest.approx(2 * stats.t.sf(0.2 / error, 4))
    assert test.half_width == pytest.approx(stats.t.ppf(0.975, 4) * error)
    same = gain(judged("frozen", b) + judged("scratch", b), "frozen", "scratch", 1).test
    assert (same.mean, same.p) == (0, pytest.approx(1))
    assert same.half_width == pytest.approx(stats.t.ppf(0.975, 4) / 12)


def test_a_large_test_set_leaves_the_t_test_alone():
    generator = np.random.default_rng(0)
    a, b = (generator.random((5, 4000)) < level[:, None] for level in (0.5 + 0.1 * generator.random((2, 5))))
    test = gain(judged("frozen", a) + judged("scratch", b), "frozen", "scratch", 1).test
    assert not test.floored
    assert test.p == pytest.approx(stats.ttest_rel(a.mean(axis=1), b.mean(axis=1)).pvalue)


def test_the_crossed_interval_is_the_naive_double_bootstrap():
    generator = np.random.default_rng(1)
    a, b = generator.random((2, 5, 90)) < np.array([0.7, 0.5])[:, None, None]
    low, high = gain(judged("frozen", a) + judged("scratch", b), "frozen", "scratch", 1, draws=20000).crossed
    difference = a.astype(float) - b
    naive = [difference[np.ix_(generator.integers(5, size=5), generator.integers(90, size=90))].mean() for _ in range(20000)]
    assert (low, high) == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.006)


def test_a_key_gives_its_interval():
    a, b = np.random.default_rng(2).random((2, 5, 90)) < 0.5
    study = judged("frozen", a) + judged("scratch", b)
    first, again, other = (gain(study, "frozen", "scratch", 1, key=key).crossed for key in (3, 3, 4))
    assert first == again != other


@given(shares, st.floats(0.001, 0.4))
def test_adding_a_constant_adds_it_and_makes_better_more_likely(pair, more):
    a, b = pair[0] / 2, pair[1]
    before, after = (paired_test(list(a + c), list(b), 0.001, 0.95) for c in (0.0, more))
    assert after.mean == pytest.approx(before.mean + more)
    assert after.p_better <= before.p_better
    assert after.half_width == pytest.approx(before.half_width)


def test_validation_chooses_and_the_simpler_wins_a_tie():
    def study(**val):
        return [one for m, v in val.items() for one in rows(m, 1, [0.1, 0.9], val_accuracy=v)]

    assert chosen(study(full=0.7, lora=0.6, scratch=0.99), 1) == "full"
    assert chosen(study(full=0.7, lp_ft=0.7, lora=0.7, last_n=0.6), 1) == "lora"
    assert chosen(study(full=0.7, frozen=0.7), 1) == "frozen"
    assert chosen(study(lp_ft=0.7, full=0.7), 1) == "lp_ft"
    assert chosen(study(scratch=0.7), 1) is None
    assert chosen(rows("lora", 1, [0.5]), 1) == "lora"  # nothing to choose
    assert chosen(rows("pca", 1, [0.5]) + rows("lora", 10, [0.5]), 1) is None


def test_a_choice_never_looks_at_test():
    study = rows("frozen", 1, [0.1, 0.2], val_accuracy=0.6) + rows("full", 1, [0.8, 0.9], val_accuracy=0.5)
    assert chosen(study, 1) == "frozen"
    with pytest.raises(ValueError, match=r"full, budget 1 has no val_accuracy for 2 of 2 seeds"):
        chosen(rows("frozen", 1, [0.1, 0.2], val_accuracy=0.6) + rows("full", 1, [0.8, 0.9]), 1)
