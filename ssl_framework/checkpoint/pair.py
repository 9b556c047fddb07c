"""Two files side by side, ``NAME.safetensors`` with tensors and ``NAME.yaml`` with plain values that say what they are.

The description is also inside the first file: a kill between the two writes leaves a pair that still loads. Reading runs no
code.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor

from ssl_framework import reading
from ssl_framework.checkpoint.files import replace_text, replacing


class Pair(NamedTuple):
    """What two files hold.

    Attributes:
        content: the description.
        tensors: by name.
        digest: of the tensors, as the description has it.
    """

    content: dict[str, Any]
    tensors: dict[str, Tensor]
    digest: str


def write_pair(folder: Path, name: str, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write both, each whole or not at all.

    Args:
        folder: where; it is made if need be.
        name: of both files, without ending.
        content: plain values, "format" among them.
        tensors: whole ones.

    Returns:
        The path of the description.

    Raises:
        ValueError: a value is not plain, or there are too many.
    """
    kept = whole(tensors)
    described = {**{key: plain(value, key) for key, value in content.items()}, "sha256": digest(kept)}
    text = yaml.dump(described, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)
    if len(text.encode()) > reading.LARGEST:
        raise ValueError(f"history makes a description of {len(text.encode())} bytes, over {reading.LARGEST}: keep it short.")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.safetensors") as file:
        file.write(safetensors.torch.save(kept, metadata={"description": text}))
    replace_text(folder / f"{name}.yaml", text)
    return folder / f"{name}.yaml"


def read_pair(tensor_file: Path, description_file: Path, form: str, kinds: Mapping[str, type]) -> Pair:
    """Read both and compare them.

    Args:
        tensor_file: ``.safetensors``.
        description_file: ``.yaml``.
        form: what "format" must be.
        kinds: keys that must be there, and what they must be.

    Raises:
        ValueError: damaged, changed, or of another kind.
    """
    content = _parse(reading.text(description_file), str(description_file), form, kinds)
    tensors, inner = _read_tensors(tensor_file)
    found = digest(tensors)
    if content["sha256"] != found and inner is not None:  # killed between the two writes: the inner one is of this save
        content = _parse(inner, str(tensor_file), form, kinds)
    if content["sha256"] != found:
        raise ValueError(
            f"{tensor_file} has sha256 {found[:12]}..., and {description_file.name} says {str(content['sha256'])[:12]}...: "
            "a file was changed or damaged since it was saved. Copy both again, or export the encoder again."
        )
    return Pair(content, tensors, found)


def _parse(text: str, source: str, form: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The description as plain values of the expected kinds."""
    if len(text) > reading.LARGEST:
        raise ValueError(
            f"{source}: its description has more than {reading.LARGEST:,} bytes, which none of ours has; not read."
        )
    content = reading.parsed_yaml(text, source)
    if not isinstance(content, dict) or content.get("format") != form:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{source} has format {found!r}, expected {form!r}: it is no such file of this version.")
    for key, kind in {**kinds, "sha256": str}.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{source}: {key} is missing or no {kind.__name__}; the file is damaged. Copy it again.")
    return content


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


def whole(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain tensors on the CPU that share no memory."""
    for name, value in state.items():
        if isinstance(value, DTensor):
            raise ValueError(f"{name} is sharded: gather the state on all processes first, and pass it as state=.")
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, kinds, shapes and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def plain(value: Any, where: str) -> Any:
    """A copy of plain containers, tuples as lists; anything else is refused by name."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {_plain_key(key, where): plain(one, f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, f"{where}[{i}]") for i, one in enumerate(value)]
    raise ValueError(
        f"{where} is a {type(value).__name__}: keep numbers, strings, lists and dictionaries of them (str(), .item())."
    )


def _plain_key(key: Any, where: str) -> str:
    if type(key) is not str:
        raise ValueError(f"{where} has the key {key!r}: keys are strings.")
    return key


class _PlainDumper(yaml.SafeDumper):
    """Writes equal lists twice instead of by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True
