"""What is wrong with the settings of a run, found before data or devices are touched.

What needs the size of the data is said when they are known, and before anything is trained.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from torch import nn

from ssl_framework import hints
from ssl_framework.commands import build, explain, folder, ranges
from ssl_framework.commands.compose import Settings
from ssl_framework.run import COMPILE_PRESETS
from ssl_framework.types import Facts
from ssl_framework.views import ImageViews

_BATCH_NORM = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]  (what all of them share)
_ACCELERATORS = ["auto", "cpu", "gpu", "cuda"]
_STRATEGIES = ["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_spawn"]


def check(settings: Settings) -> None:
    """Refuse settings that no run could begin with.

    Args:
        settings: of `compose(verb, ...)`.

    Raises:
        ValueError: a key whose value is of the wrong kind or out of range, or keys that do not go together; the message names
            key, value and what is allowed.
    """
    _check_all(settings)
    _check_folder(settings)


def go_on(settings: Settings) -> Settings:
    """`folder.go_on`, of a folder that may be a stranger's.

    Raises:
        ValueError: the words change what is trained, or no run could go on with what the folder says.
    """
    settings = folder.go_on(settings)
    with _said_by(settings["resume"], ", or follows from it and the words of this command"):
        _check_all(settings)
    return settings


def check_saved(settings: Settings, home: str | Path) -> None:
    """Refuse settings of a run folder that no run could have begun with: the folder may be a stranger's.

    Args:
        settings: of its ``config.yaml``, as far as they are used.
        home: the folder.

    Raises:
        ValueError: a key that is not taken, or a value of the wrong kind or out of range; the message names file, key, value
            and what is allowed.
    """
    with _said_by(home):
        _check_values(settings)


@contextmanager
def _said_by(home: str | Path, more: str = "") -> Generator[None]:
    """Says of an error that it is in what a folder says."""
    try:
        yield
    except ValueError as error:
        error.args = (f"{str(error).rstrip('.')}. So it stands in {Path(home) / 'config.yaml'}{more}.",)
        raise


def _check_all(settings: Settings) -> None:
    """All but the run folder."""
    _check_values(settings)
    if "trainer" in settings:
        _check_trainer(settings)
    if settings.get("pretext") is not None and os.environ.get("LOCAL_RANK", "0") == "0":  # once a host: it builds the encoder
        _check_pretext(settings)


def _check_values(settings: Settings) -> None:
    """Everything is called with what it takes, and every number is in its range."""
    for path, node in _nodes(settings):
        _check_kinds(path, node)
    ranges.check(settings)
    for name in ("optimizer", "freezing", "pooling", "augmentation"):
        if isinstance(settings.get(name), dict):
            build.make(settings[name])


def _nodes(node: Any, path: str = "") -> Iterator[tuple[str, Settings]]:
    """Everything that will be called, with its dotted path."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from _nodes(value, f"{path}.{key}" if path else str(key))


def _check_kinds(path: str, node: Settings) -> None:
    """Every value is of the kind that the signature says."""
    called = hydra.utils.get_object(node["_target_"])
    kinds, names = hints.of(called), hints.takes(called)
    for key in node:
        if names is not None and key not in names and not key.startswith("_"):
            remedy = explain.did_you_mean(key, sorted(names), "It takes")
            raise ValueError(f"{path}.{key}={ranges.shown(node[key])}: {node['_target_']} takes no {key}. {remedy}")
    for key, value in node.items():
        if value in (None, "auto") or key not in kinds:  # what the data, the encoder or the task say
            continue
        if not hints.fits(value, kinds[key]):
            number = isinstance(value, int | float) and not isinstance(value, bool) and hints.fits(str(value), kinds[key])
            quoted = f"; in quotes it is one: \"{path}.{key}='{value}'\"" if number else ""
            raise ValueError(f"{path}.{key}={ranges.shown(value)}: must be {hints.said(kinds[key])}{quoted}.")


def _check_folder(settings: Settings) -> None:
    """No other process writes into it."""
    home = Path(settings["run"]["dir"])
    if settings.get("resume") is not None and home.is_dir():
        with folder.claimed(home):
            pass


