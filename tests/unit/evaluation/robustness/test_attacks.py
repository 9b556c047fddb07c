"""Attacks: what they are in closed form, what they leave alone, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_framework import keyed
from ssl_framework.downstream import Classification, DownstreamModule, Frozen
from ssl_framework.encoders import resnet_micro
from ssl_framework.evaluation import from_pixels
from ssl_framework.evaluation.robustness import attacks, fgsm, gradient, gradient_share, pgd, random_signs
from ssl_framework.metrics import accuracy

from .conftest import MEAN, STD, Learnt

EPS = 0.06


class Linear(nn.Module):
    """Logits of pixels that are linear, so that the worst change is known."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, 16, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T


def middling(count: int = 60) -> Tensor:
    """Images that no change of 0.1 takes out of [0, 1]."""
    return 0.3 + 0.4 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def loss(logits, x: Tensor, targets: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(logits(x).double(), targets, reduction="none")


def right(logits, x: Tensor, targets: Tensor) -> Tensor:
    with torch.no_grad():
        return logits(x).argmax(1) == targets


def test_both_ways_to_a_downstream_module_are_one():
    images = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    preprocessing = {"mean": list(MEAN), "std": list(STD), "size": [8, 8], "channels": 1}
    module = DownstreamModule(resnet_micro(1, 8), Classification(3), freezing=Frozen(), preprocessing=preprocessing).eval()
    logits = from_pixels(lambda x: module.head(module.encoder(x, layers=module.head.layers)), MEAN, STD)
    with torch.no_grad():
        assert torch.equal(logits(images.float() / 255), module(images))
    attacks.require_alike(module, logits, images)
    slope = gradient(logits, images.float() / 255, torch.zeros(6, dtype=torch.int64))  # though its encoder is frozen
    assert gradient_share(slope) == 1


def test_ways_that_differ_are_refused(learnt: Learnt):
    attacks.require_alike(learnt.of_uint8, learnt.logits, learnt.images[:9])
    other = from_pixels(learnt.network, (MEAN[0] + 0.01,), STD)
    with pytest.raises(ValueError, match=r"logits of the same pixels in .* differ: give both ways one mean, std and size"):
        attacks.require_alike(learnt.of_uint8, other, learnt.images[:9])


@pytest.mark.parametrize("part", [nn.Dropout, nn.BatchNorm2d])
def test_a_model_in_training_mode_is_refused(learnt: Learnt, part: type[nn.Module]):
    (layer,) = (layer for layer in learnt.network if isinstance(layer, part))
    before = {name: value.clone() for name, value in learnt.network.state_dict().items()}
    layer.train()
    try:
        with pytest.raises(ValueError, match=r"evaluation mode \(model.eval\(\)\)"):
            attacks.require_alike(learnt.of_uint8, learnt.logits, learnt.images[:9])
    finally:
        layer.eval()
        learnt.network.load_state_dict(before)


def test_fgsm_is_the_sign_of_the_closed_form():
    model, x = Linear(3), middling()
    targets = torch.arange(60) % 3
    errors = model(x).softmax(1) - F.one_hot(targets, 3)
    expected = x + EPS * (errors @ model.weight).sign().view_as(x)
    assert torch.allclose(fgsm(model, x, targets, EPS), expected.detach(), atol=1e-6)


def test_gradient_is_that_of_differences(learnt: Learnt):
    """That of the cross-entropy, over the probability of the other classes: the slope of softplus."""
    network = learnt.network.double()
    try:
        logits, x, targets = from_pixels(network, MEAN, STD), learnt.x[:2].double() * 0.98 + 0.01, learnt.targets[:2]
        others = 1 - (-loss(logits, x, targets)).exp()
        slope = gradient(logits, x, targets) * others[:, None, None, None]
        for row, y, c in ((0, 3, 3), (1, 4, 2), (1, 2, 5)):
            step = torch.zeros_like(x)
            step[row, 0, y, c] = 1e-6
            difference = (loss(logits, x + step, targets) - loss(logits, x - step, targets))[row] / 2e-6
            assert float(slope[row, 0, y, c]) == pytest.approx(float(difference), rel=1e-4, abs=1e-9)
    finally:
        network.float()


def test_pgd_finds_the_worst_of_a_linear_model():
    """Two classes: no change of eps each costs more margin than eps times the sum of the weights' sizes."""
    model, x = Linear(2), middling()
    targets = torch.arange(60) % 2
    weight = (model.weight[1] - model.weight[0]).detach()
    towards = torch.where(targets == 1, -1.0, 1.0)[:, None] * weight.sign()
    worst = x + EPS * towards.view_as(x)
    found = pgd(model, x, targets, EPS)
    assert torch.equal(right(model, found, targets), right(model, worst, targets))
    robust = right(model, worst, targets)
    assert 0 < int(robust.sum()) < int(right(model, x, targets).sum())
    assert torch.allclose(found[robust], worst[robust], atol=1e-6)


def test_pgd_walks_as_written(learnt: Learnt):
    """Step by step, as in Madry et al., for the samples that withstand."""
    x, targets, eps, steps = learnt.x, learnt.targets, 0.03, 7
    drawn = keyed.uniform(keyed.mix(5, torch.arange(len(x))), attacks._START, 64).view(x.shape)
    at = (x + eps * (2 * drawn - 1).float()).clamp(0, 1)
    path = [x]
    for _ in range(steps):
        path.append(at)
        slope = gradient(learnt.logits, at, targets)
        at = at + 2.5 * eps / steps * slope.sign()
        at = torch.min(torch.max(at, x - eps), x + eps).clamp(0, 1)
    path.append(at)
    withstood = torch.stack([right(learnt.logits, point, targets) for point in path])  # (steps + 2, B)
    losses = torch.stack([loss(learnt.logits, point, targets) for point in path])
    found = pgd(learnt.logits, x, targets, eps, steps=steps, seed=5)
    robust = withstood.all(0)
    assert 20 < int(robust.sum()) < 195
    assert torch.allclose(loss(learnt.logits, found, targets)[robust], losses.amax(0)[robust], rtol=1e-3, atol=1e-5)
    assert torch.equal(right(learnt.logits, found, targets), robust)
    first = (~withstood).int().argmax(0)
    stopped = torch.stack([path[int(moves)][row] for row, moves in enumerate(first)])
    assert torch.allclose(found[~robust], stopped[~robust], atol=1e-6)


def test_more_steps_of_one_length_are_never_weaker(learnt: Learnt):
    before = right(learnt.logits, learnt.x, learnt.targets)
    lossy = loss(learnt.logits, learnt.x, learnt.targets)
    for steps in (1, 2, 4, 8, 16, 32):
        found = pgd(learnt.logits, learnt.x, learnt.targets, EPS, steps=steps, step=0.01)
        after = right(learnt.logits, found, learnt.targets)
        assert not bool((after & ~before).any())
        losses = loss(learnt.logits, found, learnt.targets)
        assert bool((losses[after] >= lossy[after] - 1e-5).all())
        before, lossy = after, losses


def test_stronger_than_fgsm_and_chance(learnt: Learnt):
    eps = 0.1
    scores = [
        accuracy(learnt.logits(x), learnt.targets)
        for x in (
            learnt.x,
            random_signs(learnt.x, eps),
            fgsm(learnt.logits, learnt.x, learnt.targets, eps),
            pgd(learnt.logits, learnt.x, learnt.targets, eps),
        )
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.95
    assert scores[3] < scores[2] - 0.02 < scores[1] - 0.2


@pytest.mark.parametrize("eps", [0.0, 2 / 255, 0.3, 1.0])
def test_changes_keep_to_the_budget(learnt: Learnt, eps: float):
    x, targets = learnt.x, learnt.targets
    for found in (
        fgsm(learnt.logits, x, targets, eps),
        pgd(learnt.logits, x, targets, eps, steps=4),
        random_signs(x, eps),
    ):
        assert float((found - x).abs().max()) <= eps + 1e-6
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
        if eps == 0:
            assert torch.equal(found, x)
    if eps == 1:
        assert accuracy(learnt.logits(pgd(learnt.logits, x, targets, eps)), targets) == 0


def test_random_signs_move_every_pixel_as_far():
    x = middling()
    change = random_signs(x, EPS) - x
    assert torch.allclose(change.abs(), torch.full_like(x, EPS), atol=1e-6)
    assert abs(float(change.sign().mean())) < 0.1
    assert not torch.equal(random_signs(x, EPS, seed=1), random_signs(x, EPS))


def test_the_start_belongs_to_the_sample(learnt: Learnt):
    rows = torch.tensor([40, 3, 17])
    whole = pgd(learnt.logits, learnt.x, learnt.targets, 0.03, steps=3, seed=2)
    part = pgd(learnt.logits, learnt.x[rows], learnt.targets[rows], 0.03, steps=3, seed=2, index=rows)
    assert torch.allclose(part, whole[rows], atol=1e-6)
    other = pgd(learnt.logits, learnt.x[rows], learnt.targets[rows], 0.03, steps=3, seed=3, index=rows)
    assert not torch.allclose(other, part, atol=1e-3)
    assert torch.equal(random_signs(learnt.x, 0.1)[rows], random_signs(learnt.x[rows], 0.1, index=rows))


def test_the_model_is_left_as_it_was(learnt: Learnt):
    network = learnt.network
    weight = network[0].weight
    weight.grad = torch.ones_like(weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [part.training for part in network.modules()]
    x = learnt.x[:20].clone()
    try:
        pgd(learnt.logits, x, learnt.targets[:20], EPS, steps=3)
        fgsm(learnt.logits, x, learnt.targets[:20], EPS)
        assert torch.equal(weight.grad, torch.ones_like(weight))
        assert all(p.grad is None for name, p in network.named_parameters() if name != "0.weight")
    finally:
        weight.grad = None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [part.training for part in network.modules()] == modes
    assert torch.equal(x, learnt.x[:20])
    assert not x.requires_grad


def test_frozen_weights_and_no_grad_do_not_disarm(learnt: Learnt):
    expected = pgd(learnt.logits, learnt.x, learnt.targets, EPS, steps=3)
    learnt.network.requires_grad_(requires_grad=False)
    try:
        with torch.no_grad():
            found = pgd(learnt.logits, learnt.x, learnt.targets, EPS, steps=3)
    finally:
        learnt.network.requires_grad_(requires_grad=True)
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_a_very_sure_model_still_has_gradients(learnt: Learnt):
    """Its loss is 0 and so is every gradient of that, and it would look robust."""

    def sure(x: Tensor) -> Tensor:
        return 40 * learnt.logits(x)

    x = learnt.x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(sure(x), learnt.targets), x)
    assert gradient_share(slope) < 0.5
    assert gradient_share(gradient(sure, learnt.x, learnt.targets)) == 1
    found, plain = (pgd(logits, learnt.x, learnt.targets, EPS) for logits in (sure, learnt.logits))
    assert accuracy(sure(found), learnt.targets) == pytest.approx(accuracy(learnt.logits(plain), learnt.targets), abs=0.02)


def test_masked_gradients_are_seen(learnt: Learnt):
    assert gradient_share(gradient(learnt.logits, learnt.x, learnt.targets)) == 1
    assert gradient_share(gradient(lambda x: learnt.logits((x * 8).round() / 8), learnt.x, learnt.targets)) == 0


def test_bad_input(learnt: Learnt):
    x, targets, logits = learnt.x[:5], learnt.targets[:5], learnt.logits
    for attack in (fgsm, pgd):
        for eps in (-0.1, 1.5, float("nan")):
            with pytest.raises(ValueError, match=f"eps={eps}: give the most that a pixel in .* may change, from 0 to 1"):
                attack(logits, x, targets, eps)
        with pytest.raises(ValueError, match="there are 4 labels for 5 samples: give one a sample"):
            attack(logits, x, targets[:4], EPS)
        with pytest.raises(ValueError, match=r"labels go from .* to 12, and there are 10 classes"):
            attack(logits, x, torch.tensor([1, 2, 3, 4, 12]), EPS)
        with pytest.raises(ValueError, match=r"pixels are torch.uint8 .*: give floats of \(B, C, H, W\)"):
            attack(logits, learnt.images[:5], targets, EPS)
        with pytest.raises(ValueError, match="pixels go from 0 to 255: give them in"):
            attack(logits, x * 255, targets, EPS)
        with pytest.raises(ValueError, match="pixels go from nan to nan: give them in"):
            attack(logits, x * float("nan"), targets, EPS)
        with pytest.raises(ValueError, match="5 of 5 logits are not finite"):
            attack(lambda pixels: logits(pixels) * float("nan"), x, targets, EPS)
        with pytest.raises(ValueError, match="no gradient with respect to pixels: give a function of floats without no_grad"):
            attack(torch.no_grad()(logits), x, targets, EPS)
    with pytest.raises(ValueError, match="steps=0: give 1 or more"):
        pgd(logits, x, targets, EPS, steps=0)
    with pytest.raises(ValueError, match=r"index has the shape \(2,\) for 5 images"):
        pgd(logits, x, targets, EPS, index=torch.arange(2))
    with pytest.raises(ValueError, match="eps=-1"):
        random_signs(x, -1)
