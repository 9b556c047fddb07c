"""Tasks of tiles and places, beside their papers' formulas, written naively in float64."""

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, log_softmax

from ssl_framework import keyed
from ssl_framework.encoders import resnet_micro, vit_micro
from ssl_framework.nn import distant_orders, place_positions, tiles
from ssl_framework.pretext import PIRL, DenseCL, Jigsaw, PretextModule, RelativeLocation, VICRegL
from ssl_framework.views import affine
from support import LinearEncoder, MapEncoder, moved, views_of


def picture(height: int, width: int, batch: int = 2) -> torch.Tensor:
    """Every number says where it stands: sample, row, column."""
    b, r, c = torch.meshgrid(torch.arange(batch), torch.arange(height), torch.arange(width), indexing="ij")
    return (10_000 * b + 100 * r + c).double()[:, None]


def test_tiles_without_a_gap_are_the_cells():
    x = picture(6, 9)
    found = tiles(x, 3, 0.0, keyed.mix(0, 0, torch.arange(2)))
    assert found.shape == (2, 9, 1, 2, 3)
    for i in range(9):
        r, c = 2 * (i // 3), 3 * (i % 3)
        assert torch.equal(found[:, i], x[:, :, r : r + 2, c : c + 3])


def test_tiles_stand_anywhere_in_their_cells_and_nowhere_else():
    x = picture(30, 30, batch=300)
    found = tiles(x, 3, 0.25, keyed.mix(0, 0, torch.arange(300)))
    assert found.shape == (300, 9, 1, 5, 5)
    for i in range(9):
        corner = found[:, i, 0, 0, 0] % 10_000
        r, c = (corner // 100).long(), (corner % 100).long()
        assert set((r - 10 * (i // 3)).tolist()) == set(range(6))  # 10 - 5 + 1 places
        assert set((c - 10 * (i % 3)).tolist()) == set(range(6))
    steps = found - found[..., :1, :1]
    assert torch.equal(steps, steps[:1, :1].expand_as(steps))  # whole, and not turned


def test_tiles_refuse_what_cannot_be_cut():
    key = keyed.mix(0, 0, torch.arange(2))
    with pytest.raises(ValueError, match=r"2 x 9 cannot be cut into 3 x 3"):
        tiles(picture(2, 9), 3, 0.1, key)
    with pytest.raises(ValueError, match=r"gap=0.5 must be"):
        tiles(picture(9, 9), 3, 0.5, key)


def test_tiles_of_a_vision_transformer_are_whole_patches():
    key = keyed.mix(0, 0, torch.arange(300))
    found = tiles(picture(30, 33, batch=300), 3, 0.1, key, (4, 3))
    assert found.shape == (300, 9, 1, 8, 9)  # of cells of 10 x 11 with a gap: 8 x 9
    corner = found[:, 4, 0, 0, 0] % 10_000
    assert set((corner // 100).long().tolist()) == {10, 11, 12}
    assert tiles(picture(30, 30), 3, 0.4, key[:2], (4, 4)).shape[-1] == 4  # no smaller than a patch
    with pytest.raises(ValueError, match=r"cells of 10 x 10, and the encoder's patch of 16 x 16 is larger: set views.size=48"):
        tiles(picture(30, 30), 3, 0.1, key[:2], (16, 16))


@pytest.mark.parametrize("task", [Jigsaw, RelativeLocation, PIRL])
def test_tasks_of_tiles_train_vision_transformers(task: type[PretextModule]):
    """At 32 pixels a cell is 10 pixels wide, which no patch of 4 divides; at 8 there is no room, and it is said at once."""
    views = affine(size=(32, 32), mean=(0.5,), std=(0.5,), views=task.card.views)
    module = task(vit_micro(in_chans=1).cut(5), views=views)
    assert module(views_of(torch.randn(1, 5, 1, 32, 32))).loss.isfinite()
    small = affine(size=(8, 8), mean=(0.5,), std=(0.5,), views=task.card.views)
    with pytest.raises(ValueError, match=r"cells of 2 x 2, and the encoder's patch of 4 x 4 is larger: set views.size=12"):
        task(vit_micro(in_chans=1, img_size=8, patch_size=4).cut(5), views=small)


def test_orders_are_far_apart_and_always_the_same():
    orders = distant_orders(100, 9)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(9).expand(100, 9))
    distance = (orders[:, None] != orders[None]).sum(-1) + 9 * torch.eye(100, dtype=torch.long)
    assert distance.min() >= 6
    assert torch.equal(orders, distant_orders(100, 9))
    with pytest.raises(ValueError, match=r"permutations=7: choose 2 to 6 orders of 3"):
        distant_orders(7, 3)


def test_jigsaw():
    torch.manual_seed(0)
    task = Jigsaw(LinearEncoder(4, 6), tile_dim=5, hidden_dim=8, permutations=11).double()
    x = torch.randn(1, 5, 1, 6, 6, dtype=torch.float64)
    views = views_of(x)
    assert views.key is not None
    label = (keyed.uniform(views.key, 1_000_021, 1)[:, 0] * 11).long()
    total = 0.0
    for sample in range(5):
        order = task.orders[label[sample]].tolist()
        pieces = [x[0, sample, :, 2 * (i // 3) : 2 * (i // 3) + 2, 2 * (i % 3) : 2 * (i % 3) + 2] for i in order]
        pieces = [(piece - piece.mean()) / piece.std(correction=0) for piece in pieces]  # against shortcuts
        parts = [task.tile_head(task.encoder(piece[None]).pooled) for piece in pieces]
        total -= log_softmax(task.head(torch.cat(parts, 1))[0], 0)[label[sample]].item()
    assert task(views).loss.item() == pytest.approx(total / 5, rel=1e-10)


def test_jigsaw_hides_how_bright_a_tile_is():
    torch.manual_seed(0)
    task = Jigsaw(LinearEncoder(4, 6), tile_dim=5, hidden_dim=8, permutations=11).double()
    x = torch.randn(1, 5, 1, 6, 6, dtype=torch.float64)
    changed = x.clone()
    changed[..., 2:4, 4:] = 3 * changed[..., 2:4, 4:] + 7
    torch.testing.assert_close(task(views_of(changed)).loss, task(views_of(x)).loss, rtol=1e-10, atol=0)
    assert task(views_of(torch.full_like(x, 0.3))).loss.isfinite()


def test_relative_location():
    torch.manual_seed(0)
    task = RelativeLocation(LinearEncoder(4, 6), hidden_dim=8).double()
    x = torch.randn(1, 5, 1, 6, 6, dtype=torch.float64)
    total = 0.0
    for sample in range(5):
        for label, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]):
            tile = x[0, sample, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            pair = [task.encoder(t[None]).pooled for t in (x[0, sample, :, 2:4, 2:4], tile)]
            total -= log_softmax(task.head(torch.cat(pair, 1))[0], 0)[label].item()
    assert task(views_of(x)).loss.item() == pytest.approx(total / 40, rel=1e-10)


def test_densecl():
    torch.manual_seed(0)
    encoder = resnet_micro(in_chans=1, img_size=16).double().eval()
    task = moved(DenseCL(encoder, 8, 4, queue_size=9, temperature=0.2, dense=0.3).double()).eval()
    x = torch.randn(2, 3, 1, 16, 16, dtype=torch.float64)
    seen, other = task.encoder(x[0]), task.teacher.module.encoder(x[1])
    key = task.teacher.module
    whole, dense, count = 0.0, 0.0, 0

    def contrast(q: torch.Tensor, k: torch.Tensor, rows: torch.Tensor) -> float:
        s = torch.stack([cosine_similarity(q, other, dim=0) for other in (k, *rows)]) / 0.2
        return -log_softmax(s, 0)[0].item()

    for b in range(3):
        whole += contrast(task.branch.head(seen.pooled[b]), key.head(other.pooled[b]), task.queue.rows) / 3
        for place in range(seen.tokens.shape[1]):
            likeness = [cosine_similarity(seen.tokens[b, place], candidate, dim=0).item() for candidate in other.tokens[b]]
            match = other.tokens[b, likeness.index(max(likeness))]  # equation 4
            dense += contrast(task.branch.dense_head(seen.tokens[b, place]), key.dense_head(match), task.dense_queue.rows)
            count += 1
    assert count > 3
    assert task(views_of(x)).loss.item() == pytest.approx(0.7 * whole + 0.3 * dense / count, rel=1e-9)


def test_densecl_needs_tokens():
    with pytest.raises(ValueError, match="this encoder has no tokens"):
        DenseCL(LinearEncoder(16, 6), 8, 4, queue_size=9)(views_of(torch.randn(2, 3, 1, 4, 4)))


def test_labels_of_zero_logits_cost_the_logarithm_of_their_number():
    task = Jigsaw(LinearEncoder(4, 6), tile_dim=5, hidden_dim=8, permutations=11)
    for parameter in task.head.parameters():
        torch.nn.init.zeros_(parameter)
    assert task(views_of(torch.randn(1, 5, 1, 6, 6))).loss.item() == pytest.approx(math.log(11))


def test_places_lie_where_the_crop_was_cut_and_a_flip_turns_them_around():
    boxes = torch.tensor([[10.0, 20.0, 8.0, 12.0, 0.0], [10.0, 20.0, 8.0, 12.0, 1.0]])
    found = place_positions(boxes, (2, 3)).view(2, 2, 3, 2)
    assert found[0, :, :, 0].tolist() == [[12.0] * 3, [16.0] * 3]
    assert found[0, :, :, 1].tolist() == [[22.0, 26.0, 30.0]] * 2
    assert torch.equal(found[1], found[0].flip(1))


def vicreg(a: torch.Tensor, b: torch.Tensor, covariance: float) -> torch.Tensor:
    """Of ``(B, P)`` twice: VICReg's three terms, with covariances averaged over both."""
    n, d = a.shape
    total = 25 * (a - b).square().mean()
    for z in (a, b):
        total = total + 25 * (1 - (z.var(0) + 1e-4).sqrt()).clamp(min=0).mean() / 2
        off = torch.cov(z.T).square()
        total = total + covariance * (off.sum() - off.diagonal().sum()) / d / 2
    assert n > 1
    return total


def test_vicregl():
    torch.manual_seed(0)
    numbers = {"matches_first": 3, "matches_second": 2, "alpha": 0.6, "covariance": 2.0}
    task = VICRegL(MapEncoder(6), 8, 4, 8, 5, **numbers).double()
    x = torch.randn(2, 6, 1, 4, 6, dtype=torch.float64)
    boxes = torch.rand(2, 6, 5).double() * 10
    boxes[..., 4] = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    seen = [task.encoder(view) for view in x]
    whole = vicreg(*(task.projector(crop.pooled) for crop in seen), 2.0)
    local = torch.zeros((), dtype=torch.float64)
    z = [task.local_projector(crop.tokens) for crop in seen]
    where = [place_positions(box, (2, 3)) for box in boxes]
    for space in (z, where):
        for one, other, closest in ((0, 1, 3), (1, 0, 2), (1, 0, 3), (0, 1, 2)):  # both crops come first once
            count = 6 if space is z else closest  # by looks, all are matched
            first, second = [], []
            for b in range(6):
                best = []
                for place in range(6):
                    away = (space[one][b, place] - space[other][b]).norm(dim=1)
                    best.append((away.min().item(), place, int(away.argmin())))
                for place, partner in sorted(pair[1:] for pair in sorted(best)[:count]):  # in the order of the map
                    first.append(z[one][b, place])
                    second.append(z[other][b, partner])
            a, c = (torch.stack(rows).view(6, count, 5) for rows in (first, second))
            local = local + sum(vicreg(a[:, m], c[:, m], 2.0) for m in range(count)) / count / 4
    step = task(views_of(x)._replace(boxes=boxes))
    torch.testing.assert_close(step.loss, 0.6 * whole + 0.4 * local, rtol=1e-9, atol=0)


def test_vicregl_needs_places():
    with pytest.raises(ValueError, match="take an encoder with tokens on a grid"):
        VICRegL(LinearEncoder(16, 6), 8, 4, 8, 5)(views_of(torch.randn(2, 3, 1, 4, 4)))
