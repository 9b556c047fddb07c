import copy
import gc

import pytest
import torch
from torch import nn

from ssl_framework.encoders import (
    TimmViT,
    convnext_tiny,
    describe,
    resnet18,
    resnet50,
    resnet_micro,
    timm_encoder,
    vit_micro,
    vit_small,
    vit_tiny,
)
from ssl_framework.encoders import timm as room
from ssl_framework.encoders.attention import prefix_pattern
from ssl_framework.types import Encoder, TokenEncoder


@pytest.fixture(autouse=True)
def _quiet():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small_vit(**kwargs) -> TimmViT:
    return room.vision_transformer(
        **{
            "in_chans": 3, "img_size": (8, 12), "patch_size": 4, "width": 16, "depth": 3, "heads": 2,
            "drop_path": 0.0, "pool": "cls", "pos_embed": "learn", **kwargs,
        }
    )  # fmt: skip


# timm's own numbers, over the layouts that it has: maps, channels-last maps, sequences with and without class token, wide heads
NAMES = [
    ("resnet18", 64, 4, True),
    ("convnext_atto", 64, 4, True),
    ("efficientnet_lite0", 64, 5, True),
    ("mobilenetv3_small_050", 64, 4, True),
    ("regnety_002", 64, 4, True),
    ("densenet121", 64, 4, True),
    ("swin_tiny_patch4_window7_224", 224, 4, False),
    ("vit_tiny_patch16_224", 64, 12, True),
    ("deit_tiny_distilled_patch16_224", 64, 12, True),
    ("eva02_tiny_patch14_224", 56, 12, False),
    ("mixer_s32_224", 224, 8, False),
]


@pytest.mark.parametrize(("name", "size", "depth", "any_size"), NAMES)
def test_vectors_tokens_and_layers_are_those_of_timm(name, size, depth, any_size):
    encoder = timm_encoder(name, img_size=size).eval()
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = encoder.model.forward_features(x)
        pooled = encoder.model.forward_head(features, pre_logits=True)
        maps = encoder.model.forward_intermediates(x, intermediates_only=True)
        out = encoder(x, layers=[-1, 0])
    assert encoder.num_layers == depth
    assert torch.equal(out.pooled, pooled)
    assert out.pooled.shape == (2, encoder.embed_dim)
    prefix = getattr(encoder.model, "num_prefix_tokens", 0)
    if features.ndim == 3:
        assert torch.equal(out.tokens, features[:, prefix:])
    elif getattr(encoder.model, "output_fmt", "NCHW") == "NHWC":
        assert torch.equal(out.tokens, features.flatten(1, 2))
    else:
        assert torch.equal(out.tokens, features.flatten(2).transpose(1, 2))
    assert out.grid is not None
    assert out.grid[0] * out.grid[1] == out.tokens.shape[1]
    maps = maps[len(maps) - depth :]
    for layer, grid, expected in zip(out.layers, out.grids, (maps[-1], maps[0]), strict=True):
        assert torch.equal(layer, expected.flatten(2).transpose(1, 2))
        assert grid == tuple(expected.shape[-2:])
    if any_size:
        assert encoder(torch.randn(1, 3, size, size + 32)).pooled.shape == (1, encoder.embed_dim)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "convnext_atto", "mobilenetv3_small_050", "densenet121", "vit_tiny_patch16_224", "eva02_tiny_patch14_224"],
)
@pytest.mark.parametrize("k", [1, 2])
def test_a_cut_encoder_says_what_the_layer_said(name, k):
    size = 56 if "eva" in name else 64
    encoder = timm_encoder(name, img_size=size).eval()
    x = torch.randn(1, 3, size, size)
    short = encoder.cut(k)
    with torch.no_grad():
        seen = encoder(x, layers=[-1 - k, -1])
        out = short(x, layers=[-1])
    layer = seen.layers[0]
    assert torch.equal(out.layers[0], layer)
    assert torch.equal(seen.pooled_layers[1], seen.pooled)
    torch.testing.assert_close(seen.pooled_layers[0], layer.mean(1) if "eva" in name else out.pooled)
    assert short.num_layers == encoder.num_layers - k
    assert out.pooled.shape == (1, short.embed_dim)
    assert out.tokens.shape[-1] == short.embed_dim
    if "vit" in name or "eva" in name:
        final = encoder.model.norm  # the final norm stays
        assert torch.equal(out.tokens, final(layer))
    else:
        assert torch.equal(out.tokens, layer)
        torch.testing.assert_close(out.pooled, layer.mean(1))
    assert short.spec["cut"] == k
    assert "cut" in describe(short.spec)


