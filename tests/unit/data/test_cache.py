"""The cache on the disk: its pixels, when it is taken and when it is made anew, and what goes wrong while it is made."""

import errno
import json
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import filelock
import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_framework.data import cache as cache_module
from ssl_framework.data import encoded
from ssl_framework.data.cache import CachedSource, cache_folder
from ssl_framework.data.decode import decode
from ssl_framework.data.encoded import EncodedSource, Identity, fit
from ssl_framework.data.folder import FolderSource
from ssl_framework.types import BadSampleError
from support import in_a_child

SIZE = (6, 8)
SIZES = [(6, 8), (12, 10), (5, 9), (6, 8), (20, 7), (6, 8), (9, 9)]


class Photos:
    """Images of mixed sizes that lie nowhere; each read leaves a byte in a file, so that reads of all processes count."""

    targets, classes, size = None, None, None

    def __init__(self, log: Path, state: str = "a", bad: tuple[int, ...] = (), channels: int = 3) -> None:
        self.log, self.state, self.bad, self.channels = log, state, bad, channels
        self.before: Callable[[int], object] = lambda index: None

    def __len__(self) -> int:
        return len(SIZES)

    def image(self, index: int) -> Tensor:
        noise = np.random.default_rng([index, *self.state.encode()])
        return torch.from_numpy(noise.integers(0, 256, (self.channels, *SIZES[index]), np.uint8))

    def read(self, index: int) -> Tensor:
        self.before(index)
        with self.log.open("ab") as file:
            file.write(b".")
        if index in self.bad:
            raise BadSampleError(f"planted {index}")
        return self.image(index)

    def read_reduced(self, index: int, reduction: Any) -> tuple[Tensor, tuple[int, int]]:
        return self.read(index), SIZES[index]

    def size_of(self, index: int) -> tuple[int, int]:
        return SIZES[index]

    def identity(self) -> Identity:
        return Identity("/some/photos", self.state * 32)

    def name(self, index: int) -> str:
        return f"photo {index}"

    @property
    def reads(self) -> int:
        return len(self.log.read_bytes()) if self.log.exists() else 0


