"""The file between the two phases: ``encoder.safetensors`` with the weights and ``encoder.yaml`` that says what they are.

Opening one runs no code, follows no path and no address in it, and loads every tensor or none.
"""

import hashlib
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor

from ssl_framework.encoders import EncoderModule, build, describe, load_strictly

_FORMAT = "ssl_framework.encoder/1"
_TENSORS, _DESCRIPTION = "encoder.safetensors", "encoder.yaml"
_MAX_DESCRIPTION = 1_000_000  # bytes
_PREPROCESSING = ("mean", "std", "size", "channels")


class Loaded(NamedTuple):
    """What an encoder file holds.

    Attributes:
        encoder: on the CPU, in training mode like any new module.
        preprocessing: mean and std per channel of inputs in [0, 1], size (height, width), channels.
        history: how it came about; plain values.
        facts: what was loaded: ``tensors`` and ``parameters`` with those that the encoder has, ``..._expected``; ``sha256``.
    """

    encoder: EncoderModule
    preprocessing: dict[str, Any]
    history: dict[str, Any]
    facts: dict[str, Any]


def check_savable(encoder: Any) -> None:
    """Refuse, before any training, an encoder that could not be written after it.

    Raises:
        ValueError: it is none of ours, or does not know how it was made.
    """
    if not isinstance(encoder, EncoderModule):
        raise ValueError(
            f"A {type(encoder).__name__} cannot be saved as an encoder: wrap it in ssl_framework.encoders.Adapter and say by "
            ".named(...) how it is made; compile in place, encoder.compile()."
        )
    _ = encoder.spec


