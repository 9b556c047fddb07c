"""What sources of encoded images have in common: their size, their state, and all of them decoded."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from ssl_framework import machine
from ssl_framework.data import encoded
from ssl_framework.data.encoded import EncodedSource, Identity, common_size, decoded, fit, state_of
from ssl_framework.data.folder import FolderSource
from ssl_framework.types import BadSampleError
from support import in_a_child


class Sizes:
    """Images of these sizes, each filled with its number; None: it cannot be read. Notes whose size was asked for."""

    targets, classes, size, channels = None, None, None, 1

    def __init__(self, sizes: list[tuple[int, int] | None]) -> None:
        self.sizes = sizes
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.sizes)

    def size_of(self, index: int) -> tuple[int, int]:
        self.asked.append(index)
        size = self.sizes[index]
        if size is None:
            raise BadSampleError(f"planted {index}")
        return size

    def read(self, index: int) -> Tensor:
        return torch.full((1, *self.size_of(index)), index % 251, dtype=torch.uint8)

    def read_reduced(self, index: int, reduction: Any) -> tuple[Tensor, tuple[int, int]]:
        return self.read(index), self.size_of(index)

    def identity(self) -> Identity:
        return Identity("nowhere", "")

    def name(self, index: int) -> str:
        return f"image {index}"


def test_the_size_of_images_that_have_one():
    source = Sizes([(3, 4)] * 300)
    assert isinstance(source, EncodedSource)
    assert common_size(source) == (3, 4)
    assert len(source.asked) == len(set(source.asked)) == 256


@pytest.mark.parametrize("place", [0, 100, 255])
@pytest.mark.parametrize("other", [(4, 3), (3, 5)])
def test_one_other_size_among_few_images_is_seen(place: int, other: tuple[int, int]):
    sizes: list[tuple[int, int] | None] = [(3, 4)] * 256
    sizes[place] = other
    assert common_size(Sizes(sizes)) is None


def test_the_size_skips_what_cannot_be_read():
    assert common_size(Sizes([None, (3, 4), None, (3, 4)])) == (3, 4)


def test_of_nothing_that_can_be_read_there_is_no_size():
    with pytest.raises(ValueError, match="None of the 2 samples that were tried can be read"):
        common_size(Sizes([None, None]))


def test_the_same_images_are_probed_in_every_process(tmp_path: Path):
    here = Sizes([(3, 4)] * 1000)
    common_size(here)

    def there() -> None:
        torch.manual_seed(os.getpid())
        np.random.seed(1)
        source = Sizes([(3, 4)] * 1000)
        common_size(source)
        (tmp_path / "asked").write_text(repr(source.asked))

    assert in_a_child(there) == 0
    assert (tmp_path / "asked").read_text() == repr(here.asked)
    assert here.asked != sorted(here.asked)  # files often lie sorted by class


CHANGES: dict[str, Callable[[Path], object]] = {
    "name": lambda root: (root / "a.png").rename(root / "c.png"),
    "size": lambda root: [(root / "a.png").write_bytes(b"123456"), os.utime(root / "a.png", ns=(5, 5))],
    "time": lambda root: os.utime(root / "a.png", ns=(5, 6)),
    "one less": lambda root: (root / "a.png").unlink(),
    "one more": lambda root: (root / "c.png").write_bytes(b""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_changes_with_names_sizes_and_times(tmp_path: Path, change: str):
    def state(root: Path = tmp_path) -> str:
        return state_of(root, sorted(path.relative_to(root) for path in root.iterdir()))

    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"12345")
        os.utime(tmp_path / name, ns=(5, 5))
    before = state()
    (tmp_path / "a.png").read_bytes()
    os.utime(tmp_path / "a.png", ns=(9, 5))  # read at another time
    assert state() == before
    CHANGES[change](tmp_path)
    assert state() != before


def test_a_state_says_nothing_of_how_images_are_read(tmp_path: Path, kit: Any):
    root = tmp_path / "photos"
    for name in ("b/2.png", "a/1.png", "a/0.png"):
        kit.picture(root / name)
    colour, grey = FolderSource(root), FolderSource(root, channels=1, labels=False)
    for index in (2, 0, 1):
        colour.read(index)
    before = colour.identity()
    assert before == grey.identity()
    moved = root.rename(tmp_path / "elsewhere")
    assert FolderSource(moved).identity() == Identity(str(moved), before.state)


@pytest.mark.parametrize("at_once", [1, 2, 5, 1000])
def test_all_images_come_in_their_order_and_the_unreadable_are_named(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoded, "_CHUNK", at_once * 6)
    source = Sizes([None if i in {0, 7, 21} else (2, 3) if i % 2 else (9, 5) for i in range(22)])
    bad: dict[int, str] = {}
    parts = list(decoded(source, (2, 3), bad, "test"))
    assert [len(part) for part in parts[:-1]] == [at_once] * (len(parts) - 1)
    images = np.concatenate(parts)
    assert images.dtype == np.uint8
    assert images.shape == (22, 2, 3, 1)
    assert images.reshape(22, -1).tolist() == [[0 if i in {7, 21} else i] * 6 for i in range(22)]
    assert bad == {i: f"planted {i}" for i in (0, 7, 21)}


def test_images_are_decoded_by_all_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "cores", lambda: 2)
    meet = threading.Barrier(2)

    class Meeting(Sizes):
        def read(self, index: int) -> Tensor:
            if index % 4 == 0:
                meet.wait(timeout=20)  # for another thread
            return super().read(index)

    assert sum(len(part) for part in decoded(Meeting([(2, 3)] * 8), (2, 3), {}, "test")) == 8


def test_what_is_no_damage_is_seen():
    class Longer(Sizes):
        def __len__(self) -> int:
            return len(self.sizes) + 2

    with pytest.raises(IndexError):
        list(decoded(Longer([(2, 3)] * 3), (2, 3), {}, "test"))


@pytest.mark.parametrize("sides", [(7, 5), (40, 61), (3, 200), (200, 3), (1, 1), (10, 13), (11, 14), (333, 431)])
@pytest.mark.parametrize("size", [(10, 13), (13, 10), (1, 9)])
def test_any_image_is_brought_to_any_size(sides: tuple[int, int], size: tuple[int, int]):
    image = torch.full((3, *sides), 77, dtype=torch.uint8)
    found = fit(image, size)
    assert found.shape == (3, *size)
    assert found.dtype == torch.uint8
    assert (found == 77).all()  # nothing is filled up


def test_the_centre_is_kept_and_the_sides_keep_their_ratio():
    ramp = torch.arange(90).expand(1, 30, 90).to(torch.uint8)  # (1, 30, 90), each column its number
    assert torch.equal(fit(ramp, (30, 30)), ramp[:, :, 30:60])
    assert torch.equal(fit(ramp.mT, (30, 30)), ramp.mT[:, 30:60])
    half = fit(ramp, (15, 15))[0, 7].float()  # columns 30 to 59, by twos
    assert (half - torch.arange(30.5, 60, 2)).abs().max() <= 0.5


def test_what_is_made_smaller_is_averaged():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (1, 64, 64), np.uint8)) * 255
    assert fit(noise, (8, 8)).float().std() < 30  # of black and white: 127; without antialiasing 60


@pytest.mark.parametrize("shape", [(1, 2_000_000), (2_000_000, 1)])
def test_a_line_is_fitted_without_filling_the_memory(shape: tuple[int, int]):
    """Resized whole it would have 96 times two million times 96 pixels."""
    line = torch.arange(2_000_000, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(1, *shape)
    assert fit(line, (96, 96)).shape == (1, 96, 96)


def test_what_is_not_so_long_is_fitted_as_before():
    image = torch.randint(0, 256, (3, 10, 150), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = tv.center_crop(tv.resize(image, [8, 120], antialias=True), [8, 8])
    assert torch.equal(fit(image, (8, 8)), whole)
