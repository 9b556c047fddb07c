"""Every experiment composes, is built and trains a step; every pretext task alone runs on the default data."""

import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_framework import cli
from ssl_framework.checkpoint import load_encoder
from ssl_framework.commands import build, compose, pretrain
from ssl_framework.commands.explain import choices_in
from ssl_framework.nn import Follower
from ssl_framework.types import Batch, Facts, TokenEncoder
from support import CONF, TASKS, light, task_class

EXPERIMENTS = choices_in("experiment")
CIFAR10 = {name.removeprefix("cifar10_"): name for name in EXPERIMENTS if name.startswith("cifar10_")}
SMALL = ("simclr", "dino", "vicreg")  # the others take their step with `make test-all`
CIFAR_FACTS = Facts(3, (32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), tuple("0123456789"))
DIGITS_FACTS = Facts(1, (8, 8), (0.3052,), (0.3758,), tuple("0123456789"))

# of solo-learn: optimiser, rate and decay (scripts/pretrain/cifar), and what README.md publishes for CIFAR-10 and CIFAR-100
SOLO_LEARN = {
    "moco_v3": ("lars", 0.3, 1e-6, "93.10 %", "68.83 %"),
    "moco_v2": ("sgd", 0.3, 1e-4, "92.94 %", "69.89 %"),
    "byol": ("lars", 1.0, 1e-5, "92.58 %", "70.46 %"),
    "barlow_twins": ("lars", 0.3, 1e-4, "92.10 %", "70.90 %"),
    "vicreg": ("lars", 0.3, 1e-4, "92.07 %", "68.54 %"),
    "nnclr": ("lars", 0.4, 1e-5, "91.88 %", "69.62 %"),
    "simclr": ("lars", 0.4, 1e-4, "90.74 %", "65.78 %"),
    "ressl": ("sgd", 0.05, 1e-4, "90.63 %", "65.92 %"),
    "simsiam": ("sgd", 0.5, 1e-5, "90.51 %", "66.04 %"),
    "dino": ("lars", 0.3, 1e-6, "89.52 %", "66.76 %"),
    "swav": ("lars", 0.6, 1e-6, "89.17 %", "64.88 %"),
    "deepcluster_v2": ("lars", 0.6, 1e-6, "88.85 %", "63.61 %"),
    "w_mse": ("adamw", 2e-3, 1e-6, "88.67 %", "61.33 %"),
    "mae": ("adamw", 2e-4, 0.05, "none", "none"),
}


@cache
def settings_of(*words: str) -> dict[str, Any]:
    """Of a pretraining; no data are read, so a root that does not exist will do. Not to be changed."""
    return compose.compose("pretrain", ["data_root=nowhere", *words], folder="unused")


def stated(name: str) -> dict[str, str]:
    """The facts in the comment that begins the YAML of an experiment."""
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    return dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# ") and ": " in line)


def built(settings: dict[str, Any], facts: Facts) -> Any:
    """The task of the settings, for data of which only the facts are known."""
    return pretrain.pretext(settings, SimpleNamespace(facts=facts))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_states_what_was_published_and_composes(name: str) -> None:
    facts = stated(name)
    assert {"published", "protocol", "source", "status"} <= set(facts)
    assert facts["published"] == "none" or facts["status"] == "not re-run here"
    chosen = settings_of(f"experiment={name}")["run"]["choices"]
    assert name.removesuffix("_micro") == f"{chosen['data']}_{chosen['pretext']}"


def test_every_recipe_of_the_source_is_there_for_both_data_sets() -> None:
    assert {name for name in CIFAR10 if not name.endswith("_micro")} == set(SOLO_LEARN)
    assert {name.removeprefix("cifar100_") for name in EXPERIMENTS if name.startswith("cifar100_")} == set(SOLO_LEARN)


@pytest.mark.parametrize("task", SOLO_LEARN)
def test_a_recipe_has_the_numbers_of_its_source(task: str) -> None:
    optimizer, lr, weight_decay, on_10, on_100 = SOLO_LEARN[task]
    settings = settings_of(f"experiment=cifar10_{task}")
    assert settings["run"]["choices"]["optimizer"] == optimizer
    assert (settings["optimizer"]["lr"], settings["optimizer"]["weight_decay"]) == (lr, weight_decay)
    assert settings["optimizer"]["scale_lr"] == "linear"
    assert (settings["trainer"]["max_epochs"], settings["trainer"]["max_steps"]) == (1000, None)
    assert settings["data"]["batch_size"] == 256
    assert stated(f"cifar10_{task}")["published"] == on_10
    assert stated(f"cifar100_{task}")["published"] == on_100


