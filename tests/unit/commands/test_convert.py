"""Weights of another library become an encoder file, whole or not at all."""

from pathlib import Path

import pytest
import timm
import torch

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
