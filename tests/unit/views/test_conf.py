"""Each YAML of the group lists every argument of its function, with the same default."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ssl_framework import views
from ssl_framework.types import Batch

CONF = Path(__file__).parents[3] / "conf" / "views"
FILES = sorted(CONF.glob("*.yaml"))
FILLED = {"size": None, "mean": None, "std": None, "seed": "${seed}"}
OVERRIDES = {
    "affine_one": {"views": 1},
    "two_crops_weak": {"crop_scale": [0.2, 1.0], "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "multi_crop_swav": {
        "local_crops": 6,
        "global_scale": [0.14, 1.0],
        "local_scale": [0.05, 0.14],
        "brightness": 0.8,
        "contrast": 0.8,
        "saturation": 0.8,
        "hue": 0.2,
        "blur_p": [0.5, 0.5, 0.5],
        "solarize_p": [0.0, 0.0, 0.0],
    },
    "multi_crop_lejepa": {
        "local_crops": 6,
        "global_scale": [0.3, 1.0],
        "local_scale": [0.05, 0.3],
        "blur_p": [0.5, 0.5, 0.5],
        "solarize_p": [0.2, 0.2, 0.2],
    },
}


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_the_group_is_complete():
    assert {file.stem for file in FILES} == {
        "one_crop",
        "two_crops",
        "two_crops_asymmetric",
        "two_crops_weak",
        "strong_and_weak",
        "multi_crop",
        "multi_crop_swav",
        "multi_crop_lejepa",
        "affine",
        "affine_one",
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_yaml_is_the_signature(file: Path):
    written = yaml.safe_load(file.read_text())
    target = written.pop("_target_")
    package, name = target.rsplit(".", 1)
    assert package == "ssl_framework.views"
    parameters = inspect.signature(getattr(views, name)).parameters
    defaults = {key: plain(parameter.default) for key, parameter in parameters.items()}
    assert written == defaults | FILLED | OVERRIDES.get(file.stem, {})
    assert list(written) == list(defaults)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_yaml_makes_views(file: Path):
    node = OmegaConf.create({"seed": 3, "views": OmegaConf.load(file)})
    maker = instantiate(node.views, size=[12, 12], mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])
    assert isinstance(maker, views.ImageViews)
    index = torch.arange(2)
    made = maker.apply(Batch(torch.zeros(2, 3, 20, 20, dtype=torch.uint8), None, index), maker.draw(index, 0))
    assert made.global_crops.shape[1:] == (2, 3, 12, 12)
    assert torch.equal(maker.draw(index, 0).key, views.one_crop(12, (0.5,), (0.2,), seed=3).draw(index, 0).key)
