"""Images decoded once into one file that is mapped into memory: what a slow source costs in each epoch, it costs here once.

A cache is two files: ``NAME.npy`` with all images at one size, ``(N, H, W, C)`` uint8, and ``NAME.json``, which says of which
state of which data. The second is written last: a cache without it is none.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import time
import tokenize
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from ssl_framework.data.bad import LIMIT
from ssl_framework.data.encoded import EncodedSource, decoded
from ssl_framework.types import BadSampleError

VERSION = 1
"""Of the layout of the files; another one is another cache."""

_SPARE = 64 << 20  # bytes that stay free on the disk
_FULL = {errno.ENOSPC, errno.EDQUOT}  # the disk, or this user's share of it
_KEYS = {"version", "place", "state", "shape", "bytes", "bad", "written"}


def cache_folder(given: str | Path | None) -> Path:
    """Where caches lie: the folder that is given, else ``ssl_framework`` in the user's folder of caches."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given if given is not None else Path(home) / "ssl_framework").expanduser()


class CachedSource:
    """A source whose images are read from its cache, which is made when the first one is read.

    Args:
        source: what is decoded once.
        size: height and width of all images of the cache; others are resized until they just cover it and cut at their
            centre.
        folder: where the cache lies; see `cache_folder`.
    """

    def __init__(self, source: EncodedSource, size: tuple[int, int], folder: Path) -> None:
        self.source = source
        self._size = size
        self._folder = folder
        self._opened: tuple[np.ndarray, dict[int, str]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A process that gets a copy maps the file itself: pickled, the map would be all of its pixels."""
        return {**self.__dict__, "_opened": None}

    @property
    def targets(self) -> np.ndarray | None:
        """``(N,)`` int64, or None."""
        return self.source.targets

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names, or None."""
        return self.source.classes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self._size

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.source.channels

    @property
    def unreadable(self) -> dict[int, str]:
        """Samples that could not be decoded, and why."""
        return self.open()[1]

    @property
    def on_disk(self) -> bool:
        """The array is mapped from a file."""
        return True

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Tensor:
        """One ``(C, H, W)`` uint8 image.

        Raises:
            BadSampleError: it could not be decoded when the cache was made.
        """
        if index in self.unreadable:
            raise BadSampleError(self.unreadable[index])
        return self.read_many(np.array([index]))[0]

    def read_many(self, index: np.ndarray) -> Tensor:
        """``(B, C, H, W)`` uint8 of the samples `index` ``(B,)``, in memory channels last; read in the order of the file."""
        images = self.open()[0]
        batch = np.empty((len(index), *images.shape[1:]), np.uint8)
        for place in np.argsort(index, kind="stable").tolist():
            batch[place] = images[index[place]]
        return torch.from_numpy(batch).permute(0, 3, 1, 2)

    def __getitem__(self, index: int) -> Tensor:
        """`read`, for torch's loaders."""
        return self.read(index)

    def __getitems__(self, indices: list[int]) -> Tensor:
        """`read_many`, for torch's loaders, which ask for a batch at once where they can."""
        return self.read_many(np.asarray(indices))

    def name(self, index: int) -> str:
        """What the source calls it."""
        return self.source.name(index)

    def open(self) -> tuple[np.ndarray, dict[int, str]]:
        """The mapped images, and what could not be decoded; the cache is made if it is not there.

        Raises:
            ValueError: the folder cannot be written to, or has too little room.
        """
        if self._opened is None:
            self._opened = _Files(self.source, self._size, self._folder).open()
        return self._opened


class _Files:
    """The files of the cache of one source, at one size, in one state."""

    def __init__(self, source: EncodedSource, size: tuple[int, int], folder: Path) -> None:
        self.source, self.folder = source, folder
        self.place, self.state = source.identity()
        self.shape = (len(source), *size, source.channels)
        which = hashlib.blake2b(f"{self.place}\0{size}\0{source.channels}\0{VERSION}".encode(), digest_size=6).hexdigest()
        spoken = re.sub(r"\W+", "-", "-".join(Path(self.place).parts[-2:]))[-40:].strip("-")
        self.family = f"{spoken}-{which}"  # of all states of these data
        self.images = folder / f"{self.family}-{self.state[:12]}.npy"
        self.manifest = self.images.with_suffix(".json")

    def open(self) -> tuple[np.ndarray, dict[int, str]]:
        found = self.valid()
        if found is None:
            with self.lock():
                found = self.valid()  # another process may have made it while this one waited
                if found is None:
                    self.make()
                    found = self.valid()
        assert found is not None, "it has just been written"
        return found

    def valid(self) -> tuple[np.ndarray, dict[int, str]] | None:
        """The cache, if it is there and whole."""
        said = _read(self.manifest)
        if said is None or not self.images.is_file():
            return None
        if said["state"] != self.state or said["bytes"] != self.images.stat().st_size:
            return None
        try:
            images = np.lib.format.open_memmap(self.images, mode="r")
        except (ValueError, SyntaxError, tokenize.TokenError):  # a damaged header
            return None
        if images.shape != self.shape or images.dtype != np.uint8:
            return None
        return images, {int(index): reason for index, reason in said["bad"].items()}

    def lock(self) -> AbstractContextManager[object]:
        """One process writes; the others say that they wait. The lock of a process that dies is free."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{self.family}.lock")
            try:
                return lock.acquire(timeout=0)
            except Timeout:
                rank_zero_info(f"cache: waiting for another process that makes {self.images}")
                return lock.acquire()
        except OSError as error:
            raise ValueError(f"No cache can be made in {self.folder} ({error}): give data.cache_dir=FOLDER.") from error

    def make(self) -> None:
        """Decode everything. What is half is deleted: now, or after a kill by the next process that comes here."""
        self.remove_parts()
        own = {self.images, self.manifest}  # there if they are damaged: they are written over
        others = [file for file in self.folder.glob(f"{self.family}-*") if file not in own]
        self.say_what_changed(others)
        self.require_room()
        part = self.images.with_suffix(".part")
        start = time.perf_counter()
        try:
            bad = self.write(part)
            self.require_images(bad)
            part.replace(self.images)
            self.write_manifest(bad)
        except OSError as error:
            self.images.unlink(missing_ok=True)  # without a manifest it only takes room
            if error.errno not in _FULL:
                raise
            raise ValueError(self.no_room()) from error
        finally:
            self.remove_parts()
        for file in others:  # of the states before; who has one of them open keeps it
            file.unlink(missing_ok=True)
        seconds, size = time.perf_counter() - start, self.images.stat().st_size
        rank_zero_info(
            f"cache: {self.shape[0]:,} images decoded to {self.shape[1]} x {self.shape[2]} in {seconds:.0f} s, {len(bad)} of "
            f"them unreadable; {size / 1e9:.2f} GB in {self.images}"
        )

    def remove_parts(self) -> None:
        """What was written by half."""
        for part in self.folder.glob(f"{self.family}-*.part"):
            part.unlink()

    def say_what_changed(self, others: list[Path]) -> None:
        """Why there is a cache of these data already, and is made anew."""
        before = [said for file in others if file.suffix == ".json" and (said := _read(file)) is not None]
        for said in before[:1]:
            rank_zero_info(
                f"cache: {self.place} has changed since {said['written']} ({said['shape'][0]:,} images then, {self.shape[0]:,} "
                "now): its cache is made anew."
            )

    def require_room(self) -> None:
        if shutil.disk_usage(self.folder).free < np.prod(self.shape, dtype=np.int64) + _SPARE:
            raise ValueError(self.no_room())

    def require_images(self, bad: dict[int, str]) -> None:
        """Refuse to keep what a missing disk or a wrong folder would leave: mostly zeros."""
        if len(bad) > LIMIT * self.shape[0]:
            index, reason = next(iter(bad.items()))
            raise ValueError(
                f"{len(bad)} of {self.shape[0]} images of {self.place} cannot be read, more than {LIMIT:.0%}, for example "
                f"{self.source.name(index)} ({reason}): repair or remove them. No cache was made."
            )

    def no_room(self) -> str:
        needed, free = int(np.prod(self.shape, dtype=np.int64)), shutil.disk_usage(self.folder).free
        return (
            f"The cache of {self.place} needs {needed / 1e9:.2f} GB, and {self.folder} has {free / 1e9:.2f} GB free: make "
            "room, give data.cache_dir=FOLDER on another disk, or a smaller data.cache_size."
        )

    def write(self, part: Path) -> dict[int, str]:
        """All images, in their order. Written, not mapped: a map on a full disk would kill the process."""
        bad: dict[int, str] = {}
        with part.open("wb") as file:
            header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(file, header)
            for pixels in decoded(self.source, (self.shape[1], self.shape[2]), bad, "cache"):
                _write(file, pixels)
            file.flush()
            os.fsync(file.fileno())
        return bad

    def write_manifest(self, bad: dict[int, str]) -> None:
        said = {
            "version": VERSION,
            "place": self.place,
            "state": self.state,
            "shape": self.shape,
            "bytes": self.images.stat().st_size,
            "bad": bad,
            "written": time.strftime("%Y-%m-%d %H:%M"),
        }
        part = self.manifest.with_suffix(".json.part")
        with part.open("w") as file:
            json.dump(said, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.manifest)


def _read(manifest: Path) -> dict[str, Any] | None:
    """What a manifest says; None where there is none, or a damaged one."""
    try:
        said: Any = json.loads(manifest.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    whole = isinstance(said, dict) and said.keys() >= _KEYS and isinstance(said["bad"], dict)
    return said if whole and all(str(index).isdecimal() for index in said["bad"]) else None


def _write(file: BinaryIO, pixels: np.ndarray) -> None:
    file.write(pixels.data)