def test_cutting_frees_memory_and_leaves_the_original_alone():
    encoder = resnet_micro(in_chans=1)
    before = sum(p.numel() for p in encoder.parameters())
    short = encoder.cut(1).cut(1)
    gc.collect()
    assert sum(t.numel() for t in short.state_dict().values()) < before / 4
    assert sum(p.numel() for p in encoder.parameters()) == before
    with torch.no_grad():
        next(short.parameters()).zero_()
    assert next(encoder.parameters()).any()
    assert (short.num_layers, short.embed_dim, short.spec["cut"]) == (2, 32, 2)
    assert encoder.cut(0) is encoder


@pytest.mark.parametrize("k", [4, 9, -1])
def test_cut_beyond_the_depth_names_the_depth(k):
    with pytest.raises(ValueError, match=rf"cut={k}: TimmEncoder has 4 layers.*cut 0 to 3"):
        resnet_micro().cut(k)


@pytest.mark.parametrize("encoder", [resnet_micro(), small_vit()], ids=["cnn", "vit"])
def test_layers_keep_their_order_and_refuse_what_is_not_there(encoder):
    x = torch.randn(2, 3, 8, 12)
    n = encoder.num_layers
    out = encoder.eval()(x, layers=[n - 1, 0, -1, 0])
    assert len(out.layers) == len(out.grids) == 4
    assert torch.equal(out.layers[0], out.layers[2])
    assert torch.equal(out.layers[1], out.layers[3])
    assert not torch.equal(out.layers[0].flatten()[:9], out.layers[1].flatten()[:9])
    for wrong in (n, -n - 1):
        with pytest.raises(ValueError, match=rf"has no layer {wrong}; it has {n}"):
            encoder(x, layers=[wrong])


PRESETS = [
    (resnet_micro, 0.3075, 4, 128),
    (resnet18, 11.169, 4, 512),
    (resnet50, 23.508, 4, 2048),
    (convnext_tiny, 27.820, 4, 768),
    (vit_micro, 2.692, 6, 192),
    (vit_tiny, 5.361, 12, 192),
    (vit_small, 21.666, 12, 384),
]


@pytest.mark.parametrize(("preset", "millions", "depth", "width"), PRESETS)
def test_presets_have_the_measures_that_they_promise(preset, millions, depth, width):
    encoder = preset()
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=6e-4)
    assert (encoder.num_layers, encoder.embed_dim) == (depth, width)
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, TokenEncoder) == isinstance(encoder, TimmViT)
    assert encoder.spec["name"] == preset.__name__


def test_the_resnets_are_no_token_encoders():
    assert not isinstance(resnet_micro(), TokenEncoder)
    assert isinstance(small_vit(), TokenEncoder)


@pytest.mark.parametrize("preset", [resnet_micro, resnet18])
def test_the_small_stem_keeps_the_resolution(preset):
    out = preset(in_chans=2)(torch.randn(2, 2, 16, 24), layers=range(4))
    assert out.grids == ((16, 24), (8, 12), (4, 6), (2, 3))
    assert resnet18(small_stem=False)(torch.randn(2, 3, 32, 32), layers=[0]).grids == ((8, 8),)


def test_widths_of_resnet_micro():
    out = resnet_micro(in_chans=1)(torch.randn(2, 1, 8, 8), layers=range(4))
    assert [layer.shape[-1] for layer in out.layers] == [16, 32, 64, 128]
    assert out.pooled.shape == (2, 128)
    torch.testing.assert_close(out.pooled, out.tokens.mean(1))


