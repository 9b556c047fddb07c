"""Wrong labels: exactly as many as asked for, never the right one, all others alike."""

import pytest
import torch
from scipy import stats

from ssl_framework.evaluation import noisy

TARGETS = torch.arange(3000) % 5


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 1.0])
def test_exactly_the_share_is_wrong(share: float):
    wrong = noisy(TARGETS[:777], share, 5, 0) != TARGETS[:777]
    assert int(wrong.sum()) == round(share * 777)


def test_all_other_classes_are_as_likely():
    made = noisy(TARGETS, 0.4, 5, 1)
    steps = ((made - TARGETS) % 5)[made != TARGETS]
    counts = torch.bincount(steps, minlength=5)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:].numpy()).pvalue > 0.001
    hit = torch.bincount(TARGETS[made != TARGETS], minlength=5)
    assert stats.chisquare(hit.numpy()).pvalue > 0.001
    assert made.min() >= 0
    assert made.max() < 5


def test_it_belongs_to_the_key_and_shares_are_nested():
    less, more = noisy(TARGETS, 0.2, 5, 3), noisy(TARGETS, 0.4, 5, 3)
    wrong = less != TARGETS
    assert torch.equal(less, noisy(TARGETS, 0.2, 5, 3))
    assert torch.equal(less[wrong], more[wrong])
    assert not torch.equal(less, noisy(TARGETS, 0.2, 5, 4))
    assert torch.equal(TARGETS, torch.arange(3000) % 5)


def test_two_classes():
    assert torch.equal(noisy(TARGETS[:50] % 2, 1.0, 2, 0), 1 - TARGETS[:50] % 2)


def test_bad_input():
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"share={share}: give the share of labels to replace, from 0 to 1"):
            noisy(TARGETS, share, 5, 0)
    with pytest.raises(ValueError, match="num_classes=1: a label is replaced by another class, so give 2 or more"):
        noisy(TARGETS * 0, 0.2, 1, 0)
    with pytest.raises(ValueError, match="labels go from 0 to 4, and there are 4 classes"):
        noisy(TARGETS, 0.2, 4, 0)
    with pytest.raises(ValueError, match="labels go from -1"):
        noisy(TARGETS - 1, 0.2, 5, 0)
    for bad in (TARGETS.float(), TARGETS[:, None], TARGETS[:0]):
        with pytest.raises(ValueError, match=r"labels are .*: give int64 of \(N,\)"):
            noisy(bad, 0.2, 5, 0)
