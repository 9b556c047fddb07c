"""The control of the control: null studies rarely claim anything, and would if the test were a bad one."""

import base64
import sys

import numpy as np
import pytest

from ssl_framework.transfer.claims import clopper_pearson, null_studies, verdicts
from ssl_framework.transfer.claims import gains as gains_module
from ssl_framework.transfer.claims.verdicts import adjusted, chosen

BUDGETS = (1, 10, 50, 250, "all")
LEVELS = (0.35, 0.5, 0.65, 0.75, 0.8)
SPREADS = (
    0.03,
    0.02,
    0.012,
    0.006,
    0.004,
)  # points that seeds of small networks on CIFAR-10 differ by: fewer labels, more spread


def pool(draw, size=200):
    """For each budget, accuracies ``draw(generator, size)`` in units of the budget's spread."""
    generator = np.random.default_rng(7)
    found = {}
    for budget, level, spread in zip(BUDGETS, LEVELS, SPREADS, strict=True):
        found[budget] = np.clip(level + spread * draw(generator, size), 0, 1).tolist()
    return found


def normal(generator, size):
    return generator.standard_normal(size)


def heavy(generator, size):
    return generator.standard_t(2, size)


def skewed(generator, size):
    return -(generator.exponential(size=size) ** 2)


def collapsing(generator, size):
    """One training in ten ends far below."""
    return np.where(generator.random(size) < 0.1, -20, 0) + generator.standard_normal(size)


def two_levels(generator, size):
    """Training succeeds or fails by the toss of a coin, and what succeeds is alike."""
    return 10 * (generator.random(size) < 0.5) + 0.1 * generator.standard_normal(size)


def coarse(generator, size):
    """A tiny test set: accuracies in few steps, so that many differences are the same."""
    return np.round(generator.standard_normal(size))


def exceeds(share, found):
    """Whether the share of studies is above one that could be `share` by chance, once in a thousand."""
    return clopper_pearson(found.false_pays, found.studies, 0.998)[0] > share


@pytest.mark.parametrize("pilot", [True, False])
@pytest.mark.parametrize("draw", [normal, heavy, skewed, collapsing, two_levels, coarse])
def test_few_null_studies_claim_that_transfer_pays(draw, pilot):
    """With a choice among five methods by a seed that is not judged, or by the very numbers that are tested."""
    found = null_studies(pool(draw), seeds=5, studies=1000, key=1, pilot=pilot)
    assert found.share == found.false_pays / 1000
    assert found.share <= 0.05
    assert found.low <= found.share <= found.high


def test_a_method_fixed_in_advance_claims_as_rarely():
    found = null_studies(pool(normal), seeds=5, studies=1000, key=2, methods=["frozen"])
    assert 0.005 <= found.share <= 0.05
    assert 0.005 <= found.false_hurts / 1000 <= 0.05


def test_the_control_fails_with_a_percentile_bootstrap_of_five_seeds(monkeypatch):
    def bootstrap(a, b, floor, confidence):
        """Its one-sided p is the share of resampled means that are not above 0."""
        difference = np.subtract(a, b)
        means = difference[np.random.default_rng(0).integers(len(difference), size=(1000, len(difference)))].mean(axis=1)
        low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
        better = float((means <= 0).mean())
        return gains_module.Comparison(
            float(difference.mean()), float(high - low) / 2, 2 * min(better, 1 - better), better, floored=False
        )

    monkeypatch.setattr(gains_module, "paired_test", bootstrap)
    found = null_studies(pool(normal), seeds=5, studies=60, key=1, pilot=False)
    assert exceeds(0.05, found)
    assert found.share > 0.3