def _check_trainer(settings: Settings) -> None:
    node = settings["trainer"]
    accelerator, strategy, preset = node["accelerator"], node["strategy"], node["compile"]
    if accelerator not in _ACCELERATORS:
        raise ValueError(f"trainer.accelerator={accelerator}: give {' or '.join(_ACCELERATORS)}.")
    if not isinstance(strategy, dict) and strategy not in _STRATEGIES:
        raise ValueError(f"trainer.strategy={strategy}: give {' or '.join(_STRATEGIES)}, or trainer=fsdp2.")
    if preset not in (False, True, *COMPILE_PRESETS):
        raise ValueError(f"trainer.compile={preset}: give false, true or {', '.join(COMPILE_PRESETS)}.")
    if node["deterministic"] not in (None, True, False, "warn"):
        raise ValueError(f"trainer.deterministic={node['deterministic']}: give true, warn or null.")
    if node["max_epochs"] is None and node["max_steps"] is None:
        raise ValueError("trainer.max_epochs=null and trainer.max_steps=null: give one of them, a number above 0.")
    build.precision(settings, accelerator)
    _check_processes(settings, _processes(node["devices"], settings, accelerator) * node["num_nodes"])
    steps, warmup = node["max_steps"], (settings.get("optimizer") or {}).get("warmup_steps")
    if steps is not None and isinstance(warmup, int) and warmup > steps:
        raise ValueError(f"optimizer.warmup_steps={warmup}: must be at most trainer.max_steps={steps}.")


def _processes(devices: Any, settings: Settings, accelerator: str) -> int:
    numbers = devices if isinstance(devices, list) else [devices]
    whole = [one for one in numbers if str(one).removeprefix("-").isdigit()]
    least = 0 if isinstance(devices, list) else -1
    if devices != "auto" and (len(whole) < len(numbers) or not numbers or min(map(int, whole)) < least or devices == 0):
        raise ValueError(f"trainer.devices={devices}: give how many, from 1, or -1 for all, or a list of their numbers.")
    return build.processes(settings, accelerator)


def _check_processes(settings: Settings, count: int) -> None:
    batch = (settings.get("data") or settings).get("batch_size")
    if isinstance(batch, int) and batch % count:
        near = max(count, batch // count * count)
        raise ValueError(
            f"data.batch_size={batch} is of all processes together, and trainer.devices and num_nodes make {count} of them: "
            f"give a multiple of {count}, such as {near}."
        )


def _check_pretext(settings: Settings) -> None:
    """Build the task once as the configuration alone has it; the global generators stay as they were."""
    node = settings["data"]
    if not isinstance(node, dict):
        raise ValueError(f"data={ranges.shown(node)}: must be keys and their values.")
    size, channels = node.get("size"), node.get("channels")
    if size is None or channels is None:  # the data say
        return
    size = [size, size] if isinstance(size, int) else list(size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"data.size={node['size']}: give height and width, such as [32,32], two whole numbers from 1.")
    colours = tuple([0.5] * channels)
    facts = Facts(channels, (size[0], size[1]), colours, colours)
    if isinstance(settings.get("encoder"), dict):  # nothing is fetched or read for this
        settings = {**settings, "encoder": {**settings["encoder"], **_fresh(settings["encoder"])}}
    with torch.random.fork_rng(devices=[]):
        views = build.views(settings["views"], facts)
        task = build.make(
            settings["pretext"],
            encoder=build.encoder(settings, facts, views),
            views=views,
            optimizer=build.optimizer(settings),
            seed=settings["seed"],
        )
    _check_views(settings, task, views)
    trainer = settings["trainer"]
    each = node["batch_size"] // (build.processes(settings, trainer["accelerator"]) * trainer["num_nodes"])
    if each < 2 and any(isinstance(part, _BATCH_NORM) for part in task.modules()):
        raise ValueError(
            f"data.batch_size={node['batch_size']} gives a process {each} sample, and BatchNorm needs at least 2 to have a "
            "variance: give more."
        )


def _fresh(node: Settings) -> Settings:
    return {key: value for key, value in (("pretrained", False), ("weights", None)) if key in node}


def _check_views(settings: Settings, task: Any, views: Any) -> None:
    """As many views as the task compares."""
    made = views.count if isinstance(views, ImageViews) else task.card.views
    if made < task.card.views:
        raise ValueError(
            f"views={settings['run']['choices'].get('views')} makes {made} of a sample, and {type(task).__name__} compares at "
            f"least {task.card.views}: take views=two_crops, or views=affine."
        )