def test_every_parameter_of_the_micro_encoders_learns():
    for encoder, x in ((resnet_micro(), torch.randn(4, 3, 16, 16)), (small_vit(), torch.randn(4, 3, 8, 12))):
        out = encoder(x)
        (out.pooled.square().sum() + out.tokens.pow(3).sum()).backward()
        without = [name for name, p in encoder.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
        assert without == []


# Tokens


def test_patchify_is_in_the_order_of_the_patch_embedding():
    encoder = small_vit(in_chans=2, img_size=(8, 12))
    x = torch.randn(3, 2, 8, 12)
    patches = encoder.patchify(x)
    proj = encoder.model.patch_embed.proj
    assert patches.shape == (3, encoder.num_tokens, encoder.patch_dim) == (3, 6, 32)
    assert encoder.grid == (2, 3)
    expected = encoder.model.patch_embed(x).flatten(1, 2)  # (B, N, D)
    torch.testing.assert_close(patches @ proj.weight.flatten(1).T + proj.bias, expected)


def test_keeping_all_tokens_changes_nothing_and_keeping_some_sees_only_these():
    encoder = small_vit().eval()
    x = torch.randn(2, 3, 8, 12)
    whole = encoder(x, layers=[1])
    everything = encoder(x, keep=torch.arange(6).expand(2, 6), layers=[1])
    assert torch.equal(whole.pooled, everything.pooled)
    assert torch.equal(whole.layers[0], everything.layers[0])
    assert (everything.grid, everything.grids) == (None, ())
    keep = torch.tensor([[4, 1], [0, 5]])
    some = encoder(x, keep=keep)
    assert some.tokens.shape == (2, 2, 16)
    hidden = x.clone()
    hidden[0, :, :4, :4] = 7.0  # token 0 of sample 0 is not kept
    assert torch.equal(encoder(hidden, keep=keep).tokens[0], some.tokens[0])
    hidden[0, :, 4:, 4:8] = 7.0  # token 4 is
    assert not torch.equal(encoder(hidden, keep=keep).tokens[0], some.tokens[0])
    swapped = encoder(x, keep=keep.flip(1))
    torch.testing.assert_close(swapped.tokens, some.tokens.flip(1))


def test_the_mask_token_hides_the_patch_and_learns():
    encoder = small_vit()
    x = torch.randn(2, 3, 8, 12)
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0, 1] = True
    with pytest.raises(ValueError, match="learn_mask_token"):
        encoder(x, mask=mask)
    assert torch.equal(encoder.eval()(x, mask=mask & False).tokens, encoder(x).tokens)
    changed = x.clone()
    changed[0, :, :4, 4:8] = 9.0  # behind the mask
    out = encoder(x, mask=mask)
    assert torch.equal(out.tokens, encoder(changed, mask=mask).tokens)
    assert out.tokens.shape == (2, 6, 16)
    assert out.grid == (2, 3)
    encoder.learn_mask_token()
    encoder.train()(x, mask=mask).tokens.pow(3).sum().backward()
    assert encoder.mask_token.grad is not None
    assert encoder.mask_token.grad.any()
    with pytest.raises(ValueError, match=r"mask \(2, 5\).*give \(2, 6\) torch.bool"):
        encoder(x, mask=mask[:, :5])


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_the_pattern_of_a_prefix(extra):
    prefix = [0, 1, 4, 6]
    pattern = prefix_pattern(torch.tensor(prefix), 6, extra)
    assert (pattern.shape, pattern.dtype) == ((4, 1, extra + 6, extra + 6), torch.bool)
    for sample, length in enumerate(prefix):
        for query in range(-extra, 6):  # below 0: no patches
            for key in range(-extra, 6):
                before, given = key <= query, key < length
                assert pattern[sample, 0, extra + query, extra + key].item() == (before or given)
    with pytest.raises(ValueError, match=r"prefix \(2,\) torch.float32 does not say .*give \(B,\) torch.int64"):
        prefix_pattern(torch.ones(2), 6)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("args", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}], ids=str)
