"""CIFAR-10 from whichever files are there: parquet shards of the hub's layout, or torchvision's."""

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info

from ssl_framework.data.arrays import ArraySource
from ssl_framework.data.datamodule import DataModule
from ssl_framework.data.options import Options
from ssl_framework.data.parquet import shards
from ssl_framework.data.paths import data_path
from ssl_framework.data.torchvision import torchvision_dataset

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TORCHVISION = "cifar-10-batches-py"


def cifar10(path: str | Path | None, download: bool = False, **options: Unpack[Options]) -> DataModule:
    """60,000 images of 32 x 32 pixels in ten classes, kept in memory.

    Args:
        path: folder of parquet shards (columns ``img`` and ``label``), or torchvision's root.
        download: fetch torchvision's files where neither is there.
        options: see `DataModule`.

    Raises:
        FileNotFoundError: neither is there, and `download` is off.
        ValueError: no path, or shards that are not CIFAR-10's.
    """
    root = data_path(path, "CIFAR-10")
    files = shards(root) if root.is_dir() else {}
    if {"train", "test"} <= files.keys():
        return DataModule(_decoded(files["train"]), None, _decoded(files["test"]), name="CIFAR10", **options)
    if not download and not (root / _TORCHVISION).is_dir():
        raise FileNotFoundError(
            f"CIFAR-10 is not in {root.absolute()}: neither parquet shards (train-*.parquet and test-*.parquet) nor "
            f"torchvision's folder {_TORCHVISION}. Give data.download=true to fetch it, or correct data.path."
        )
    return torchvision_dataset("CIFAR10", root, download, **options)


def _decoded(files: Sequence[Path]) -> ArraySource:
    """All images of these shards."""
    start = time.perf_counter()
    try:
        table = pq.read_table([str(file) for file in files])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{files[0].parent} cannot be read as parquet ({' '.join(str(error).split())[:200]}).") from error
    missing = {"img", "label"} - set(table.column_names)
    if missing:
        raise ValueError(f"{files[0]} has no column {min(missing)!r}, so it is not CIFAR-10: data=parquet reads other tables.")
    if not pa.types.is_struct(table["img"].type) or table["img"].type.get_field_index("bytes") < 0:
        raise ValueError(f"{files[0]} has no bytes of images in its column img: data=parquet reads other tables.")
    data: list[bytes] = table["img"].combine_chunks().field("bytes").to_pylist()
    images = np.empty((len(data), 32, 32, 3), np.uint8)
    for row, file in enumerate(data):  # one by one: the images are so small that threads cost more than they save
        try:
            images[row] = np.asarray(Image.open(io.BytesIO(file), formats=("WEBP", "PNG")).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"Row {row} of {files[0].parent} is not an image of 32 x 32 pixels ({error}).") from error
    seconds = time.perf_counter() - start
    rank_zero_info(f"CIFAR-10: {len(data):,} images of {len(files)} parquet files decoded in {seconds:.1f} s")
    return ArraySource(images, table["label"].to_numpy(), CLASSES, name=f"{files[0].parent.name}:{files[0].name.split('-')[0]}")
