"""Objects from settings, in the order in which each needs the one before: data, facts, views, encoder, task, trainer."""

import inspect
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra.utils
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import nn

from ssl_framework import machine, run
from ssl_framework.checkpoint import Loaded, load_encoder
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.commands.explain import did_you_mean
from ssl_framework.data import DataModule
from ssl_framework.optim import OptimizerSpec
from ssl_framework.pretext.base import Card
from ssl_framework.types import Encoder, Facts, ViewMaker

PRECISIONS = {
    "32": "32-true",
    "32-true": "32-true",
    "tf32": "32-true",  # and see on_this_machine
    "64": "64-true",
    "64-true": "64-true",
    "bf16": "bf16-mixed",
    "bf16-mixed": "bf16-mixed",
    "16": "16-mixed",
    "16-mixed": "16-mixed",
}


def make(node: Settings, **objects: Any) -> Any:
    """Call a node's ``_target_`` with its plain values and these objects.

    Objects are handed over past Hydra, which would copy them. Nodes come from our `conf` and the command line only: whoever
    writes them decides what is called.
    """
    return hydra.utils.instantiate(node, _partial_=True, _convert_="all")(**objects)


def data(settings: Settings, node: str = "data") -> DataModule:
    """The data module, of another node for labelled data that is not the pretraining's."""
    return make(settings[node])


def views(node: Settings, facts: Facts) -> ViewMaker:
    """The view maker, with size, mean and standard deviation of the data where the settings leave them open."""
    given = {key: value for key, value in node.items() if value is not None}
    fill = {key: getattr(facts, key) for key in ("size", "mean", "std") if key not in given}
    return make(given, **fill)


def encoder(settings: Settings, facts: Facts, maker: ViewMaker) -> Encoder:
    """The encoder: of a file if one is named, else fresh, for the channels of the data and the size of the views.

    Raises:
        ValueError: both a file and an encoder were asked for.
    """
    if settings["encoder_file"] is not None:
        said = [w for w in settings["run"]["words"] if w.startswith(("encoder=", "encoder."))]
        if said:
            raise ValueError(
                f"{said[0]} has no effect beside encoder_file={settings['encoder_file']}, which brings its own: leave one out."
            )
        return load(settings["encoder_file"], facts).encoder
    node = settings["encoder"]
    known = {"in_chans": facts.channels, "img_size": list(maker.size)}
    node = {**node, **{key: value for key, value in known.items() if key in node and node[key] is None}}
    found = None if settings.get("pretext") is None else card(settings)
    asked = {
        "pool": "cls" if found is None or found.class_token else "mean",
        "pos_embed": found.positions if found else "learn",
    }
    return make({**node, **{key: value for key, value in asked.items() if node.get(key) == "auto"}})


def card(settings: Settings) -> Card:
    """What the pretext task says of itself."""
    return hydra.utils.get_class(settings["pretext"]["_target_"]).card


def load(path: str, facts: Facts) -> Loaded:
    """An encoder from its file, for this data.

    Raises:
        ValueError: it was trained on images of another number of channels.
    """
    loaded = load_encoder(path)
    channels = loaded.preprocessing["channels"]
    if channels != facts.channels:
        raise ValueError(
            f"encoder_file={path} was trained on images of {channels} channels, and these have {facts.channels}: "
            f"take data that it suits, data.channels={channels} where the data has that key, or another encoder."
        )
    return loaded


def optimizer(settings: Settings) -> OptimizerSpec:
    """The optimiser, before there are parameters."""
    return make(settings["optimizer"])


def labelled(settings: Settings, main: DataModule) -> DataModule:
    """Where labels come from: `labelled_data` if it was chosen, else the data of the run."""
    return data(settings, "labelled_data") if settings.get("labelled_data") else main


