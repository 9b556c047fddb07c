"""Weights of other libraries: the encoder says what the model says that they were saved from."""

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from ssl_framework.encoders import timm_encoder
from ssl_framework.encoders.layouts import LAYOUTS, to_timm

VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def agree(encoder: nn.Module, expected: torch.Tensor, x: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(x).pooled, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).eval()
    for part in model.modules():  # statistics of its own, or a map that forgets them were not seen
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
    return model


def features(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return nn.Sequential(*list(model.children())[:-1])(x).flatten(1)


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        ("timm, torchvision's ResNets, DINO", lambda model: model.state_dict()),
        (
            "lightly: a ResNet as a sequence of its children",
            lambda model: (
                {f"backbone.{k}": v for k, v in nn.Sequential(*list(model.children())[:-1]).state_dict().items()}
                | {"projection_head.layers.0.weight": torch.zeros(3), "backbone_momentum.0.weight": torch.zeros(2)}
            ),
        ),
        (
            "solo-learn, stable-pretraining, lightly: timm's names below backbone",
            lambda model: (
                {f"backbone.{k}": v for k, v in model.state_dict().items() if not k.startswith("fc.")}
                | {
                    "projector.0.weight": torch.zeros(3),
                    "momentum_backbone.conv1.weight": torch.zeros(2),
                    "queue": torch.zeros(4),
                }
            ),
        ),
    ],
)
def test_resnets(resnet, layout, named, tmp_path):
    state = named(resnet)
    assert to_timm(state).layout == layout
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    x = torch.randn(2, 3, 64, 64)
    agree(timm_encoder("resnet18", img_size=64, weights=str(tmp_path / "a.ckpt")), features(resnet, x), x)


def test_a_vision_transformer_of_torchvision(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 128, num_classes=5).eval()
    torch.save(model.state_dict(), tmp_path / "a.pth")
    x, heads = torch.randn(2, 3, 32, 32), model.heads
    model.heads = nn.Identity()
    encoder = timm_encoder(
        "vit_tiny_patch16_224", img_size=32, weights=str(tmp_path / "a.pth"), model_args={**VIT, "patch_size": 8}
    )
    with torch.no_grad():
        agree(encoder, model(x), x)
    assert len(heads) > 0


@pytest.mark.parametrize("kind", ["vit", "dinov2", "resnet"])
@pytest.mark.parametrize("task", [False, True])
def test_directories_of_hugging_face(kind, task, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
        )
        name, given, prefix = "resnet18", None, "resnet"
        cls = (transformers.ResNetForImageClassification, transformers.ResNetModel)
    else:
        config = (transformers.ViTConfig if kind == "vit" else transformers.Dinov2Config)(**sizes, intermediate_size=128)
        name, prefix = ("vit_tiny_patch16_224", "vit") if kind == "vit" else ("vit_small_patch14_dinov2", "dinov2")
        given = {**VIT, "patch_size": 8}
        names = ("ViTForImageClassification", "ViTModel") if kind == "vit" else ("Dinov2ForImageClassification", "Dinov2Model")
        cls = tuple(getattr(transformers, one) for one in names)
    model = cls[0 if task else 1](config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "model")
    base, x = (getattr(model, prefix) if task else model), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        seen = base(x)
        expected = seen.pooler_output.flatten(1) if kind == "resnet" else seen.last_hidden_state[:, 0]
    encoder = timm_encoder(
        name, img_size=32, weights=str(tmp_path / "model"), pool=None if kind == "resnet" else "cls", model_args=given
    )
    agree(encoder, expected, x)


@pytest.mark.parametrize("chunks", [False, True])
def test_dinov2_in_the_names_of_its_own_code(chunks, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_small_patch14_dinov2", img_size=28, num_classes=0, dynamic_img_size=True, **VIT, patch_size=7
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = {(name.replace("blocks.", "blocks.0.") if chunks else name): value for name, value in model.state_dict().items()}
    state["mask_token"] = torch.zeros(1, 32)
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "a.safetensors")
    assert to_timm(state).left_out == ("mask_token",)
    encoder = timm_encoder(
        "vit_small_patch14_dinov2",
        img_size=28,
        weights=str(tmp_path / "a.safetensors"),
        pool="cls",
        model_args={**VIT, "patch_size": 7},
    )
    x = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        agree(encoder, model.forward_features(x)[:, 0], x)


def test_an_encoder_of_mae_beside_its_decoder(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, patch_size=8, **VIT).eval()
    extra = {
        "decoder_embed.weight": torch.zeros(3),
        "decoder_blocks.0.norm1.weight": torch.zeros(3),
        "mask_token": torch.zeros(1),
    }
    torch.save({"model": {**model.state_dict(), **extra}}, tmp_path / "a.pth")
    x = torch.randn(2, 3, 32, 32)
    encoder = timm_encoder(
        "vit_tiny_patch16_224", img_size=32, weights=str(tmp_path / "a.pth"), model_args={**VIT, "patch_size": 8}
    )
    with torch.no_grad():
        agree(encoder, model(x), x)


def test_names_that_no_rule_knows_are_an_error_that_names_them(resnet, tmp_path):
    state = {f"backbone.{k}": v for k, v in resnet.state_dict().items() if not k.startswith("fc.")}
    state["backbone.extra.weight"] = state.pop("backbone.layer2.0.conv1.weight")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"named as by solo-learn.*1 missing: layer2.0.conv1.weight; 1 not in this .*extra.weight"
    ):
        timm_encoder("resnet18", img_size=64, weights=str(tmp_path / "a.pth"))


def test_every_layout_is_tried_before_the_last():
    assert LAYOUTS[-1].marks == ".*"
    assert all(one.marks != ".*" for one in LAYOUTS[:-1])
