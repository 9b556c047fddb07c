"""The YAML files and the signatures say the same."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

from ssl_framework.data import DataModule
from ssl_framework.data.options import Options

FILES = sorted((Path(__file__).parents[3] / "conf" / "data").glob("*.yaml"))
FACTS = {"channels", "size", "classes", "mean", "std"}
CHOSEN = FACTS | {"path", "name", "seed", "batch_size", "workers"}  # by data set, not by the signature


def test_all_are_there() -> None:
    names = "arrays cifar10 cifar100 digits eurosat fashion_mnist flowers102 folder mnist parquet pets stl10"
    assert [file.stem for file in FILES] == names.split()


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_keys_and_defaults_are_those_of_the_signature(file: Path) -> None:
    node: dict[str, Any] = yaml.safe_load(file.read_text())
    own = {
        k: p for k, p in inspect.signature(get_method(node.pop("_target_"))).parameters.items() if p.kind is not p.VAR_KEYWORD
    }
    shared = inspect.signature(DataModule).parameters
    assert Options.__annotations__.keys() <= shared.keys()
    assert node.keys() == own.keys() | Options.__annotations__.keys()
    for key in node.keys() - CHOSEN:
        assert node[key] == (own.get(key) or shared[key]).default, key
    assert node["seed"] == "${seed}"
    for key in FACTS & {"mean", "std"}:
        assert node[key] is None or len(node[key]) == node["channels"]


@pytest.mark.parametrize("file", [f for f in FILES if f.stem != "digits"], ids=lambda f: f.stem)
def test_without_a_data_root_the_error_names_the_remedy(file: Path) -> None:
    root = OmegaConf.create({"seed": 0, "data_root": None, "data": OmegaConf.load(file)})
    with pytest.raises(Exception, match="SSL_FRAMEWORK_DATA") as error:
        instantiate(root.data)
    assert isinstance(error.value.__cause__, ValueError)


def test_digits_from_its_file() -> None:
    root = OmegaConf.create(
        {"seed": 7, "data_root": None, "data": OmegaConf.load(next(f for f in FILES if f.stem == "digits"))}
    )
    data = instantiate(root.data)
    assert data.seed == 7
    given = data.facts
    data._statistics = None
    assert given.mean == pytest.approx(data.facts.mean, abs=1e-4)
    assert given.std == pytest.approx(data.facts.std, abs=1e-4)
    assert yaml.safe_load(yaml.safe_dump(data.record()))["mean"] == list(data.facts.mean)
