"""Contrastive losses beside their papers' formulas, written naively in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from ssl_framework.nn import Clusters, InBatch, InfoNCE
from ssl_framework.pretext import DCL, NNCLR, MoCoV2, MoCoV3
from ssl_framework.pretext.contrastive.densecl import alike
from ssl_framework.pretext.contrastive.nnclr import nearest
from support import LinearEncoder, crops, moved, views_of


def cos(a: Tensor, b: Tensor) -> Tensor:
    return cosine_similarity(a, b, dim=0)


def decoupled(z: Tensor, temperature: float, sigma: float | None) -> Tensor:
    """Yeh et al., 2021, equations 6 and 7, one sample after the other."""
    n = len(z) // 2
    total = torch.zeros((), dtype=z.dtype)
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        positive = cos(z[i], z[j]) / temperature
        negatives = sum((cos(z[i], z[k]) / temperature).exp() for k in range(2 * n) if k % n != i % n)
        weight = torch.ones((), dtype=z.dtype)
        if sigma is not None:
            likeness = [(cos(z[k], z[k + n]).detach() / sigma).exp() for k in range(n)]
            weight = 2 - likeness[i % n] / (sum(likeness) / n)
        total = total - weight * positive + torch.as_tensor(negatives).log()
    return total / (2 * n)


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_dcl(sigma: float | None):
    torch.manual_seed(0)
    task = DCL(LinearEncoder(16, 6), hidden_dim=8, projection_dim=4, temperature=0.2, sigma=sigma).double()
    step = task(views_of(crops()))
    assert step.projection is not None
    expected = decoupled(step.projection, 0.2, sigma)
    torch.testing.assert_close(step.loss, expected, rtol=1e-10, atol=0)
    ours = torch.autograd.grad(step.loss, step.projection, retain_graph=True)[0]
    theirs = torch.autograd.grad(expected, step.projection, retain_graph=True)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_dcl_of_equal_embeddings_is_the_logarithm_of_the_negatives():
    task = DCL(LinearEncoder(16, 6), 8, 4, temperature=0.5).double()
    z = torch.ones(7, 4, dtype=torch.float64)
    assert task.criterion(z, z).item() == pytest.approx(-2 + math.log(12 * math.exp(2)), rel=1e-12)


def test_moco_v2():
    torch.manual_seed(0)
    task = moved(MoCoV2(LinearEncoder(16, 6), 8, 4, queue_size=9, temperature=0.2).double())
    x = crops()
    q = task.projector(task.encoder(x[0]).pooled)
    k = task.teacher.module(x[1])
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(q, k, strict=True):
        positive = (cos(a, b) / 0.2).exp()
        total = total - (positive / (positive + sum((cos(a, n) / 0.2).exp() for n in task.queue.rows))).log()
    step = task(views_of(x))
    torch.testing.assert_close(step.loss, total / len(q), rtol=1e-10, atol=0)
    step.loss.backward()
    assert all(p.grad is None for p in task.teacher.parameters())


def test_moco_v2_queue_holds_the_last_keys_first_in_first_out():
    torch.manual_seed(0)
    task = MoCoV2(LinearEncoder(16, 6), 8, 4, queue_size=12).double()
    seen = []
    for step in range(4):
        x = crops(seed=step)
        seen.append(normalize(task.teacher(x[1]), dim=1))
        task(views_of(x))
        before = task.queue.rows.clone()
        task.queue.follow(0.0)
        assert not torch.equal(task.queue.rows, before)
    rows = torch.cat(seen)[-12:]  # of 20 keys; the place of the next is 20 modulo 12
    torch.testing.assert_close(task.queue.rows.roll(-int(task.queue.next), 0), rows)
    assert int(task.queue.next) == 8


def test_moco_v2_keys_of_the_batch_are_no_negatives_of_it():
    torch.manual_seed(0)
    task, views = MoCoV2(LinearEncoder(16, 6), 8, 4, queue_size=12).double(), views_of(crops())
    assert torch.equal(task(views).loss, task(views).loss)  # staged twice, read never
    task.queue.follow(0.0)
    assert not torch.equal(task(views).loss, MoCoV2(LinearEncoder(16, 6), 8, 4, queue_size=12).double()(views).loss)


def test_queue_forgets_nothing_of_accumulated_batches_and_stages_nothing_in_evaluation():
    task = MoCoV2(LinearEncoder(16, 6), 8, 4, queue_size=12).double()
    for step in range(2):
        task(views_of(crops(seed=step)))
    task.queue.follow(0.0)
    assert int(task.queue.next) == 10
    task.eval()(views_of(crops()))
    task.queue.follow(0.0)
    assert int(task.queue.next) == 10


def test_moco_v3():
    torch.manual_seed(0)
    task = moved(MoCoV3(LinearEncoder(16, 6), 8, 4, temperature=0.3).double())
    x = crops()
    total = torch.zeros((), dtype=torch.float64)
    for one, other in ((0, 1), (1, 0)):
        q = task.predictor(task.projector(task.encoder(x[one]).pooled))
        k = task.teacher.module(x[other])
        for i in range(len(q)):
            s = torch.stack([cos(q[i], key) / 0.3 for key in k])
            total = total - 2 * 0.3 * s.log_softmax(0)[i] / len(q)  # algorithm 1
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-10, atol=0)


def test_nnclr():
    torch.manual_seed(0)
    task = NNCLR(LinearEncoder(16, 6), 8, 4, 8, queue_size=7, temperature=0.1).double()
    x = crops()
    projected = [task.projector(task.encoder(view).pooled) for view in x]
    z = [normalize(vectors, dim=1) for vectors in projected]
    total = torch.zeros((), dtype=torch.float64)
    for one, other in ((0, 1), (1, 0)):
        p = task.predictor(projected[other])  # algorithm 1: normalised in the loss alone
        for i in range(len(p)):
            neighbour = max(task.queue.rows, key=lambda row: float(row @ z[one][i].detach()))
            s = torch.stack([cos(neighbour, candidate) / 0.1 for candidate in p])
            total = total - s.log_softmax(0)[i] / (2 * len(p))  # equation 3
    torch.testing.assert_close(task(views_of(x)).loss, total, rtol=1e-10, atol=0)


def test_a_neighbour_is_the_most_alike():
    rows = normalize(torch.randn(20, 4), dim=1)
    assert torch.equal(nearest(normalize(rows[[3, 11]] + 1e-3, dim=1), rows), rows[[3, 11]])


def close(*shape: int) -> Tensor:
    """Unit vectors that half precision cannot tell apart."""
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)) + 20, dim=-1)


def test_the_most_alike_is_found_in_full_precision():
    rows, maps = close(50, 8), close(3, 9, 8)
    clusters = Clusters(8, 50, 2)
    clusters.centroids[:] = rows
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest(rows.flip(0), rows), rows.flip(0))
        assert torch.equal(alike(maps, maps), torch.arange(9).expand(3, 9))
        assert torch.equal(clusters.labels(torch.arange(50), rows), torch.arange(50).expand(2, 50))


@pytest.mark.parametrize("layers", [2, 3])
def test_moco_v3_has_as_many_layers_as_the_official_code_for_its_encoder(layers: int):
    task = MoCoV3(LinearEncoder(16, 6), 8, 4, projector_layers=layers)
    widths = [(m.in_features, m.out_features) for m in task.projector.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [(6, 8), *[(8, 8)] * (layers - 2), (8, 4)]
    with pytest.raises(ValueError, match="projector_layers=0"):
        MoCoV3(LinearEncoder(16, 6), 8, 4, projector_layers=0)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_uniform_logits_give_the_logarithm_of_the_number_of_keys(temperature: float):
    same = torch.ones(5, 3, dtype=torch.float64)
    assert InBatch(temperature)(same, same).item() == pytest.approx(math.log(5))
    assert InfoNCE(temperature)(same, same, same).item() == pytest.approx(math.log(6))


@pytest.mark.parametrize("criterion", [InBatch, InfoNCE])
@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(criterion: type[torch.nn.Module], temperature: float):
    with pytest.raises(ValueError, match=r"temperature=.* must be positive"):
        criterion(temperature)
