import struct
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_framework.data import DataModule, cifar10, torchvision_dataset
from ssl_framework.data.decode import DAMAGE
from ssl_framework.data.torchvision import DatasetSource
from ssl_framework.types import BadSampleError

RANDOM = np.random.default_rng(0)


def idx(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_idx_files(tmp_path: Path, name: str) -> None:
    written = {}
    for stem, n in (("train", 40), ("t10k", 20)):
        images, labels = RANDOM.integers(0, 256, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)
        idx(tmp_path / name / "raw" / f"{stem}-images-idx3-ubyte", images)
        idx(tmp_path / name / "raw" / f"{stem}-labels-idx1-ubyte", labels)
        written[stem] = images
    data = torchvision_dataset(name, tmp_path, batch_size=4, channels=1, size=[28, 28], classes=10, val_share=0.25)
    test = data.test_split()
    assert torch.equal(test.images(range(20))[:, 0], torch.from_numpy(written["t10k"]))
    assert test.targets.tolist() == [i % 10 for i in range(20)]
    train = data.split("train")
    assert torch.equal(train.images(range(len(train)))[:, 0], torch.from_numpy(written["train"][train.index]))
    assert len(data.split("val")) == 10


def test_stl10_pretrains_on_what_has_no_labels(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import STL10

    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("\n".join(f"class{c}" for c in range(10)))
    for stem, n in (("unlabeled", 12), ("train", 20), ("test", 10)):
        RANDOM.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8).tofile(folder / f"{stem}_X.bin")
        if stem != "unlabeled":
            (np.arange(n) % 10 + 1).astype(np.uint8).tofile(folder / f"{stem}_y.bin")
    data = torchvision_dataset("STL10", tmp_path, batch_size=4, size=[96, 96], channels=3, classes=10, val_share=0.5)
    assert data.num_samples == 12
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [10, 10, 10]
    assert data.split("train").classes[3] == "class3"
    assert next(iter(data.train_dataloader())).input.shape == (4, 3, 96, 96)


def test_eurosat_has_no_splits_and_gets_some(kit: Any, tmp_path: Path) -> None:
    for c in range(10):
        for i in range(10):
            kit.picture(tmp_path / "eurosat" / "2750" / f"land{c}" / f"{i}.png", value=10 * c + i)
    data = torchvision_dataset("EuroSAT", tmp_path, batch_size=4, size=[6, 8], channels=3, classes=10)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [70, 10, 20]
    split = data.test_split()
    assert split.images(range(20))[:, 1, 0, 0].tolist() == split.index.tolist()
    assert (split.index // 10 == split.targets).all()


def test_pets_are_decoded_and_damaged_files_are_named(kit: Any, tmp_path: Path) -> None:
    root = tmp_path / "oxford-iiit-pet"
    (root / "annotations").mkdir(parents=True)
    lines = [f"{'Abyssinian' if i % 2 else 'beagle'}_{i} {i % 2 + 1} 1 1" for i in range(20)]
    for split in ("trainval", "test"):
        (root / "annotations" / f"{split}.txt").write_text("\n".join(lines))
    for line in lines:
        kit.picture(root / "images" / f"{line.split()[0]}.jpg", size=(6 + len(line), 9))
    (root / "images" / "beagle_4.jpg").write_bytes(b"\xff\xd8 damaged")
    data = torchvision_dataset("OxfordIIITPet", tmp_path, batch_size=4, size=[5, 5], val_share=0)
    assert data.num_samples == 20
    data.attach(kit.views())
    batches = list(islice(data.train_dataloader(), 5))
    assert [b.bad.tolist() for b in batches if b.bad is not None] == [[4]]
    with pytest.raises(ValueError, match=r"1 of 20 test samples.*OxfordIIITPet:test\[4\]"):
        data.test_split().images(range(20))


@pytest.mark.parametrize("kind", DAMAGE)
def test_whatever_a_damaged_file_raises_is_a_bad_sample(kind: type[Exception]) -> None:
    class Damaged:
        def __getitem__(self, index: int) -> Any:
            raise kind("planted")

    with pytest.raises(BadSampleError, match=f"{kind.__name__}: planted"):
        DatasetSource(Damaged(), None, None, 3, "d", Path()).read(0)


@pytest.mark.parametrize(
    "name", ["MNIST", "CIFAR10", "CIFAR100", "STL10", "EuroSAT", "OxfordIIITPet", "Flowers102", "SVHN", "DTD"]
)
def test_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{name} is not in .*data\.download=true"):
        torchvision_dataset(name, tmp_path, size=[8, 8])


def test_a_name_that_torchvision_lacks(tmp_path: Path) -> None:
    for name in ("FashionMnist", "folder"):
        with pytest.raises(ValueError, match=f"no data set '{name}'; it has .*FashionMNIST"):
            torchvision_dataset(name, tmp_path)


def test_no_data_root() -> None:
    for make in (lambda: torchvision_dataset("MNIST", "None/mnist"), lambda: cifar10("None/cifar10")):
        with pytest.raises(ValueError, match="SSL_FRAMEWORK_DATA"):
            make()


def test_download_is_asked_for_only_when_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    asked: list[Any] = []

    def refuse(self: Any, root: str, train: bool = True, download: bool = False) -> None:
        asked.append(download)
        raise RuntimeError("planted")

    monkeypatch.setattr(MNIST, "__init__", refuse)
    for download, remedy in ((False, "data.download=true"), (True, "the download failed")):
        with pytest.raises(FileNotFoundError, match=remedy):
            torchvision_dataset("MNIST", tmp_path, download)
    assert asked == [False, True]


def test_cifar10_falls_to_torchvisions_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    given: list[Any] = []
    monkeypatch.setattr(
        import_module("ssl_framework.data.cifar10"), "torchvision_dataset", lambda *a, **k: given.append((a, k)) or "module"
    )
    made: DataModule | str = cifar10(tmp_path, batch_size=8)
    assert made == "module"
    assert given == [(("CIFAR10", tmp_path, False), {"batch_size": 8})]
