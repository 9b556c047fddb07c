"""The file between the two phases: ``encoder.safetensors`` with the weights and ``encoder.yaml`` that says what they are.

Opening one runs no code, follows no path and no address in it, and loads every tensor or none.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ssl_framework.checkpoint.pair import digest, plain, read_pair, write_pair
from ssl_framework.encoders import EncoderModule, build, describe, load_strictly

_FORMAT = "ssl_framework.encoder/1"
_TENSORS, _DESCRIPTION = "encoder.safetensors", "encoder.yaml"
_KINDS = {"encoder": dict, "preprocessing": dict, "history": dict}
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
    tensors = encoder.state_dict() if state is None else state
    odd = sorted(tensors.keys() ^ encoder.state_dict().keys())
    if odd:
        raise ValueError(f"The state is not that of this {type(encoder).__name__}; it differs in {', '.join(odd[:20])}.")
    content = {
        "format": _FORMAT,
        "encoder": dict(encoder.spec),
        "preprocessing": _checked_preprocessing(plain(preprocessing, "preprocessing"), "preprocessing"),
        "history": history,
    }
    return write_pair(Path(folder), "encoder", content, tensors)


def load_encoder(path: str | Path, *, allow_target: Sequence[str] = ()) -> Loaded:
    """Open an encoder file, strictly.

    Args:
        path: a run folder, its ``encoder.yaml`` or its ``encoder.safetensors``.
        allow_target: functions of your own that the file may name, ``package.function``; they are imported and called.

    Raises:
        ValueError: anything that is missing, damaged, of another architecture, or not plain; one sentence and what to do.
    """
    tensor_file, description_file = _pair(path)
    content, tensors, found = read_pair(tensor_file, description_file, _FORMAT, _KINDS)
    _checked_preprocessing(content["preprocessing"], str(description_file))
    try:
        encoder = build(content["encoder"], allow_target)
    except ValueError as error:
        raise ValueError(f"{description_file}: {error}") from error
    load_strictly(encoder, tensors, f"{tensor_file} ({describe(encoder.spec)})")
    held = encoder.state_dict()
    wanted = {name: value.to(held[name].dtype) for name, value in tensors.items()}  # float64 becomes what encoders are built in
    as_saved = all(value is tensors[name] for name, value in wanted.items())
    if digest({name: held[name] for name in wanted}) != (found if as_saved else digest(wanted)):
        raise ValueError(f"the encoder does not hold what the file does ({tensor_file}): tensors were left out or exchanged.")
    return Loaded(encoder, content["preprocessing"], content["history"], _facts(tensors, held, found))


def encoder_digest(path: str | Path) -> str:
    """The digest of an encoder file's tensors; nothing is built.

    Raises:
        ValueError: something is missing or damaged.
    """
    return read_pair(*_pair(path), _FORMAT, _KINDS)[2]


def _facts(tensors: Mapping[str, Tensor], held: Mapping[str, Tensor], sha256: str) -> dict[str, Any]:
    return {
        "tensors": len(tensors),
        "tensors_expected": len(held),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "parameters_expected": sum(tensor.numel() for tensor in held.values()),
        "sha256": sha256,
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