def monitors(settings: Settings, labelled: DataModule) -> list[pl.Callback]:
    """The monitors; those that ask for labelled data get these."""
    nodes = [node for node in (settings.get("monitors") or {}).values() if node is not None]
    wants = ["data" in inspect.signature(hydra.utils.get_object(node["_target_"])).parameters for node in nodes]
    if any(wants) and not settings.get("labelled_data") and labelled.facts.classes is None:
        say("these data have no labels: the online probe and neighbours are off (data@labelled_data=... gives them others).")
        nodes, wants = [node for node, want in zip(nodes, wants, strict=True) if not want], [False] * wants.count(False)
    return [make(node, **({"data": labelled} if want else {})) for node, want in zip(nodes, wants, strict=True)]


def loggers(settings: Settings) -> list[Logger]:
    """The loggers.

    Raises:
        ValueError: the package of one is not installed.
    """
    nodes = settings.get("logger") or {}
    for package in ("wandb", "mlflow"):
        if package in nodes and find_spec(package) is None:
            raise ValueError(f'logger={package} needs a package that is not installed: pip install "ssl-framework[{package}]".')
    return [make({key: value for key, value in node.items() if value is not None}) for node in nodes.values()]


def precision(settings: Settings, accelerator: str) -> str:
    """Lightning's name of the precision; "auto" is the fastest that trains well on this machine.

    Raises:
        ValueError: there is none of that name, or it needs a GPU and there is none.
    """
    asked = str(settings["precision"])
    if not _on_cpu(accelerator) and not torch.cuda.is_available():
        raise ValueError(f"accelerator={accelerator}: there is no CUDA GPU here. Take cpu, or auto for what there is.")
    if asked == "auto":
        return machine.precision("cpu" if _on_cpu(accelerator) else "cuda").name
    if asked not in PRECISIONS:
        raise ValueError(
            f"precision={asked}: no such precision. {did_you_mean(asked, ['auto', '32', 'tf32', 'bf16-mixed', '16-mixed'])}"
        )
    if asked.startswith(("16", "tf32")) and _on_cpu(accelerator):
        raise ValueError(f"precision={asked} needs a CUDA GPU: on a CPU take bf16-mixed or 32.")
    return PRECISIONS[asked]


def encoding_precision(settings: Settings) -> str:
    """`precision`, of a verb that encodes and does not train.

    Raises:
        ValueError: as `precision`, or it is float64.
    """
    chosen = precision(settings, settings["accelerator"])
    if chosen == PRECISIONS["64"]:
        raise ValueError(f"precision={settings['precision']}: embeddings are computed in auto, 32, bf16-mixed or 16-mixed.")
    return chosen


def on_this_machine(settings: Settings, accelerator: str) -> Settings:
    """Use the machine as it is fast, say in one line how, and return the settings with ``precision=auto`` decided.

    Raises:
        ValueError: as `precision`.
    """
    chosen = precision(settings, accelerator)
    why = ""
    if str(settings["precision"]) == "auto":
        off = "" if chosen == PRECISIONS["32"] else "; precision=32 turns it off"
        why = f" ({machine.precision('cpu' if _on_cpu(accelerator) else 'cuda').reason}{off})"
    count = processes(settings, accelerator)
    threads = machine.limit_threads(count)
    if count > 1:  # else Lightning gives each process its share of the host's cores, whatever the container grants
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    kept = settings["keep_freed_memory"] and machine.keep_freed_memory()
    if settings["precision"] == "tf32":  # convolutions on CUDA take it anyway, by torch's default
        torch.set_float32_matmul_precision("high")
        why = " with tf32 matrix products"
    each = f" in each of {count} processes" if count > 1 else ""
    say(
        f"machine: {chosen}{why}, {threads} {'thread' if threads == 1 else 'threads'}{each}"
        + (", freed memory is kept for the next step" if kept else "")
    )
    return {**settings, "precision": chosen if str(settings["precision"]) == "auto" else settings["precision"]}


def processes(settings: Settings, accelerator: str) -> int:
    """Processes of the run on this host."""
    devices = (settings.get("trainer") or {}).get("devices", 1)
    if isinstance(devices, list):
        return len(devices)
    if str(devices).removeprefix("-").isdigit() and int(devices) > 0:
        return int(devices)
    return 1 if _on_cpu(accelerator) else max(1, torch.cuda.device_count())


