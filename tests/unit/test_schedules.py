import pickle
from functools import partial
from itertools import pairwise

import pytest

from ssl_framework.schedules import cosine, warmup_cosine


def test_cosine_is_exact_at_both_ends_and_halfway_between() -> None:
    assert cosine(0, 0.1, 0.3) == 0.1
    assert cosine(1, 0.1, 0.3) == 0.3
    assert cosine(0.5, 0.996, 1.0) == pytest.approx(0.998)
    assert cosine(0.25, 0.0, 1.0) == pytest.approx(0.5 - 0.5 * 2**-0.5)


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_progress_outside_the_training_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        cosine(progress, 0, 1)


def test_warmup_rises_from_the_first_step_and_no_step_is_spent_at_zero() -> None:
    factors = [warmup_cosine(step, total_steps=10, warmup_steps=4) for step in range(12)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert all(a > b for a, b in pairwise(factors[4:11]))
    assert min(factors[:10]) > 0
    assert factors[10] == factors[11] == 0.0


def test_the_end_is_a_share_and_a_warmup_as_long_as_training_fits() -> None:
    assert warmup_cosine(10, total_steps=10, end=0.1) == 0.1
    assert [warmup_cosine(step, total_steps=2, warmup_steps=2) for step in range(3)] == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("total", "warmup", "remedy"), [(0, 0, "max_steps"), (-1, 0, "max_steps"), (5, 6, "warmup_steps lower")]
)
def test_an_impossible_schedule_is_refused_with_a_remedy(total: int, warmup: int, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        warmup_cosine(0, total_steps=total, warmup_steps=warmup)


def test_a_schedule_can_be_pickled() -> None:
    factor = partial(warmup_cosine, total_steps=10, warmup_steps=2)
    assert pickle.loads(pickle.dumps(factor))(5) == factor(5)
