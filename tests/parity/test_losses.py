"""Each loss beside its paper's formula, written naively in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, log_softmax

from ssl_framework import keyed
from ssl_framework.encoders import vit_micro
from ssl_framework.nn import normalized_patches, random_mask
from ssl_framework.pretext import BYOL, MAE, CrossMAE, Rotation, SimCLR
from ssl_framework.pretext.generative.mae import masked_error
from support import LinearEncoder, crops, views_of


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Chen et al., 2020, equation 1, one pair after the other."""
    n = len(z) // 2
    total = torch.zeros((), dtype=z.dtype)
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        s = [cosine_similarity(z[i], z[k], dim=0) / temperature for k in range(2 * n)]
        total = total - (s[j].exp() / sum(s[k].exp() for k in range(2 * n) if k != i)).log()
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_simclr(temperature: float):
    torch.manual_seed(0)
    task = SimCLR(LinearEncoder(16, 6), hidden_dim=8, projection_dim=4, temperature=temperature).double()
    step = task(views_of(crops()))
    assert step.projection is not None
    expected = nt_xent(step.projection, temperature)
    torch.testing.assert_close(step.loss, expected, rtol=1e-10, atol=0)
    ours = torch.autograd.grad(step.loss, step.projection, retain_graph=True)[0]
    theirs = torch.autograd.grad(expected, step.projection, retain_graph=True)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_simclr_of_equal_embeddings_is_the_logarithm_of_all_others():
    task = SimCLR(LinearEncoder(16, 6), 8, 4).double()
    z = torch.ones(7, 4, dtype=torch.float64)
    assert task.criterion(z, z).item() == pytest.approx(math.log(2 * 7 - 1), rel=1e-12)


def test_simclr_does_not_depend_on_scale_order_or_which_view_is_first():
    criterion = SimCLR(LinearEncoder(16, 6), 8, 4).criterion
    a, b = crops().flatten(2)
    order = torch.randperm(5)
    loss = criterion(a, b)
    for same in (criterion(3 * a, 0.1 * b), criterion(a[order], b[order]), criterion(b, a)):
        torch.testing.assert_close(same, loss, rtol=1e-10, atol=0)


def test_simclr_compares_the_first_two_views_however_many_are_made():
    torch.manual_seed(0)
    task, four = SimCLR(LinearEncoder(16, 6), hidden_dim=8, projection_dim=4).double(), crops(views=4)
    torch.testing.assert_close(task(views_of(four)).loss, task(views_of(four[:2])).loss, rtol=1e-12, atol=0)


def byol(**numbers: int) -> BYOL:
    torch.manual_seed(0)
    return BYOL(LinearEncoder(16, 6), hidden_dim=8, projection_dim=4, **numbers).double()


def test_byol():
    task, views = byol(), crops()
    with torch.no_grad():
        task.teacher.module.encoder.linear.weight.add_(0.1)  # a teacher that has moved
    step = task(views_of(views))
    total = torch.zeros((), dtype=torch.float64)
    for one, other in ((0, 1), (1, 0)):
        prediction = task.predictor(task.projector(task.encoder(views[one]).pooled))
        target = task.teacher.module.head(task.teacher.module.encoder(views[other]).pooled)
        for q, z in zip(prediction, target, strict=True):
            total = total + (q / q.norm() - z / z.norm()).square().sum() / len(prediction)  # equation 2
    torch.testing.assert_close(step.loss, total, rtol=1e-10, atol=0)


def test_byol_is_symmetric_and_zero_where_prediction_meets_target():
    task, views = byol(), crops()
    torch.testing.assert_close(task(views_of(views)).loss, task(views_of(views.flip(0))).loss, rtol=1e-10, atol=0)
    task.predictor = nn.Identity()
    same = torch.stack([views[0], views[0]])
    assert task(views_of(same)).loss.item() == pytest.approx(0.0, abs=1e-12)


def test_byol_stops_the_gradient_at_the_teacher():
    """The finite difference of the loss along a teacher weight is not zero, its gradient is not asked for."""
    task, views = byol(), views_of(crops())
    step = task(views)
    step.loss.backward()
    weight = task.teacher.module.encoder.linear.weight
    assert weight.grad is None
    with torch.no_grad():
        weight[0, 0] += 1e-3
    assert abs(task(views).loss.item() - step.loss.item()) > 1e-8
    assert task.encoder.linear.weight.grad is not None


def mae(ratio: float = 0.5, normalize: bool = True) -> MAE:
    torch.manual_seed(0)
    encoder = vit_micro(in_chans=1, img_size=8, patch_size=2).cut(5)
    return MAE(encoder, ratio, decoder_dim=8, decoder_depth=1, decoder_heads=2, normalize_target=normalize).double().eval()