@pytest.mark.parametrize("task", SOLO_LEARN)
def test_cifar_100_is_the_same_recipe_on_other_data(task: str) -> None:
    on_10, on_100 = (settings_of(f"experiment={data}_{task}") for data in ("cifar10", "cifar100"))
    assert on_100["data"]["classes"] == 100
    assert on_100["data"]["batch_size"] == on_10["data"]["batch_size"]
    others = set(on_10) - {"data", "run"}
    assert {key: on_100[key] for key in others} == {key: on_10[key] for key in others}


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task in SMALL else pytest.mark.slow) for task in SOLO_LEARN], ids=str
)
def test_a_recipe_is_built_and_takes_a_step(task: str) -> None:
    """With heads, queues and optimiser as they are, on a few images of noise, as the first step of the whole training."""
    settings = settings_of(f"experiment={CIFAR10[task]}")
    module, spec = built(settings, CIFAR_FACTS), build.optimizer(settings)
    epoch = 45_000 // 256
    optimizer, scheduler = spec.build(module, total_steps=1000 * epoch, global_batch=256)
    assert scheduler.get_last_lr()[0] == pytest.approx(
        spec.lr / math.floor(settings["optimizer"]["warmup_share"] * 1000 * epoch)
    )

    samples = settings["pretext"].get("whitening_size", 4)  # W-MSE whitens so many together
    followers = [part for part in module.modules() if isinstance(part, Follower)]
    for follower in followers:
        follower.begin(samples)
    index = torch.arange(samples)
    images = torch.randint(256, (samples, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = [parameter.detach().clone() for parameter in module.encoder.parameters()]
    step = module(module.views.apply(Batch(images, None, index), module.views.draw(index, 0)))
    step.loss.backward()
    optimizer.step()
    for follower in followers:
        follower.follow(0.0)
    assert torch.isfinite(step.loss)
    after = list(module.encoder.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_a_task_alone_is_built_for_the_digits(task: str) -> None:
    """``pretext=NAME`` and nothing else; heads are narrowed to save time. Who hides tokens gets at least 4 x 4 of them."""
    settings = settings_of(f"pretext={task}", *light(task))
    assert settings["run"]["choices"]["data"] == "digits"
    if task_class(task).card.needs_colour:
        with pytest.raises(ValueError, match="colour"):
            built(settings, DIGITS_FACTS)
        return
    module = built(settings, DIGITS_FACTS)
    if task_class(task).card.needs_tokens:
        assert isinstance(module.encoder, TokenEncoder)
        assert min(module.encoder.grid) >= 4


@pytest.mark.parametrize("task", ["ijepa", "simmim"])
def test_a_task_alone_trains_on_the_digits(task: str, tmp_path: Path) -> None:
    """As a newcomer types it, apart from its length."""
    short = ["debug=short", "data.batch_size=16", "trainer=cpu", "trainer.progress_bar=false", "monitors=none", "logger=none"]
    assert cli.run(["pretrain", f"pretext={task}", *short, f"run.dir={tmp_path / 'run'}"]) == 0
    loaded = load_encoder(tmp_path / "run")
    assert loaded.history["steps"] == 4
    assert loaded.encoder.spec["args"]["patch_size"] == 2


def test_simmim_trains_a_cnn_on_the_digits(tmp_path: Path) -> None:
    """It hides tokens unless the encoder has none to hide."""
    short = ["debug=short", "data.batch_size=16", "trainer=cpu", "trainer.progress_bar=false", "monitors=none", "logger=none"]
    words = ["pretrain", "pretext=simmim", "encoder=resnet_micro", *short, f"run.dir={tmp_path / 'run'}"]
    assert cli.run(words) == 0
    loaded = load_encoder(tmp_path / "run")
    assert loaded.history["steps"] == 4
    assert loaded.encoder.spec["name"] == "resnet_micro"
