"""Painting from what is left, and iBOT's and DINOv2's hidden tokens, beside formulas written naively in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_framework.encoders import vit_micro
from ssl_framework.nn import Centre, MapDecoder, input_channels, pixel_mask, region_mask, sinkhorn, varied_mask
from ssl_framework.pretext import IBOT, ContextEncoder, DenoisingAutoencoder, DINOv2
from ssl_framework.pretext.predictive.dinov2 import kozachenko_leonenko
from ssl_framework.types import Encoding
from support import LinearEncoder, MapEncoder, moved, views_of


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Painting


def test_denoising_autoencoder():
    torch.manual_seed(0)
    task, x = DenoisingAutoencoder(MapEncoder(6), 0.4, decoder_dim=4, decoder_depth=2).double(), noise(1, 3, 1, 8, 8)
    views = views_of(x)
    hidden = pixel_mask(views.key, (8, 8), 0.4)
    broken = x[0].clone()
    for b, row, column in hidden.nonzero().tolist():
        broken[b, :, row, column] = 0
    painted = task.decoder(task.encoder(broken), (8, 8))
    assert task(views).loss.item() == pytest.approx((painted - x[0]).square().mean().item(), rel=1e-12)


def test_pixels_are_hidden_with_their_probability_and_others_in_each_sample():
    hidden = pixel_mask(views_of(noise(1, 400, 1, 1, 1)).key, (6, 7), 0.3)
    assert hidden.shape == (400, 6, 7)
    assert (hidden.double().mean(0) - 0.3).abs().max() < 0.1
    assert not torch.equal(hidden[0], hidden[1])


def test_context_encoder():
    torch.manual_seed(0)
    task, x = ContextEncoder(MapEncoder(6), 2, 0.4, decoder_dim=4, decoder_depth=1).double(), noise(1, 3, 1, 8, 8)
    views = views_of(x)
    hidden = region_mask(views.key, (8, 8), 2, 0.4)
    painted = task.decoder(task.encoder(torch.where(hidden[:, None], 0.0, x[0])), (8, 8))
    total = sum((painted - x[0])[b, 0, r, c].item() ** 2 for b, r, c in hidden.nonzero().tolist())
    assert task(views).loss.item() == pytest.approx(total / int(hidden.sum()), rel=1e-10)


def test_regions_are_rectangles_anywhere_and_no_larger_than_their_share():
    one = region_mask(views_of(noise(1, 300, 1, 1, 1)).key, (12, 16), 1, 0.25)
    for mask in one:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None])
        assert 0.1 * 192 < mask.sum() <= 0.25 * 192
        assert 0.4 < int(rows.sum()) / 12 / (int(columns.sum()) / 16) < 2.5
    assert one.any(0).all()
    several = region_mask(views_of(noise(1, 50, 1, 1, 1)).key, (12, 16), 4, 0.25)
    assert several.flatten(1).sum(1).max() <= 0.25 * 192


def test_what_cannot_be_painted_is_refused():
    with pytest.raises(ValueError, match="LinearEncoder has no convolution"):
        input_channels(LinearEncoder(16, 6))
    with pytest.raises(ValueError, match="Nothing can be painted without a map of tokens"):
        MapDecoder(6, 1, dim=4, depth=1)(Encoding(torch.zeros(2, 6)), (8, 8))
    with pytest.raises(ValueError, match=r"corruption=1\.5 must lie between 0 and 1"):
        pixel_mask(views_of(noise(1, 2, 1, 1, 1)).key, (4, 4), 1.5)


@pytest.mark.parametrize(("grid", "size"), [((2, 2), (8, 8)), ((1, 3), (5, 12)), ((4, 4), (4, 4))])
def test_a_map_is_painted_at_any_size(grid: tuple[int, int], size: tuple[int, int]):
    tokens = noise(2, grid[0] * grid[1], 6)
    assert MapDecoder(6, 3, dim=4, depth=2).double()(Encoding(tokens.mean(1), tokens, grid), size).shape == (2, 3, *size)


# Hidden tokens


def test_masks_vary_between_samples_and_some_hide_nothing():
    key = views_of(noise(1, 2000, 1, 1, 1)).key
    hidden = varied_mask(key, (6, 6), 0.1, 0.5, share=0.7)
    counts = hidden.sum(1)
    assert (counts == 0).double().mean().item() == pytest.approx(0.3, abs=0.04)
    some = counts[counts > 0]
    assert some.min() == 4
    assert some.max() == 18
    assert some.double().mean().item() == pytest.approx(10.8, abs=0.5)
    assert not torch.equal(hidden, varied_mask(key, (6, 6), 0.1, 0.5, share=0.7, crop=1))
    with pytest.raises(ValueError, match="give shares, the smaller first"):
        varied_mask(key, (6, 6), 0.5, 0.1)


def made(cls: Any, **numbers: Any) -> Any:
    torch.manual_seed(0)
    encoder = vit_micro(in_chans=1, img_size=8, patch_size=2).cut(4)
    common = {"hidden_dim": 8, "bottleneck_dim": 4, "prototypes": 6, "warmup_share": 0.5, "mask_share": 0.8, "mask_block": 1}
    task = moved(cls(encoder, **{**common, **numbers}).double()).eval()
    task.progress = 0.25  # half of the way from 0.04 to 0.07
    return task


def entropy(guess: Tensor, target: Tensor) -> Tensor:
    return -(target * (guess / 0.1).log_softmax(-1)).sum(-1)


def test_ibot():
    task, x, local = made(IBOT), noise(2, 4, 1, 8, 8), noise(1, 4, 1, 8, 8, seed=1)
    task.centre.value += noise(6)
    task.token_centre.value += noise(6, seed=2)
    views = views_of(x)._replace(local_crops=local)
    masks = [varied_mask(views.key, (4, 4), 0.1, 0.5, 0.8, 1, crop=crop) for crop in range(2)]
    seen = [task.encoder(crop, mask=mask) for crop, mask in zip(x, masks, strict=True)]
    s = [task.head(crop.pooled) for crop in (*seen, task.encoder(local[0]))]
    t = [task.teacher.module(crop) for crop in x]
    targets = [((scores - task.centre.value) / 0.055).softmax(-1) for scores, _ in t]
    crops = [entropy(s[j], targets[i]).mean() for i in range(2) for j in range(3) if j != i]
    tokens = []
    for i in range(2):
        target = ((t[i][1] - task.token_centre.value) / 0.055).softmax(-1)
        away = entropy(task.head(seen[i].tokens), target)
        tokens += [away[b][masks[i][b]].mean() if masks[i][b].any() else away.new_zeros(()) for b in range(4)]
    expected = torch.stack(crops).mean() + torch.stack(tokens).mean()  # official code: sums of both, each a mean
    step = task(views)
    torch.testing.assert_close(step.loss, expected, rtol=1e-9, atol=0)
    step.loss.backward()
    assert all(p.grad is None for p in task.teacher.parameters())


def test_dinov2():
    task, x, local = made(DINOv2, spread=0.3), noise(2, 4, 1, 8, 8), noise(1, 4, 1, 8, 8, seed=1)
    views = views_of(x)._replace(local_crops=local)
    masks = [varied_mask(views.key, (4, 4), 0.1, 0.5, 0.8, 1, crop=crop) for crop in range(2)]
    seen = [task.encoder(crop, mask=mask) for crop, mask in zip(x, masks, strict=True)]
    s = [task.head(crop.pooled) for crop in (*seen, task.encoder(local[0]))]
    t = [task.teacher.module(crop) for crop in x]
    both = torch.cat([scores for scores, _ in t])
    targets = sinkhorn(both, 0.055).chunk(2)  # of both crops together
    crops = [entropy(s[j], targets[i]).mean() for i in range(2) for j in range(3) if j != i]
    mask = torch.cat(masks)
    shared = sinkhorn(torch.cat([tokens for _, tokens in t])[mask], 0.055)  # of hidden tokens alone
    away = entropy(task.token_head(torch.cat([crop.tokens for crop in seen]))[mask], shared)
    owner = mask.nonzero()[:, 0]
    tokens = sum((away[owner == b].mean() if (owner == b).any() else 0.0) for b in range(8)) / 8
    apart = torch.zeros((), dtype=torch.float64)
    for crop in seen:
        h = normalize(crop.pooled, dim=1)
        for i in range(4):
            apart = apart - min((h[i] - h[j]).norm() for j in range(4) if j != i).add(1e-8).log() / 4
    step = task(views)
    torch.testing.assert_close(step.loss, torch.stack(crops).mean() + tokens + 0.3 * apart, rtol=1e-9, atol=0)
    step.loss.backward()
    assert all(p.grad is None for p in task.teacher.parameters())


def test_samples_that_lie_apart_cost_less():
    near = noise(6, 3)
    assert kozachenko_leonenko(torch.eye(4)).item() == pytest.approx(-math.log(math.sqrt(2)), abs=1e-6)
    assert kozachenko_leonenko(torch.eye(4)) < kozachenko_leonenko(near[:1] + 0.01 * near)
    assert kozachenko_leonenko(torch.ones(4, 3)).isfinite()


@pytest.mark.parametrize("cls", [IBOT, DINOv2])
def test_a_batch_that_hides_nothing_trains_on_its_crops_alone(cls: Any):
    task, views = made(cls, mask_share=0.0), views_of(noise(2, 4, 1, 8, 8))
    step = task(views)
    assert step.logs["tokens"].item() == 0
    step.loss.backward()
    heads = [task.head] if cls is IBOT else [task.head, task.token_head]
    assert all(p.grad is not None and p.grad.isfinite().all() for head in heads for p in head.parameters())  # as DDP asks


@pytest.mark.parametrize("cls", [IBOT, DINOv2])
def test_only_hidden_tokens_go_through_the_student_s_head(cls: Any):
    task, views, rows = made(cls), views_of(noise(2, 4, 1, 8, 8)), []
    head = task.head if cls is IBOT else task.token_head

    def count(_: Any, x: Any) -> None:
        rows.append(tuple(x[0].shape[:-1]))

    head.register_forward_pre_hook(count)
    task(views)
    hidden = sum(varied_mask(views.key, (4, 4), 0.1, 0.5, 0.8, 1, crop=crop).sum().item() for crop in range(2))
    full = -(-hidden // 16) * 16  # filled up to the next eighth of 2 x 4 x 16 tokens
    assert rows == ([(2, 4), (full,)] if cls is IBOT else [(full,)])
    assert full < 128


def test_the_nearest_neighbour_is_sought_in_full_precision():
    """In bfloat16 all of these are one: the furthest of them could be called the nearest."""
    task = made(DINOv2).float()
    h = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1e-2], [1.0, 3e-2], [1.0, 6e-2]]), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = task.closeness(h)
    torch.testing.assert_close(found, kozachenko_leonenko(h.double()).float(), rtol=1e-4, atol=0)


def test_a_centre_takes_in_nothing_in_evaluation():
    centre = Centre(3).eval()
    centre.stage(torch.ones(2, 3))
    centre.follow(0.0)
    assert not centre.value.any()