class Kit(NamedTuple):
    folder: Path
    photos: Callable[..., Photos]

    def open(self, source: EncodedSource | None = None, size: tuple[int, int] = SIZE) -> CachedSource:
        return CachedSource(source or self.photos(), size, self.folder)

    def files(self) -> list[str]:
        return sorted(file.suffix for file in self.folder.iterdir() if file.suffix != ".lock")

    def one(self, suffix: str) -> Path:
        (file,) = self.folder.glob(f"*{suffix}")
        return file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A folder for caches, and sources that write to one log; three images are decoded and written at a time."""
    monkeypatch.setattr(encoded, "_CHUNK", 3 * 3 * SIZE[0] * SIZE[1])
    return Kit(tmp_path / "cache", lambda *args, **options: Photos(tmp_path / "log", *args, **options))


def pixels(source: CachedSource) -> Tensor:
    return source.read_many(np.arange(len(source)))


def expected(source: Any, size: tuple[int, int] = SIZE) -> Tensor:
    images = [source.image(index) for index in range(len(source))]
    return torch.stack([image if image.shape[1:] == size else fit(image, size) for image in images])


def said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


def test_pixels_are_those_of_the_source_brought_to_one_size(here: Kit):
    assert isinstance(here.photos(), EncodedSource)
    cached = here.open()
    assert torch.equal(pixels(cached), expected(here.photos()))
    assert torch.equal(cached.read(4), expected(here.photos())[4])
    assert torch.equal(cached[0], here.photos().image(0))  # of the size already: to the bit
    assert (cached.size, cached.channels, len(cached), cached.name(2)) == (SIZE, 3, 7, "photo 2")


def test_files_are_cached_as_they_are_decoded(here: Kit, tmp_path: Path, kit: Any):
    paths = [kit.picture(tmp_path / "photos" / f"{i}.jpg", value=40 * i, size=(20, 30)) for i in range(4)]
    cached = here.open(FolderSource(tmp_path / "photos"), (20, 30))
    assert torch.equal(pixels(cached), torch.stack([decode(path, 3) for path in paths]))


def test_the_manifest_says_what_the_array_is(here: Kit, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_module, "LIMIT", 0.5)
    here.open(here.photos(bad=(2,))).open()
    manifest, images = json.loads(here.one(".json").read_text()), here.one(".npy")
    assert manifest.pop("written").startswith("20")
    assert manifest == {
        "version": cache_module.VERSION,
        "place": "/some/photos",
        "state": "a" * 32,
        "shape": [7, *SIZE, 3],
        "bytes": images.stat().st_size,
        "bad": {"2": "planted 2"},
    }
    assert np.load(images).shape == (7, *SIZE, 3)  # numpy reads it too


def test_a_second_opening_decodes_nothing(here: Kit, caplog: pytest.LogCaptureFixture):
    first, second = here.open(), here.open()
    with caplog.at_level("INFO"):
        assert torch.equal(pixels(first), pixels(second))
    assert here.photos().reads == 7
    assert said(caplog, "cache: 7 images decoded to 6 x 8") == 1


@pytest.mark.parametrize("change", ["touched", "replaced", "added"])
def test_a_changed_folder_is_noticed(here: Kit, tmp_path: Path, kit: Any, change: str, caplog: pytest.LogCaptureFixture):
    root = tmp_path / "photos"
    for i in range(3):
        kit.picture(root / f"{i}.png", value=40 * i)
    old = here.open(FolderSource(root))
    before = pixels(old).clone()
    if change == "touched":
        os.utime(root / "1.png", ns=(1, 1))
    elif change == "replaced":
        kit.picture(root / "1.png", value=200)
    else:
        kit.picture(root / "3.png", value=200)
    new = here.open(FolderSource(root))
    with caplog.at_level("INFO"):
        found = pixels(new)
    assert torch.equal(found, torch.stack([decode(path, 3) for path in sorted(root.iterdir())]))
    now = 4 if change == "added" else 3
    assert said(caplog, f"{root.resolve()} has changed since") == said(caplog, f"(3 images then, {now} now)") == 1
    assert here.files() == [".json", ".npy"]  # those of the state before are gone
    assert torch.equal(pixels(old), before)  # who has them open keeps them


def test_another_size_or_number_of_channels_is_another_cache(here: Kit):
    sizes = [here.open(), here.open(size=(8, 6)), here.open(here.photos(channels=1))]
    found = [pixels(cached) for cached in sizes]
    assert [tuple(images.shape[1:]) for images in found] == [(3, 6, 8), (3, 8, 6), (1, 6, 8)]
    assert torch.equal(found[2], expected(here.photos(channels=1)))
    assert here.files() == [".json"] * 3 + [".npy"] * 3
    assert here.photos().reads == 21
    assert torch.equal(pixels(here.open()), found[0])
    assert here.photos().reads == 21  # none has driven out another


@pytest.mark.parametrize("when", ["in the middle", "before the manifest"])
def test_a_kill_leaves_nothing_that_is_taken_for_a_cache(here: Kit, when: str):
    source = here.photos()

    def kill(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def make() -> None:
        if when == "in the middle":
            source.before = lambda index: kill() if index == 4 else None
        else:
            cache_module._Files.write_manifest = kill  # in the child only
        here.open(source).open()

    assert os.WTERMSIG(in_a_child(make)) == signal.SIGKILL
    assert here.files() == ([".part"] if when == "in the middle" else [".npy"])
    assert torch.equal(pixels(here.open()), expected(here.photos()))
    assert here.files() == [".json", ".npy"]


def test_two_processes_at_once_decode_once(here: Kit):
    context = multiprocessing.get_context("fork")
    together = context.Barrier(2)

    def use() -> None:
        source = here.photos()
        source.before = lambda index: time.sleep(0.03)
        together.wait(timeout=20)
        assert torch.equal(pixels(here.open(source)), expected(source))

    children = [context.Process(target=use) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=30)
    assert [child.exitcode for child in children] == [0, 0]
    assert here.photos().reads == 7


def test_the_lock_is_let_go(here: Kit, monkeypatch: pytest.MonkeyPatch):
    made: list[filelock.FileLock] = []

    def lock(file: Path) -> filelock.FileLock:
        made.append(filelock.FileLock(file))
        return made[-1]

    monkeypatch.setattr(cache_module, "FileLock", lock)
    here.open().open()
    assert [lock.is_locked for lock in made] == [False]


def cut_images(kit: Kit) -> None:
    os.truncate(kit.one(".npy"), kit.one(".npy").stat().st_size - 1)


def replace(old: bytes, new: bytes) -> Callable[[Kit], None]:
    def change(kit: Kit) -> None:
        whole = kit.one(".npy").read_bytes()
        assert old in whole
        kit.one(".npy").write_bytes(whole.replace(old, new, 1))

    return change


def say(**other: Any) -> Callable[[Kit], None]:
    def change(kit: Kit) -> None:
        manifest = json.loads(kit.one(".json").read_text()) | other
        kit.one(".json").write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))

    return change


DAMAGE: dict[str, Callable[[Kit], object]] = {
    "array truncated": cut_images,
    "array gone": lambda kit: kit.one(".npy").unlink(),
    "header damaged": replace(b"'shape'", b"'shap('"),
    "header left open": replace(b"}", b"("),
    "header of fewer images": replace(b"(7, 6, 8, 3)", b"(3, 6, 8, 3)"),
    "header of another type": replace(b"|u1", b"|i1"),
    "manifest gone": lambda kit: kit.one(".json").unlink(),
    "manifest empty": lambda kit: kit.one(".json").write_text(""),
    "manifest truncated": lambda kit: os.truncate(kit.one(".json"), 40),
    "manifest of zeros": lambda kit: kit.one(".json").write_bytes(b"\xff\x00" * 40),
    "manifest a list": lambda kit: kit.one(".json").write_text("[]"),
    "manifest without a key": say(bad=None),
    "other bytes": say(bytes=1),
    "other state": say(state="b" * 32),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_made_anew(here: Kit, damage: str, caplog: pytest.LogCaptureFixture):
    here.open().open()
    DAMAGE[damage](here)
    with caplog.at_level("INFO"):
        assert torch.equal(pixels(here.open()), expected(here.photos()))
    assert here.photos().reads == 14
    assert said(caplog, "has changed") == 0  # the data have not
    assert here.files() == [".json", ".npy"]
    assert torch.equal(pixels(here.open()), expected(here.photos()))
    assert here.photos().reads == 14


def test_a_damaged_manifest_of_the_state_before_goes_too(here: Kit):
    here.open().open()
    here.one(".json").write_text("{")
    changed = here.photos("b")
    assert torch.equal(pixels(here.open(changed)), expected(changed))
    assert here.files() == [".json", ".npy"]


FULL_DISK = r"needs 0\.00 GB, and .*cache has .* GB free: make room, give data\.cache_dir=FOLDER.*smaller data\.cache_size"


def test_too_little_room_is_said_before_anything_is_decoded(here: Kit, monkeypatch: pytest.MonkeyPatch):
    usage = SimpleNamespace(free=7 * 3 * 48 + cache_module._SPARE - 1)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: usage)
    here.folder.mkdir()
    half = cache_module._Files(here.photos("b"), SIZE, here.folder).images.with_suffix(".part")
    half.write_bytes(b"left by a kill, and it takes room")
    with pytest.raises(ValueError, match=FULL_DISK):
        here.open().open()
    assert here.photos().reads == 0
    assert here.files() == []
    usage.free += 1
    here.open().open()


def fails(function: Callable[..., Any], number: int, at: int) -> Callable[..., Any]:
    """The function, whose call number `at` finds this error."""
    calls = iter(range(at + 1))

    def failing(*args: Any, **options: Any) -> Any:
        if next(calls) == at:
            raise OSError(number, os.strerror(number))
        return function(*args, **options)

    return failing


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("written", ["images", "manifest"])
def test_a_disk_that_fails_while_it_is_written_to(here: Kit, number: int, written: str, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        if written == "images":
            patch.setattr(cache_module, "_write", fails(cache_module._write, number, at=1))
        else:
            patch.setattr(cache_module.json, "dump", fails(json.dump, number, at=0))
        if number == errno.EIO:  # nothing that room would mend
            with pytest.raises(OSError, match=os.strerror(number)):
                here.open().open()
        else:
            with pytest.raises(ValueError, match=FULL_DISK):
                here.open().open()
    assert here.files() == []
    assert torch.equal(pixels(here.open()), expected(here.photos()))


@pytest.mark.parametrize("below", [".", "deeper"])
def test_a_folder_that_cannot_be_made(here: Kit, below: str):
    here.folder.write_text("a file")
    with pytest.raises(ValueError, match=r"No cache can be made in .*cache.*: give data\.cache_dir=FOLDER"):
        CachedSource(here.photos(), SIZE, here.folder / below).open()
    assert here.folder.read_text() == "a file"


def test_unreadable_samples_are_noted_and_refused(here: Kit, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_module, "LIMIT", 0.5)
    for cached in (here.open(here.photos(bad=(1, 5))), here.open(here.photos())):  # made, then taken from the disk
        assert cached.unreadable == {1: "planted 1", 5: "planted 5"}
        with pytest.raises(BadSampleError, match="planted 5"):
            cached.read(5)
        assert pixels(cached)[[1, 5]].sum() == 0
        assert torch.equal(cached.read(6), expected(here.photos())[6])
    assert here.photos().reads == 7


def test_a_cache_of_mostly_nothing_is_not_kept(here: Kit):
    with pytest.raises(ValueError, match=r"2 of 7 images of /some/photos cannot be read, more than 1%.*photo 1 \(planted"):
        here.open(here.photos(bad=(1, 5))).open()
    assert here.files() == []


@pytest.mark.parametrize(("number", "passes"), [(errno.EIO, True), (errno.EMFILE, True), (errno.EACCES, False)])
def test_what_a_disk_cannot_read_now_is_no_damage(here: Kit, number: int, passes: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_module, "LIMIT", 0.5)
    source = here.photos()

    def fail(index: int) -> None:
        if index == 4:
            raise BadSampleError("broken") from OSError(number, os.strerror(number))

    source.before = fail
    if passes:
        with pytest.raises(OSError, match="photo 4 cannot be read now"):
            here.open(source).open()
        assert here.files() == []
    else:
        assert here.open(source).unreadable == {4: "broken"}


def test_a_pickled_copy_carries_no_pixels_and_maps_the_file_itself(here: Kit, tmp_path: Path, kit: Any):
    kit.picture(tmp_path / "photos" / "a.png")
    cached = here.open(FolderSource(tmp_path / "photos"), (200, 200))
    whole = pixels(cached)
    data = pickle.dumps(cached)
    assert len(data) < 2_000 < whole.numel()
    assert torch.equal(pixels(pickle.loads(data)), whole)
    assert isinstance(cached.open()[0], np.memmap)
    assert cached.on_disk


class Watched(NamedTuple):
    """An array that notes which rows are taken."""

    images: np.ndarray
    taken: list[int]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images.shape

    def __getitem__(self, row: Any) -> np.ndarray:
        self.taken.append(int(row))
        return self.images[row]


def test_a_batch_is_read_in_the_order_of_the_file_and_given_in_the_order_asked(here: Kit):
    cached = here.open()
    images, bad = cached.open()
    watched = Watched(images, [])
    cached._opened = watched, bad
    asked = [5, 0, 6, 5, 2]
    batch = cached.__getitems__(asked)
    assert watched.taken == sorted(asked)
    assert torch.equal(batch, expected(here.photos())[asked])
    assert batch.permute(0, 2, 3, 1).is_contiguous()  # channels last


def test_where_caches_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(None) == tmp_path / "xdg" / "ssl_framework"
    assert cache_folder("~/mine") == tmp_path / "mine"
    for unset in ("", None):
        monkeypatch.setenv("XDG_CACHE_HOME", "") if unset == "" else monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_folder(None) == tmp_path / ".cache" / "ssl_framework"
