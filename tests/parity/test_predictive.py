"""Predictive losses beside their papers' formulas, written naively in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from ssl_framework import keyed
from ssl_framework.nn import Prototypes, sinkhorn
from ssl_framework.pretext import DINO, MMCR, WMSE, BarlowTwins, FroSSL, LeJEPA, ReSSL, SimSiam, SwAV, TiCo, VICReg
from ssl_framework.pretext.predictive.barlow_twins import CrossCorrelation
from ssl_framework.pretext.predictive.frossl import FrobeniusEntropy
from ssl_framework.pretext.predictive.lejepa import SIGReg
from ssl_framework.pretext.predictive.mmcr import ManifoldCapacity
from ssl_framework.pretext.predictive.vicreg import Variability, redundancy
from ssl_framework.pretext.predictive.w_mse import whiten
from ssl_framework.types import Encoding
from support import LinearEncoder, crops, moved, views_of


class Normalizing(nn.Module):
    """An encoder with BatchNorm at its end, which tells one forward of all views from one forward a view."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.norm = encoder, nn.BatchNorm1d(6).double()

    def forward(self, x: Tensor) -> Encoding:
        return Encoding(self.norm(self.encoder(x).pooled))


def made(cls: Any, *numbers: Any, **named: Any) -> Any:
    torch.manual_seed(0)
    return cls(LinearEncoder(16, 6), *numbers, **named).double()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def whitened(n: int, p: int) -> Tensor:
    """``(n, p)`` of mean 0 and covariance 1 (divided by n)."""
    x = noise(n, p)
    q, _ = torch.linalg.qr(x - x.mean(0))
    return q * n**0.5


# SimSiam


def test_simsiam():
    task, x = made(SimSiam, 8, 4, 3), crops()
    total = torch.zeros((), dtype=torch.float64)
    z = [task.projector(task.encoder(view).pooled) for view in x]
    for one, other in ((0, 1), (1, 0)):
        p = task.predictor(z[one])
        total = total - cosine_similarity(p, z[other]).mean() / 2  # equation 4
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-10, atol=0)


def test_simsiam_stops_the_gradient_at_the_target():
    """The gradient is that of a loss whose targets are numbers."""
    task, x = made(SimSiam, 8, 4, 3), crops()
    task(views_of(x)).loss.backward()
    found = task.encoder.linear.weight.grad.clone()
    task.zero_grad()
    targets = [task.projector(task.encoder(view).pooled).detach() for view in x]
    predictions = [task.predictor(task.projector(task.encoder(view).pooled)) for view in x]
    (-sum(cosine_similarity(p, z).mean() for p, z in zip(predictions, targets[::-1], strict=True)) / 2).backward()
    torch.testing.assert_close(found, task.encoder.linear.weight.grad, rtol=1e-9, atol=1e-12)


# Barlow Twins


def test_barlow_twins():
    task = made(BarlowTwins, 8, 4, redundancy=0.01)
    x = crops(batch=7)
    a, b = (task.projector(task.encoder(view).pooled) for view in x)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            u, v = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
            u, v = u / (u.square().mean() + 1e-5).sqrt(), v / (v.square().mean() + 1e-5).sqrt()
            c = (u * v).mean()  # equation 2
            total = total + ((1 - c) ** 2 if i == j else 0.01 * c**2)
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-10, atol=0)


