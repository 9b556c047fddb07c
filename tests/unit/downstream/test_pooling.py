"""What the head is attached to, beside the formulas written naively; and layers that begin anew."""

import pytest
import torch
from torch.nn.functional import layer_norm, softmax

from ssl_framework.data import Labelled
from ssl_framework.downstream import AttentionPooling, LabelledData, LastLayers, LastN, Pooling, TokenMean, fingerprint
from ssl_framework.encoders import RawPixels
from ssl_framework.run import trainer

from .conftest import make_module, make_split, small_vit

POOLINGS = [Pooling(), TokenMean(), AttentionPooling(heads=2), LastLayers(n=2), LastLayers(n=1, mean=True)]


def vectors(module) -> torch.Tensor:
    """What the task's head gets of four images."""
    seen = []
    handle = module.head.task.register_forward_pre_hook(lambda _, args: seen.append(args[0].pooled))
    with torch.no_grad():
        module.eval()(make_split(4).images(range(4)))
    handle.remove()
    return seen[0]


def encoding(module, layers=()):
    with torch.no_grad():
        return module.encoder.eval()(module.views.center(make_split(4).images(range(4))), layers=layers)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_vectors_are_those_of_the_formula(encoder, kind):
    def build(pooling):
        return make_module(encoder if kind == "cnn" else small_vit(), pooling=pooling)

    module = build(Pooling())
    assert torch.equal(vectors(module), encoding(module).pooled)
    module = build(TokenMean())
    torch.testing.assert_close(vectors(module), encoding(module).tokens.mean(1))
    module = build(LastLayers(n=2))
    n = module.encoder.num_layers
    cut = make_module(encoder if kind == "cnn" else small_vit(), cut=1)
    expected = torch.cat([encoding(cut).pooled, encoding(module).pooled], dim=1)
    torch.testing.assert_close(vectors(module), expected)
    module = build(LastLayers(n=1, mean=True))
    seen = encoding(module, (n - 1,))
    torch.testing.assert_close(vectors(module), torch.cat([seen.pooled, seen.tokens.mean(1)], dim=1))


def test_the_attentive_probe_is_attention_of_one_learnt_query():
    module = make_module(small_vit(), pooling=AttentionPooling(heads=2))
    pool, tokens = module.head.pool, encoding(module).tokens
    attention = pool.attention
    x = layer_norm(tokens, (24,), pool.norm.weight, pool.norm.bias)
    q = attention.q(attention.latent).expand(4, 1, 24)
    k, v = attention.kv(x).chunk(2, dim=-1)
    heads = []
    for h in (slice(0, 12), slice(12, 24)):
        weights = softmax((q[..., h] * k[..., h]).sum(-1, keepdim=True) / 12**0.5, dim=1)  # (B, N, 1)
        heads.append((weights * v[..., h]).sum(1))
    torch.testing.assert_close(vectors(module), torch.cat(heads, dim=1).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS, ids=lambda pooling: pooling.kind)
def test_it_learns_through_every_pooling(pooling):
    module = make_module(small_vit(), pooling=pooling, freezing=LastN(n=1))
    before = fingerprint(module.head)
    fit = trainer(steps=3, accelerator="cpu", logger=False, enable_progress_bar=False)
    fit.fit(module, datamodule=LabelledData(make_split(12), batch_size=4))
    assert fingerprint(module.head) != before
    assert all(p.grad is not None for p in module.head.parameters())
    split: Labelled = make_split(9, name="test")
    assert 0 <= module.measure(split)["accuracy"] <= 1


def test_a_pooling_that_the_encoder_cannot_give_is_refused():
    for pooling in (TokenMean(), AttentionPooling()):
        with pytest.raises(ValueError, match="needs tokens, and this encoder gives one vector"):
            make_module(RawPixels(1, 8), pooling=pooling)
    with pytest.raises(ValueError, match=r"pooling.n=4: the encoder has 3 layers"):
        make_module(small_vit(), pooling=LastLayers())
    with pytest.raises(ValueError, match=r"pooling.heads=5 does not divide tokens 24 wide: take one of \[1, 2, 3, 4"):
        make_module(small_vit(), pooling=AttentionPooling(heads=5))


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_the_last_layers_begin_anew(encoder, kind):
    given = encoder if kind == "cnn" else small_vit()
    with torch.no_grad():
        for value in given.state_dict().values():
            value.copy_(value + 1)  # nothing of it is as a new encoder has it
    module, other = make_module(given, reinit=1), make_module(given, reinit=1, seed=1)
    old, new, again = (x.state_dict() for x in (given, module.encoder, other.encoder))
    changed = {".".join(name.split(".")[1:3]) for name in old if not torch.equal(old[name], new[name])}
    anew = (
        {"blocks.2", "norm.weight", "norm.bias"} if kind == "vit" else {name for name in changed if name.startswith("layer4")}
    )
    assert changed == anew != set()
    top = "model.layer4.0.bn1.running_mean" if kind == "cnn" else "model.norm.weight"
    assert not torch.equal(old[top], new[top])  # buffers too
    weight = "model.layer4.0.conv1.weight" if kind == "cnn" else "model.blocks.2.mlp.fc1.weight"
    assert not torch.equal(new[weight], again[weight])  # from the seed
    assert fingerprint(make_module(given).encoder) == fingerprint(given)


def test_more_layers_than_there_are_cannot_begin_anew(encoder):
    for n in (-1, 5):
        with pytest.raises(ValueError, match=f"reinit={n}: the encoder has 4 layers; take 0 to 4"):
            make_module(encoder, reinit=n)