def test_behind_a_prefix_it_is_as_if_later_tokens_were_not_there(monkeypatch, plain, args):
    monkeypatch.setattr(room, "plain_attention_is_faster", lambda tokens: plain)
    model = room.VisionTransformer((8, 12), 4, num_classes=0, embed_dim=16, depth=3, num_heads=2, dynamic_img_size=True, **args)
    encoder = TimmViT(model).eval().double()
    x, prefix = torch.randn(2, 3, 8, 12).double(), torch.tensor([1, 3])
    whole = encoder(x, prefix=prefix, layers=[0, 1])
    assert (whole.grid, whole.grids) == ((2, 3), ((2, 3), (2, 3)))
    for known in range(3, 7):
        some = encoder(x, prefix=prefix, keep=torch.arange(known).expand(2, known), layers=[0, 1])
        torch.testing.assert_close(some.tokens, whole.tokens[:, :known], rtol=0, atol=1e-12)
        torch.testing.assert_close(some.layers[1], whole.layers[1][:, :known], rtol=0, atol=1e-12)
    later = x.clone()
    later[:, :, 4:] += 1.0  # tokens 3 to 5
    changed = encoder(later, prefix=prefix, layers=[0, 1])
    assert torch.equal(changed.tokens[:, :3], whole.tokens[:, :3])
    assert torch.equal(changed.layers[0][:, :3], whole.layers[0][:, :3])
    assert (changed.tokens[:, 3:] != whole.tokens[:, 3:]).any(-1).all()
    if "class_token" not in args:
        assert torch.equal(changed.pooled, whole.pooled)  # the class token belongs to the prefix
    torch.testing.assert_close(encoder(x, prefix=torch.tensor([6, 9])).tokens, encoder(x).tokens, rtol=0, atol=1e-12)


def test_other_image_sizes_move_the_positions():
    encoder = small_vit(img_size=(16, 16)).eval()
    assert encoder(torch.randn(2, 3, 8, 12)).grid == (2, 3)
    with pytest.raises(ValueError, match=r"an image of 9x12 is not a multiple of the patch 4x4.*or 8x12"):
        encoder(torch.randn(2, 3, 9, 12))
    with pytest.raises(ValueError, match=r"img_size 28x30 is not a multiple of the patch 4x4.*or 28x32"):
        vit_micro(img_size=(28, 30))
    with pytest.raises(ValueError, match="img_size 60x60 is not a multiple"):
        timm_encoder("vit_tiny_patch16_224", img_size=60)
    with pytest.raises(ValueError, match="img_size=None: give one positive number"):
        resnet_micro(img_size=None)


@pytest.mark.parametrize(
    ("size", "patch"), [(32, 4), (28, 4), (16, 4), (12, 2), (8, 2), (4, 1), (2, 1), ((8, 32), 2), ((32, 8), 2)]
)
def test_small_images_get_small_patches(size, patch):
    """At least 4 x 4 tokens where the pixels suffice; the patch is written down, so that a file says what it holds."""
    encoder = vit_micro(in_chans=1, img_size=size)
    assert encoder.spec["args"]["patch_size"] == patch
    assert encoder.patch_dim == patch * patch
    assert vit_micro(img_size=8, patch_size=4).grid == (2, 2)  # what is said is done


def test_pool_is_the_class_token_or_the_mean_after_the_final_norm():
    x = torch.randn(2, 3, 8, 12)
    mean = small_vit(pool="mean").eval()(x)
    torch.testing.assert_close(mean.pooled, mean.tokens.mean(1))
    encoder = small_vit().eval()
    sequence = encoder.model.forward_features(x)
    assert torch.equal(encoder(x).pooled, sequence[:, 0])
    assert small_vit().state_dict().keys() == small_vit(pool="mean").state_dict().keys()
    with pytest.raises(ValueError, match='pool="max"'):
        small_vit(pool="max")


def test_fixed_positions_are_those_of_mae():
    encoder = small_vit(pos_embed="sincos")
    table = encoder.model.pos_embed
    assert not table.requires_grad
    assert not table[0, 0].any()
    row, column, quarter = 1, 2, 4
    omega = 10_000.0 ** -(torch.arange(quarter) / quarter)
    expected = torch.cat([(column * omega).sin(), (column * omega).cos(), (row * omega).sin(), (row * omega).cos()])
    torch.testing.assert_close(table[0, 1 + row * 3 + column], expected)
    with pytest.raises(ValueError, match='pos_embed="rope"'):
        small_vit(pos_embed="rope")


# Life of an encoder