def test_barlow_twins_of_fewer_samples_than_features():
    """The sum over smaller matrices is the sum over the cross-correlation, and so is its gradient."""
    a, b = noise(4, 9).requires_grad_(), noise(4, 9, seed=1).requires_grad_()
    u, v = (((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()) for z in (a, b))
    c = u.T @ v / 4
    expected = (c.diagonal() - 1).square().sum() + 0.01 * (c.square().sum() - c.diagonal().square().sum())
    found = CrossCorrelation(0.01)(a, b)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    for ours, theirs in zip(torch.autograd.grad(found, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_barlow_twins_of_whitened_equal_views_is_zero():
    z = whitened(32, 5)
    assert CrossCorrelation(0.005)(z, z).item() == pytest.approx(0, abs=1e-8)
    assert CrossCorrelation(0.005)(z, 3 * z + 1).item() == pytest.approx(0, abs=1e-8)


def test_barlow_twins_of_collapsed_views_is_the_number_of_features():
    assert CrossCorrelation(0.005)(torch.ones(8, 5), torch.ones(8, 5)).item() == pytest.approx(5)


# VICReg


def test_vicreg():
    task = made(VICReg, 8, 4, invariance=20.0, variance=15.0, covariance=2.0)
    x = crops(batch=7)
    views = [task.projector(task.encoder(view).pooled) for view in x]
    n, d = views[0].shape
    total = 20.0 * (views[0] - views[1]).square().sum() / (n * d)  # equation 5; a mean over features, official code
    for z in views:
        total = total + 15.0 * sum(max(0, 1 - math.sqrt(f.var().item() + 1e-4)) for f in z.T) / d / 2
        centred = z - z.mean(0)
        for i in range(d):
            for j in range(d):
                if i != j:
                    total = total + 2.0 * ((centred[:, i] * centred[:, j]).sum() / (n - 1)) ** 2 / d
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-10, atol=0)


def test_vicreg_by_hand():
    criterion = made(VICReg, 8, 4).criterion
    z = whitened(32, 4)
    z = z / z.std(0) * (1 - 1e-4) ** 0.5  # unit variance, with epsilon
    assert criterion(torch.stack([z, z])).item() == pytest.approx(0, abs=1e-8)
    one = torch.ones(2, 8, 4, dtype=torch.float64)
    assert criterion(one).item() == pytest.approx(25 * (1 - math.sqrt(1e-4)), rel=1e-12)  # 24.75 at collapse


@pytest.mark.parametrize("batch", [4, 9])
def test_covariances_whichever_of_the_two_matrices_is_smaller(batch: int):
    """Fewer samples than features, and more; each place has covariances of its own."""
    z = noise(batch, 3, 6)
    expected = torch.zeros((), dtype=torch.float64)
    for place in range(3):
        squares = torch.cov(z[:, place].T).square()
        expected = expected + (squares.sum() - squares.diagonal().sum()) / 6 / 3
    torch.testing.assert_close(redundancy(z), expected, rtol=1e-10, atol=0)


def test_vicreg_of_many_crops_counts_each_view_once():
    z = noise(4, 7, 3)
    spread = sum((1 - (view.var(0) + 1e-4).sqrt()).clamp(min=0).mean() for view in z) / 4
    off = [torch.cov(view.T).square() for view in z]
    shared = sum(squares.sum() - squares.diagonal().sum() for squares in off) / 3 / 4
    pairs = [(i, j) for i in range(2) for j in range(4) if i != j]
    distance = sum((z[i] - z[j]).square().mean() for i, j in pairs) / 6  # official code of VICRegL, `global_loss`
    torch.testing.assert_close(Variability(5.0, 3.0, 2.0)(z), 5 * distance + 3 * spread + 2 * shared, rtol=1e-10, atol=0)


# TiCo


def test_tico():
    task = moved(made(TiCo, 8, 4, memory=0.8, contrast=5.0))
    c = torch.zeros(4, 4, dtype=torch.float64)
    for step in range(3):
        x = crops(seed=step)
        z = [normalize(task.projector(task.encoder(view).pooled), dim=1) for view in x]
        t = [normalize(task.teacher.module(view), dim=1) for view in x]
        batch = sum(torch.outer(v, v) for view in z for v in view).detach() / 10
        c = 0.8 * c + 0.2 * batch  # equation 3
        total = 1 - sum((a * b).sum() for i in range(2) for a, b in zip(z[i], t[1 - i], strict=True)) / 10
        total = total + 5.0 * sum(v @ c @ v for view in z for v in view) / 10  # equation 4
        step_ = task(views_of(x))
        torch.testing.assert_close(step_.loss, total, rtol=1e-10, atol=0)
        ours = torch.autograd.grad(step_.loss, task.encoder.linear.weight)[0]
        theirs = torch.autograd.grad(total, task.encoder.linear.weight)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)  # none through the covariance
        task.covariance.follow(0.0)
    torch.testing.assert_close(task.covariance.value, c, rtol=1e-10, atol=0)


# MMCR


@pytest.mark.parametrize("compression", [0.0, 0.3])
def test_mmcr(compression: float):
    task = made(MMCR, 8, 4, compression=compression)
    x = crops(batch=6)
    z = normalize(torch.stack(task.projector(task.encoder(x.flatten(0, 1)).pooled).chunk(2)), dim=-1)
    total = -torch.linalg.svd(z.mean(0)).S.sum() + compression * sum(torch.linalg.svd(z[:, b]).S.sum() for b in range(6)) / 6
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-10, atol=0)


