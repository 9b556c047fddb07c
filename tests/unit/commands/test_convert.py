"""Weights of another library become an encoder file, whole or not at all."""

from pathlib import Path

import pytest
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN

from ssl_framework.checkpoint import load_encoder
from ssl_framework.commands import compose, convert


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save({"model": timm.create_model("resnet18", num_classes=3).state_dict()}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def converted(folder: Path, *words: str) -> dict[str, object]:
    return convert.run(compose.compose("convert", ["encoder.name=resnet18", "size=[64,64]", *words], folder=str(folder)))


def test_the_encoder_has_the_weights_and_the_normalisation(weights: Path, tmp_path: Path):
    converted(tmp_path / "run", f"encoder.weights={weights}")
    loaded = load_encoder(tmp_path / "run")
    model = timm.create_model("resnet18", num_classes=0)
    state = {name: value for name, value in torch.load(weights)["model"].items() if not name.startswith("fc.")}
    model.load_state_dict(state)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encoder.eval()(x).pooled, model.eval()(x))
    config = timm.get_pretrained_cfg("resnet18")
    assert loaded.preprocessing == {"mean": list(config.mean), "std": list(config.std), "size": [64, 64], "channels": 3}
    assert loaded.history == {"converted_from": str(weights)}


def test_a_name_says_nothing_of_the_normalisation_of_other_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """timm's own weights of this name were trained with 0.5."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64).state_dict(), folder / "vit.pth")
    words = ["encoder.name=vit_tiny_patch16_224", f"encoder.weights={folder / 'vit.pth'}"]
    converted(tmp_path / "run", *words)
    assert load_encoder(tmp_path / "run").preprocessing["mean"] == list(IMAGENET_DEFAULT_MEAN)
    assert "nothing says how images were normalised" in capsys.readouterr().out


def test_a_normalisation_that_is_given_is_kept(weights: Path, tmp_path: Path):
    converted(tmp_path / "run", f"encoder.weights={weights}", "mean=[0.1,0.2,0.3]", "std=[1,2,3]")
    kept = load_encoder(tmp_path / "run").preprocessing
    assert (kept["mean"], kept["std"]) == ([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])


def test_what_does_not_fit_is_named_and_nothing_is_written(weights: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="convert needs weights"):
        converted(tmp_path / "run")
    with pytest.raises(ValueError, match=r"std=\[1\.0\]: give one number for each of the 3 channels"):
        converted(tmp_path / "run", f"encoder.weights={weights}", "std=[1]")
    state = torch.load(weights)["model"]
    state["layer9.weight"] = state.pop("layer1.0.conv1.weight")
    torch.save(state, weights)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight"):
        converted(tmp_path / "run", f"encoder.weights={weights}")
    assert not (tmp_path / "run" / "encoder.yaml").exists()
