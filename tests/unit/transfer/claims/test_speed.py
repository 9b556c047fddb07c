import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_framework.transfer.claims import Range, speed
from ssl_framework.transfer.claims.measured import Point
from ssl_framework.transfer.claims.speed import first_reach

SCRATCH = [[100, 10.0, 0.2], [200, 20.0, 0.4], [300, 30.0, 0.6]]


def row(method, seed=0, **more):
    return {"method": method, "budget": 10, "seed": seed, "accuracy": 0.5, **more}


def points(curve):
    return tuple(Point(*point) for point in curve)


def test_a_score_is_reached_between_two_looks():
    curve = points(SCRATCH)
    assert first_reach(curve, 0.45) == (pytest.approx(225), pytest.approx(22.5), 0.45)
    assert first_reach(curve, 0.6).steps == pytest.approx(300)
    assert first_reach(curve, 0.1) == (100, 10.0, 0.2)
    assert first_reach(curve, 0.61) is None
    assert first_reach(points([[1, 1.0, 0.2], [2, 2.0, 0.5], [3, 3.0, 0.1], [4, 4.0, 0.6]]), 0.5).steps == 2


def test_no_time_is_no_measurement():
    assert first_reach(points([[0, 0.0, 0.9], [5, 0.0, 0.9], [10, 1.0, 0.1]]), 0.5) == (10, 1.0, 0.1)
    assert first_reach(points([[0, 0.0, 0.1], [10, 1.0, 0.9]]), 0.5) == (pytest.approx(5), pytest.approx(0.5), 0.5)


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0.1, 9), st.floats(0, 1)), min_size=1, max_size=6), st.floats(0, 1))
def test_what_is_reached_lies_on_the_curve(increments, score):
    steps = seconds = 0.0
    curve = []
    for more, longer, value in increments:
        steps, seconds = steps + more, seconds + longer
        curve.append(Point(steps, seconds, value))
    found = first_reach(curve, score)
    assert (found is None) == (max(point.score for point in curve) < score)
    if found is not None:
        assert curve[0].seconds <= found.seconds <= curve[-1].seconds + 1e-9
        assert all(point.score < score for point in curve if point.seconds < found.seconds - 1e-9)


def test_a_race_by_hand():
    """Scratch ends after 300 steps and 30 seconds; frozen is as good half-way between 20 and 40 steps, 1 and 2 seconds."""
    frozen = [[20, 1.0, 0.5], [40, 2.0, 0.7]]
    rows = [row("scratch", curve=SCRATCH), row("frozen", curve=frozen)]
    found = speed(rows, "frozen", 10, pretrain_seconds=100)
    assert found.steps.median.low == pytest.approx(30)
    assert found.seconds.median.low == pytest.approx(1.5)
    assert found.steps_ratio.median.low == pytest.approx(10)
    assert found.ratio.median.low == pytest.approx(20)
    assert found.ratio_with_pretraining.median.low == pytest.approx(30 / 101.5)
    assert found.saved.median.low == pytest.approx(28.5)
    assert found.tasks == 4  # 3 tasks save 85.5 seconds
    assert found.sentence == (
        "With 10 labels a class, frozen takes 1 second where scratch takes 20 to reach the final score of scratch. "
        "Pretraining (100 seconds) has paid for itself in time after 4 tasks like this one."
    )
    assert "Pretraining (21 minutes) has paid" in speed(rows, "frozen", 10, pretrain_seconds=1278).sentence
    assert speed(rows, "frozen", 10, pretrain_seconds=28.5).tasks == 1
    assert speed(rows, "frozen", 10, pretrain_seconds=0).tasks == 0
    free = speed(rows, "frozen", 10)
    assert (free.tasks, free.ratio_with_pretraining) == (None, None)
    assert free.sentence.endswith("final score of scratch.")


def test_the_reference_is_not_charged_for_what_it_did_after_it_was_done():
    idle = [*SCRATCH, [1000, 100.0, 0.6]]
    found = speed([row("scratch", curve=idle), row("frozen", curve=[[20, 3.0, 0.6]])], "frozen", 10)
    assert found.ratio.median.low == pytest.approx(10)


def test_what_is_not_reached_is_said_so():
    never = [[100, 5.0, 0.1], [200, 10.0, 0.3]]
    found = speed([row("scratch", curve=SCRATCH), row("full", curve=never)], "full", 10, pretrain_seconds=50)
    assert found.reached == 0
    assert found.steps.median == Range(200, math.inf)
    assert found.ratio.median == Range(0, 3)
    assert found.ratio_with_pretraining.median == Range(0, 0.5)
    assert found.tasks is None
    assert found.sentence == (
        "With 10 labels a class, the final score of scratch is not reached by full in 200 steps (1 of 1 seeds miss it). "
        "Pretraining is not shown to pay for itself in time, however many tasks use it."
    )


def test_a_slower_method_never_pays_for_pretraining():
    slow = [[100, 50.0, 0.6]]
    found = speed([row("scratch", curve=SCRATCH), row("full", curve=slow)], "full", 10, pretrain_seconds=0.1)
    assert found.ratio.median.low == pytest.approx(0.6)
    assert found.tasks is None
    assert "not shown to pay" in found.sentence


def test_some_seeds_may_miss_it():
    rows = [row("scratch", seed, curve=SCRATCH) for seed in range(5)]
    rows += [row("full", seed, curve=[[10, float(seed + 1), 0.6]]) for seed in range(4)]
    rows.append(row("full", 4, curve=[[10, 5.0, 0.1]]))
    found = speed(rows, "full", 10)
    assert found.reached == 4
    assert found.ratio.median.low == found.ratio.median.high == pytest.approx(10)
    assert (found.ratio.low, found.ratio.high.low) == (Range(0, 6), pytest.approx(30))
    assert "takes 10 (at most 6 to 30) to reach the final score of scratch (1 of 5 seeds miss it)." in found.sentence


def test_a_probe_has_seconds_and_no_steps():
    rows = [row("scratch", curve=SCRATCH), row("frozen", seconds=0.5, val_accuracy=0.7)]
    found = speed(rows, "frozen", 10)
    assert (found.steps, found.steps_ratio) == (None, None)
    assert found.ratio.median.low == pytest.approx(60)
    missed = speed([rows[0], row("frozen", seconds=0.5, val_accuracy=0.5)], "frozen", 10)
    assert "is not reached by frozen in 0.5 seconds" in missed.sentence


def test_what_has_no_time_is_refused():
    for bad in ({}, {"seconds": 0.0, "val_accuracy": 0.5}, {"curve": [[0, 0.0, 0.5]]}):
        with pytest.raises(ValueError, match="frozen, budget 10 has no time"):
            speed([row("scratch", curve=SCRATCH), row("frozen", **bad)], "frozen", 10)
    for cost in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="pretrain_seconds"):
            speed([row("scratch", curve=SCRATCH), row("frozen", curve=SCRATCH)], "frozen", 10, pretrain_seconds=cost)
