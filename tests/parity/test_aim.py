"""AIM beside its paper's formulas, written naively in float64: every patch is predicted by an encoder that gets no later one.

The paper's code has no pretraining. Lightly's example of AIM has, and compares the prediction of a token with the patch that
this token sees, in the prefix, too: nothing is left to predict. Here the shift of the paper's figure 2 is tested.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from ssl_framework.encoders import vit_micro
from ssl_framework.nn import prefix_lengths, sincos_positions
from ssl_framework.pretext import AIM
from support import LinearEncoder, views_of

SIZE, PATCH, GRID = (6, 8), 2, (3, 4)
N = GRID[0] * GRID[1]


def made(**numbers: Any) -> Any:
    torch.manual_seed(0)
    encoder = vit_micro(in_chans=2, img_size=SIZE, patch_size=PATCH, pool="mean").cut(4)
    task = AIM(encoder, **{"head_dim": 8, "head_depth": 2, **numbers}).double()
    for parameter in task.parameters():  # norms that start as ones and zeros could be left out unseen
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return task


def crops(batch: int = 3) -> Tensor:
    return torch.randn(1, batch, 2, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def corner(token: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels of a token, counted row by row."""
    row, column = PATCH * (token // GRID[1]), PATCH * (token % GRID[1])
    return slice(row, row + PATCH), slice(column, column + PATCH)


def last_token(encoder: Any, image: Tensor, known: int, prefix: int) -> Tensor:
    """What an encoder says of the last of `known` patches: ``(C, H, W)`` to ``(D,)``. Others are not there at all."""
    image = image.clone()
    for token in range(known, N):
        image[:, *corner(token)] = math.nan
    m = encoder.model
    t = m._pos_embed(m.patch_embed(image[None]))[0, : 1 + known]  # the class token comes first
    for block in m.blocks:
        q, k, v = block.attn.qkv(block.norm1(t)).unflatten(-1, (3, block.attn.num_heads, -1)).permute(1, 2, 0, 3)
        rows = []
        for query in range(1 + known):
            sees = [key for key in range(1 + known) if key <= query or key <= prefix]  # token 0 is the class token
            weight = torch.einsum("hd,hkd->hk", q[:, query], k[:, sees]).div(q.shape[-1] ** 0.5).softmax(-1)
            rows.append(torch.einsum("hk,hkd->hd", weight, v[:, sees]).flatten())
        t = t + block.attn.proj(torch.stack(rows))
        t = t + block.mlp(block.norm2(t))
    return m.norm(t)[-1]


def predicted(task: Any, token: Tensor, place: int) -> Tensor:
    """The head: positions, a linear layer, residual perceptrons four times as wide inside, norm, a linear layer; no biases."""
    first, *blocks, norm, last = task.head.blocks
    h = linear(token + sincos_positions(GRID, task.encoder.embed_dim)[place].double(), first.weight)
    assert len(blocks) == 2
    for block in blocks:
        assert block.mlp.fc1.weight.shape == (32, 8)
        normed = layer_norm(h, (8,), block.norm.weight, block.norm.bias)
        h = h + linear(gelu(linear(normed, block.mlp.fc1.weight)), block.mlp.fc2.weight)
    return linear(layer_norm(h, (8,), norm.weight, norm.bias), last.weight)


@pytest.mark.parametrize("normalize", [True, False])
def test_aim(normalize: bool):
    task, x = made(normalize_target=normalize), crops()
    views = views_of(x)
    total, count = 0.0, 0
    prefixes = prefix_lengths(views.key, N).tolist()
    assert len(set(prefixes)) == 3
    for image, prefix in zip(x[0], prefixes, strict=True):
        for place in range(prefix, N):
            patch = image[:, *corner(place)].flatten()
            if normalize:
                patch = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            guess = predicted(task, last_token(task.encoder, image, place, prefix), place - 1)
            total += (guess - patch).square().mean().item()
            count += 1
    assert count == 3 * N - sum(prefixes)
    assert task(views).loss.item() == pytest.approx(total / count, rel=1e-10)


def test_no_patch_is_seen_by_its_own_prediction_nor_by_earlier_ones():
    task, x = made(), crops(1)
    views = views_of(x)
    prefix = int(prefix_lengths(views.key, N))
    assert 1 < prefix < N - 2

    def guesses(x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = task.head.register_forward_hook(lambda module, inputs, output: seen.append(output))
        task(views._replace(global_crops=x))
        handle.remove()
        return seen[0]  # (N - prefix, P)

    expected = guesses(x)
    assert len(expected) == N - prefix
    for place in range(prefix, N):
        changed = x.clone()
        changed[0, 0, :, *corner(place)] += 1.0
        found = guesses(changed)
        assert torch.equal(found[: place - prefix + 1], expected[: place - prefix + 1])
        assert (found[place - prefix + 1 :] != expected[place - prefix + 1 :]).any(1).all()
    for place in range(prefix):  # which is seen by all
        changed = x.clone()
        changed[0, 0, :, *corner(place)] += 1.0
        assert (guesses(changed) != expected).any(1).all()


def test_prefixes_are_uniform_from_one_to_all_but_one_and_belong_to_the_sample():
    key = views_of(torch.zeros(1, 6000, 1)).key
    assert key is not None
    drawn = prefix_lengths(key, 7)
    counts = drawn.bincount(minlength=7)
    assert counts[0] == 0
    assert len(counts) == 7
    assert (counts[1:] / 1000 - 1).abs().max() < 0.15  # 5 standard deviations
    assert torch.equal(prefix_lengths(key[40:50], 7), drawn[40:50])
    assert prefix_lengths(key[:9], 2).tolist() == [1] * 9
    with pytest.raises(ValueError, match="needs two tokens or more, the encoder has 1: choose a smaller patch_size"):
        prefix_lengths(key, 1)
    with pytest.raises(ValueError, match=r"Prefixes are drawn from Views\.key"):
        prefix_lengths(None, 7)


def test_downstream_all_tokens_see_all():
    task, x = made(), crops(1)
    changed = x.clone()
    changed[0, 0, :, *corner(N - 1)] += 1.0
    assert (task.encoder(x[0]).tokens != task.encoder(changed[0]).tokens).any(-1).all()


def test_an_encoder_without_tokens_is_refused():
    with pytest.raises(ValueError, match="AIM hides tokens from its encoder, and LinearEncoder has none"):
        AIM(LinearEncoder(16, 6))


def test_the_head_is_that_of_the_paper_by_default():
    with torch.device("meta"):
        head = AIM(vit_micro(pool="mean")).head
    assert [tuple(part.weight.shape) for part in (head.blocks[0], head.blocks[-1])] == [(2048, 192), (48, 2048)]
    assert len(head.blocks) == 1 + 12 + 1 + 1
    assert not [
        name for name, _ in head.named_parameters() if name.endswith("bias") and "norm" not in name and "13" not in name
    ]
