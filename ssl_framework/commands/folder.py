"""The folder of a run: what it was made with, on what, and how it goes on."""

import copy
import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning.utilities import rank_zero_only

from ssl_framework import __version__, reading
from ssl_framework.commands import compose, strangers
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import is_first

# A resumed run may change how it is run and watched, and where the same data lies; never what is trained.
_NEVER = "trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.channels_last"
_AS_BEFORE = {"trainer.channels_last": False}  # what runs did that were begun before there was a key
_MAY_CHANGE = (
    "trainer.",
    "logger.",
    "monitors.",
    "labelled_data.",
    "precision",
    "keep_freed_memory",
    "data.workers",
    "jobs",
    "pretrain_seconds",
    "data.cache_dir",
    "data.resident",
    "data.on_bad_sample",
    "data.path",
    "data.download",
    "labelled_data.download",
    "encoder.pretrained",  # every weight comes from the checkpoint
    "data_root",
    "run.",
    "resume",
    "allow_target",
)
_LARGEST = 50_000_000  # bytes of environment.json: a run may be resumed thousands of times
_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "lightly", "timm", "numpy")


def begin(settings: Settings) -> Path:
    """Make the run folder and write ``config.yaml`` and ``environment.json`` into it.

    Raises:
        ValueError: there are files in it already; it would be unclear which run they belong to.
    """
    folder = Path(settings["run"]["dir"])
    if is_first():
        compose.refuse_used(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / "config.yaml", settings)
        write_json(folder / "environment.json", environment())
    return folder


@contextmanager
def claimed(folder: Path) -> Generator[None]:
    """A run folder that no other live process writes to, as long as the block lasts; the first process of a run claims it.

    A record lock: it ends with the process, however that ends, and loader workers do not inherit it.

    Raises:
        ValueError: another process has claimed it.
    """
    if not is_first():
        yield
        return
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise ValueError(
                    f"run.dir={folder} is being written by {file.read() or 'another process'}: wait until it ends, or give "
                    "another folder."
                ) from None
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks
                raise
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def go_on(settings: Settings) -> Settings:
    """The settings of a run to be resumed: those it was made with, and what the new words change.

    Raises:
        ValueError: they change what is trained; the message names the keys.
    """
    run = settings["resume"]
    saved = compose.saved_settings(run, allowed=settings["allow_target"])
    strangers.refuse_links(Path(run))
    begun = compose.compose(saved["run"]["verb"], compose.words_of(saved), folder=run)
    old, new = flat(begun), flat(settings)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    refused = [key for key in changed if key in _NEVER or not f"{key}.".startswith(_MAY_CHANGE)]
    if refused:
        names = ", ".join(f"{key} (was {old.get(key)}, now {new.get(key)})" for key in refused[:4])
        more = f" and {len(refused) - 4} more" if len(refused) > 4 else ""
        raise ValueError(
            f"resume={run} continues a run as it was begun, and these differ: {names}{more}. Leave them out, or begin anew."
        )
    merged = _merged(saved, begun, settings)
    for key in ("logger", "allow_target"):  # where it writes, and what may be called, is never the file's to say
        merged[key] = settings.get(key)
    merged["resume"], merged["run"] = run, {**settings["run"], "dir": run}
    return merged


def _merged(saved: Settings, begun: Settings, now: Settings, path: str = "") -> Settings:
    """What was written down, but for what the words change; what was written before there was a key is as it was then.

    Args:
        saved: what was written down.
        begun: what the words of then say today.
        now: what the words of today say.
        path: of the three, with a dot behind it.
    """
    merged = {key: copy.deepcopy(value) for key, value in saved.items() if key in now or key not in begun}
    for key, value in now.items():
        before, name = begun.get(key), f"{path}{key}"
        if before == value:
            merged.setdefault(key, _AS_BEFORE.get(name, value))
        if isinstance(before, dict) and isinstance(value, dict) and isinstance(merged.get(key, {}), dict) and value:
            merged[key] = _merged(merged.get(key, {}), before, value, f"{name}.")
        elif before != value:
            merged[key] = value
    return merged


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys."""
    if not isinstance(settings, dict) or not settings:
        return {prefix.removesuffix("."): settings}
    return {name: value for key, node in settings.items() for name, value in flat(node, f"{prefix}{key}.").items()}


def environment() -> dict[str, Any]:
    """What the bits of a run depend on, and how it was started."""
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "ssl_framework": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: version(name) for name in _PACKAGES},
    }


def environment_of(home: Path) -> dict[str, Any]:
    """What a run was made on, as its ``environment.json`` says; nothing where there is none.

    Raises:
        ValueError: it is none of ours.
    """
    file = home / "environment.json"
    if not file.is_file():
        return {}
    found = reading.json_of(file, dict[str, Any], _LARGEST)
    kinds = {"devices": list, "packages": dict, "resumed": list, "threads": int, "processor": str}
    wrong = [name for name, kind in kinds.items() if name in found and not isinstance(found[name], kind)]
    names = [*found.get("devices", ()), *found.get("packages", {}).values()] if not wrong else []
    if wrong or not all(isinstance(name, str) for name in names) or found.get("threads", 1) < 1:
        raise ValueError(f"{file} was not written by this program ({', '.join(wrong) or 'odd names'}): remove it.")
    return found


def commit() -> str | None:
    """The commit that this code was checked out from, with ``+`` if files differ from it; None for an installed package."""
    home = Path(__file__).resolve().parents[2]
    if not (home / ".git").exists():
        return None
    try:
        head = _git(home, "rev-parse", "HEAD")
        return head + ("+" if _git(home, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):  # no git here, or a checkout that is another user's
        return None


def write_yaml(path: Path, content: Any) -> None:
    """Plain YAML, in the order of the settings, whole or not at all."""
    _replace(path, yaml.safe_dump(content, sort_keys=False))


def write_json(path: Path, content: Any) -> None:
    """Indented JSON, whole or not at all."""
    _replace(path, json.dumps(content, indent=2) + "\n")


@rank_zero_only
def write_results(folder: Path, results: Any) -> None:
    """``results.json`` of a run, by one process."""
    write_json(folder / "results.json", results)


@rank_zero_only
def write_alarms(folder: Path, report: Any) -> None:
    """``monitors.json`` of a pretraining, by one process."""
    write_json(folder / "monitors.json", report)


@rank_zero_only
def write_audit(folder: Path, report: Any) -> None:
    """``audit.json`` of a transfer, by one process."""
    write_json(folder / "audit.json", report)


@rank_zero_only
def write_depths(folder: Path, curve: Any) -> None:
    """``cut.json`` of a transfer that chose its cut, by one process."""
    write_json(folder / "cut.json", curve)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def note_resumption(settings: Settings) -> None:
    """Write into the run folder with what it goes on; only when nothing stands in the way any more."""
    if not is_first():
        return
    folder = Path(settings["run"]["dir"])
    write_yaml(folder / "config.yaml", {**settings, "resume": None})
    first = environment_of(folder)
    first["resumed"] = [*first.get("resumed", []), environment()]
    write_json(folder / "environment.json", first)


def _git(home: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(home), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
