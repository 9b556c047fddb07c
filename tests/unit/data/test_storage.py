"""Which road images take, and that a view is the same on all of them."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_framework import machine
from ssl_framework.data import ArraySource, DataModule, folder
from ssl_framework.data.ahead import ReadAhead
from ssl_framework.data.folder import FolderSource
from ssl_framework.data.resident import ResidentSource
from ssl_framework.data.storage import Storage
from ssl_framework.data.stream import BatchStream
from ssl_framework.views import two_crops

CPU = torch.device("cpu")
FACTS: dict[str, Any] = {"batch_size": 8, "val_share": 0, "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty JPEG files of one size."""
    return write(tmp_path / "photos", [(40, 48)] * 20)


def write(root: Path, sizes: list[tuple[int, int]]) -> Path:
    root.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        small = Image.fromarray(noise.integers(0, 255, (6, 6, 3), np.uint8))
        small.resize(size[::-1], Image.Resampling.BICUBIC).save(root / f"{number:02}.jpg", quality=95)
    return root


def open_folder(root: Path, size: int = 32, **options: Any) -> DataModule:
    data = folder(root, size=[size, size], **FACTS, **options)
    data.attach(two_crops((size, size), FACTS["mean"], FACTS["std"]))
    return data


def views_of(data: DataModule, batches: int = 3) -> torch.Tensor:
    assert data._views is not None
    made = [data._views.apply(batch, batch.draw) for batch in islice(data.train_dataloader(), batches)]
    return torch.stack([views.global_crops for views in made])


def test_images_of_one_size_have_the_same_views_on_every_road(photos: Path):
    roads = [{}, {"resident": False}, {"resident": False, "workers": 0}, {"workers": 2}]
    loaders = [BatchStream, ReadAhead, ReadAhead, torch.utils.data.DataLoader]
    made = []
    for options, loader in zip(roads, loaders, strict=True):
        data = open_folder(photos, **options)
        assert type(data.train_dataloader()) is loader
        made.append(views_of(data))
    assert all(torch.equal(made[0], other) for other in made[1:])


def test_a_cache_of_the_same_size_has_the_same_views(photos: Path, tmp_path: Path):
    cached = open_folder(photos, cache=True, cache_dir=str(tmp_path / "cache"))
    assert torch.equal(views_of(cached), views_of(open_folder(photos)))
    assert [file.suffix for file in sorted((tmp_path / "cache").iterdir()) if file.suffix != ".lock"] == [".json", ".npy"]


def test_large_images_of_one_size_are_cropped_as_they_are_decoded_whatever_memory_is_free(photos: Path):
    for options in ({}, {"workers": 1}):
        data = open_folder(photos, size=16, **options)  # 40 x 48 is more than four times 16 x 16
        batch = next(iter(data.train_dataloader()))
        assert batch.crops is not None


def test_what_does_not_fit_a_quarter_of_the_memory_is_not_held(photos: Path, monkeypatch: pytest.MonkeyPatch):
    needed = 20 * 3 * 40 * 48
    for free, held in ((4 * needed, True), (4 * needed - 4, False)):
        monkeypatch.setattr(machine, "free_memory", lambda device, free=free: free)
        assert isinstance(open_folder(photos).train_dataloader(), BatchStream if held else ReadAhead)
    monkeypatch.setattr(machine, "free_memory", lambda device: 4 * needed)
    storage = Storage("n", cache=False, cache_size=None, cache_dir=None, resident=None, workers=None)
    source = open_folder(photos).train
    assert isinstance(storage.place(source, CPU, 1, None).source, ResidentSource)
    monkeypatch.setattr(machine, "free_memory", lambda device: 3 * needed)
    assert isinstance(storage.place(source, CPU, 1, None).source, ResidentSource)  # it is held already: that cost the memory
    storage = Storage("n", cache=False, cache_size=None, cache_dir=None, resident=None, workers=None)
    monkeypatch.setattr(machine, "free_memory", lambda device: 4 * needed)
    assert storage.place(source, CPU, 2, None).source is source  # two processes share the memory


def test_processes_of_a_host_share_its_cores(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    storage = Storage("n", cache=False, cache_size=None, cache_dir=None, resident=False, workers=None)
    source = open_folder(photos).train
    for processes, share in ((1, 8), (2, 4), (3, 2), (16, 1)):
        assert storage.place(source, CPU, processes, None).threads == share
        assert storage.place(source, torch.device("cuda"), processes, None).processes == share


def test_images_that_are_too_large_to_be_held_whole_are_told_so(photos: Path):
    with pytest.raises(ValueError, match=r"more than 4 times the pixels of a view.*data\.cache=true and a data\.cache_size"):
        open_folder(photos, size=16, resident=True).train_dataloader()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cache_size": 40}, "cache_size=40 is the size of a cache, and there is none: give data.cache=true"),
        ({"cache": True, "cache_size": [40]}, r"cache_size=\[40\] is no height and width"),
        ({"cache": True, "cache_size": 0}, "cache_size=0 is no height and width"),
    ],
)
def test_a_size_of_the_cache_that_is_none(photos: Path, options: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=named):
        open_folder(photos, **options)