@pytest.mark.parametrize("make", [resnet_micro, small_vit], ids=["cnn", "vit"])
def test_a_copy_after_a_step_is_independent(make):
    encoder = make()
    x = torch.randn(2, 3, 8, 12)
    encoder(x).pooled.sum().backward()
    teacher = copy.deepcopy(encoder)
    assert torch.equal(teacher.eval()(x).pooled, encoder.eval()(x).pooled)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(1.0)
    assert not torch.equal(teacher(x).pooled, encoder(x).pooled)
    teacher.named("other")
    assert encoder._spec != teacher._spec


@pytest.mark.parametrize("make", [resnet_micro, small_vit], ids=["cnn", "vit"])
def test_it_compiles_into_one_graph(make):
    encoder = make().eval()
    x = torch.randn(2, 3, 8, 12)
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(encoder, backend=count, fullgraph=True)
    out = compiled(x, layers=(0, -1))
    torch.testing.assert_close(out.pooled, encoder(x).pooled)
    assert len(graphs) == 1
    if isinstance(encoder, TimmViT):
        prefix = torch.tensor([1, 4])
        torch.testing.assert_close(compiled(x, prefix=prefix).tokens, encoder(x, prefix=prefix).tokens)
        assert len(graphs) == 2


def test_drop_path_is_passed_on():
    encoder = small_vit(drop_path=0.5)
    x = torch.randn(8, 3, 8, 12)
    assert not torch.equal(encoder(x).pooled, encoder(x).pooled)
    assert torch.equal(encoder.eval()(x).pooled, encoder(x).pooled)
    assert resnet_micro(drop_path=0.5).model.layer4[0].drop_path is not None


# What cannot be built


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"name": "resnet19"}, "timm has no model resnet19: did you mean .*resnet18"),
        ({"name": "hf-hub:timm/resnet18"}, "timm has no model hf-hub"),
        ({"name": "../resnet18"}, "timm has no model"),
        ({"name": "resnet18.nowhere"}, r"timm has no weights resnet18.nowhere: it has .*resnet18\.a1_in1k"),
        ({"name": "test_vit9"}, "timm has no model test_vit9"),
        ({"name": "convnext_atto", "small_stem": True}, "small_stem=true is for ResNets.*ConvNeXt"),
        ({"name": "resnet18", "pool": "cls"}, "not a plain vision transformer: leave out pool=cls"),
        ({"name": "resnet18", "pretrained": True, "small_stem": True}, "leave out small_stem"),
        ({"name": "vgg11", "drop_path": 0.1}, "timm cannot build vgg11"),
        ({"name": "resnet18", "model_args": {"patchsize": 3}}, "model_args has no patchsize: did you mean patch_size"),
        ({"name": "resnet18", "model_args": {"pretrained_cfg": "x"}}, "model_args has no pretrained_cfg"),
        ({"name": "resnet18", "model_args": {"depth": [1]}}, r"model_args.depth=\[1\]: give a number"),
        ({"name": "resnet18", "img_size": [1, 2, 3]}, "give one positive number, or two"),
        ({"name": "resnet18", "weights": "nowhere.pth"}, "There is no weight file nowhere.pth"),
    ],
)
def test_what_cannot_be_built_says_why(args, message):
    with pytest.raises(ValueError, match=message):
        timm_encoder(**args)


# Weights


def test_pretrained_weights_come_through_timm(monkeypatch):
    source = timm_encoder("resnet18").model
    state = {**source.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *args, **kwargs: dict(state))
    encoder = timm_encoder("resnet18", in_chans=1, pretrained=True)
    assert torch.equal(encoder.model.layer4[0].conv1.weight, source.layer4[0].conv1.weight)
    torch.testing.assert_close(encoder.model.conv1.weight, source.conv1.weight.sum(1, keepdim=True))
    assert "pretrained" not in encoder.spec["args"]


def test_without_network_the_remedy_is_said(monkeypatch):
    def offline(*args, **kwargs):
        raise FileNotFoundError("no connection")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(ValueError, match=r"resnet18 could not be downloaded \(no connection\).*weights=FILE"):
        timm_encoder("resnet18", pretrained=True)


