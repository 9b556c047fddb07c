"""Runs a verb under Hydra's launchers: once, or once for every combination of a sweep."""

import gc
import importlib
import os
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ssl_framework.commands import compose, explain, ranges
from ssl_framework.commands.errors import StoppedError
from ssl_framework.commands.quiet import quiet

# The run folder is ours alone: no second copy of the configuration and no log file of Hydra's in it.
_QUIET = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]


def launch(verb: str, words: Sequence[str], *, sweep: bool = False) -> None:
    """Run a verb.

    Args:
        verb: which.
        words: its ``key=value`` words; those that begin with ``hydra`` go to Hydra, for its launchers and sweepers.
        sweep: try all combinations of values given with commas, each in ``FOLDER/0``, ``FOLDER/1`` ...

    Raises:
        ValueError: something is wrong with the words, found before anything heavy is imported.
    """
    words = compose.inherited(verb, compose.automatic(words))
    overrides = explain.parse(words)
    several = [str(o.input_line) for o in overrides if o.is_sweep_override()]
    if several and not sweep:
        raise ValueError(f"{several[0]}: for several runs add --multirun; for one list of values write [a,b].")
    if sweep and _value(words, "resume"):
        raise ValueError("resume= continues one run and cannot be swept: leave out --multirun.")
    cfg = compose.checked(verb, words)
    if "run" not in cfg:  # a verb that only tells
        _module(verb).run({})
        return
    compose.resolved(cfg, verb=verb, words=words)  # finds what is missing before anything is imported
    if sweep and OmegaConf.select(cfg, "trainer.strategy", default="auto") != "auto":
        raise ValueError(
            "--multirun cannot start runs of several processes, because each process would sweep: run them one by one."
        )
    folder = _folder(verb, words, cfg, sweep=sweep)
    compose.require_writable(Path(folder))
    key = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    words = [w for w in words if not w.startswith(("run.dir=", key + "="))] + [*_QUIET, f"{key}={compose.quoted(folder)}"]
    try:
        with compose.configuration():
            app = GlobalHydra.instance().hydra
            assert app is not None
            if sweep:
                app.multirun(config_name=verb, task_function=_sweep_job, overrides=words)
            else:  # with the views that suit the data, whose keys the words may set
                suited = _suited(words, cfg)
                job = partial(_job, suited=suited, known=cfg)
                app.run(config_name=verb, task_function=job, overrides=[*words, *suited])
    except _Escape as escape:
        error = escape.error
    else:
        return
    raise error


def shown(verb: str, words: Sequence[str]) -> str:
    """The configuration of a run, as it will be written to its folder."""
    return yaml.safe_dump(compose.compose(verb, words), sort_keys=False)


def _suited(words: Sequence[str], cfg: DictConfig) -> list[str]:
    """The word for views that the user did not choose."""
    chosen = cfg.hydra.runtime.choices.get("views")
    said = any(word.startswith("views=") for word in words)
    return [] if said or chosen is None or "views_for" not in cfg else [f"views={chosen}"]


def _job(cfg: DictConfig, suited: Sequence[str], known: DictConfig) -> None:
    """One run. An error leaves past Hydra, which would print a message of its own."""
    try:
        _sweep_job(cfg, suited, known)
    except Exception as error:
        raise _Escape(error) from error


class _Escape(BaseException):
    """Carries an error out of Hydra's job runner."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _sweep_job(cfg: DictConfig, suited: Sequence[str] = (), known: DictConfig | None = None) -> Any:  # noqa: ARG001  (Hydra hands it over; it is composed again, with the views that suit the data, unless it is known)
    """One run of a sweep: its words and its folder are those that Hydra made for it."""
    job = HydraConfig.get()
    verb = str(job.job.config_name)
    folder = Path(job.runtime.output_dir)
    here = Path.cwd()
    name = str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
    words = [word for word in job.overrides.task if word not in suited]
    if known is None:
        settings = compose.compose(verb, words, folder=name)
    else:
        settings = compose.resolved(known, verb=verb, words=words, folder=name)
    if job.mode == RunMode.MULTIRUN:
        print(f"job {job.job.num}: {job.job.override_dirname} -> {name}", flush=True)
    try:
        ranges.check(settings)
        ranges.require_encoder(settings)
        command = _module(verb)
        quiet()
        _module("early").check(settings)
        return command.run(settings)
    except StoppedError as stopped:  # ends a sweep too: Hydra would start its next job
        raise _Escape(stopped) from stopped
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _module(name: str) -> Any:
    """Imported only now: what the verbs need takes seconds, a quarter less where nothing looks for garbage among it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(f"ssl_framework.commands.{name}")
    finally:
        if collects:
            gc.enable()


def _folder(verb: str, words: Sequence[str], cfg: DictConfig, *, sweep: bool) -> str:
    """Where the run writes: what the first process says, the run to be resumed, what the user says, or the default."""
    for key in ("hydra.run.dir", "hydra.sweep.dir", "resume"):
        if folder := _value(words, key):
            return folder
    if folder := _value(words, "run.dir"):
        compose.refuse_used(Path(folder))
        return folder
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("Started as one of several processes: give run.dir=FOLDER, so that all write to the same one.")
    if sweep:
        now = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
        return f"runs/{verb}/{now}-sweep"
    return compose.default_folder(verb, dict(cfg.hydra.runtime.choices))


def _value(words: Sequence[str], key: str) -> str | None:
    found = [w.split("=", 1)[1] for w in words if w.startswith(f"{key}=")]
    return compose.unquoted(found[-1]) if found and found[-1] != "null" else None
