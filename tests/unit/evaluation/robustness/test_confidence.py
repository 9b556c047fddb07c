"""Confidence beside accuracy, and inside beside outside, by formulas written naively."""

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_framework.evaluation.robustness import calibration_error, energy_score, max_softmax, ood_auroc

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, TARGETS = 2 * torch.randn(400, 6, generator=GENERATOR), torch.randint(6, (400,), generator=GENERATOR)


def naive_error(logits: np.ndarray, targets: np.ndarray, bins: int) -> float:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    confidence, right = probabilities.max(1), logits.argmax(1) == targets
    error = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0, 100.0])  # at 100 many are sure to the last bit
@pytest.mark.parametrize("bins", [10, 15])
def test_calibration_error_is_the_formula(scale: float, bins: int):
    expected = naive_error(scale * LOGITS.double().numpy(), TARGETS.numpy(), bins)
    assert calibration_error(scale * LOGITS, TARGETS, bins) == pytest.approx(expected, abs=1e-5)


def test_sure_to_the_last_bit_and_sure_are_one_bin():
    """Half are sure beyond rounding and wrong, half sure within it and right: together as sure as 1, and right in half."""
    logits = torch.tensor([[1000.0, 0.0], [5.0, 0.0]]).repeat(10, 1)
    targets = torch.tensor([1, 0]).repeat(10)
    assert calibration_error(logits, targets) == pytest.approx((1 + 1 / (1 + np.exp(-5))) / 2 - 0.5, abs=1e-5)


def test_fifteen_bins():
    assert (
        calibration_error(LOGITS, TARGETS) == calibration_error(LOGITS, TARGETS, 15) != calibration_error(LOGITS, TARGETS, 10)
    )


def test_logits_between_0_and_1_are_logits():
    logits = torch.rand(100, 3, generator=GENERATOR)
    expected = naive_error(logits.double().numpy(), TARGETS[:100].numpy() % 3, 15)
    assert calibration_error(logits, TARGETS[:100] % 3) == pytest.approx(expected, abs=1e-5)


def test_scores_are_the_formulas():
    x = LOGITS.double().numpy()
    assert np.allclose(energy_score(LOGITS), np.log(np.exp(x).sum(1)))
    assert np.allclose(max_softmax(LOGITS), np.exp(x).max(1) / np.exp(x).sum(1))


def test_auroc_counts_pairs():
    inside, outside = 1.5 * LOGITS[:150], LOGITS[150:]
    found = ood_auroc(inside, outside)
    for name, score in (("softmax", max_softmax), ("energy", energy_score)):
        a, b = score(inside)[:, None], score(outside)
        assert found[name] == pytest.approx(float(((a > b).double() + 0.5 * (a == b)).mean()))
        u = stats.mannwhitneyu(score(inside), score(outside)).statistic
        assert found[name] == pytest.approx(u / (150 * 250))
    assert found["energy"] > 0.5
    assert ood_auroc(LOGITS, LOGITS) == {"softmax": 0.5, "energy": 0.5}
    assert ood_auroc(10 * LOGITS + 100, LOGITS)["energy"] == 1


def test_bad_input():
    broken = LOGITS.clone()
    broken[3, 2] = float("nan")
    broken[9, 0] = float("inf")
    for refused in (
        lambda: calibration_error(broken, TARGETS),
        lambda: ood_auroc(broken, LOGITS),
        lambda: ood_auroc(LOGITS, broken),
    ):
        with pytest.raises(ValueError, match="2 of 400 logits are not finite: the model's training has diverged"):
            refused()
    with pytest.raises(ValueError, match="there are 399 labels for 400 samples"):
        calibration_error(LOGITS, TARGETS[:-1])
    with pytest.raises(ValueError, match="logits are of 6 and 5 classes: give those of one model"):
        ood_auroc(LOGITS, LOGITS[:, :5])
    for bad in (LOGITS[:0], LOGITS[:, :1], LOGITS.long(), LOGITS[0]):
        with pytest.raises(ValueError, match=r"logits are .*: give floats of \(N, K\)"):
            calibration_error(bad, TARGETS)