def test_local_weights_are_loaded_strictly(tmp_path):
    source = timm_encoder("resnet18", in_chans=1, small_stem=True).model
    state = source.state_dict()
    good = tmp_path / "good.pth"
    torch.save({"state_dict": {**state, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}}, good)
    encoder = timm_encoder("resnet18", in_chans=1, small_stem=True, weights=str(good))
    assert torch.equal(encoder.model.conv1.weight, source.conv1.weight)
    assert "weights" not in encoder.spec["args"]
    with pytest.raises(ValueError, match=r"good.pth belongs to another architecture.*conv1.weight \(expected \(64, 3, 7, 7\)"):
        timm_encoder("resnet18", weights=str(good))
    with pytest.raises(ValueError, match=r"missing: .*layer1.0.conv3.weight"):
        timm_encoder("resnet50", in_chans=1, small_stem=True, weights=str(good))


def test_a_pickle_with_code_is_not_run(tmp_path):
    trap = tmp_path / "sentinel"

    class Trap(nn.Module):
        def __reduce__(self):
            return (open, (str(trap), "w"))

    torch.save({"conv1.weight": Trap()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot be read as plain tensors"):
        timm_encoder("resnet18", weights=str(tmp_path / "evil.pth"))
    assert not trap.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)["conv1.weight"].close()  # the trap works
    assert trap.exists()
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ValueError, match="cannot be read as plain tensors"):
        timm_encoder("resnet18", weights=str(tmp_path / "cut.safetensors"))
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="more than named tensors"):
        timm_encoder("resnet18", weights=str(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match="is an address"):
        timm_encoder("resnet18", weights="https://example.org/a.pth")


@pytest.mark.parametrize("prefix", [None, torch.tensor([1, 2])])
@pytest.mark.parametrize("keep", [None, torch.tensor([[0, 2, 5], [1, 3, 4]])])
def test_attention_is_the_same_by_both_kernels(monkeypatch, keep, prefix):
    encoder, x, out = small_vit().eval(), torch.randn(2, 3, 8, 12), []
    for plain in (True, False):
        monkeypatch.setattr(room, "plain_attention_is_faster", lambda tokens, plain=plain: plain)
        out.append(encoder(x, keep=keep, prefix=prefix).tokens)
        assert all(block.attn.fused_attn is not plain for block in encoder.model.blocks)
    assert (out[0] - out[1]).abs().max() < 1e-5
    assert out[0].abs().max() > 0.1


def test_attention_is_plain_in_bfloat16_on_a_cpu():
    encoder = small_vit()
    with torch.autocast("cpu", torch.bfloat16):
        encoder(torch.randn(2, 3, 8, 12))
        encoder(torch.randn(2, 3, 8, 12), prefix=torch.tensor([1, 2]))
    assert not any(block.attn.fused_attn for block in encoder.model.blocks)
    encoder(torch.randn(2, 3, 8, 12))
    assert all(block.attn.fused_attn for block in encoder.model.blocks)


@pytest.mark.parametrize(("pool", "args"), [("cls", {}), ("mean", {}), ("mean", {"qk_norm": True, "reg_tokens": 2})])
def test_where_it_looks_is_what_its_last_attention_computes(pool, args):
    """The matrix is taken where timm has it in its hands: at the input of the dropout of attention."""
    small = {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}
    encoder = timm_encoder("vit_tiny_patch16_224", img_size=(8, 12), pool=pool, model_args={**small, **args}).eval()
    x = torch.randn(2, 3, 8, 12)
    last, seen = encoder.model.blocks[-1].attn, []
    last.attn_drop.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
    found = encoder.attention(x)
    with torch.no_grad():
        t = encoder.model.patch_embed(x)
        t = encoder.model.blocks[0](encoder.model.norm_pre(encoder.model._pos_embed(t)))
        last.fused_attn = False
        encoder.model.blocks[-1](t)
    skip, matrix = encoder.model.num_prefix_tokens, seen[-1]
    expected = matrix[:, :, 0, skip:] if pool == "cls" else matrix[:, :, skip:, skip:].mean(2)
    assert found.shape == (2, 3, 2, 3)
    assert torch.allclose(found.flatten(2), expected, atol=1e-6)
    assert not last._forward_pre_hooks
