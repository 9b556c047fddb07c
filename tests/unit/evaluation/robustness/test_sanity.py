"""Checks of attacks pass on a plain network, and fail where gradients are masked or the model cannot be moved."""

import torch
from torch import Tensor

from ssl_framework.evaluation import Check, sanity

from .conftest import Learnt


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.passed}


def test_a_plain_network_passes(learnt: Learnt):
    checks = sanity(learnt.logits, learnt.x, learnt.targets, 0.1)
    assert len(checks) == 7
    assert failed(checks) == set(), checks


def test_masked_gradients_fail(learnt: Learnt):
    def stepped(x: Tensor) -> Tensor:
        return learnt.logits((x * 2).round() / 2)

    assert {"gradients are there", "a whole budget leaves nothing"} <= failed(sanity(stepped, learnt.x, learnt.targets, 0.1))


def test_gradients_that_mislead_fail(learnt: Learnt):
    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx, slope: Tensor) -> Tensor:
            return -slope

    def misled(x: Tensor) -> Tensor:
        return learnt.logits(Reversed.apply(x))

    assert "a gradient beats chance" in failed(sanity(misled, learnt.x, learnt.targets, 0.3))


def test_numbers_are_told(learnt: Learnt):
    found = {check.name: check.found for check in sanity(learnt.logits, learnt.x[:50], learnt.targets[:50], 0.1, steps=5)}
    assert found["gradients are there"] == "in 100.0% of the samples"
    assert found["more steps are not weaker"].startswith("10 steps ")
