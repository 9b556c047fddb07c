"""Frozen or fine-tuned: by what is measured on validation, and never by what cannot be measured."""

from typing import Any

import pytest
import torch

from ssl_framework.downstream import Auto, Frozen, LpFt, choose_freezing
from ssl_framework.optim import sgd

from .conftest import make_module, make_split


def test_fine_tuning_wins_by_more_than_one_standard_error(encoder, monkeypatch):
    frozen, tuned = [1.0] * 6 + [0.0] * 14, [0.0] * 20
    difference = torch.tensor(frozen) - torch.tensor(tuned)
    monkeypatch.setattr("ssl_framework.downstream.choice._badness", _given(frozen, tuned))
    choice = _choose(encoder)
    assert choice.policy == LpFt()
    assert choice.gain == pytest.approx(0.3)
    assert choice.error == pytest.approx(float(difference.std() / 20**0.5))
    assert "lp_ft, because after 5 steps on 60 labels" in choice.reason


def test_a_difference_within_one_standard_error_keeps_the_encoder_frozen(encoder, monkeypatch):
    frozen, tuned = [1.0, 0.0] * 10, [0.0, 1.0] * 9 + [0.0, 0.0]  # better by one of twenty
    monkeypatch.setattr("ssl_framework.downstream.choice._badness", _given(frozen, tuned))
    choice = _choose(encoder)
    assert 0 < choice.gain < choice.error
    assert choice.policy == Frozen()


def test_labels_that_are_too_few_are_not_compared_on(encoder):
    choice = choose_freezing(Auto(), _maker(encoder), make_split(60).subset(2, 0), None, steps=5)
    assert choice.policy == Frozen()
    assert choice.gain is None
    assert "3 labels to learn from and 3 to judge on are too few" in choice.reason


def test_both_are_trained_and_compared_for_real(encoder):
    train, val = make_split(240), make_split(120, name="val", seed=1)
    choice = choose_freezing(Auto(steps=80), _maker(encoder), train, val, steps=100, batch_size=32)
    assert "after 80 steps on 240 labels" in choice.reason
    assert abs(choice.gain) < 0.2  # bars that even random features tell apart: both learn them
    assert choice.policy == (LpFt() if choice.gain > choice.error else Frozen())


def test_a_warm_up_of_the_long_training_is_shortened_with_it(encoder):
    """Half of 400 steps, and so two of four, of which `LpFt` has two for each of its parts."""
    made: list[Any] = []

    def make(policy, train):
        made.append(make_module(encoder, freezing=policy, optimizer=sgd(lr=0.1, warmup_steps=200)))
        return made[-1]

    choose_freezing(Auto(steps=4), make, make_split(30), make_split(30, name="val", seed=1), steps=400)
    assert [module.optimizer.warmup_share for module in made] == [0.5, 0.5]
    assert [module.optimizer.warmup_steps for module in made] == [None, None]


def test_balanced_labels_are_compared_on_balanced(encoder, monkeypatch):
    monkeypatch.setattr(
        "ssl_framework.downstream.choice._badness", lambda _, data, judge, *__: 0.1 * data.balanced * torch.rand(20)
    )
    train, val = make_split(30), make_split(20, name="val", seed=1)
    assert choose_freezing(Auto(), _maker(encoder), train, val, steps=5).gain == 0
    assert choose_freezing(Auto(), _maker(encoder), train, val, steps=5, balanced=True).gain != 0


def test_without_a_validation_split_a_third_of_the_labels_judges(encoder, monkeypatch):
    seen: list[tuple[set[int], set[int]]] = []

    def badness(module, data, judge, *_):
        seen.append((set(data.train.index.tolist()), set(judge.index.tolist())))
        return torch.zeros(len(judge)).double()

    monkeypatch.setattr("ssl_framework.downstream.choice._badness", badness)
    split = make_split(60)
    choose_freezing(Auto(), _maker(encoder), split, None, steps=5)
    (learnt, judged), again = seen
    assert again == (learnt, judged)  # the same for both
    assert not learnt & judged
    assert learnt | judged == set(split.index.tolist())
    assert len(judged) == 21  # 7 of each class of 20
    assert split.targets[sorted(judged)].bincount().tolist() == [7, 7, 7]


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"freezing\.steps=0"):
        Auto(steps=0)


def _maker(encoder):
    return lambda policy, train: make_module(encoder, freezing=policy)


def _choose(encoder):
    return choose_freezing(Auto(), _maker(encoder), make_split(60), make_split(20, name="val", seed=1), steps=5)


def _given(frozen, tuned):
    said = iter([torch.tensor(frozen).double(), torch.tensor(tuned).double()])
    return lambda *_: next(said)
