"""Tasks that remember every sample, beside their papers' formulas, written naively in float64."""

import math

import pytest
import torch
from torch.nn.functional import log_softmax, normalize

from ssl_framework import keyed
from ssl_framework.nn import Clusters, Follower, MemoryBank, spherical_k_means
from ssl_framework.nn import clusters as clusters_module
from ssl_framework.pretext import NPID, PIRL, DeepClusterV2, PretextModule
from support import LinearEncoder, MapEncoder, crops, on_ranks, views_of


def test_npid():
    torch.manual_seed(0)
    task = NPID(LinearEncoder(16, 6), projection_dim=4, negatives=7, temperature=0.5).double()
    x = torch.randn(1, 5, 1, 4, 4, dtype=torch.float64)
    views = views_of(x)
    task.bank.begin(20)
    z = normalize(task.projector(task.encoder(x[0]).pooled), dim=1)
    drawn = task.bank.draw(views.key, 7)[1]
    constant = 20 * (z @ drawn.T / 0.5).exp().mean()  # section 3.2: N / m times the sum over negatives, the mean over samples
    for step in range(2):
        total = 0.0
        for i in range(5):

            def h(score: torch.Tensor) -> torch.Tensor:
                p = score.exp() / constant
                return p / (p + 7 / 20)  # equation 6

            total -= h(z[i] @ task.bank.rows[i] / 0.5).log().item()
            total -= sum((1 - h(z[i] @ other / 0.5)).log().item() for other in drawn)  # equation 7
        assert task(views).loss.item() == pytest.approx(total / 5, rel=1e-9), step
        task.constant.follow(0.0)  # what the second step sees is the constant of the first
        task.constant._staged.clear()