def crossmae() -> CrossMAE:
    torch.manual_seed(0)
    encoder = vit_micro(in_chans=1, img_size=8, patch_size=2).cut(4)
    return CrossMAE(encoder, decoder_dim=8, decoder_depth=2, decoder_heads=2)


@pytest.mark.parametrize("normalize", [True, False])
def test_mae(normalize: bool):
    task = mae(normalize=normalize)
    x = torch.randn(1, 3, 1, 8, 8, dtype=torch.float64)
    views = views_of(x)
    keep, _ = random_mask(views.key, 16, 0.5)
    seen = task.encoder(x[0], keep=keep)
    painted = task.decoder(seen.tokens, keep, prefix=seen.pooled)
    total, count = 0.0, 0
    for sample in range(3):
        for row in range(4):
            for column in range(4):
                token = 4 * row + column
                if token in keep[sample].tolist():
                    continue
                patch = x[0, sample, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten()
                if normalize:  # models_mae.py, forward_loss
                    patch = (patch - patch.mean()) / (patch.var() + 1e-6) ** 0.5
                total += (painted[sample, token] - patch).square().mean().item()
                count += 1
    assert count == 24
    assert task(views).loss.item() == pytest.approx(total / count, rel=1e-9)


def test_mae_looks_at_hidden_patches_only():
    prediction, target_ = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    mask = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 1]], dtype=torch.bool)
    loss = masked_error(prediction, target_, mask)
    target_[~mask] += 100.0
    assert torch.equal(masked_error(prediction, target_, mask), loss)
    target_[mask] += 1.0
    assert not torch.equal(masked_error(prediction, target_, mask), loss)


def test_mae_compares_in_float32_what_came_in_half_precision():
    prediction, patches = torch.randn(2, 6, 4).bfloat16(), torch.randn(2, 6, 4).bfloat16()
    mask = torch.ones(2, 6, dtype=torch.bool)
    for target in (patches, normalized_patches(patches)):
        found = masked_error(prediction, target, mask)
        assert torch.equal(found, masked_error(prediction.float(), target.float(), mask))
    assert torch.equal(normalized_patches(patches), normalized_patches(patches.float()))


def test_patches_of_one_number_are_not_normalised():
    with pytest.raises(ValueError, match="A patch of one number cannot be normalised"):
        normalized_patches(torch.randn(2, 6, 1))


@pytest.mark.parametrize("make", [mae, crossmae])
def test_decoders_start_as_the_official_code_has_it(make: Callable[[], nn.Module]):
    """Xavier's bound is the root of 6 / (in + out), torch's own that of 1 / in; of models_mae.py and models_cross.py."""
    decoder = make().decoder
    for layer in decoder.modules():
        if isinstance(layer, nn.Linear):
            bound = (6 / sum(layer.weight.shape)) ** 0.5
            assert 0.8 * bound < layer.weight.abs().max() <= bound
            assert not layer.bias.any()
        elif isinstance(layer, nn.LayerNorm):
            assert layer.eps == 1e-6
    assert 0.005 < decoder.mask_token.std() < 0.05


def test_mae_encoder_does_not_see_what_is_hidden():
    task = mae()
    x = torch.randn(1, 2, 1, 8, 8, dtype=torch.float64)
    keep, mask = random_mask(keyed.mix(0, 0, torch.arange(2)), 16, 0.5)
    hidden = mask.view(2, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    changed = torch.where(hidden, torch.randn_like(x[0]), x[0])
    assert torch.equal(task.encoder(x[0], keep=keep).pooled, task.encoder(changed, keep=keep).pooled)


def test_rotation():
    torch.manual_seed(0)
    task = Rotation(LinearEncoder(16, 6)).double()
    x = crops(views=1)
    total = 0.0
    for k in range(4):
        for sample in x[0]:
            turned = sample
            for _ in range(k):
                turned = turned.transpose(-2, -1).flip(-2)  # a quarter turn against the clock
            logits = task.head(task.encoder(turned[None]).pooled)[0]
            total -= log_softmax(logits, 0)[k].item()
    assert task(views_of(x)).loss.item() == pytest.approx(total / 20, rel=1e-10)


def test_rotation_of_zero_logits_is_the_logarithm_of_four():
    task = Rotation(LinearEncoder(16, 6))
    nn.init.zeros_(task.head.weight)
    nn.init.zeros_(task.head.bias)
    assert task(views_of(crops(views=1).float())).loss.item() == pytest.approx(math.log(4), rel=1e-6)


def test_rotation_refuses_views_that_are_not_square():
    with pytest.raises(ValueError, match=r"square views, not \(4, 6\)"):
        Rotation(LinearEncoder(24, 6))(views_of(torch.randn(1, 2, 1, 4, 6)))