def test_the_control_fails_if_the_choice_costs_nothing(monkeypatch):
    """The method that looks best is no random one: a correction for budgets alone is too little."""

    def budgets_only(rows, tests, fewest, _=None):
        family = {(chosen(rows, budget), budget) for _, budget in tests}
        return adjusted(rows, {key: test for key, test in tests.items() if key in family}, fewest)

    # not by its dotted name, which is the function's
    monkeypatch.setattr(sys.modules["ssl_framework.transfer.claims.verdicts"], "adjusted", budgets_only)
    assert exceeds(0.05, null_studies(pool(normal), seeds=5, studies=1200, key=3, pilot=False))
    assert null_studies(pool(normal), seeds=5, studies=1200, key=3).share <= 0.05  # the pilot's choice costs nothing


def test_the_control_fails_with_three_seeds_that_succeed_or_fail():
    """Why fewer than five seeds are not judged."""
    assert null_studies(pool(two_levels), seeds=3, studies=100, key=1, pilot=False).false_pays == 0
    assert exceeds(0.05, null_studies(pool(two_levels), seeds=3, studies=300, key=1, pilot=False, fewest=3))


def test_a_real_effect_is_found():
    """A control that never claims anything would pass too: ten spreads of gain at few labels are seen."""
    generator = np.random.default_rng(3)
    rows = [
        {
            "method": method,
            "budget": budget,
            "seed": seed,
            "accuracy": level + spread * (generator.standard_normal() + 10 * (method != "scratch")),
            "val_accuracy": level,
        }
        for budget, level, spread in zip(BUDGETS, LEVELS, SPREADS, strict=True)
        for method in ("scratch", "frozen", "last_n", "lora", "lp_ft", "full")
        for seed in range(5)
    ]
    assert [one.word for one in verdicts(rows)] == ["pays"] * 5


def test_cells_may_be_rows_with_predictions():
    generator = np.random.default_rng(5)
    cells = []
    for _ in range(48):
        bits = generator.random(100) < 0.6 + 0.02 * generator.standard_normal()
        coded = base64.b64encode(np.packbits(bits).tobytes()).decode()
        cells.append({"accuracy": float(bits.mean()), "val_accuracy": generator.random(), "correct": coded, "seed": 3})
    found = null_studies({10: cells}, seeds=5, studies=200, key=1)
    assert found.share <= 0.05


def test_a_key_gives_its_studies():
    cells = pool(normal)
    few = {"seeds": 5, "studies": 60, "methods": ["frozen"], "confidence": 0.6}
    first, again, other = (null_studies(cells, key=key, **few) for key in (1, 1, 2))
    assert first == again != other


def test_no_cell_is_used_twice_in_a_study(monkeypatch):
    from ssl_framework.transfer.claims import null

    seen = []
    monkeypatch.setattr(null, "verdicts", lambda study, **_: seen.append(study) or [])
    distinct = {budget: (np.arange(48) / 48).tolist() for budget in (1, "all")}
    null_studies(distinct, seeds=7, studies=3, key=1)  # and one that chooses
    for study in seen:
        for budget in (1, "all"):
            values = [one.accuracy for (_, b), cells in study.cells.items() for one in cells.values() if b == budget]
            values += [value for (_, b), value in study.pilot.items() if b == budget]
            assert len(values) == len(set(values)) == 48
    assert seen[0].cells["frozen", 1] != seen[1].cells["frozen", 1]


def test_a_pool_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"the pool has \{1: 39\}, and 40 cells"):
        null_studies({1: [0.5] * 39}, seeds=5, studies=1, key=0)
    with pytest.raises(ValueError, match=r"\{1: 59\}, and 66 cells"):
        null_studies({1: [0.5] * 59}, seeds=10, studies=1, key=0)
    with pytest.raises(ValueError, match="no budget"):
        null_studies({}, seeds=5, studies=1, key=0)
    with pytest.raises(ValueError, match="at least one of each"):
        null_studies({1: [0.5] * 60}, seeds=5, studies=0, key=0)
    with pytest.raises(ValueError, match="accuracy=nan"):
        null_studies({1: [float("nan")] * 60}, seeds=5, studies=1, key=0)