def test_pirl():
    torch.manual_seed(0)
    task = PIRL(MapEncoder(6), projection_dim=4, negatives=7, temperature=0.5, transformed=0.3).double()
    x = torch.randn(1, 5, 1, 6, 6, dtype=torch.float64)
    views = views_of(x)
    assert views.key is not None
    task.bank.begin(8)
    order = keyed.uniform(views.key, 1_000_027, 9).argsort(dim=1)
    drawn = task.bank.draw(views.key, 7)[0].tolist()
    assert set(drawn) & set(range(5))
    total = 0.0
    for b in range(5):
        tile = [x[0, b, :, 2 * (i // 3) : 2 * (i // 3) + 2, 2 * (i % 3) : 2 * (i % 3) + 2] for i in order[b].tolist()]
        parts = torch.cat([task.tile_projector(task.encoder(t[None]).pooled)[0] for t in tile])
        vectors = {0.3: task.joint_projector(parts), 0.7: task.projector(task.encoder(x[0, b : b + 1]).pooled)[0]}
        for weight, v in vectors.items():
            scores = torch.stack(
                [
                    normalize(v, dim=0) @ other / 0.5
                    for other in (task.bank.rows[b], *(task.bank.rows[n] for n in drawn if n != b))
                ]
            )
            p = scores.softmax(0)  # equation 3
            total -= weight * (p[0].log() + (1 - p[1:]).log().sum()).item()  # equation 4
    assert task(views).loss.item() == pytest.approx(total / 5, rel=1e-9)


def test_pirl_cuts_the_second_view_if_there_is_one():
    torch.manual_seed(0)
    task = PIRL(MapEncoder(6), projection_dim=4, negatives=7, transformed=1.0).double()
    task.bank.begin(8)
    x = torch.randn(3, 5, 1, 6, 6, dtype=torch.float64)
    two = task(views_of(x[:2])).loss
    assert torch.equal(task(views_of(x)).loss, two)
    assert torch.equal(task(views_of(x[[2, 1]])).loss, two)
    assert torch.equal(task(views_of(x[1:2])).loss, two)


@pytest.mark.parametrize("cls", [NPID, PIRL, DeepClusterV2])
def test_in_validation_samples_are_not_taken_for_those_remembered(cls: type[PretextModule]):
    torch.manual_seed(0)
    numbers = {"prototypes": 5, "hidden_dim": 8} if cls is DeepClusterV2 else {"negatives": 7}
    task = cls(MapEncoder(6), projection_dim=4, **numbers).double()
    views = views_of(torch.randn(2, 5, 1, 6, 6, dtype=torch.float64))
    assert views.index is not None
    assert task.eval()(views).loss.isfinite()  # before any training
    task.train()(views)
    for follower in (m for m in task.modules() if isinstance(m, Follower)):
        follower.follow(0.5)
    loss = task.eval()(views).loss
    for index in (views.index.flip(0), views.index + 1000):
        assert torch.equal(task(views._replace(index=index)).loss, loss)


def test_a_bank_remembers_each_sample_by_a_moving_unit_vector():
    bank, index = MemoryBank(3, momentum=0.5).double(), torch.tensor([4, 1])
    bank.begin(6)
    before, z = bank.rows.clone(), normalize(torch.randn(2, 3, dtype=torch.float64), dim=1)
    bank.stage(index, z)
    assert torch.equal(bank.rows, before)
    bank.follow(0.0)
    torch.testing.assert_close(bank.rows[index], normalize(0.5 * before[index] + 0.5 * z, dim=1))
    rest = [0, 2, 3, 5]
    assert torch.equal(bank.rows[rest], before[rest])
    torch.testing.assert_close(bank.rows.norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_a_bank_takes_the_size_of_the_data_or_of_what_is_loaded():
    bank = MemoryBank(3)
    assert bank.look_up(torch.tensor([2, 0])).shape == (2, 3)
    assert bank.look_up(torch.tensor([4, 1])).shape == (2, 3)  # nobody said how many there are
    first = bank.rows.clone()
    bank.begin(10)
    assert torch.equal(bank.rows[:5], first)
    other = MemoryBank(3)
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.rows, bank.rows)
    with pytest.raises(RuntimeError, match="size mismatch"):
        MemoryBank(4).load_state_dict(bank.state_dict())


def test_an_even_choice_costs_what_the_noise_says():
    """All scores are alike: every sample has the probability 1 / N, and h is 1 / (1 + m)."""
    task = NPID(LinearEncoder(16, 6), projection_dim=4, negatives=7).double()
    task.bank.begin(20)
    task.bank.rows[:] = normalize(torch.ones(4, dtype=torch.float64), dim=0)
    expected = -math.log(1 / 8) - 7 * math.log(7 / 8)
    assert task(views_of(torch.randn(1, 1, 1, 4, 4).double())).loss.item() == pytest.approx(expected, rel=1e-9)


def test_deepcluster_v2():
    torch.manual_seed(0)
    task = DeepClusterV2(LinearEncoder(16, 6), 8, 4, prototypes=5, clusterings=2, temperature=0.2).double()
    task.clusters.begin(5)
    for step in range(2):
        x = crops(seed=step)
        z = normalize(task.projector(task.encoder(x.flatten(0, 1)).pooled), dim=1).view(2, 5, 4)
        said = z[0] if step == 0 else task.clusters.rows
        total = 0.0
        for c in range(2):
            centroids = task.clusters.centroids[c]
            for b in range(5):
                label = int((centroids @ said[b]).argmax())
                total -= sum(log_softmax(centroids @ z[v, b] / 0.2, 0)[label].item() for v in range(2))
        assert task(views_of(x)).loss.item() == pytest.approx(total / 20, rel=1e-9)
        task.clusters.follow(0.0)
        assert task.clusters.count.passes == step + 1


def test_clusters_are_found_when_what_is_known_has_doubled_and_then_at_the_end_of_each_pass():
    torch.manual_seed(0)
    planted = torch.eye(4)[:3]
    rows = normalize(planted.repeat_interleave(10, 0) + 0.05 * torch.randn(30, 4), dim=1)
    order = torch.randperm(30)
    clusters = Clusters(4, 3, 2)
    clusters.begin(30)
    found_at: list[int] = []
    for seen in range(2, 91, 2):
        before, index = clusters.centroids.clone(), order[torch.arange(seen - 2, seen) % 30]
        clusters.stage(index, rows[index])
        clusters.follow(0.0)
        if not torch.equal(clusters.centroids, before):
            found_at.append(seen)
    assert found_at == [2, 4, 8, 16, 30, 60, 90]
    assert clusters.count.passes == 3
    assert not torch.equal(clusters._starts(rows, 0), clusters._starts(rows, 1))
    torch.testing.assert_close(clusters.rows, rows)
    found = clusters.labels(torch.arange(30), torch.zeros(30, 4))
    assert all(len(set(row[start : start + 10].tolist())) == 1 for row in found for start in (0, 10, 20))


def test_samples_that_nothing_was_said_of_are_not_clustered():
    clusters = Clusters(4, 2, 1)
    clusters.begin(100)
    clusters.stage(torch.arange(8), torch.eye(4).repeat(2, 1))
    clusters.follow(0.0)
    assert not clusters.rows[8:].any()
    torch.testing.assert_close(clusters.centroids.norm(dim=-1), torch.ones(1, 2))  # means of what was said, not zeros


def clustered(rank: int, world: int) -> torch.Tensor:
    """Each process adds up in an order of its own, as GPUs do."""
    exact = clusters_module.spherical_k_means
    clusters_module.spherical_k_means = lambda *inputs: exact(*inputs) + 1e-7 * rank  # in this child only
    clusters = Clusters(4, 3, 2)
    clusters.begin(10)
    clusters.stage(torch.arange(5 * rank, 5 * rank + 5), normalize(torch.arange(20.0).view(5, 4) + rank, dim=1))
    clusters.follow(0.0)
    return clusters.centroids


def test_all_processes_take_the_centroids_of_the_first():
    first, second = on_ranks(2, clustered)
    assert torch.equal(first, second)
    assert first.norm() > 0


def test_of_a_sample_that_is_twice_in_a_batch_the_last_vector_is_kept(monkeypatch: pytest.MonkeyPatch):
    """Whichever of them a GPU writes last: all of a sample are its last one."""
    bank = MemoryBank(4, momentum=0.0)
    bank.begin(6)
    before, z, index = bank.rows.clone(), normalize(torch.randn(5, 4), dim=1), torch.tensor([2, 4, 2, 0, 2])
    written: list[torch.Tensor] = []
    copy = torch.Tensor.index_copy_
    monkeypatch.setattr(torch.Tensor, "index_copy_", lambda self, *given: (written.append(given[2]), copy(self, *given))[1])
    bank.stage(index, z)
    bank.follow(0.0)
    torch.testing.assert_close(written[0], z[[4, 1, 4, 3, 4]])
    torch.testing.assert_close(bank.rows[[0, 2, 4]], z[[3, 4, 1]])
    assert torch.equal(bank.rows[[1, 3, 5]], before[[1, 3, 5]])


def test_k_means_agrees_with_its_loop():
    torch.manual_seed(1)
    rows, starts = (normalize(torch.randn(n, 3, dtype=torch.float64), dim=1) for n in (40, 4))
    starts[3] = -rows.mean(0)  # far from all: perhaps nobody's
    expected = starts.clone()
    for _ in range(3):
        nearest = [int((expected @ row).argmax()) for row in rows]
        for k in range(4):
            mine = [row for row, which in zip(rows, nearest, strict=True) if which == k]
            if mine:
                expected[k] = normalize(torch.stack(mine).sum(0), dim=0)
    torch.testing.assert_close(spherical_k_means(rows, starts, 3), expected)


def test_clusters_of_a_plain_loader_are_those_of_what_is_said_until_something_is_remembered():
    """Nobody says how many samples there are, and they come in order: each is new, and none is labelled by zeros."""
    torch.manual_seed(0)
    clusters = Clusters(8, 6, 2)
    for start in range(0, 120, 24):
        index, z = torch.arange(start, start + 24), normalize(torch.randn(24, 8), dim=1)
        centroids = clusters.centroids.clone()
        labels = clusters.labels(index, z)
        expected = torch.stack([(z @ c.T).argmax(1) for c in centroids])
        assert torch.equal(labels, expected)
        assert all(len(one.unique()) > 2 for one in labels)
        clusters.stage(index, z)
        clusters.follow(0.0)
    remembered = clusters.labels(torch.arange(24), normalize(torch.randn(24, 8), dim=1))
    again = torch.stack([(clusters.rows[:24] @ c.T).argmax(1) for c in clusters.centroids])
    assert torch.equal(remembered, again)  # seen before: what was said then