def save_encoder(
    encoder: Any,
    folder: str | Path,
    *,
    preprocessing: Mapping[str, Any],
    history: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write ``encoder.safetensors`` and ``encoder.yaml``, each whole or not at all.

    The description is also inside the first file: a kill between the two leaves a pair that still loads.

    Args:
        encoder: an encoder of `ssl_framework.encoders`, or an `Adapter` that was ``named``.
        folder: where; it is made if need be.
        preprocessing: mean, std, size and channels of the images that the encoder expects.
        history: plain values worth keeping: pretext, data, steps, seed.
        state: its state as whole tensors, where the encoder's own are sharded; default ``encoder.state_dict()``.

    Returns:
        The path of ``encoder.yaml``.

    Raises:
        ValueError: the encoder cannot be described, the state is not its own, or a value is not plain.
    """
    check_savable(encoder)
    tensors = _whole(encoder.state_dict() if state is None else state)
    odd = sorted(tensors.keys() ^ encoder.state_dict().keys())
    if odd:
        raise ValueError(f"The state is not that of this {type(encoder).__name__}; it differs in {', '.join(odd[:20])}.")
    content = {
        "format": _FORMAT,
        "encoder": dict(encoder.spec),
        "preprocessing": _checked_preprocessing(_plain(preprocessing, "preprocessing"), "preprocessing"),
        "history": _plain(history, "history"),
        "sha256": _digest(tensors),
    }
    text = yaml.dump(content, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)
    if len(text.encode()) > _MAX_DESCRIPTION:
        raise ValueError(f"history makes a description of {len(text.encode())} bytes, over {_MAX_DESCRIPTION}: keep it short.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / _TENSORS, safetensors.torch.save(tensors, metadata={"description": text}))
    _write(folder / _DESCRIPTION, text.encode())
    return folder / _DESCRIPTION


def load_encoder(path: str | Path, *, allow_target: Sequence[str] = ()) -> Loaded:
    """Open an encoder file, strictly.

    Args:
        path: a run folder, its ``encoder.yaml`` or its ``encoder.safetensors``.
        allow_target: functions of your own that the file may name, ``package.function``; they are imported and called.

    Raises:
        ValueError: anything that is missing, damaged, of another architecture, or not plain; one sentence and what to do.
    """
    tensor_file, description_file = _pair(path)
    content = _parse(_read_text(description_file), str(description_file))
    tensors, inner = _read_tensors(tensor_file)
    digest = _digest(tensors)
    if content["sha256"] != digest and inner is not None:  # killed between the two writes: the inner one is of this save
        content = _parse(inner, str(tensor_file))
    if content["sha256"] != digest:
        raise ValueError(
            f"{tensor_file} has sha256 {digest[:12]}..., and {description_file.name} says {str(content['sha256'])[:12]}...: "
            "a file was changed or damaged since it was saved. Copy both again, or export the encoder again."
        )
    try:
        encoder = build(content["encoder"], allow_target)
    except ValueError as error:
        raise ValueError(f"{description_file}: {error}") from error
    load_strictly(encoder, tensors, f"{tensor_file} ({describe(encoder.spec)})")
    held = encoder.state_dict()
    if _digest({name: held[name].to(value.dtype) for name, value in tensors.items()}) != digest:
        raise ValueError(f"the encoder does not hold what the file does ({tensor_file}): tensors were left out or exchanged.")
    return Loaded(encoder, content["preprocessing"], content["history"], _facts(tensors, held, digest))


def _facts(tensors: Mapping[str, Tensor], held: Mapping[str, Tensor], digest: str) -> dict[str, Any]:
    return {
        "tensors": len(tensors),
        "tensors_expected": len(held),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "parameters_expected": sum(tensor.numel() for tensor in held.values()),
        "sha256": digest,
    }


def _pair(path: str | Path) -> tuple[Path, Path]:
    """The two files that a path means."""
    if "://" in str(path):
        raise ValueError(f"{path} is an address: download {_TENSORS} and {_DESCRIPTION} yourself, and give their folder.")
    path = Path(path)
    if path.suffix in (".ckpt", ".pth", ".pt", ".bin"):
        raise ValueError(
            f"{path} is not an encoder file: a training checkpoint is for resume=, and weights of timm for "
            f"encoder=timm encoder.weights={path}. Give the run folder, or its {_DESCRIPTION}."
        )
    stem = path / "encoder" if path.is_dir() else path.with_suffix("")
    if not path.exists() or (path.is_file() and path.suffix not in (".yaml", ".safetensors")):
        state = "is neither a run folder nor an encoder file" if path.exists() else "does not exist"
        raise ValueError(f"{path} {state}: give a run folder, its {_DESCRIPTION} or its {_TENSORS}.")
    tensors, description = stem.with_name(f"{stem.name}.safetensors"), stem.with_name(f"{stem.name}.yaml")
    for file in (description, tensors):
        if not file.is_file():
            raise ValueError(f"{file} is missing: an encoder is {_TENSORS} and {_DESCRIPTION} side by side; a run writes both.")
    return tensors, description


def _read_text(file: Path) -> str:
    with file.open("rb") as handle:
        raw = handle.read(_MAX_DESCRIPTION + 1)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text ({error.reason}): it is damaged. Copy it again.") from error


def _parse(text: str, source: str) -> dict[str, Any]:
    """The description as plain values of the expected kinds."""
    if len(text.encode()) > _MAX_DESCRIPTION:
        raise ValueError(f"{source}: its description has more than {_MAX_DESCRIPTION} bytes, which none of ours has; not read.")
    try:
        content = yaml.load(text, Loader=_PlainLoader)  # a SafeLoader without references
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{source} is not plain YAML ({' '.join(str(error).split())[:200]}): copy it again.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{source} has format {found!r}, expected {_FORMAT!r}: it is no encoder file of this version.")
    kinds = {"encoder": dict, "preprocessing": dict, "history": dict, "sha256": str}
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{source}: {key} is missing or no {kind.__name__}; the file is damaged. Copy it again.")
    _checked_preprocessing(content["preprocessing"], source)
    return content


def _checked_preprocessing(values: dict[str, Any], source: str) -> dict[str, Any]:
    if set(values) != set(_PREPROCESSING):
        raise ValueError(f"{source}: preprocessing has {sorted(map(str, values))}, expected {list(_PREPROCESSING)}.")
    channels, size = values["channels"], values["size"]
    if type(channels) is not int or channels < 1:
        raise ValueError(f"{source}: channels={channels!r} is not a positive whole number.")
    if not isinstance(size, list) or len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
        raise ValueError(f"{source}: size={size!r} is not [height, width].")
    for key in ("mean", "std"):
        numbers = values[key]
        good = isinstance(numbers, list) and len(numbers) == channels
        if not good or any(type(n) not in (int, float) or not math.isfinite(n) or (key == "std" and n <= 0) for n in numbers):
            raise ValueError(f"{source}: {key}={numbers!r} is not one number a channel ({channels}), finite, and std above 0.")
    return values


def _read_tensors(file: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors and the description inside."""
    try:
        with safe_open(file, framework="pt") as handle:
            inner = (handle.metadata() or {}).get("description")
            return {name: handle.get_tensor(name) for name in handle.keys()}, inner  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{file} is not a whole safetensors file ({error}): it is damaged or cut short. Copy it again."
        ) from error


def _whole(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain tensors on the CPU that share no memory."""
    for name, value in state.items():
        if isinstance(value, DTensor):
            raise ValueError(f"{name} is sharded: gather the state on all processes first, and pass it as state=.")
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, kinds, shapes and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _plain(value: Any, where: str) -> Any:
    """A copy of plain containers, tuples as lists; anything else is refused by name."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {_plain_key(key, where): _plain(one, f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, f"{where}[{i}]") for i, one in enumerate(value)]
    raise ValueError(
        f"{where} is a {type(value).__name__}: keep numbers, strings, lists and dictionaries of them (str(), .item())."
    )


def _plain_key(key: Any, where: str) -> str:
    if type(key) is not str:
        raise ValueError(f"{where} has the key {key!r}: keys are strings.")
    return key


def _write(target: Path, content: bytes) -> None:
    """Write beside the target, sync, rename, sync the folder: a kill leaves the old file or the new one."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp", delete=False) as handle:
        temporary = Path(handle.name)
        try:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
            temporary.chmod(0o644)
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


class _PlainDumper(yaml.SafeDumper):
    """Writes equal lists twice instead of by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


class _PlainLoader(yaml.SafeLoader):
    """Reads no references: a kilobyte of them unfolds into gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has references (*name), and descriptions have none")
        return super().compose_node(parent, index)
