"""Images as bytes in a column: parquet shards on the disk, or a data set of the Hugging Face hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow
import pyarrow.parquet as pq
from torch import Tensor

from ssl_framework.data.datamodule import DataModule
from ssl_framework.data.decode import Kind, Reduction, decode, decode_reduced, kind_of, size_of
from ssl_framework.data.encoded import Identity, state_of
from ssl_framework.data.options import Options, read_as
from ssl_framework.data.paths import data_path
from ssl_framework.data.split import carve_test
from ssl_framework.types import BadSampleError, Source

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
_SHARDS = _SPLITS | {"training": "train", "eval": "val", "evaluation": "val", "testing": "test"}


class ParquetSource:
    """Rows of a table, decoded when they are read.

    Args:
        table: a `datasets.Dataset` whose image column yields bytes, or ``{"bytes": ..., "path": ...}``.
        image_column: its name.
        label_column: its name, or None for no labels.
        channels: 3 reads RGB, 1 reads grey.
        name: what the table is called in messages.
        classes: names of the labels, in order (those of the training split); None: from the table, else the labels themselves.
        files: the shards that it was read from; none: it came from the hub.

    Raises:
        ValueError: a column that is not there, or a label that is not among `classes`.
    """

    def __init__(
        self,
        table: Any,
        image_column: str,
        label_column: str | None,
        channels: int,
        name: str,
        classes: tuple[str, ...] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        for column in filter(None, (image_column, label_column)):
            if column not in table.column_names:
                raise ValueError(
                    f"{name} has no column {column!r}; it has {', '.join(table.column_names)}: give data.image_column= and "
                    "data.label_column= (null: no labels)."
                )
        self._table = table.select_columns([image_column])
        self._column = image_column
        self._channels = channels
        self._name = name
        self._files = tuple(files)
        self._targets: np.ndarray | None = None
        self._classes: tuple[str, ...] | None = None
        if label_column is not None:
            self._targets, self._classes = _numbered(table, label_column, classes, name)

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
        """Rows may differ in size."""

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self._channels

    def __len__(self) -> int:
        return len(self._table)

    def read(self, index: int) -> Tensor:
        """One ``(C, H, W)`` uint8 image."""
        return decode(self._bytes(index), self._channels)

    def read_reduced(self, index: int, reduction: Reduction) -> tuple[Tensor, tuple[int, int]]:
        """One image, smaller where `reduction` allows it, and its whole size."""
        return decode_reduced(self._bytes(index), self._channels, reduction)

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width."""
        return size_of(self._bytes(index))

    def kind_of(self, index: int) -> Kind:
        """What the head of the file says."""
        return kind_of(self._bytes(index))

    def identity(self) -> Identity:
        """The table and its column; names, sizes and times of its shards, or the hub's fingerprint."""
        if not self._files:
            return Identity(f"{self._name}:{self._column}", str(self._table._fingerprint))
        root = self._files[0].parent.resolve()
        return Identity(f"{root}:{self._name}:{self._column}", state_of(root, [file.resolve() for file in self._files]))

    def _bytes(self, index: int) -> bytes:
        cell = self._table[index][self._column]
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise BadSampleError(f"the column {self._column!r} holds {type(data).__name__} here, not bytes of an image")
        return data

    def name(self, index: int) -> str:
        """Table and row."""
        return f"{self._name}[{index}]"


def parquet(
    path: str | Path | None,
    image_column: str = "img",
    label_column: str | None = "label",
    test_share: float | None = None,
    download: bool = False,
    **options: Unpack[Options],
) -> DataModule:
    """A table of images.

    Args:
        path: a ``.parquet`` file, or a folder of shards whose names begin with train, val, validation or test, or of which
            none does (in that folder or in ``data/`` below it); what is neither there nor an absolute path is taken for a name
            on the hub.
        image_column: holds the bytes.
        label_column: holds the labels, numbers or names; None: no labels.
        test_share: carved for the test split where the table has none; None: 0.2 with labels, 0 without.
        download: fetch what is on the hub; without it, only what was fetched before is read.
        options: see `DataModule`; `size` is needed, since images may differ; `channels` 3 (default) reads RGB, 1 grey.

    Raises:
        FileNotFoundError: no such file or folder, or no shards in it; or a name on the hub that was not fetched.
        ValueError: no path, a column that is not there, or shards of which only some name a split.
    """
    given = data_path(path, "the parquet files")
    channels = read_as(options)
    files = shards(given) if given.exists() else {}
    tables = _tables(given, str(path), files, download)
    if "train" not in tables:
        raise ValueError(f"{path} has the splits {', '.join(tables)} and none called train: rename the shards.")
    sources: dict[str, ParquetSource] = {}
    for split in sorted(tables, key=lambda name: name != "train"):
        known = sources["train"].classes if sources else None
        name = f"{given.name if files else path}:{split}"  # names on the hub have an owner
        sources[split] = ParquetSource(
            _undecoded(tables[split], image_column), image_column, label_column, channels, name, known, files.get(split, ())
        )
    train, test = sources["train"], sources.get("test")
    learn: Source = train
    if test is None:
        learn, test = carve_test(train, test_share, options.get("split_seed", 0))
    return DataModule(learn, sources.get("val"), test, name=str(path), **options)


