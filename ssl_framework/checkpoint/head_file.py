"""What makes an encoder a model: ``head.safetensors`` and ``head.yaml``, beside the files of the encoder they belong to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ssl_framework.checkpoint.encoder_file import Loaded, encoder_digest, load_encoder
from ssl_framework.checkpoint.pair import read_pair, write_pair

_FORMAT = "ssl_framework.head/1"
_KINDS = {"task": dict, "pooling": dict, "encoder": str}


class LoadedModel(NamedTuple):
    """What the files of a model hold.

    Attributes:
        encoder: with its preprocessing and history.
        tensors: of the head.
        task: its kind and numbers.
        pooling: likewise.
        classes: their names, or None.
    """

    encoder: Loaded
    tensors: dict[str, Tensor]
    task: dict[str, Any]
    pooling: dict[str, Any]
    classes: tuple[str, ...] | None


def save_head(
    tensors: Mapping[str, Tensor],
    folder: str | Path,
    *,
    task: Mapping[str, Any],
    pooling: Mapping[str, Any],
    classes: Sequence[str] | None,
) -> Path:
    """Write the head beside the encoder that it was trained on, which lies in the folder already.

    Args:
        tensors: of the head, whole ones.
        folder: of the encoder.
        task: its kind and numbers, ``Task.state()``.
        pooling: likewise.
        classes: names, where there are classes.

    Returns:
        The path of ``head.yaml``.

    Raises:
        ValueError: there is no encoder, or a value is not plain.
    """
    of = encoder_digest(folder)
    names = None if classes is None else list(classes)
    content = {"format": _FORMAT, "task": task, "pooling": pooling, "classes": names, "encoder": of}
    return write_pair(Path(folder), "head", content, tensors)


def load_model(folder: str | Path, *, allow_target: Sequence[str] = ()) -> LoadedModel:
    """Read an encoder and the head that was trained on it.

    Args:
        folder: of a run of ``downstream``.
        allow_target: see `load_encoder`.

    Raises:
        ValueError: one of them is missing or damaged, or the head belongs to another encoder.
    """
    folder = Path(folder)
    seeds = sorted(path.parent for path in folder.glob("seed-*/head.yaml"))
    if seeds and not (folder / "head.yaml").is_file():
        raise ValueError(f"{folder} holds {len(seeds)} models, one for each seed: give one of them, such as {seeds[0]}.")
    encoder = load_encoder(folder, allow_target=allow_target)
    tensors, description = folder / "head.safetensors", folder / "head.yaml"
    for file in (description, tensors):
        if not file.is_file():
            raise ValueError(f"{file} is missing: give the folder of a finished run of downstream; pretraining makes no head.")
    found = read_pair(tensors, description, _FORMAT, _KINDS)
    if found.content["encoder"] != encoder.facts["sha256"]:
        raise ValueError(
            f"{description} belongs to the encoder {found.content['encoder'][:12]}..., and {folder} holds "
            f"{encoder.facts['sha256'][:12]}...: one was exchanged, or the run is not finished. Resume it, or copy both."
        )
    names = found.content.get("classes")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{description}: classes={names!r} are no list of names; the file is damaged. Copy it again.")
    classes = None if names is None else tuple(names)
    return LoadedModel(encoder, found.tensors, found.content["task"], found.content["pooling"], classes)
