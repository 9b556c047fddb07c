"""Folders of image files: one folder a class, or no labels and any nesting."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_framework.data.datamodule import DataModule
from ssl_framework.data.decode import Kind, Reduction, decode, decode_reduced, kind_of, size_of
from ssl_framework.data.encoded import Identity, state_of
from ssl_framework.data.options import Options, read_as
from ssl_framework.data.paths import existing
from ssl_framework.data.split import carve_test
from ssl_framework.paths import printable

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
"""What counts as an image file, upper or lower case."""

_SHOWN = 3  # names in a line for people
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class FolderSource:
    """Image files below a folder, in the order of their paths.

    Hidden files and folders and what bears no image's name are left out; links are followed once, so loops end, and one that
    leads nowhere counts as an unreadable image.

    Args:
        root: the folder.
        channels: 3 reads RGB, 1 reads grey.
        labels: True: the first folders below `root` are the classes; False: there are no labels; None: classes if every image
            lies in such a folder and none deeper.
        classes: the names that the classes must be among, in their order (those of the training split).
        within: only images in folders of this name, at any depth; None: all.

    Attributes:
        root: the folder.
        left_out: paths below `root` that are not read, and why, in their order.

    Raises:
        FileNotFoundError: no folder, or no image in it.
        PermissionError: a folder that cannot be listed.
        ValueError: a class without images, an image outside the classes, or a class that is not among `classes`.
    """

    def __init__(
        self,
        root: Path,
        channels: int = 3,
        labels: bool | None = None,
        classes: tuple[str, ...] | None = None,
        within: str | None = None,
    ) -> None:
        self.root = root
        self._channels = channels
        found = _images(root)
        self._files = sorted(path for path in found.images if within is None or within in path.parts[:-1])
        self.left_out = sorted(found.left_out)
        if not self._files and within is not None:
            raise FileNotFoundError(
                f"There are no images in folders called {within} below {root.absolute()}: correct data.within."
            )
        if not self._files:
            raise FileNotFoundError(
                f"There are no images in {root.absolute()}: put files with the endings {' '.join(sorted(EXTENSIONS))} into "
                "it, or correct data.path."
            )
        if labels is None:
            labels = all(len(file.parts) == 2 for file in self._files)
        self._classes: tuple[str, ...] | None = None
        self._targets: np.ndarray[Any, np.dtype[np.int64]] | None = None
        if labels:
            self._label(classes)

    def _label(self, known: tuple[str, ...] | None) -> None:
        outside = next((file for file in self._files if len(file.parts) == 1), None)
        if outside is not None:
            raise ValueError(f"{self.root / outside} lies in no class folder: move it into one, or give data.labels=false.")
        folders = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        names = [file.parts[0] for file in self._files]
        empty = sorted(set(folders) - set(names))
        if empty:
            raise ValueError(
                f"The class {empty[0]!r} has no images in {self.root / empty[0]}: put some into the folder, remove it, or "
                "give data.labels=false."
            )
        self._classes = known or tuple(folders)
        new = sorted(set(folders) - set(self._classes))
        if new:
            raise ValueError(
                f"The class {new[0]!r} of {self.root} is not among the training classes {', '.join(self._classes)}."
            )
        number = {name: c for c, name in enumerate(self._classes)}
        self._targets = np.array([number[name] for name in names], dtype=np.int64)

    @property
    def targets(self) -> np.ndarray | None:
        """``(N,)`` int64, or None."""
        return self._targets

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the class folders, or None."""
        return self._classes

    @property
    def size(self) -> None:
        """Files may differ in size."""

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self._channels

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> Tensor:
        """One ``(C, H, W)`` uint8 image."""
        return decode(self.root / self._files[index], self._channels)

    def read_reduced(self, index: int, reduction: Reduction) -> tuple[Tensor, tuple[int, int]]:
        """One image, smaller where `reduction` allows it, and its whole size."""
        return decode_reduced(self.root / self._files[index], self._channels, reduction)

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width."""
        return size_of(self.root / self._files[index])

    def kind_of(self, index: int) -> Kind:
        """What the head of the file says."""
        return kind_of(self.root / self._files[index])

    def identity(self) -> Identity:
        """The folder; names, sizes and times of its files."""
        return Identity(str(self.root.resolve()), state_of(self.root, self._files))

    def name(self, index: int) -> str:
        """The path."""
        return str(self.path_of(index))

    def path_of(self, index: int) -> Path:
        """Where the file lies."""
        return self.root / self._files[index]

    def nested_splits(self) -> str | None:
        """A folder inside that has the images of a held-out split beside those of train; None: there is none."""
        folders = {parent for file in self._files for parent in file.parents}
        for folder in sorted(folders):
            held_out = _SPLITS.get(folder.name.lower()) in {"val", "test"}
            if held_out and any(other.parent == folder.parent and other.name.lower() == "train" for other in folders):
                return str(self.root / folder)
        return None


def folder(
    path: str | Path | None,
    labels: bool | None = None,
    test_share: float | None = None,
    within: str | None = None,
    **options: Unpack[Options],
) -> DataModule:
    """Your own images.

    ``path/train``, ``path/val`` and ``path/test`` are the splits where all folders of ``path`` bear such names; where none
    does, validation and test are carved from all images of ``path``. Without labels nothing is carved for the test unless
    `test_share` says so, since it is of no use but to tasks whose labels lie elsewhere, in a table or in masks.

    Args:
        path: the folder.
        labels: whether the first folders are classes; None: if every image lies in one, and none deeper.
        test_share: carved for the test split where there is no ``test``; None: 0.2 with labels, 0 without.
        within: only images in folders of this name, ``images`` beside ``masks`` for one; None: all.
        options: see `DataModule`; `size` is needed, since images may differ; `channels` 3 (default) reads RGB, 1 grey.

    Raises:
        FileNotFoundError: no folder, or no image in it.
        ValueError: no path, no size, class folders that do not fit, or names of splits that leave open what is meant.
    """
    root = existing(path, "image folder")
    if not root.is_dir():
        raise FileNotFoundError(f"{root.absolute()} is not a folder: data.path is the folder of the images.")
    channels = read_as(options)
    parts = _parts(root)
    train = FolderSource(parts["train"], channels, labels, within=within)
    has_labels = train.targets is not None
    nested = None if has_labels else train.nested_splits()
    if nested is not None:
        raise ValueError(
            f"{nested} lies below {root}, beside a folder called train: its images would be trained on. Give data.path the "
            "folder train itself or the one that holds it, or data.within=train."
        )
    val, test = (
        FolderSource(parts[name], channels, has_labels, train.classes, within) if name in parts else None
        for name in ("val", "test")
    )
    _say_left_out([source for source in (train, val, test) if source is not None])
    if test is None:
        train, test = carve_test(train, test_share, options.get("split_seed", 0))
    return DataModule(train, val, test, name=str(root), **options)


def _say_left_out(sources: Sequence[FolderSource]) -> None:
    """One line: a person may think that they are read."""
    left = [(source.root / path, why) for source in sources for path, why in source.left_out]
    if left:
        shown = ", ".join(f"{printable(path)} ({why})" for path, why in left[:_SHOWN])
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        rank_zero_warn(f"not read: {shown}{more}; ssl-framework check lists them.")


def _parts(root: Path) -> dict[str, Path]:
    """Folders of the splits (train, val, test); the whole is ``train`` where no folder is called like a split."""
    below = sorted(path.name for path in root.iterdir() if path.is_dir() and _seen(path.name))
    splits = [name for name in below if name.lower() in _SPLITS]
    others = [name for name in below if name not in splits]
    if not splits:
        return {"train": root}
    if others:
        raise ValueError(
            f"{root} has {', '.join(splits)}, called like splits, beside {', '.join(others)}, which are none: if all are "
            f"classes, rename {', '.join(splits)}; if not, move {', '.join(others)} elsewhere, or give data.path the folder to "
            "train on."
        )
    parts: dict[str, Path] = {}
    for name in splits:
        split = _SPLITS[name.lower()]
        if split in parts:
            raise ValueError(
                f"{root} has both {parts[split].name} and {name}, two names of the {split} split: keep one, or merge them."
            )
        parts[split] = root / name
    if "train" not in parts:
        raise ValueError(
            f"{root} has the splits {', '.join(splits)} and none called train: rename the folder to train on, or give it as "
            "data.path."
        )
    return parts


def _seen(folder_name: str) -> bool:
    return not folder_name.startswith(".") and folder_name not in ("__MACOSX", "lost+found")


class _Found(NamedTuple):
    """What lies below a folder.

    Attributes:
        images: paths relative to it, also of links that lead nowhere, which count as unreadable.
        left_out: paths of what is not read, and why.
    """

    images: list[Path]
    left_out: list[tuple[Path, str]]


def _images(root: Path) -> _Found:
    """Walk through a folder.

    Raises:
        PermissionError: a folder cannot be listed: what is in it would be missing without a word.
    """
    seen: set[str] = set()
    found = _Found([], [])
    for here, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        real = os.path.realpath(here)
        relative = Path(here).relative_to(root)
        if real in seen:
            folders.clear()
            found.left_out.append((relative, "a link to a folder that is read already"))
            continue
        seen.add(real)
        found.left_out.extend((relative / name, "a hidden folder") for name in folders if not _seen(name))
        folders[:] = sorted(name for name in folders if _seen(name))
        found.left_out.extend((relative / name, "a folder that is called like an image") for name in folders if _is_image(name))
        for name in files:
            why = _why_not(Path(here) / name)
            if why is None:
                found.images.append(relative / name)
            else:
                found.left_out.append((relative / name, why))
    return found


def _raise(error: OSError) -> None:
    why = f"{error.strerror}, and its images would be missing; let this user list it, or move it away"
    raise type(error)(error.errno, why, error.filename)


def _why_not(path: Path) -> str | None:
    """Why a file is not read; None if it is."""
    if path.name.startswith("."):
        return "a hidden file"
    if not _is_image(path.name):
        return "its name has no ending of an image"
    if path.exists() and not path.is_file():
        return "a device, a pipe or a socket"
    return None


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS
