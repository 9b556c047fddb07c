import copy

import pytest
import torch
from torch import nn

from ssl_framework import run
from ssl_framework.downstream import Frozen, Full, LabelledData, fingerprint

from .conftest import make_module, make_split


def _fit(module, steps=3):
    trainer = run.trainer(steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.fit(module, datamodule=LabelledData(make_split(24), batch_size=8))


@pytest.mark.parametrize("cut", [0, 1])
def test_frozen_is_the_same_to_the_bit_and_the_head_learns(encoder, cut):
    module = make_module(encoder, freezing=Frozen(), cut=cut)
    before, head = fingerprint(module.encoder), fingerprint(module.head)
    _fit(module)
    assert fingerprint(module.encoder) == before
    assert fingerprint(module.head) != head
    held = {id(p) for group in module.trainer.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in module.head.parameters()}


def test_full_moves_everything(encoder):
    module = make_module(encoder, freezing=Full())
    before = copy.deepcopy(module.encoder)
    _fit(module)
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), module.encoder.parameters(), strict=True)]
    assert all(moved)
    assert fingerprint(before) != fingerprint(module.encoder)


def test_the_given_encoder_is_left_alone(encoder):
    before = fingerprint(encoder)
    _fit(make_module(encoder, freezing=Full()))
    make_module(encoder, freezing=Frozen())
    assert fingerprint(encoder) == before
    assert all(p.requires_grad for p in encoder.parameters())


def test_train_does_not_wake_a_frozen_encoder(encoder):
    module = make_module(encoder, freezing=Frozen())
    assert module.train().training
    assert module.head.training
    assert not any(part.training for part in module.encoder.modules())
    module = make_module(encoder, freezing=Full())
    assert all(part.training for part in module.train().encoder.modules())
    assert not any(part.training for part in module.eval().encoder.modules())


def test_fingerprint_sees_every_bit():
    class Keeper(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
            self.register_buffer("hidden", torch.zeros(1), persistent=False)
            self.register_buffer("count", torch.tensor(0))

    first = fingerprint(Keeper())
    assert fingerprint(Keeper()) == first
    for name, value in (("hidden", torch.tensor([-0.0])), ("count", torch.tensor(1))):
        changed = Keeper()
        setattr(changed, name, value)
        assert fingerprint(changed) != first, name
    changed = Keeper()
    with torch.no_grad():
        changed.weight[1] = 1e-30
    assert fingerprint(changed) != first


def test_encoder_lr_is_a_multiple_of_the_heads(encoder):
    module = make_module(encoder, freezing=Full(encoder_lr=0.1))
    _fit(module, steps=2)
    rates = {}
    for group in module.trainer.optimizers[0].param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["initial_lr"]
    assert {rates[id(p)] for p in module.head.parameters()} == {3e-3}
    assert [rates[id(p)] for p in module.encoder.parameters()] == pytest.approx([3e-4] * len([*module.encoder.parameters()]))
    assert module.trainer.optimizers[0].param_groups[0]["initial_lr"] == 3e-3  # what is logged as lr is the head's


def test_full_refuses_what_cannot_learn(encoder):
    with pytest.raises(ValueError, match="encoder_lr=0"):
        Full(0)
    encoder.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="every parameter of the encoder is frozen"):
        make_module(encoder, freezing=Full())
