"""Torchvision's data sets by name, from files that are there or with a download."""

import inspect
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torchvision.datasets
from torch import Tensor

from ssl_framework.data.arrays import ArraySource
from ssl_framework.data.datamodule import DataModule
from ssl_framework.data.decode import DAMAGE, Reduction, to_tensor
from ssl_framework.data.encoded import Identity, state_of
from ssl_framework.data.options import Options, read_as
from ssl_framework.data.paths import data_path
from ssl_framework.data.split import carve
from ssl_framework.types import BadSampleError, Source


class _Splits(NamedTuple):
    """What a data set calls its splits; None: it has none."""

    train: str
    val: str | None = None
    test: str | None = "test"
    labelled: str | None = None


_DAMAGE = (
    RuntimeError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    AssertionError,
    struct.error,
    MemoryError,
    OverflowError,
    pickle.UnpicklingError,
)  # what its readers raise on files that are not what they should be
_UNPICKLED = ("LSUN", "LSUNClass")  # without comparing the file with a known checksum, as CIFAR's are

# Where the constructor asks for `split=`. Names that are not here have "train" and "test".
_SPLITS = {
    "STL10": _Splits("unlabeled", labelled="train"),
    "OxfordIIITPet": _Splits("trainval"),
    "Country211": _Splits("train", "valid"),
    "Imagenette": _Splits("train", test="val"),  # its only other split is measured on
    **dict.fromkeys(["Flowers102", "DTD", "FGVCAircraft", "PCAM", "RenderedSST2"], _Splits("train", "val")),
}


class DatasetSource:
    """A torchvision data set that decodes a file for each sample.

    Args:
        dataset: without transforms; its samples are (Pillow image, label).
        targets: ``(N,)`` labels, or None.
        classes: their names, or None.
        channels: 3 reads RGB, 1 reads grey.
        name: what the data set is called in messages.
        root: the folder of its files.
    """

    def __init__(
        self, dataset: Any, targets: np.ndarray | None, classes: tuple[str, ...] | None, channels: int, name: str, root: Path
    ) -> None:
        self._dataset = dataset
        self._targets = targets
        self._classes = classes
        self._channels = channels
        self._name = name
        self._root = root

    @property
    def targets(self) -> np.ndarray | None:
        """``(N,)`` int64, or None."""
        return self._targets

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names, or None."""
        return self._classes

    @property
    def size(self) -> None:
        """Files may differ in size."""

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self._channels

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, index: int) -> Tensor:
        """One ``(C, H, W)`` uint8 image."""
        try:
            return to_tensor(self._dataset[index][0], self._channels)
        except DAMAGE as error:
            raise BadSampleError(f"{type(error).__name__}: {error}") from error

    def read_reduced(self, index: int, reduction: Reduction) -> tuple[Tensor, tuple[int, int]]:
        """One image, and its size: torchvision decodes whole."""
        image = self.read(index)
        return image, (image.shape[1], image.shape[2])

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width."""
        image = self.read(index)
        return image.shape[1], image.shape[2]

    def identity(self) -> Identity:
        """The data set and its folder; names, sizes and times of the files in it."""
        root = Path(getattr(self._dataset, "_base_folder", self._root)).resolve()  # other sets may lie beside it
        files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return Identity(f"{root}:{self._name}", state_of(root, files))

    def name(self, index: int) -> str:
        """Data set and number."""
        return f"{self._name}[{index}]"


def torchvision_dataset(
    name: str,
    path: str | Path | None,
    download: bool = False,
    test_share: float = 0.2,
    **options: Unpack[Options],
) -> DataModule:
    """A data set of `torchvision.datasets`.

    Sets whose images are one array are kept in memory, others are decoded sample by sample. STL-10 pretrains on its unlabelled
    images, and its labelled training images serve phase 2.

    Args:
        name: of the class, for example ``FashionMNIST``, ``STL10``, ``Flowers102``, ``OxfordIIITPet`` or ``EuroSAT``.
        path: the folder that torchvision calls root.
        download: fetch what is not there.
        test_share: carved for the test split where the data set has no splits.
        options: see `DataModule`; `size` is needed where images are decoded.

    Raises:
        FileNotFoundError: the files are not there and `download` is off.
        ValueError: no path, no such data set, or one that asks for other arguments.
    """
    root = data_path(path, f"the data set {name}")
    kind: Any = getattr(torchvision.datasets, name, None)
    known = sorted(torchvision.datasets.__all__)
    if name not in known or kind is None:
        raise ValueError(f"torchvision has no data set {name!r}; it has {', '.join(known)}.")
    arguments = inspect.signature(kind).parameters
    unknown = [a for a, p in arguments.items() if p.default is p.empty and a not in {"root", "train", "split", "kwargs"}]
    if unknown:
        raise ValueError(
            f"{name} asks for {', '.join(unknown)}, which this factory does not give: build a DataModule from a source."
        )
    if name in _UNPICKLED:
        raise ValueError(
            f"{name} is read from a pickle that lies beside the data and could run code: take its images as a folder."
        )
    channels = read_as(options)

    def load(split: str | None, train: bool) -> Source | None:
        if split is None:
            return None
        chosen = {"train": train} if "train" in arguments else {"split": split} if "split" in arguments else {}
        return _as_source(_open(kind, root, download, chosen), channels, f"{name}:{split}", root)

    if "train" not in arguments and "split" not in arguments:
        everything = load("all", train=True)
        assert everything is not None
        stays, test = carve(everything, test_share, options.get("split_seed", 0))
        return DataModule(stays, None, test, name=name, **options)
    splits = _SPLITS.get(name, _Splits("train"))
    train = load(splits.train, train=True)
    assert train is not None
    return DataModule(
        train,
        load(splits.val, train=False),
        load(splits.test, train=False),
        name=name,
        labelled=load(splits.labelled, train=True),
        **options,
    )


def _open(kind: Any, root: Path, download: bool, chosen: dict[str, Any]) -> Any:
    if "download" in inspect.signature(kind).parameters:
        chosen = {**chosen, "download": download}
    try:
        return kind(str(root), **chosen)
    except _DAMAGE as error:  # torchvision: "Dataset not found or corrupted."
        remedy = "the download failed" if download else "give data.download=true to fetch it, or correct data.path"
        raise FileNotFoundError(
            f"{kind.__name__} is not in {root.absolute()} ({' '.join(str(error).split())[:200]}): {remedy}."
        ) from error


def _as_source(dataset: Any, channels: int, name: str, root: Path) -> Source:
    """An array where the data set holds one (MNIST and its likes, CIFAR, STL-10, SVHN), else the data set itself."""
    targets, classes = _labels(dataset)
    data = getattr(dataset, "data", None)
    if data is not None and hasattr(data, "shape"):
        return ArraySource(np.asarray(data), targets, classes, name=name)
    return DatasetSource(dataset, targets, classes, channels, name, root)


def _labels(dataset: Any) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Torchvision has no common name for them: these are all that it uses."""
    found = next(
        (value for key in ("targets", "labels", "_labels", "y") if (value := getattr(dataset, key, None)) is not None), None
    )
    if found is None and (pairs := getattr(dataset, "_samples", None)) is not None:
        found = [pair[1] for pair in pairs]
    if found is None:
        return None, None
    targets = np.asarray(found, dtype=np.int64)
    if len(targets) == 0 or targets.min() < 0:  # STL-10 says -1 of its unlabelled images
        return None, None
    names: Sequence[str] = getattr(dataset, "classes", None) or [str(c) for c in range(int(targets.max()) + 1)]
    return targets, tuple(str(n) for n in names)
