"""Tasks that hide tokens, beside their papers' formulas, written naively in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from ssl_framework.encoders import vit_micro
from ssl_framework.nn import block_mask, gradient_histograms, masked_mean, random_mask, random_order, target_blocks
from ssl_framework.pretext import IJEPA, MSN, CrossMAE, Data2Vec, MaskFeat, SimMIM
from ssl_framework.pretext.predictive.msn import negative_entropy
from ssl_framework.types import Views
from support import moved, views_of


def made(cls: Any, **numbers: Any) -> Any:
    torch.manual_seed(0)
    pool = "cls" if cls.card.class_token else "mean"
    return cls(vit_micro(in_chans=1, img_size=8, patch_size=2, pool=pool).cut(4), **numbers).double()


def crops(views: int = 1, batch: int = 3) -> Tensor:
    return torch.randn(views, batch, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("block", [1, 2, 3])
def test_blocks_are_hidden_whole_and_as_many_in_every_sample(block: int):
    views = views_of(crops(batch=200))
    grid = block_mask(views.key, (6, 7), 0.4, block).view(-1, 6, 7)
    rows, columns = -(-6 // block), -(-7 // block)
    cells = torch.stack([grid[:, block * r, block * c] for r in range(rows) for c in range(columns)], 1)
    for r in range(6):
        for c in range(7):
            assert torch.equal(grid[:, r, c], cells[:, (r // block) * columns + c // block])
    count = rows * columns
    assert set(cells.sum(1).tolist()) == {count - round(count * 0.6)}
    assert (cells.float().mean(0) - 0.4).abs().max() < 0.15


def test_blocks_shrink_until_there_are_two_along_an_axis():
    mask = block_mask(views_of(crops(batch=50)).key, (2, 6), 0.5, 2).view(-1, 2, 6)
    assert torch.equal(mask[:, :, ::2], mask[:, :, 1::2])
    assert not torch.equal(mask[:, 0], mask[:, 1])
    assert mask.flatten(1).sum(1).unique().tolist() == [6]


def test_a_mean_over_hidden_tokens():
    values, mask = torch.arange(6.0).view(2, 3), torch.tensor([[True, False, False], [True, True, False]])
    assert masked_mean(values, mask).item() == pytest.approx((0 + 3 + 4) / 3)


def test_simmim():
    task, x = made(SimMIM, mask_ratio=0.5, mask_block=2), crops()
    views = views_of(x)
    mask = block_mask(views.key, (4, 4), 0.5, 2)
    painted = task.head(task.encoder(x[0], mask=mask).tokens)
    total, count = 0.0, 0
    for sample in range(3):
        for token in range(16):
            if mask[sample, token]:
                row, column = 2 * (token // 4), 2 * (token % 4)
                patch = x[0, sample, 0, row : row + 2, column : column + 2].flatten()
                total += (painted[sample, token] - patch).abs().sum().item()
                count += 4
    assert count == 3 * 8 * 4
    assert task(views).loss.item() == pytest.approx(total / count, rel=1e-10)


def test_simmim_encoder_does_not_see_what_is_hidden():
    task, x = made(SimMIM), crops()
    mask = block_mask(views_of(x).key, (4, 4), 0.6, 2)
    hidden = mask.view(3, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    changed = torch.where(hidden, torch.randn_like(x[0]), x[0])
    assert torch.equal(task.encoder(x[0], mask=mask).tokens, task.encoder(changed, mask=mask).tokens)


@pytest.mark.parametrize("top", [1, 2, 9])
def test_data2vec(top: int):
    task, x = moved(made(Data2Vec, top_layers=top, beta=0.5)), crops()
    views = views_of(x)
    mask = block_mask(views.key, (4, 4), 0.6, 2)
    predicted = task.head(task.encoder(x[0], mask=mask).tokens)
    layers = task.teacher.module.encoder(x[0], layers=(0, 1)).layers[-top:]
    target = torch.stack([layer_norm(layer, layer.shape[-1:]) for layer in layers]).mean(0)
    target = layer_norm(target, target.shape[-1:])  # official code, beit/engine_for_cyclical.py
    total, count = 0.0, 0
    for error in (predicted - target)[mask].abs().flatten().tolist():
        total += error**2 / (2 * 0.5) if error <= 0.5 else error - 0.5 / 2  # section 3.4
        count += 1
    step = task(views)
    assert step.loss.item() == pytest.approx(total / count, rel=1e-10)
    step.loss.backward()
    assert all(p.grad is None for p in task.teacher.parameters())


def test_msn():
    task, x = moved(made(MSN, hidden_dim=8, projection_dim=4, prototypes=5, mask_ratio=0.4, entropy=0.7)), crops(2, 4)
    local = crops(4, 4)[2:]
    views: Views = views_of(x)._replace(local_crops=local)
    keep, _ = random_mask(views.key, 16, 0.4)
    c = normalize(task.prototypes.weight, dim=1)

    def scores(branch: Any, h: Tensor) -> Tensor:
        return normalize(branch(h), dim=1) @ c.T

    both = scores(
        task.projector, torch.cat([task.encoder(crop).pooled for crop in local])
    )  # BatchNorm sees crops of a size as one
    teacher = task.teacher.module
    target = (scores(teacher.head, teacher.encoder(x[0]).pooled).detach() / 0.1).softmax(1) ** (1 / 0.25)
    target = target / target.sum(1, keepdim=True)  # sharpened, then shared out
    for _ in range(3):
        target = target / target.sum(0)
        target = target / target.sum(1, keepdim=True)
    anchors = [
        (scores(task.projector, task.encoder(x[1], keep=keep).pooled) / 0.1).softmax(1),
        *(both / 0.1).softmax(1).chunk(2),
    ]
    total = sum(-(target * p.log()).sum(1).mean() for p in anchors) / 3
    mean = sum(p.mean(0) for p in anchors) / 3
    total = total + 0.7 * (mean * mean.log()).sum()  # equation 1
    torch.testing.assert_close(task(views).loss, total, rtol=1e-9, atol=0)


def test_the_entropy_is_highest_where_all_prototypes_are_used():
    assert negative_entropy(torch.full((1, 4, 8), 1 / 8)).item() == pytest.approx(-math.log(8))
    assert negative_entropy(torch.eye(8)[None, :1].expand(1, 4, 8)).item() == pytest.approx(0, abs=1e-6)


def test_target_blocks_are_rectangles_anywhere_and_the_context_is_in_none_of_them():
    views = views_of(crops(batch=300))
    blocks, keep = target_blocks(views.key, (8, 10), 3, 0.15, (0.5, 2.0))
    assert [block.shape[1] for block in blocks] == [2 * 5, 3 * 3, 5 * 2]  # 12 tokens in proportions of 0.5, 1 and 2, rounded
    assert keep.shape == (300, 80 - 29)
    for block, (h, w) in zip(blocks, ((2, 5), (3, 3), (5, 2)), strict=True):
        rows, columns = block // 10, block % 10
        assert torch.equal(rows.view(-1, h, w), rows[:, :1, None] + torch.arange(h)[None, :, None].expand(300, h, w))
        assert torch.equal(columns.view(-1, h, w), columns[:, :1, None] + torch.arange(w)[None, None, :].expand(300, h, w))
        assert set(rows[:, 0].tolist()) == set(range(8 - h + 1))
        assert set(columns[:, 0].tolist()) == set(range(10 - w + 1))
    hidden = torch.cat(blocks, dim=1)
    assert not (keep[:, :, None] == hidden[:, None, :]).any()
    assert all(len(set(row)) == len(row) for row in keep.tolist())
    with pytest.raises(ValueError, match=r"4 blocks of 0\.4 of 80 tokens leave none to predict from"):
        target_blocks(views.key, (8, 10), 4, 0.4, (1.0, 1.0))


def test_ijepa():
    task = moved(made(IJEPA, blocks=2, block_share=0.25, predictor_dim=8, predictor_depth=1, predictor_heads=2)).eval()
    x = crops()
    views = views_of(x)
    blocks, keep = target_blocks(views.key, (4, 4), 2, 0.25, (0.75, 1.5))
    context = task.encoder(x[0], keep=keep).tokens
    tokens = task.teacher.module.encoder(x[0]).tokens
    target = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    total = torch.zeros((), dtype=torch.float64)
    for block in blocks:
        predicted = task.predictor(context, keep, block)
        for b in range(3):
            for m, place in enumerate(block[b].tolist()):
                away = (predicted[b, m] - target[b, place]).abs()
                total = total + torch.where(away < 1, away**2 / 2, away - 0.5).mean() / (3 * block.shape[1] * len(blocks))
    step = task(views)
    torch.testing.assert_close(step.loss, total, rtol=1e-9, atol=0)
    step.loss.backward()
    assert all(p.grad is None for p in task.teacher.parameters())


def test_ijepa_predicts_from_the_context_alone():
    task, x = made(IJEPA, predictor_dim=8, predictor_depth=1, predictor_heads=2), crops()
    _, keep = target_blocks(views_of(x).key, (4, 4), 4, 0.175, (0.75, 1.5))
    shown = torch.zeros(3, 16, dtype=torch.bool).scatter(1, keep, True).view(3, 1, 4, 4)
    shown = shown.repeat_interleave(2, 2).repeat_interleave(2, 3)
    changed = torch.where(shown, x[0], torch.randn_like(x[0]))
    assert torch.equal(task.encoder(x[0], keep=keep).tokens, task.encoder(changed, keep=keep).tokens)


def test_histograms_of_gradients():
    """Dalal and Triggs with Sobel's filters (SlowFast, operators.py), pixel by pixel."""
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = gradient_histograms(x, (3, 2), 5)
    expected = torch.zeros(2, 3, 5, 3, 2, dtype=torch.float64)
    for b in range(2):
        for c in range(3):
            for row in range(6):
                for column in range(4):
                    rows = [row - 1 if row else 1, row, row + 1 if row < 5 else 4]  # mirrored
                    columns = [column - 1 if column else 1, column, column + 1 if column < 3 else 2]
                    weights = ((0, 1), (1, 2), (2, 1))
                    across = sum(w * (x[b, c, rows[i], columns[0]] - x[b, c, rows[i], columns[2]]) for i, w in weights)
                    down = sum(w * (x[b, c, rows[0], columns[i]] - x[b, c, rows[2], columns[i]]) for i, w in weights)
                    which = math.floor(math.atan2(across, down) / math.pi * 5) % 5
                    expected[b, c, which, row // 2, column // 2] += math.hypot(across, down)
    expected = expected / expected.norm(dim=2, keepdim=True)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="4 x 2 cells do not divide views of 6 x 4"):
        gradient_histograms(x, (4, 2), 5)


def test_an_edge_is_seen_across_it_whichever_side_is_bright():
    edge = torch.zeros(2, 1, 8, 8)
    edge[0, ..., 4:] = 1
    edge[1, ..., :4] = 1
    found = gradient_histograms(edge, (1, 1), 4)[:, 0, :, 0, 0]
    assert torch.equal(found[0], found[1])
    assert found[0].tolist() == [0, 0, 1, 0]


def test_histograms_of_half_precision_are_made_in_float32():
    x = torch.randn(2, 1, 8, 8).bfloat16()
    assert torch.equal(gradient_histograms(x, (2, 2), 9), gradient_histograms(x.float(), (2, 2), 9))


def test_maskfeat():
    task, x = made(MaskFeat, bins=5, cells=2, mask_ratio=0.5), crops()
    views = views_of(x)
    mask = block_mask(views.key, (4, 4), 0.5, 2)
    said = task.head(task.encoder(x[0], mask=mask).tokens)
    cells = gradient_histograms(x[0], (8, 8), 5)  # (B, 1, 5, 8, 8)
    total, count = 0.0, 0
    for b in range(3):
        for token in range(16):
            if mask[b, token]:
                r, c = 2 * (token // 4), 2 * (token % 4)
                total += (said[b, token] - cells[b, 0, :, r : r + 2, c : c + 2].flatten()).square().mean().item()
                count += 1
    assert task(views).loss.item() == pytest.approx(total / count, rel=1e-9)


@pytest.mark.parametrize("normalize", [True, False])
def test_crossmae(normalize: bool):
    numbers = {"decoder_dim": 8, "decoder_depth": 2, "decoder_heads": 2, "paint_ratio": 0.5, "normalize_target": normalize}
    task, x = made(CrossMAE, **numbers).eval(), crops()
    order = random_order(views_of(x).key, 16)
    seen = task.encoder(x[0], keep=order[:, :4], layers=(0,))
    layers = (*seen.layers, seen.tokens)
    decoder, total = task.decoder, 0.0
    for b in range(3):
        for place in order[b, 4:10].tolist():  # 4 of 16 are shown, half of the others painted
            t = decoder.mask_token[0] + decoder.positions[place]  # (1, dim)
            for weights, norm, block in zip(decoder.mix, decoder.norms, decoder.blocks, strict=True):
                shown = [torch.cat([seen.pooled[b][None], layer[b]]) for layer in layers]  # with the class token
                context = norm(weights[0] * shown[0] + weights[1] * shown[1])
                q, (k, v) = block.q(block.norm(t)), block.kv(context).chunk(2, dim=-1)
                heads = [
                    (q[:, part] @ k[:, part].T / 2).softmax(-1) @ v[:, part] for part in (slice(0, 4), slice(4, 8))
                ]  # the root of a head's width is 2
                t = t + block.proj(torch.cat(heads, dim=-1))
                t = t + block.mlp(block.norm2(t))
            painted = decoder.predict(decoder.norm(t))[0]
            row, column = 2 * (place // 4), 2 * (place % 4)
            patch = x[0, b, 0, row : row + 2, column : column + 2].flatten()
            if normalize:
                patch = (patch - patch.mean()) / (patch.var() + 1e-6) ** 0.5
            total += (painted - patch).square().mean().item()
    assert task(views_of(x)).loss.item() == pytest.approx(total / 18, rel=1e-9)
