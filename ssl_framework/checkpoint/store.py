"""The checkpoints of a run: each with a manifest, which is written last and says what is whole."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ssl_framework import reading
from ssl_framework.checkpoint.files import replace_text

_FORMAT = "ssl_framework.checkpoint/1"
_ROOM = 1.2  # of the last one's size: the new one, and the encoder beside it
_BLOCK = 1 << 22
_LARGEST = 10_000_000  # bytes of a manifest; shards of a thousand processes have a line each
_KINDS = {"bytes": int, "sha256": str}


class DamagedError(ValueError):
    """A checkpoint is not what was saved."""


def checkpoint_dir(run: str | Path) -> Path:
    """Where a run keeps its training checkpoints."""
    return Path(run) / "checkpoints"


def checkpoints(run: str | Path) -> list[Path]:
    """The training checkpoints of a run that were saved to their end, oldest first."""
    manifests = (path for path in checkpoint_dir(run).glob("step-*.json") if re.fullmatch(r"step-\d{1,12}", path.stem))
    found = (path.with_suffix(".ckpt") for path in manifests)
    return sorted(path for path in found if path.exists())


def last_checkpoint(run: str | Path, *, on_damage: Callable[[str], None] | None = None) -> Path:
    """The newest undamaged training checkpoint of a run folder.

    A damaged one is named, set aside as ``step-N.ckpt.damaged``, and the one before it is taken.

    Args:
        run: the folder.
        on_damage: is told of each damaged one; None: it is left where it is, which is for processes that only look.

    Raises:
        FileNotFoundError: no such folder, or it has none; the message says what to do.
        DamagedError: all of them are damaged.
    """
    if not Path(run).is_dir():
        raise FileNotFoundError(f"There is no run folder {run} to resume: check resume=.")
    found = checkpoints(run)
    if not found:
        raise FileNotFoundError(f"{run} has no checkpoint to resume from: the run ended before its first save. Start it again.")
    damaged: list[str] = []
    for path in reversed(found):
        try:
            verify(path)
        except FileNotFoundError:  # another process of the run has just set it aside
            continue
        except DamagedError as error:
            damaged.append(str(error))
            if on_damage is not None:
                aside = set_aside(path)
                on_damage(f"{error} It is kept as {aside.name}, and the checkpoint before it is taken.")
            continue
        return path
    raise DamagedError(
        f"every checkpoint of {run} is damaged: {' '.join(damaged)} Begin the run again, or copy one from a backup."
    )


def seal(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a checkpoint that lies in its place, from reading it back.

    Args:
        path: a file, or a folder of shards.
        facts: plain values that the bits of the run depend on; see `environment`.
    """
    files = {str(file.relative_to(path.parent)): _measured(file) for file in _files(path)}
    replace_text(path.with_suffix(".json"), json.dumps({"format": _FORMAT, "files": files, **facts}, indent=2) + "\n")


def verify(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after all its files were read and found as they were saved.

    Raises:
        DamagedError: one is missing, cut short or changed.
    """
    manifest = read_manifest(path)
    for name, known in manifest["files"].items():
        file = path.parent / name
        if not file.is_file():
            if not path.exists():
                raise FileNotFoundError(path)
            raise DamagedError(f"{path} is damaged: {name} is missing.")
        size = file.stat().st_size
        if size != known["bytes"]:
            raise DamagedError(f"{path} is damaged: {name} has {size:,} bytes of {known['bytes']:,}.")
        if _measured(file) != known:
            raise DamagedError(f"{path} is damaged: {name} has other bytes than were saved.")
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone.

    Raises:
        DamagedError: it is not one.
    """
    file = path.with_suffix(".json")
    try:
        manifest = reading.json_of(file, dict[str, Any], _LARGEST)
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: of its manifest, {error}") from error
    files = manifest.get("files")
    if not isinstance(files, dict) or manifest.get("format") != _FORMAT or not _inside(path, files):
        raise DamagedError(f"{path} is damaged: its manifest {file.name} is none of this version.")
    return manifest


def set_aside(path: Path) -> Path:
    """Keep a damaged checkpoint under another name, out of the way."""
    aside = path.with_name(f"{path.name}.damaged")
    remove(aside)
    path.with_suffix(".json").unlink(missing_ok=True)
    path.replace(aside)
    return aside


def remove(path: Path) -> None:
    """Delete a checkpoint: its manifest first, so that what a kill leaves of it is none."""
    if path.suffix == ".ckpt":
        path.with_suffix(".json").unlink(missing_ok=True)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def remove_unfinished(run: str | Path) -> None:
    """Delete what saves left behind that were killed: checkpoints without a manifest."""
    folder, whole = checkpoint_dir(run), set(checkpoints(run))
    for path in (*folder.glob("step-*.ckpt"), *folder.glob("step-*.tmp")):
        if path not in whole:
            remove(path)
    for path in folder.glob("step-*.json"):
        if path.with_suffix(".ckpt") not in whole:
            path.unlink(missing_ok=True)


def room_for_another(run: str | Path) -> str | None:
    """Why another checkpoint will not fit on the disk, judging by the last one; None if it will, or if there is none yet."""
    found = checkpoints(run)
    if not found:
        return None
    needed = int(_ROOM * sum(file.stat().st_size for file in _files(found[-1])))
    free = shutil.disk_usage(checkpoint_dir(run)).free
    return (
        None if free >= needed else f"{needed:,} bytes are needed on the disk of {checkpoint_dir(run)}, and {free:,} are free"
    )


def environment(device: torch.device, processes: int) -> dict[str, Any]:
    """What the bits of a run depend on, beside its configuration."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads(), "processes": processes}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is other than it was, in words."""
    return [f"{key} is {now[key]} and was {before[key]}" for key in now if key in before and before[key] != now[key]]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _measured(file: Path) -> dict[str, Any]:
    sha, size = hashlib.sha256(), 0
    with file.open("rb") as handle:
        while block := handle.read(_BLOCK):
            sha.update(block)
            size += len(block)
    return {"bytes": size, "sha256": sha.hexdigest()}


def _inside(path: Path, files: Mapping[str, Any]) -> bool:
    """Whether a manifest speaks of files of its checkpoint alone, and says of each what it should."""
    names = [Path(name).parts for name in files]
    inside = all(name[:1] == (path.name,) and ".." not in name for name in names)
    return bool(files) and inside and all(_is_measured(one) for one in files.values())


def _is_measured(one: Any) -> bool:
    return isinstance(one, dict) and {key: type(value) for key, value in one.items()} == _KINDS
