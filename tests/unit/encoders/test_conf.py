import importlib
import inspect
from pathlib import Path

import pytest
import yaml

CONF = sorted((Path(__file__).parents[3] / "conf" / "encoder").glob("*.yaml"))
FROM_DATA = {"in_chans", "img_size"}
FROM_TASK = ("pool", "pos_embed")  # of vision transformers: as the pretext task wants them


def test_the_presets_are_there():
    names = {path.stem for path in CONF}
    assert names >= {"resnet_micro", "resnet18", "resnet50", "vit_micro", "vit_tiny", "vit_small", "convnext_tiny"}
    assert names >= {"timm", "torchvision"}


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.stem)
def test_a_yaml_lists_every_argument_with_the_default_of_the_signature(path):
    values = yaml.safe_load(path.read_text())
    module, _, name = values.pop("_target_").rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert list(values) == list(signature)
    for key in FROM_DATA:
        assert values.pop(key) is None
    if path.stem.startswith("vit_"):
        for key in FROM_TASK:
            assert values.pop(key) == "auto"
    assert values == {key: signature[key].default for key in values}