def test_images_that_are_decoded_already_take_no_size_of_a_cache(tmp_path: Path):
    source = ArraySource(np.zeros((30, 4, 4), np.uint8))
    options: dict[str, Any] = {"batch_size": 8, "name": "n", "val_share": 0, "mean": [0.5], "std": [0.5]}
    assert DataModule(source, cache=True, **options).train is source
    with pytest.raises(ValueError, match=r"cache_size=\[8, 8\]: the images of n are decoded already"):
        DataModule(source, cache=True, cache_size=8, **options)


def test_unreadable_images_of_a_cache_are_replaced_where_they_are_measured(tmp_path: Path):
    """Zeros stand in their place in the file: they are no images."""
    for label in range(2):
        write(tmp_path / "photos" / f"class{label}", [(40, 48)] * 120)
    (tmp_path / "photos" / "class1" / "003.jpg").write_bytes(b"no image")
    roads = []
    for options in ({"resident": False}, {"cache": True, "cache_dir": str(tmp_path / "cache")}):
        data = folder(tmp_path / "photos", size=[40, 48], **{**FACTS, "mean": None, "std": None}, **options)
        train = data.split("train")
        with pytest.warns(UserWarning, match=r"003.jpg cannot be read .* and is replaced"):
            images = train.images(range(len(train)))
        roads.append((images, data.facts.mean, data.facts.std, sorted(data.bad_samples.rows)))
    (images, mean, std, bad), (cached, cached_mean, cached_std, cached_bad) = roads
    assert len(bad) == 1
    assert cached_bad == bad
    assert torch.equal(cached, images)
    assert images.flatten(1).amax(1).min() > 0  # none is black
    assert cached_mean == pytest.approx(mean, abs=1e-6)
    assert cached_std == pytest.approx(std, abs=1e-6)


def test_mixed_sizes_cannot_be_resident_and_need_a_size_to_be_cached(tmp_path: Path):
    root = write(tmp_path / "mixed", [(40, 48), (50, 30)] * 10)
    assert isinstance(open_folder(root).train_dataloader(), ReadAhead)
    with pytest.raises(ValueError, match=r"resident=true needs images of one size.*data\.cache=true"):
        open_folder(root, resident=True).train_dataloader()
    with pytest.raises(ValueError, match=r"differ in size.*data\.cache_size"):
        open_folder(root, cache=True, cache_dir=str(tmp_path / "cache"))
    data = open_folder(root, cache=True, cache_size=40, cache_dir=str(tmp_path / "cache"))
    assert data.facts.size == (32, 32)
    assert data.train.size == (40, 40)
    assert views_of(data).shape == (3, 2, 8, 3, 32, 32)
    other = open_folder(root)
    with pytest.raises(ValueError, match=r"cache_size is None and was \[40, 40\]"):
        other.load_state_dict(data.state_dict())


def test_decoded_images_need_no_loader_and_a_mapped_file_neither(tmp_path: Path):
    images = np.arange(30 * 16, dtype=np.int64).astype(np.uint8).reshape(30, 4, 4)
    np.save(tmp_path / "a.npy", images)
    for source in (images, np.load(tmp_path / "a.npy", mmap_mode="r")):
        data = DataModule(ArraySource(source), batch_size=8, name="n", val_share=0)
        assert isinstance(data.train_dataloader(), BatchStream)


def test_an_unreadable_image_is_named_and_replaced_on_every_road(tmp_path: Path):
    root = write(tmp_path / "photos", [(40, 48)] * 120)
    (root / "03.jpg").write_bytes(b"no image")
    seen = []
    for options in ({}, {"resident": False}, {"cache": True, "cache_dir": str(tmp_path / "cache")}):
        data = open_folder(root, **options)
        batches = list(islice(data.train_dataloader(), 15))
        bad = [index for batch in batches if batch.bad is not None for index in batch.bad.tolist()]
        assert bad == [3]
        seen.append(torch.cat([batch.index for batch in batches]))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_the_road_is_told_in_one_line(photos: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture):
    for options, told in (
        ({}, "20 images of 40 x 48 resident on cpu"),
        ({"resident": False}, "20 images in files, decoded whole by"),
    ):
        caplog.clear()
        with caplog.at_level("INFO"):
            open_folder(photos, **options).train_dataloader()
        said = [record.getMessage() for record in caplog.records if told in record.getMessage()]
        assert len(said) == 1
    del capsys


def test_splits_carved_from_one_folder_share_one_cache(tmp_path: Path, kit: Any, monkeypatch: pytest.MonkeyPatch):
    for i in range(20):
        kit.picture(tmp_path / "photos" / f"class{i % 2}" / f"{i:02}.png", value=10 * i)
    reads: list[int] = []
    read = FolderSource.read
    monkeypatch.setattr(FolderSource, "read", lambda source, index: reads.append(index) or read(source, index))
    options: dict[str, Any] = {"cache": True, "cache_dir": str(tmp_path / "cache"), "batch_size": 4, "val_share": 0.2}
    data = folder(tmp_path / "photos", size=(6, 8), mean=[0.5] * 3, std=[0.5] * 3, **options)
    values = [data.split(name).images(range(len(data.split(name))))[:, 1, 0, 0].tolist() for name in ("train", "val", "test")]
    assert [len(part) for part in values] == [12, 4, 4]
    assert sorted(v for part in values for v in part) == [10 * i for i in range(20)]
    assert sorted(reads) == list(range(20))
    assert sorted(file.suffix for file in (tmp_path / "cache").iterdir()) == [".json", ".lock", ".npy"]
