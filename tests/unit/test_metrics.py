import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats

from ssl_framework.metrics import accuracy, effective_rank, interval, normalised_std, paired_interval, rankme


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_accuracy_takes_classes_or_scores() -> None:
    target = torch.tensor([0, 1, 2, 2])
    assert accuracy(torch.tensor([0, 1, 2, 0]), target) == 0.75
    assert accuracy(torch.eye(3)[[0, 1, 2, 0]], target) == 0.75


def test_accuracy_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        accuracy(torch.tensor([1]), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="at least one sample"):
        accuracy(torch.tensor([]), torch.tensor([]))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_interval_is_students(confidence: float) -> None:
    values = [0.71, 0.75, 0.69, 0.80, 0.77]
    mean, half = interval(values, confidence)
    low, high = stats.t.interval(confidence, len(values) - 1, loc=mean, scale=stats.sem(values))
    assert mean == pytest.approx(sum(values) / 5)
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_one_seed_says_nothing_of_spread() -> None:
    assert interval([0.7]) == (0.7, math.inf)


def test_intervals_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="at least one"):
        interval([])
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval([1.0, 2.0], 95)
    with pytest.raises(ValueError, match="same seeds"):
        paired_interval([1.0], [1.0, 2.0])


def test_pairing_cancels_what_both_share() -> None:
    luck = [0.0, 0.2, -0.3, 0.1]
    a, b = [0.8 + x for x in luck], [0.7 + x for x in luck]
    mean, half = paired_interval(a, b)
    assert mean == pytest.approx(0.1)
    assert half < 1e-12
    assert interval(a).half_width > 0.2


def test_ranks_of_known_spectra() -> None:
    flat = torch.linalg.qr(rows(100, 8)).Q
    assert rankme(flat) == pytest.approx(8, rel=1e-4)
    shares = torch.tensor([0.5, 0.25, 0.25])
    assert rankme(flat[:, :3] * shares) == pytest.approx(2**1.5, rel=1e-4)
    assert rankme(torch.zeros(10, 4)) == 0


def test_rankme_agrees_with_its_formula() -> None:
    x = rows(300, 40) @ rows(40, 40, seed=1)
    s = torch.linalg.svdvals(x.double())
    p = s / s.sum() + 1e-7  # the paper's epsilon
    assert rankme(x) == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-4)


def test_effective_rank_leaves_the_offset_out_and_rankme_does_not() -> None:
    x = rows(200, 16)
    assert effective_rank(x + 100) == pytest.approx(effective_rank(x), rel=1e-3)
    assert rankme(x + 100) < 0.2 * rankme(x)


def test_rounding_is_not_rank() -> None:
    constant = (rows(1, 64) + 1000).expand(500, 64)
    assert effective_rank(constant) <= 1
    assert effective_rank(torch.zeros(10, 4)) == 0


def test_no_single_number_sees_every_collapse() -> None:
    noise = rows(1024, 128)
    constant = rows(1, 128, seed=1) + 1e-3 * noise
    assert normalised_std(constant) < 0.01
    assert effective_rank(constant) > 100
    line = rows(1024, 1, seed=2) @ rows(1, 128, seed=3)
    assert effective_rank(line) == pytest.approx(1, abs=0.01)
    assert normalised_std(line) > 0.7
    assert normalised_std(noise) == pytest.approx(1, abs=0.02)
    assert effective_rank(noise) > 100


def test_spread_counts_directions_not_lengths() -> None:
    x = rows(256, 32)
    assert normalised_std(x * rows(256, 1, seed=1).abs()) == pytest.approx(normalised_std(x), rel=1e-5)


@pytest.mark.parametrize("metric", [rankme, effective_rank, normalised_std])
def test_features_need_two_rows_and_may_be_half_precision(metric: Callable[[torch.Tensor], float]) -> None:
    with pytest.raises(ValueError, match="at least 2 samples"):
        metric(torch.ones(1, 4))
    x = rows(64, 8)
    assert metric(x.bfloat16()) == pytest.approx(metric(x), rel=0.02)
