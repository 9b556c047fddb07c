"""Which layer a parameter belongs to, beside the names that people know it by."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ssl_framework.encoders import RawPixels, resnet_micro, timm_encoder, torchvision_encoder, vit_micro
from ssl_framework.encoders.depth import depths
from ssl_framework.types import Encoding


def by_depth(found: dict[str, int], level: int, parts: int) -> set[str]:
    return {".".join(name.split(".")[:parts]) for name, depth in found.items() if depth == level}


def test_a_residual_network():
    encoder = resnet_micro(1, 8)
    found = depths(encoder, torch.zeros(1, 1, 8, 8))
    assert set(found) == {name for name, _ in encoder.named_parameters()}
    assert by_depth(found, 0, 2) == {"model.conv1", "model.bn1"}
    for level in range(1, encoder.num_layers + 1):
        assert by_depth(found, level, 2) == {f"model.layer{level}"}
    assert max(found.values()) == encoder.num_layers


def test_a_vision_transformer():
    encoder = vit_micro(1, 8)
    n = encoder.num_layers
    found = depths(encoder, torch.zeros(1, 1, 8, 8))
    for level in range(1, n + 1):
        assert by_depth(found, level, 3) == {f"model.blocks.{level - 1}"}
    assert by_depth(found, n + 1, 2) == {"model.norm"}
    assert by_depth(found, 0, 2) == {"model.cls_token", "model.pos_embed", "model.patch_embed", "mask_token"}


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("convnext_atto", {"model.stem"}),
        ("efficientnet_lite0", {"model.conv_stem", "model.bn1"}),
        ("regnety_002", {"model.stem"}),
        ("mixer_s32_224", {"model.stem"}),
    ],
)
def test_architectures_of_timm(name: str, stem: set[str]):
    size = 224 if "mixer" in name else 64
    encoder = timm_encoder(name, img_size=size)
    found = depths(encoder, torch.zeros(1, 3, size, size))
    assert by_depth(found, 0, 2) == stem
    assert {*found.values()} >= {*range(encoder.num_layers + 1)}


def test_a_cut_encoder_keeps_the_depths_of_what_is_left():
    encoder = vit_micro(1, 8)
    whole, short = (depths(e, torch.zeros(1, 1, 8, 8)) for e in (encoder, encoder.cut(2)))
    last = encoder.num_layers - 2
    assert all(whole[name] == depth for name, depth in short.items() if depth <= last)
    assert by_depth(short, last + 1, 2) == {"model.norm"}


@pytest.mark.parametrize(
    ("make", "stem"),
    [
        (lambda: vit_micro(1, 8), {"model.cls_token", "model.pos_embed", "model.patch_embed", "mask_token"}),
        (lambda: resnet_micro(1, 8), {"model.conv1", "model.bn1"}),
        (lambda: torchvision_encoder("resnet18", 1, 32), {"model.conv1", "model.bn1"}),
    ],
    ids=["vit", "resnet", "torchvision"],
)
def test_a_stem_stays_one_where_a_single_layer_is_left(make: Callable[[], Any], stem: set[str]):
    encoder = make()
    found = depths(encoder.cut(encoder.num_layers - 1), torch.zeros(1, 1, 8, 8))
    assert by_depth(found, 0, 2) == stem
    assert by_depth(found, 1, 2) in ({"model.blocks"}, {"model.layer1"})


def test_a_backbone_of_torchvision_that_names_its_stem_as_its_layers():
    encoder = torchvision_encoder("efficientnet_b0", img_size=32)
    found = depths(encoder, torch.zeros(1, 3, 32, 32))
    assert 0 not in found.values()  # features.0 is named as features.1 is
    assert found["model.features.0.0.weight"] == 1


def test_modes_gradients_and_statistics_stay():
    encoder = resnet_micro(1, 8).train()
    encoder.model.layer1.eval()
    encoder.model.conv1.requires_grad_(False)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    modes = {name: part.training for name, part in encoder.named_modules()}
    found = depths(encoder, torch.randn(1, 1, 8, 8))
    assert found["model.conv1.weight"] == 0
    assert modes == {name: part.training for name, part in encoder.named_modules()}
    assert not encoder.model.conv1.weight.requires_grad
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_shared_unused_and_absent_parameters():
    class Odd(nn.Module):
        num_layers, embed_dim = 2, 3

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.unused = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.again = self.first

        def forward(self, x, *, layers=()):
            one = self.first(x)
            two = self.again(self.second(one))
            return Encoding(two, layers=tuple((one, two)[i][:, None] for i in layers))

        def cut(self, k):
            return self

    found = depths(Odd(), torch.zeros(1, 3))
    assert {name: depth for name, depth in found.items() if name.endswith("weight")} == {
        "first.weight": 1, "again.weight": 1, "second.weight": 2, "unused.weight": 0,
    }  # fmt: skip
    assert depths(RawPixels(1, 8), torch.zeros(1, 1, 8, 8)) == {}
