"""A data set as one tensor: the batches are those of its source."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_framework.data import cache as cache_module
from ssl_framework.data import resident
from ssl_framework.data.arrays import ArraySource
from ssl_framework.data.cache import CachedSource
from ssl_framework.data.encoded import fit
from ssl_framework.data.folder import FolderSource
from ssl_framework.data.order import EndlessOrder
from ssl_framework.data.resident import ResidentSource
from ssl_framework.data.split import BulkSource, Part
from ssl_framework.data.stream import BatchStream
from ssl_framework.types import BadSampleError, Batch, Source

CPU = torch.device("cpu")
N, SIZE = 30, (5, 7)
NOISE = np.random.default_rng(0).integers(0, 256, (N, *SIZE, 3), np.uint8)


@pytest.fixture(autouse=True)
def small_caches_may_hold_damage(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_module, "LIMIT", 0.5)


def write(root: Path, bad: tuple[int, ...] = (), other: tuple[int, ...] = ()) -> FolderSource:
    root.mkdir()
    for i, pixels in enumerate(NOISE):
        image = Image.fromarray(pixels if i not in other else np.concatenate([pixels] * 2))
        image.save(root / f"{i:02}.png")
        if i in bad:
            (root / f"{i:02}.png").write_bytes(b"no image")
    return FolderSource(root)


def make(kind: str, root: Path) -> Source:
    if kind == "map":
        np.save(root / "a.npy", NOISE)
        return ArraySource(np.load(root / "a.npy", mmap_mode="r"))
    if kind == "files":
        return write(root / "photos")
    if kind == "cache":
        return CachedSource(write(root / "photos", bad=(4,)), SIZE, root / "cache")
    if kind == "files, some bad":
        return write(root / "photos", bad=(4, 20))
    return ArraySource({"grey": NOISE[..., 0], "last": NOISE, "first": np.moveaxis(NOISE, 3, 1)}[kind])


def batches(source: Source) -> list[Batch]:
    return list(islice(BatchStream(source, EndlessOrder(len(source), 8, 0), size=SIZE), 10))


@pytest.mark.parametrize("kind", ["grey", "last", "first", "map", "files", "files, some bad", "cache"])
def test_the_batches_are_those_of_the_source(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resident, "_CHUNK", 7)
    source = make(kind, tmp_path)
    held = ResidentSource(source, SIZE, CPU)
    found = batches(held)
    for ours, theirs in zip(found, batches(source), strict=True):
        assert torch.equal(ours.input, theirs.input)
        assert torch.equal(ours.index, theirs.index)
        assert (ours.bad is None) == (theirs.bad is None)
        assert ours.bad is None or theirs.bad is None or torch.equal(ours.bad, theirs.bad)
        assert ours.input.permute(0, 2, 3, 1).is_contiguous()  # channels last in memory
    assert any(batch.bad is not None for batch in found) == (kind in {"cache", "files, some bad"})


@pytest.mark.parametrize("kind", ["files, some bad", "cache"])
def test_what_is_unreadable_is_noted(kind: str, tmp_path: Path):
    source = make(kind, tmp_path)
    held = ResidentSource(source, SIZE, CPU)
    assert sorted(held.unreadable) == ([4] if kind == "cache" else [4, 20])
    with pytest.raises(BadSampleError, match="no image of a kind"):
        held.read(4)
    assert torch.equal(held.read(5), source.read(5))


def test_it_is_a_bulk_source_with_the_facts_of_its_source():
    source = ArraySource(NOISE, np.arange(N) % 3, ["x", "y", "z"], name="noise")
    held = ResidentSource(source, SIZE, CPU)
    assert isinstance(held, BulkSource)
    assert (held.size, held.channels, len(held), held.classes, held.name(3)) == (SIZE, 3, N, ("x", "y", "z"), "noise[3]")
    assert held.targets is source.targets
    assert not held.on_disk
    assert torch.equal(held.read(3), source.read(3))


def test_a_few_images_of_another_size_are_brought_to_the_common_one(tmp_path: Path):
    source = write(tmp_path / "photos", other=(2, 9))
    held = ResidentSource(source, SIZE, CPU)
    expected = [fit(source.read(i), SIZE) if i in {2, 9} else source.read(i) for i in range(N)]
    assert torch.equal(held.read_many(np.arange(N)), torch.stack(expected))


def test_a_part_reads_its_rows_of_the_whole_tensor():
    rows = np.array([7, 3, 29, 12, 0, 4, 5, 6, 9])
    whole: Any = ArraySource(NOISE)
    part = Part(ResidentSource(whole, SIZE, CPU), rows)
    for ours, theirs in zip(batches(part), batches(Part(whole, rows)), strict=True):
        assert torch.equal(ours.input, theirs.input)


def test_later_changes_of_the_array_do_not_reach_it():
    images = NOISE.copy()
    held = ResidentSource(ArraySource(images), SIZE, CPU)
    images[:] = 0
    assert torch.equal(held.read_many(np.array([1])), torch.from_numpy(NOISE[1:2]).permute(0, 3, 1, 2))
