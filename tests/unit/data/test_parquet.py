import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssl_framework.data import cifar10, parquet

OPTIONS: Any = {"size": [4, 4], "batch_size": 4, "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are not left in the home folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def png(value: int, size: tuple[int, int] = (6, 6)) -> bytes:
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def write(
    file: Path, n: int, label: Any = lambda i: i % 2, image: Any = lambda i: {"bytes": png(i), "path": None}, **columns: Any
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"img": [image(i) for i in range(n)], "label": [label(i) for i in range(n)], **columns}), file)
    return file


def test_one_file(tmp_path: Path) -> None:
    data = parquet(write(tmp_path / "pictures.parquet", 20), **OPTIONS)
    split = data.split("train")
    assert split.images(range(len(split)))[:, 0, 0, 0].tolist() == split.index.tolist()
    assert (split.index % 2 == split.targets).all()
    assert len(data.test_split()) == 4


@pytest.mark.parametrize("place", ["", "data"])
def test_shards_name_their_splits(tmp_path: Path, place: str) -> None:
    for name, n in [("train-00000-of-00002", 8), ("train-00001-of-00002", 4), ("validation", 2), ("test-00000", 6)]:
        write(tmp_path / place / f"{name}.parquet", n)
    data = parquet(tmp_path, **OPTIONS)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [12, 2, 6]


@pytest.mark.parametrize("names", [("Train-0", "VAL-0", "Testing-0"), ("training_0", "eval1", "TEST.0")])
def test_shards_name_their_splits_in_any_case(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, n in zip(names, (12, 2, 6), strict=True):
        write(tmp_path / f"{name}.parquet", n)
    data = parquet(tmp_path, **OPTIONS)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [12, 2, 6]


def test_shards_of_which_only_some_name_a_split(tmp_path: Path) -> None:
    for name in ("train-0", "holdout-0", "unseen"):
        write(tmp_path / f"{name}.parquet", 10)
    with pytest.raises(ValueError, match=r"name the splits train, but holdout-0\.parquet, unseen\.parquet name none: begin"):
        parquet(tmp_path, **OPTIONS)


def test_shards_of_which_none_names_a_split_are_all_training(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"{i:04}.parquet", 10)
    assert parquet(tmp_path, val_share=0, test_share=0, **OPTIONS).num_samples == 20


def test_bytes_without_a_struct_and_names_as_labels(tmp_path: Path) -> None:
    data = parquet(write(tmp_path / "a.parquet", 20, lambda i: "dog" if i % 2 else "cat", png), **OPTIONS)
    assert data.facts.classes == ("cat", "dog")
    assert (data.split("train").index % 2 == data.split("train").targets).all()


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    data = parquet(write(tmp_path / "a.parquet", 24, lambda i: i % 12), **OPTIONS)
    assert data.facts.classes == tuple(str(i) for i in range(12))


def test_without_labels(kit: Any, tmp_path: Path) -> None:
    data = parquet(write(tmp_path / "a.parquet", 20), label_column=None, **OPTIONS)
    data.attach(kit.views())
    assert next(iter(data.train_dataloader())).input.shape[:2] == (4, 3)
    with pytest.raises(ValueError, match="no labels"):
        data.split("train")


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    data = parquet(
        write(tmp_path / "a.parquet", 30, image=lambda i: b"" if i == 3 else png(i)), val_share=0, test_share=0, **OPTIONS
    )
    with pytest.raises(ValueError, match=r"1 of 30 train samples.*a\.parquet:train\[3\]"):
        data.split("train").images(range(30))


@pytest.mark.parametrize("column", [{"image_column": "image"}, {"label_column": "kind"}])
def test_a_column_that_is_not_there(tmp_path: Path, column: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"no column '{next(iter(column.values()))}'; it has img, label"):
        parquet(write(tmp_path / "a.parquet", 20), **column, **OPTIONS)


def test_empty_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has empty labels.*label_column=null"):
        parquet(write(tmp_path / "a.parquet", 20, lambda i: None if i == 2 else i), **OPTIONS)


def test_a_test_label_that_training_lacks(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 10)
    write(tmp_path / "test.parquet", 10, lambda i: i % 3)
    with pytest.raises(ValueError, match=r"label '2' .*not among the training labels 0, 1"):
        parquet(tmp_path, **OPTIONS)


@pytest.mark.parametrize(("path", "error", "message"), [
    ("{tmp}/gone", FileNotFoundError, "no parquet files at"),
    ("{tmp}", FileNotFoundError, r"no \.parquet files in"),
    (None, ValueError, "SSL_FRAMEWORK_DATA"),
])  # fmt: skip
def test_no_files(tmp_path: Path, path: str | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parquet(path and path.format(tmp=tmp_path), **OPTIONS)


def test_only_test_shards(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", 4)
    with pytest.raises(ValueError, match="none called train"):
        parquet(tmp_path, **OPTIONS)


def test_cifar10_reads_shards_into_memory(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        write(tmp_path / f"{name}.parquet", 40, lambda i: i % 10, lambda i: {"bytes": png(i, (32, 32)), "path": None})
    data = cifar10(tmp_path, batch_size=4, size=[32, 32], classes=10, channels=3)
    assert data.facts.classes[:2] == ("airplane", "automobile")
    split = data.test_split()
    assert split.images(range(40))[:, 2, 31, 31].tolist() == split.index.tolist()
    assert split.targets.tolist() == [i % 10 for i in range(40)]


def test_cifar10_without_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither parquet shards .* nor torchvision's.*data\.download=true"):
        cifar10(tmp_path)


def test_cifar10_of_another_size_or_damaged(tmp_path: Path) -> None:
    for image in (png(0), b"damaged"):
        for name in ("train", "test"):
            write(tmp_path / f"{name}.parquet", 4, image=lambda i, image=image: {"bytes": image, "path": None})
        with pytest.raises(ValueError, match=r"Row 0 of .* is not an image of 32 x 32"):
            cifar10(tmp_path)