def test_mmcr_is_least_where_views_agree_and_samples_are_orthogonal():
    best = ManifoldCapacity(0.0)(torch.eye(4).expand(2, 4, 4)).item()
    assert best == pytest.approx(-4)
    assert ManifoldCapacity(0.0)(torch.ones(2, 4, 4)).item() == pytest.approx(-2)  # collapsed: one direction of length 2
    apart = torch.stack([torch.eye(4), torch.eye(4).roll(1, 0)])
    assert ManifoldCapacity(0.0)(apart).item() > best


# FroSSL


@pytest.mark.parametrize("batch", [3, 9])
def test_frossl(batch: int):
    task = made(FroSSL, 8, 4, invariance=1.5)
    x = crops(batch=batch)
    views = [task.projector(task.encoder(view).pooled) for view in x]
    views = [z / z.norm(dim=0) for z in views]
    mean = (views[0] + views[1]) / 2
    total = torch.zeros((), dtype=torch.float64)
    for z in views:
        gram = z.T @ z
        gram = gram / gram.trace()
        total = total + gram.square().sum().log()  # equation 6
        total = total + 1.5 * 2 * 4 * (z - mean).square().mean()  # equation 3
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-10, atol=0)


def test_frossl_of_equal_orthogonal_features_is_minus_the_logarithm_of_their_number():
    z = torch.linalg.qr(noise(16, 4)).Q
    assert FrobeniusEntropy(1.0)(torch.stack([z, z])).item() == pytest.approx(-2 * math.log(4))
    assert FrobeniusEntropy(1.0)(torch.ones(2, 16, 4)).item() == pytest.approx(0, abs=1e-5)  # collapsed


# W-MSE


def test_w_mse():
    task = made(WMSE, 8, 3, whitening_size=6)
    task.encoder = Normalizing(task.encoder)
    x, views = crops(batch=12), views_of(crops(batch=12))
    h = torch.cat([task.encoder(view).pooled for view in x])  # each view by itself, and the projector sees both
    z = torch.stack(task.projector(h).chunk(2))
    order = keyed.uniform(views.key, 1_000_011, 1)[:, 0].argsort()
    total = torch.zeros((), dtype=torch.float64)
    for group in order.split(6):
        whites = []
        for v in z:
            centred = v[group] - v[group].mean(0)
            whites.append(centred @ torch.linalg.inv(torch.linalg.cholesky(centred.T @ centred / 5)).T)
        total = total + sum(2 - 2 * cosine_similarity(a, b, dim=0) for a, b in zip(*whites, strict=True)) / 12
    torch.testing.assert_close(task(views).loss, total, rtol=1e-9, atol=0)


