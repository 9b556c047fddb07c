"""Images that are one array, in memory or mapped from a ``.npy`` file."""

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from ssl_framework.data.datamodule import DataModule
from ssl_framework.data.options import Options
from ssl_framework.data.paths import existing
from ssl_framework.data.split import carve
from ssl_framework.types import Source

_DAMAGE = (
    ValueError,
    SyntaxError,
    TypeError,
    OverflowError,
    EOFError,
    OSError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    tokenize.TokenError,
)  # what numpy's readers raise
_CHUNK = 4096
_MOST_CLASSES = 10_000  # of fewer than a thousand images


class ArraySource:
    """Images of one size in an array.

    Args:
        images: ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` with one or three channels. uint8 is taken as it is (and
            stays on the disk if it is memory-mapped); bool becomes 0 and 255; floats must lie in 0..1 and are scaled by 255
            into memory.
        targets: ``(N,)`` whole numbers from 0, or None.
        classes: their names; None: the numbers.
        name: what the array is called in messages.

    Raises:
        ValueError: a shape or type that does not say how it is meant, NaN, no images, or labels that do not fit.
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: np.ndarray | Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        *,
        name: str = "array",
    ) -> None:
        self._name = name
        self._last = _channels_last(images.shape, name)
        self._images = _as_bytes(images, name)
        self._targets = None if targets is None else _checked_targets(np.asarray(targets), len(images), name)
        count = 0 if self._targets is None else int(self._targets.max()) + 1
        self._classes = None if self._targets is None else tuple(classes or map(str, range(count)))
        if self._classes is not None and count > len(self._classes):
            raise ValueError(
                f"{name}: the label {count - 1} has no name among the {len(self._classes)} classes {self._classes}."
            )

    @property
    def targets(self) -> np.ndarray | None:
        """``(N,)`` int64, or None."""
        return self._targets

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names, or None."""
        return self._classes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self._images.shape[1:3] if self._last else self._images.shape[-2:]
        return int(height), int(width)

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self._images.ndim == 3 else int(self._images.shape[3 if self._last else 1])

    @property
    def unreadable(self) -> dict[int, str]:
        """None is: they are decoded."""
        return {}

    @property
    def on_disk(self) -> bool:
        """Whether the array is mapped from a file."""
        return isinstance(self._images, np.memmap)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Tensor:
        """One ``(C, H, W)`` uint8 image."""
        return self.read_many(np.array([index]))[0]

    def read_many(self, index: np.ndarray) -> Tensor:
        """``(B, C, H, W)`` uint8 of the samples `index` ``(B,)``, laid out in memory as the array is."""
        images = torch.from_numpy(np.ascontiguousarray(self._images[index]))
        if self._images.ndim == 3:
            return images[:, None]
        return images.permute(0, 3, 1, 2) if self._last else images

    def name(self, index: int) -> str:
        """Array and row."""
        return f"{self._name}[{index}]"


def arrays(
    path: str | Path | None,
    targets: str | Path | None = None,
    test_share: float = 0.2,
    **options: Unpack[Options],
) -> DataModule:
    """Images of a ``.npy`` file, which stays on the disk, or of a ``.npz`` file, which is read into memory.

    Args:
        path: the file. An ``.npz`` holds ``images`` and, if labelled, ``targets``; its ``test_images`` and ``test_targets`` are
            the test split if they are there.
        targets: a ``.npy`` file of labels for a ``.npy`` file of images.
        test_share: carved for the test split where the file has none.
        options: see `DataModule`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or arrays that `ArraySource` refuses.
    """
    file = existing(path, "array file (.npy or .npz)")
    sources = load_arrays(file, targets)
    train, test = sources if sources[1] is not None else carve(sources[0], test_share, options.get("split_seed", 0))
    return DataModule(train, None, test, name=file.name, **options)


def load_arrays(path: Path, targets: str | Path | None = None) -> tuple[Source, Source | None]:
    """Training and test samples of a file; `arrays` says how it is laid out."""
    stored = _load(path)
    if isinstance(stored, np.ndarray):
        labels = None if targets is None else _load(existing(targets, "array file of labels"))
        if not isinstance(labels, np.ndarray | None):
            raise ValueError(f"{targets} should be a .npy file of labels.")
        return ArraySource(stored, labels, name=path.name), None
    if "images" not in stored:
        raise ValueError(f"{path} holds {sorted(stored)}: it needs `images` (and `targets`, if labelled).")
    train = ArraySource(stored["images"], stored.get("targets"), name=f"{path.name}:images")
    if "test_images" not in stored:
        return train, None
    lacks = {"targets", "test_targets"} - stored.keys()
    if len(lacks) == 1:
        raise ValueError(f"{path} holds labels of one split and no {lacks.pop()}: add them, or leave out the others.")
    return train, ArraySource(stored["test_images"], stored.get("test_targets"), train.classes, name=f"{path.name}:test_images")


def _load(path: str | Path) -> np.ndarray | dict[str, np.ndarray]:
    """Never unpickles: an array of objects could run code."""
    kind = Path(path).suffix
    if kind not in {".npy", ".npz"}:
        raise ValueError(f"{path} is not a .npy or .npz file: save the images with numpy.save or numpy.savez.")
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file: give a .npy or .npz file.")
    try:
        if kind == ".npy":
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(found, np.ndarray):  # an archive under another name
                raise ValueError("it holds several")
            return found
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except _DAMAGE as error:
        raise ValueError(f"{path} cannot be read as arrays of numbers ({error}): save it again, without objects.") from error


def _channels_last(shape: tuple[int, ...], name: str) -> bool:
    if len(shape) not in {3, 4} or 0 in shape:
        raise ValueError(
            f"{name} has the shape {list(shape)}: images are (N, H, W), (N, H, W, C) or (N, C, H, W), and not empty."
        )
    if len(shape) == 3:
        return False
    last, first = shape[3] in {1, 3}, shape[1] in {1, 3}
    if last == first:
        problem = "two axes that could be the channels" if last else "no axis of 1 or 3 channels"
        raise ValueError(f"{name} has the shape {list(shape)} with {problem}: give (N, H, W), (N, H, W, C) or (N, C, H, W).")
    return last


def _as_bytes(images: np.ndarray, name: str) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"{name} holds {images.dtype}: give uint8 (16-bit values: (x // 257).astype('uint8'); whole numbers in 0..255: "
            "x.astype('uint8')) or floats in 0..1."
        )
    scaled = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _CHUNK):
        part = np.asarray(images[start : start + _CHUNK])
        low, high = float(part.min()), float(part.max())
        if not (low >= 0 and high <= 1):  # NaN fails it too
            raise ValueError(f"{name} holds floats from {low:g} to {high:g}: give floats in 0..1 without NaN, or uint8.")
        scaled[start : start + _CHUNK] = np.rint(part * 255)
    return scaled


def _checked_targets(targets: np.ndarray, count: int, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    if targets.shape != (count,) or not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0:
        raise ValueError(
            f"The labels of {name} are {targets.dtype} of shape {list(targets.shape)}: give {count} whole numbers from 0, "
            "one an image."
        )
    if targets.max() >= max(_MOST_CLASSES, 10 * count):
        raise ValueError(
            f"The labels of {name} run to {targets.max()}, of {count} images: number the classes from 0 without gaps."
        )
    return targets.astype(np.int64)
