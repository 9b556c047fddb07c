import copy

import numpy as np
import pytest
import torch
import torchvision
from sklearn.decomposition import PCA as Reference  # noqa: N811
from torch import nn

from ssl_framework.encoders import PCA, Adapter, RawPixels, adapter, build, random_like, resnet_micro, torchvision_encoder
from ssl_framework.types import Encoder, TokenEncoder


@pytest.fixture(autouse=True)
def _quiet():
    torch.set_num_threads(1)
    torch.manual_seed(0)


# Floors


def test_raw_pixels_are_the_image():
    floor = RawPixels(in_chans=2, img_size=(3, 4))
    x = torch.randn(5, 2, 3, 4)
    out = floor(x)
    assert torch.equal(out.pooled, x.flatten(1))
    assert (out.tokens, out.grid, out.layers) == (None, None, ())
    assert (floor.embed_dim, floor.num_layers) == (24, 0)
    assert floor.cut(0) is floor
    assert isinstance(floor, Encoder)
    assert not isinstance(floor, TokenEncoder)


@pytest.mark.parametrize(("n", "kind"), [(60, "more images than numbers"), (10, "fewer")])
def test_pca_is_the_one_of_scikit_learn(n, kind):
    x = torch.randn(n, 2, 3, 4) * torch.linspace(0.1, 3, 4) + 5
    floor = PCA(embed_dim=5, in_chans=2, img_size=(3, 4)).fit(x)
    reference = Reference(5, svd_solver="full").fit_transform(x.flatten(1).double().numpy())
    np.testing.assert_allclose(np.abs(floor(x).pooled.numpy()), np.abs(reference), atol=1e-4)
    again = PCA(embed_dim=5, in_chans=2, img_size=(3, 4)).fit(x)
    assert torch.equal(floor.components, again.components)
    assert floor.components.gather(1, floor.components.abs().argmax(1, keepdim=True)).min() > 0
    assert not list(floor.parameters())


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: RawPixels(1, 8).cut(1), "cut=1: RawPixels has 0 layers"),
        (lambda: RawPixels(1, 8)(torch.zeros(1, 1, 8, 8), layers=[0]), "has no layer 0; it has none"),
        (lambda: RawPixels(1, 8)(torch.zeros(1, 1, 9, 8)), r"\(1, 9, 8\) came to an encoder built for \(1, 8, 8\)"),
        (lambda: PCA(4, 1, 8)(torch.zeros(1, 1, 8, 8)), "call fit"),
        (lambda: PCA(4, 1, 8).fit(torch.zeros(4, 1, 8, 8)), "needs more than 4 images"),
        (lambda: PCA(65, 1, 8), "1 to 64 directions"),
    ],
)
def test_floors_refuse_what_they_cannot(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_random_like_is_the_same_architecture_with_weights_of_a_seed():
    trained = resnet_micro(in_chans=1).cut(1)
    state = torch.random.get_rng_state()
    a, b, c = random_like(trained, 1), random_like(trained, 1), random_like(trained, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert a.spec == trained.spec
    assert a.state_dict().keys() == trained.state_dict().keys()
    weights = [encoder.model.layer1[0].conv1.weight for encoder in (trained, a, b, c)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[1], weights[3])
    assert not torch.equal(weights[0], weights[1])


# Other origins


@pytest.mark.parametrize(
    ("name", "size", "widths"),
    [
        ("resnet18", 32, [64, 128, 256, 512]),
        ("mobilenet_v2", 64, [16, 24, 32, 96, 1280]),
        ("regnet_x_400mf", 64, [32, 64, 160, 400]),
    ],
)
def test_backbones_of_torchvision(name, size, widths):
    encoder = torchvision_encoder(name, in_chans=1, img_size=size).eval()
    x = torch.randn(2, 1, size, size)
    n = len(widths)
    out = encoder(x, layers=[*range(n)])
    assert isinstance(encoder, Encoder)
    assert not isinstance(encoder, TokenEncoder)
    assert [layer.shape[-1] for layer in out.layers] == widths
    assert all(grid[0] * grid[1] == layer.shape[1] for grid, layer in zip(out.grids, out.layers, strict=True))
    assert (encoder.num_layers, encoder.embed_dim) == (n, widths[-1])
    torch.testing.assert_close(out.pooled, out.tokens.mean(1))
    short = encoder.cut(1)
    assert torch.equal(short(x).tokens, encoder(x, layers=[-2]).layers[0])
    assert torch.equal(short(x).pooled, encoder(x, layers=[-2]).pooled_layers[0])
    assert sum(p.numel() for p in short.parameters()) < sum(p.numel() for p in encoder.parameters())
    assert short.embed_dim == widths[-2]
    again = build(short.spec)
    again.load_state_dict(short.state_dict())
    assert torch.equal(again.eval()(x).pooled, short(x).pooled)


def test_the_numbers_are_those_of_torchvision():
    encoder = torchvision_encoder("resnet18")
    model = torchvision.models.resnet18()
    model.load_state_dict({**encoder.model.state_dict(), "fc.weight": torch.eye(1000, 512), "fc.bias": torch.zeros(1000)})
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder.eval()(x).pooled, model.eval()(x)[:, :512])
    torch.testing.assert_close(encoder.train()(x).pooled, model.train()(x)[:, :512])


def test_copies_and_cuts_keep_the_mode_of_every_part():
    encoder = torchvision_encoder("swin_t", img_size=32)  # its stochastic depth is a function, traced in both modes
    x = torch.randn(2, 3, 32, 32)
    encoder.eval()
    expected = encoder(x, layers=[-2])
    copied = copy.deepcopy(encoder)
    assert torch.equal(copied(x).pooled, expected.pooled)
    assert torch.equal(encoder.cut(1)(x).tokens, expected.layers[0])
    assert not torch.equal(copied.train()(x).pooled, copied(x).pooled)
    assert torch.equal(encoder(x).pooled, expected.pooled)
    net = Adapter(Net(), ["first", "second"], in_chans=1, img_size=8)
    net.model.get_submodule("first.1").eval()  # a frozen norm in a training network
    for other in (copy.deepcopy(net), net.cut(1)):
        assert other.model.training
        assert other.model.get_submodule("first.0").training
        assert not other.model.get_submodule("first.1").training


def test_a_vision_transformer_of_torchvision_has_a_class_token():
    model = torchvision.models.VisionTransformer(16, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=16)
    stages = adapter._default_stages(model)
    assert [stage.rpartition(".")[2] for stage in stages] == ["encoder_layer_0", "encoder_layer_1", "ln"]
    encoder = Adapter(model, stages, img_size=16, layout="NLC", prefix_tokens=1).cut(1).eval()
    out = encoder(torch.randn(2, 3, 16, 16), layers=[0])
    assert out.tokens.shape == out.layers[0].shape == (2, 4, 16)
    assert not torch.equal(out.pooled, out.tokens.mean(1))
    assert torch.equal(
        encoder(torch.ones(2, 3, 16, 16), layers=[-1]).pooled_layers[0], encoder(torch.ones(2, 3, 16, 16)).pooled
    )
    with pytest.raises(ValueError, match=r"img_size=\[64, 32\]: vit_b_32 takes squares"):
        torchvision_encoder("vit_b_32", img_size=(64, 32))


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, x):
        return self.fc(self.second(self.first(x)).mean((2, 3)))