def test_whitened_samples_have_mean_zero_and_covariance_one():
    x = whiten(noise(2, 10, 3) @ noise(3, 3, seed=1) + 5)
    torch.testing.assert_close(x.mean(1), torch.zeros(2, 3, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(x.transpose(1, 2) @ x / 9, torch.eye(3, dtype=torch.float64).expand(2, 3, 3), rtol=0, atol=1e-9)


def test_w_mse_compares_every_pair_of_views():
    task, x = made(WMSE, 8, 3, whitening_size=6), crops(views=4, batch=12)
    white = task._whiten(task(views_of(x)).projection.unflatten(0, (4, 12)), views_of(x).key)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    total = sum(2 - 2 * cosine_similarity(white[i], white[j], dim=1).mean() for i, j in pairs) / 6
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-9, atol=0)


@pytest.mark.parametrize("task", [MMCR, FroSSL])
def test_tasks_of_any_number_of_views_use_all_of_them(task: Any):
    task, x = made(task, 8, 4), crops(views=4)
    step = task(views_of(x))
    torch.testing.assert_close(step.loss, task.criterion(step.projection.unflatten(0, (4, 5))), rtol=1e-10, atol=0)


def test_w_mse_in_half_precision_says_its_loss_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        step = made(WMSE, 8, 3, whitening_size=6).float()(views_of(crops(batch=12).float()))
    assert step.loss.dtype == torch.float32


def test_w_mse_refuses_what_it_cannot_whiten():
    with pytest.raises(ValueError, match="6 projections do not span their 3 directions"):
        whiten(torch.ones(2, 6, 3))
    with pytest.raises(ValueError, match=r"whitening_size=4 samples do not span projection_dim=4"):
        made(WMSE, 8, 4, whitening_size=4)
    with pytest.raises(ValueError, match=r"whitening_size=8 does not divide the batch of 5"):
        made(WMSE, 8, 4, whitening_size=8)(views_of(crops()))


# LeJEPA


def test_lejepa():
    task = made(LeJEPA, 8, 4, regularity=0.1, directions=5)
    x, views = crops(), views_of(crops())
    z = torch.stack(task.projector(task.encoder(x.flatten(0, 1)).pooled).chunk(2))
    prediction = (z - z.mean(0)).square().mean()
    directions = task._draw(views.key, 4)
    t = torch.linspace(-5, 5, 17, dtype=torch.float64)
    tests = []
    for view in z:  # algorithm 1
        for a in directions:
            angle = (view @ a)[:, None] * t
            characteristic = (1j * angle).exp().mean(0)
            error = (characteristic - (-0.5 * t**2).exp()).abs().square() * (-0.5 * t**2).exp()
            tests.append(torch.trapezoid(error, t) * len(view))
    expected = 0.9 * prediction + 0.1 * torch.stack(tests).mean()
    torch.testing.assert_close(task(views).loss, expected, rtol=1e-10, atol=0)


def test_lejepa_draws_unit_directions_that_change_with_the_batch():
    task = made(LeJEPA, 8, 4, directions=300)
    one, again, other = (task._draw(keyed.mix(0, epoch, torch.arange(5)), 4) for epoch in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    torch.testing.assert_close(one.norm(dim=1), torch.ones(300, dtype=torch.float64))
    assert one.mean(0).abs().max() < 0.15


def test_the_test_for_normality_prefers_the_normal_distribution():
    directions = normalize(noise(50, 3), dim=1)
    normal, wide, constant = noise(1, 2000, 3), 3 * noise(1, 2000, 3), torch.zeros(1, 2000, 3, dtype=torch.float64)
    values = [SIGReg().double()(z, directions).item() for z in (normal, wide, constant)]
    assert values[0] < 3 < values[1]
    assert values[0] < 3 < values[2]


# ReSSL


def test_ressl():
    task = moved(made(ReSSL, 8, 4, queue_size=9, temperature=0.1, teacher_temperature=0.04))
    x = crops()
    q, k = task.projector(task.encoder(x[0]).pooled), task.teacher.module(x[1])
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(q, k, strict=True):
        target = torch.stack([cosine_similarity(b, row, dim=0) / 0.04 for row in task.queue.rows]).softmax(0)
        guess = torch.stack([cosine_similarity(a, row, dim=0) / 0.1 for row in task.queue.rows]).log_softmax(0)
        total = total - (target * guess).sum() / len(q)  # equation 5
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-10, atol=0)


# SwAV


def assign(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Appendix A, listing 1 of SwAV, without its first line's overflow."""
    q = (scores / epsilon).exp().T
    q = q / q.sum()
    k, b = q.shape
    for _ in range(iterations):
        q = q / q.sum(dim=1, keepdim=True) / k
        q = q / q.sum(dim=0, keepdim=True) / b
    return (q * b).T


def test_sinkhorn():
    scores = noise(7, 5)
    torch.testing.assert_close(sinkhorn(scores, 0.3), assign(scores, 0.3, 3), rtol=1e-10, atol=0)
    q = sinkhorn(scores, 0.3, 200)
    torch.testing.assert_close(q.sum(1), torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(q.sum(0), torch.full((5,), 7 / 5, dtype=torch.float64))
    assert sinkhorn(1e4 * scores.float(), 0.05).isfinite().all()


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_swav(progress: float):
    task = made(SwAV, 8, 4, prototypes=6, temperature=0.2, epsilon=0.1, queue_size=9, queue_start=0.3)
    task.progress = progress
    x = crops()
    z = [normalize(task.projector(task.encoder(x.flatten(0, 1)).pooled), dim=1)[5 * i : 5 * i + 5] for i in range(2)]
    c = normalize(task.prototypes.weight, dim=1)
    total = torch.zeros((), dtype=torch.float64)
    for one, other in ((0, 1), (1, 0)):
        assigned = z[one] if progress < 0.3 else torch.cat([z[one], normalize(task.queues[one].rows, dim=1)])
        q = assign((assigned @ c.T).detach(), 0.1, 3)[:5]
        p = (z[other] @ c.T / 0.2).log_softmax(1)
        total = total - (q * p).sum() / 5 / 2  # equation 1, the mean of both directions (official code)
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-10, atol=0)


def test_swav_scores_in_full_precision():
    """Half a percent of a cosine would be a tenth of its exponential at epsilon 0.05."""
    task = made(SwAV, 8, 16, prototypes=6).float()
    task.encoder.linear, task.projector = nn.Identity(), nn.Identity()  # what is left is prototypes and codes
    task.progress, views = 0.5, views_of(crops().float())
    loss = task(views).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(task(views).loss, loss)


def test_uniform_scores_cost_the_logarithm_of_the_number_of_prototypes():
    task = made(SwAV, 8, 4, prototypes=6)
    with torch.no_grad():
        task.prototypes.weight[:] = task.prototypes.weight[0]
    assert task(views_of(crops())).loss.item() == pytest.approx(math.log(6))


def test_frozen_prototypes_get_a_gradient_of_zero_and_score_alike():
    prototypes, z = Prototypes(4, 6).double(), noise(5, 4).requires_grad_()
    free, frozen = prototypes(z), prototypes(z, frozen=True)
    assert torch.equal(free, frozen)
    frozen.sum().backward()
    assert prototypes.weight.grad is not None
    assert not prototypes.weight.grad.any()
    assert z.grad is not None
    assert z.grad.any()


# DINO


def dino(**named: Any) -> DINO:
    numbers = {"teacher_temperature": 0.05, "final_teacher_temperature": 0.07, "warmup_share": 0.5, "freeze_share": 0.1}
    return moved(made(DINO, 8, 4, 6, **{**numbers, **named}))


@pytest.mark.parametrize(("progress", "sharpness"), [(0.0, 0.05), (0.25, 0.06), (0.8, 0.07)])
def test_dino(progress: float, sharpness: float):
    task = dino()
    task.progress = progress
    task.centre.value += noise(6)
    x, local = crops(), crops(views=3, seed=1)
    s = [task.head(task.encoder(view).pooled) for view in (*x, *local)]
    t = [task.teacher.module(view) for view in x]
    total, terms = torch.zeros((), dtype=torch.float64), 0
    for i, target in enumerate(t):
        for j, guess in enumerate(s):
            if i != j:
                p = ((target - task.centre.value) / sharpness).softmax(1)
                total, terms = total - (p * (guess / 0.1).log_softmax(1)).sum(1).mean(), terms + 1
    assert terms == 8
    torch.testing.assert_close(task(views_of(x)._replace(local_crops=local)).loss, total / terms, rtol=1e-10, atol=0)


def test_dino_s_centre_is_the_moving_mean_of_the_teacher():
    task, centre = dino(centre_momentum=0.8), torch.zeros(6, dtype=torch.float64)
    for step in range(3):
        x = crops(seed=step)
        centre = 0.8 * centre + 0.2 * torch.cat([task.teacher.module(view) for view in x]).mean(0)  # equation 4
        task(views_of(x))
        task.centre.follow(0.0)
    torch.testing.assert_close(task.centre.value, centre, rtol=1e-10, atol=0)


def test_dino_stands_still_where_it_says_so():
    task, views = dino(), views_of(crops())
    for progress, moves in ((0.05, False), (0.2, True)):
        task.zero_grad()
        task.progress = progress
        task(views).loss.backward()
        gradient = task.head.prototypes.weight.grad
        assert gradient is not None
        assert bool(gradient.any()) == moves
        assert all(p.grad is None for p in task.teacher.parameters())


def test_scores_of_prototypes_are_not_rounded_to_half_precision():
    torch.manual_seed(0)
    prototypes, z = Prototypes(64, 100), torch.randn(5, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = prototypes(z.bfloat16())
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, prototypes(z.bfloat16().float()))
    with pytest.raises(ValueError, match="prototypes=0"):
        Prototypes(64, 0)
