"""Weights from files: data only, and every tensor in its place."""

import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

_SHOWN = 20  # names per kind in an error; another architecture differs in hundreds
_WRAPPERS = ("state_dict", "model")  # where training scripts put the weights in a .pth

_DAMAGE = (  # what readers raise on a file that is not what it should be
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    NotImplementedError,
)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors``, ``.pth``, ``.pt``, ``.ckpt`` or ``.bin`` file, on the CPU. No code in it is run.

    Of the directory of a Hugging Face model, those of ``model.safetensors`` or ``pytorch_model.bin``.

    Raises:
        ValueError: no such file, a damaged one, or one that holds more than tensors.
    """
    if "://" in str(path):
        raise ValueError(f"{path} is an address: download the file yourself, check it, and give its path.")
    path = Path(path)
    if path.is_dir():  # of a Hugging Face model
        path = next((file for file in (path / "model.safetensors", path / "pytorch_model.bin") if file.is_file()), path)
    if not path.is_file():
        raise ValueError(f"There is no weight file {path}: check the path.")
    content = read_plain(path)
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds more than named tensors: save model.state_dict() alone.")
    return dict(content)


def read_plain(path: Path) -> Any:
    """What a ``.safetensors`` file or one of `torch.save` holds, on the CPU: the one place where such files are opened.

    Pickles are read as tensors and plain containers alone, and nothing reads one in another manner when that fails.

    Raises:
        ValueError: it is damaged, or holds more.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}: check the path.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        _require_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as plain tensors ({reason}): it is damaged, or it would run code when opened. "
            "Get it again, or save it as .safetensors where you trust it."
        ) from error


def _require_stored(path: Path) -> None:
    """Refuse an archive that `torch.save` does not write: it could unfold into more than the memory, or say a thing twice.

    Raises:
        ValueError: its members are compressed, overlap, stand twice, or lie elsewhere.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        raise ValueError("it is compressed or encrypted, and torch.save does neither")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its members are larger than the file")
    if len(set(names)) < len(names):
        raise ValueError("it has two members of one name")
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise ValueError("it has members that lie outside it")


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load a state in which every tensor fits, or change nothing.

    Args:
        module: what receives them.
        tensors: its state.
        source: what a person calls the state; errors begin with it.

    Raises:
        ValueError: tensors are missing, left over, or of another shape or kind; all are named (20 of each).
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    mismatched = [
        f"{name} (expected {_kind(expected[name])}, found {_kind(tensors[name])})"
        for name in expected
        if name in tensors and _kind(expected[name]) != _kind(tensors[name])
    ]
    faults = (("missing", missing), ("not in this architecture", unexpected), ("of another shape", mismatched))
    if any(names for _, names in faults):
        said = "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in faults if names)
        raise ValueError(
            f"{source} belongs to another architecture than {type(module).__name__} as it was asked for "
            f"({len(expected)} tensors expected, {len(tensors)} found): {said}. Build the encoder they were made with."
        )
    module.load_state_dict(dict(tensors), strict=True)


def _kind(tensor: Tensor) -> str:
    """Shape, and whether it counts or measures: half precision may be loaded into float32, floats not into integers."""
    return f"{tuple(tensor.shape)} {'floats' if tensor.is_floating_point() else tensor.dtype}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