class Branching(Net):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


def test_a_module_of_ones_own():
    net = Net()
    net.eval()
    assert not Adapter(net, ["first"], in_chans=1, img_size=8).model.training
    encoder = Adapter(net.train(), ["first", "second"], in_chans=1, img_size=(8, 6))
    assert encoder.model.training
    assert int(encoder.model.get_submodule("first.1").num_batches_tracked) == 0
    out = encoder(torch.randn(2, 1, 8, 6), layers=[0])
    assert (out.pooled.shape, out.grid, out.grids) == ((2, 8), (4, 3), ((8, 6),))
    assert "fc" not in dict(encoder.model.named_children())
    assert encoder.cut(1).embed_dim == 4
    with pytest.raises(ValueError, match=r"does not know how it was made.*named"):
        _ = encoder.spec


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Adapter(Net(), ["firts"], in_chans=1), "no submodule firts: did you mean first"),
        (lambda: Adapter(Net(), [], in_chans=1), "name at least one"),
        (lambda: Adapter(Net(), ["fc"], in_chans=1, img_size=8), "The output of fc is .* not NCHW"),
        (lambda: Adapter(Branching(), ["first"], in_chans=1), "cannot be traced"),
        (lambda: torchvision_encoder("resnet19"), "no backbone resnet19: did you mean"),
        (lambda: torchvision_encoder("resnet18", pretrained=True, weights="a"), "give one of them"),
    ],
)
def test_adapters_refuse_what_they_cannot(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_weights_of_torchvision_are_opened_as_data_only(monkeypatch):
    state = torchvision.models.resnet18().state_dict()
    asked = {}

    def download(self, *args, **kwargs):
        asked.update(kwargs)
        return state

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", download)
    encoder = torchvision_encoder("resnet18", pretrained=True)
    assert asked == {"check_hash": True, "weights_only": True}
    assert torch.equal(encoder.model.conv1.weight, state["conv1.weight"])
    assert "pretrained" not in encoder.spec["args"]


# Descriptions


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "resnet_mikro", "args": {}, "cut": 0}, "No encoder is called 'resnet_mikro'. Did you mean resnet_micro"),
        ({"name": "os.system", "args": {"command": "true"}, "cut": 0}, "No encoder is called 'os.system'.*allow_target"),
        ({"name": "resnet_micro", "args": {"in_chan": 1}, "cut": 0}, "no argument 'in_chan': did you mean in_chans"),
        ({"name": "resnet_micro", "args": {"in_chans": "1"}, "cut": 0}, r"in_chans='1'\): that is not a whole number"),
        ({"name": "resnet_micro", "args": {"in_chans": True}, "cut": 0}, "that is not a whole number"),
        ({"name": "resnet_micro", "args": {"in_chans": -1}, "cut": 0}, "cannot be built with"),
        ({"name": "resnet_micro", "args": {}, "cut": 4}, "has 4 layers"),
        ({"name": "resnet_micro", "args": {}, "cut": "1"}, "must have a name, args and cut"),
        ({"name": "resnet_micro", "args": {}, "cut": 0, "_target_": "os.system"}, "nothing else"),
        ({"name": "vit_micro", "args": {"pool": "max"}, "cut": 0}, "that is not .* or "),
        ({"name": "timm_encoder", "args": {"weights": "/etc/passwd"}, "cut": 0}, "has weights: it may not"),
        ({"name": "timm_encoder", "args": {"pretrained": True}, "cut": 0}, "has pretrained: it may not"),
        ({"name": "timm_encoder", "args": {"name": "local-dir:/tmp"}, "cut": 0}, "timm has no model"),
        ({"name": "timm_encoder", "args": {"model_args": {"checkpoint_path": "x"}}, "cut": 0}, "no checkpoint_path"),
    ],
)
def test_descriptions_build_nothing_else(spec, message):
    with pytest.raises(ValueError, match=message):
        build(spec)