def shards(root: Path) -> dict[str, list[Path]]:
    """Parquet files of a folder by split (train, val, test); where no file names a split, all are training files.

    Args:
        root: a folder, or one file.

    Raises:
        ValueError: some files name a split and others none; these may be held-out ones, and are not pretrained on.
    """
    files = [root] if root.is_file() else sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    found: dict[str, list[Path]] = {}
    for file in files:
        word = "".join(re.findall(r"^[a-z]+", file.name.lower()))
        found.setdefault("train" if root.is_file() else _SHARDS.get(word, ""), []).append(file)
    unnamed = found.pop("", [])
    if unnamed and found:
        shown = ", ".join(file.name for file in unnamed[:5]) + (f" and {len(unnamed) - 5} more" if len(unnamed) > 5 else "")
        raise ValueError(
            f"Shards of {root} name the splits {', '.join(sorted(found))}, but {shown} name none: begin their names with "
            "train, val or test, or move them elsewhere."
        )
    return found or ({"train": unnamed} if unnamed else {})


def _tables(given: Path, text: str, files: dict[str, list[Path]], download: bool) -> dict[str, Any]:
    """Tables by split: of these shards, or of the hub."""
    import datasets  # noqa: PLC0415  (takes a second, and only this needs it)
    from datasets import config  # noqa: PLC0415
    from datasets.exceptions import DatasetsError  # noqa: PLC0415

    if given.exists():
        if not files:
            raise FileNotFoundError(f"There are no .parquet files in {given.absolute()}: correct data.path.")
        return {split: _read(paths) for split, paths in files.items()}
    if given.is_absolute() or not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise FileNotFoundError(
            f"There are no parquet files at {given.absolute()}: correct data.path, or give the name of a hub data set "
            "(owner/name)."
        )
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or not download
    try:
        found = datasets.load_dataset(text)
    except (OSError, DatasetsError) as error:
        remedy = f"it could not be fetched ({error})" if download else "give data.download=true to fetch it from the hub"
        raise FileNotFoundError(f"There are no parquet files at {given.absolute()}, nor is {text} here: {remedy}.") from error
    finally:
        config.HF_HUB_OFFLINE = before
    return {_SPLITS.get(str(split), str(split)): table for split, table in found.items()}


def _read(paths: Sequence[Path]) -> Any:
    """The table of some shards.

    Raises:
        ValueError: one of them is no parquet file, or has other columns than the first, or there are no rows in them.
    """
    import datasets  # noqa: PLC0415
    from datasets.exceptions import DatasetsError  # noqa: PLC0415

    first, rows = None, 0
    for path in paths:  # the library says neither which file it is, nor that it is empty
        try:
            head = pq.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}): save it again.") from error
        rows += head.metadata.num_rows
        first = first or (path, set(head.schema_arrow.names))
        if set(head.schema_arrow.names) != first[1]:
            raise ValueError(
                f"{path} has the columns {', '.join(head.schema_arrow.names)}, and {first[0].name} has "
                f"{', '.join(sorted(first[1]))}: shards of a split have the same."
            )
    if not rows:
        raise ValueError(f"{paths[0]} has no rows: correct data.path, or save the table again.")
    try:  # not load_dataset, which tells the hub that it was called
        return datasets.Dataset.from_parquet([str(path) for path in paths], split=datasets.Split.TRAIN)
    except (DatasetsError, pyarrow.ArrowException, OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"{paths[0].parent} cannot be read as one table ({' '.join(str(cause).split())[:200]}): save it again."
        ) from error


def _undecoded(table: Any, column: str) -> Any:
    """The hub marks image columns: without this, reading a row would decode it, and fail on a damaged one."""
    import datasets  # noqa: PLC0415

    marked = isinstance(table.features.get(column), datasets.Image)
    return table.cast_column(column, datasets.Image(decode=False)) if marked else table


def _numbered(table: Any, column: str, known: tuple[str, ...] | None, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as numbers from 0, and their names."""
    labels = table[column][:]
    own = getattr(table.features[column], "names", None)  # of a column that the hub marks as labels
    if own is not None:
        return np.asarray(labels, dtype=np.int64), tuple(own)
    if any(label is None for label in labels):
        raise ValueError(f"The column {column!r} of {name} has empty labels: fill them, or give data.label_column=null.")
    other = next((label for label in labels if not isinstance(label, int | str)), None)
    if other is not None:
        raise ValueError(
            f"The column {column!r} of {name} holds {type(other).__name__}, as {str(other)[:40]}: labels are whole numbers "
            "or words; give data.label_column=null for none."
        )
    classes = known or tuple(str(label) for label in sorted(set(labels)))
    number = {label: c for c, label in enumerate(classes)}
    new = sorted({str(label) for label in labels} - number.keys())
    if new:
        raise ValueError(f"The label {new[0]!r} of {name} is not among the training labels {', '.join(classes)}.")
    return np.array([number[str(label)] for label in labels], dtype=np.int64), classes