def _on_cpu(accelerator: str) -> bool:
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())


def trainer(
    settings: Settings,
    module_data: Any,
    folder: Path,
    callbacks: list[pl.Callback],
    *,
    accelerator: str,
    devices: int | str | list[int],
    num_nodes: int,
    strategy: str | Settings,
    sync_batchnorm: bool,
    max_epochs: float | None,
    max_steps: int | None,
    accumulate_grad_batches: int,
    gradient_clip_val: float | None,
    val_check_interval: int | None,
    limit_val_batches: int | float | None,
    log_every_n_steps: int,
    progress_bar: bool,
    deterministic: bool | str | None,
    data_timeout: float,
    step_timeout: float,
) -> pl.Trainer:
    """A Trainer that counts steps: `max_steps` of them, or as many as `max_epochs` passes over the data take.

    The other arguments are Lightning's, except that a validation comes every `val_check_interval` optimiser steps, and that
    "auto" is a CUDA GPU or the CPU: Apple's GPUs have no float64, which the keyed draws and the ranks need.
    """
    on_cpu = _on_cpu(accelerator)
    return run.trainer(
        epochs=max_epochs if max_steps is None else None,
        steps=max_steps,
        data=module_data,
        accumulate=accumulate_grad_batches,
        val_every=None if val_check_interval is None else val_check_interval * accumulate_grad_batches,
        default_root_dir=str(folder),
        accelerator="cpu" if on_cpu else accelerator if accelerator != "auto" else "gpu",
        devices=devices,
        num_nodes=num_nodes,
        strategy=make(_sharded(strategy, devices, num_nodes)) if isinstance(strategy, dict) else strategy,
        sync_batchnorm=sync_batchnorm and not on_cpu,
        precision=precision(settings, accelerator),
        gradient_clip_val=gradient_clip_val,
        limit_val_batches=limit_val_batches,
        log_every_n_steps=log_every_n_steps,
        enable_progress_bar=progress_bar,
        deterministic=deterministic,
        data_timeout=data_timeout,
        step_timeout=step_timeout,
        logger=loggers(settings) or False,
        callbacks=callbacks,
    )


def _sharded(strategy: Settings, devices: int | str | list[int], num_nodes: int) -> Settings:
    """FSDP2 over all processes: Lightning's own "auto" shards over the nodes alone."""
    if strategy.get("data_parallel_size") != "auto":
        return strategy
    here = len(devices) if isinstance(devices, list) else int(devices)
    return {**strategy, "data_parallel_size": (torch.cuda.device_count() if here == -1 else here) * num_nodes}


def trainer_keys(settings: Settings) -> Settings:
    """The keys of `trainer` that the Trainer takes; the others are the module's and the checkpoint callback's."""
    others = ("compile", "channels_last", "checkpoint_every_n_steps", "keep_checkpoints")
    return {key: value for key, value in settings["trainer"].items() if key not in others}


def device(accelerator: str) -> torch.device:
    """Where an encoder is run without a Trainer.

    Raises:
        ValueError: no such accelerator, or it is not there.
    """
    if accelerator not in ("auto", "cpu", "gpu"):
        raise ValueError(f"accelerator={accelerator}: no such accelerator. {did_you_mean(accelerator, ['auto', 'cpu', 'gpu'])}")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("accelerator=gpu: there is no CUDA GPU here. Take accelerator=cpu.")
    return torch.device("cpu" if accelerator == "cpu" or not torch.cuda.is_available() else "cuda")


def parameters(module: nn.Module) -> float:
    """Millions of parameters."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def moved(settings: Settings, to: Path) -> Settings:
    """The settings with loggers that write into another folder than the run's."""
    old = settings["run"]["dir"]
    nodes = settings.get("logger") or {}
    there = {name: {key: str(to) if value == old else value for key, value in node.items()} for name, node in nodes.items()}
    return {**settings, "logger": there}
