"""Where the images of a data set lie while a run reads them: in one tensor, in a cache on the disk, or in their files.

| road | when | how a batch is read |
|---|---|---|
| resident | they are decoded, or small enough to be, and fit a quarter of the memory that is free | one indexing |
| cache | ``cache=true``, or an array mapped from a file | rows of a mapped file; on a GPU a batch ahead, pinned |
| files | otherwise | decoded in threads, or in loader processes on a GPU, and cropped there |

A view has the same bits whatever memory is free: images of one size go whole to the views, held or not, unless they have more
than four times the pixels of a view. Those are cropped as they are decoded and held only if they come from a cache, whose
views differ in the last digits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ssl_framework import machine
from ssl_framework.data import jpeg
from ssl_framework.data.cache import CachedSource, cache_folder
from ssl_framework.data.encoded import EncodedSource, common_size
from ssl_framework.data.resident import ResidentSource
from ssl_framework.data.split import BulkSource, on_root, rooted
from ssl_framework.types import Source, ViewMaker

_SHARE = 0.25  # of the memory that is free, which images may take
_MOST_DECODED = 4 << 30  # bytes that are decoded at the start without being asked for: minutes at most
_WHOLE = 4  # an image of so many times the pixels of a view, or fewer, goes whole to the views
_MOST_PROCESSES = 16


class Place(NamedTuple):
    """What a loader reads from, and how.

    Attributes:
        source: perhaps another than was given, of the same samples.
        size: of its images, where the source does not say it and they have one; None: they are cropped as they are decoded.
        threads: of the training process that read ahead; 0: none.
        processes: of the loader.
        said: one line for people.
    """

    source: Source
    size: tuple[int, int] | None
    threads: int
    processes: int
    said: str


class Storage:
    """The choice of a road, and the caches and tensors that were made for it.

    Args:
        name: of the data set, for messages.
        cache: decode everything once into a file.
        cache_size: height and width there; None: the size that the images have.
        cache_dir: folder of the cache.
        resident: hold the images in one tensor; None: where they fit.
        workers: loader processes for files; 0: threads of the training process; None: what the device suggests.

    Raises:
        ValueError: `cache_size` is no size, or there is no cache.
    """

    def __init__(
        self,
        name: str,
        *,
        cache: bool,
        cache_size: int | Sequence[int] | None,
        cache_dir: str | Path | None,
        resident: bool | None,
        workers: int | None,
    ) -> None:
        if cache_size is not None and not cache:
            raise ValueError(f"cache_size={cache_size} is the size of a cache, and there is none: give data.cache=true too.")
        sides = (cache_size, cache_size) if isinstance(cache_size, int) else None if cache_size is None else tuple(cache_size)
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise ValueError(f"cache_size={cache_size} is no height and width: give data.cache_size=[HEIGHT,WIDTH].")
        self.name = name
        self.resident = resident
        self.workers = workers
        self._cache, self._cache_dir = cache, cache_folder(cache_dir)
        self._cache_size = None if sides is None else (int(sides[0]), int(sides[1]))
        self._caches: dict[int, CachedSource] = {}
        self._held: dict[tuple[int, torch.device], ResidentSource] = {}
        self._sizes: dict[int, tuple[int, int] | None] = {}

    def cached(self, source: Source | None) -> Source | None:
        """The source, read from its cache if one was asked for; what is decoded needs none.

        Raises:
            ValueError: images differ in size, and no size of the cache was given.
        """
        return source if source is None or not self._cache else on_root(source, self._cached)

    def place(self, source: Source, device: torch.device, processes: int, views: ViewMaker | None) -> Place:
        """Where a loader reads a source from.

        Args:
            source: a split.
            device: where batches are needed.
            processes: of the run, on this host: they share its memory.
            views: that images are cropped for.

        Raises:
            ValueError: images were to be resident, and cannot be.
        """
        root, _ = rooted(source, np.empty(0, np.int64))
        size = root.size
        if size is None and isinstance(root, EncodedSource) and (size := self._common(root)) is not None:
            size = size if views is None or _area(size) <= _WHOLE * _area(views.size) else None
        if size is not None and self._is_held(root, size, device, processes):
            held = on_root(source, lambda whole: self._hold(whole, size, device, processes))
            return Place(held, None, 0, 0, f"{_count(source)} of {size[0]} x {size[1]} resident on {device.type}")
        if self.resident and not _in_memory(root):
            raise ValueError(self._why_not_held(root))
        threads, loaders = self._readers(root, device, processes)
        return Place(source, size, threads, loaders, self._said(source, root, size, threads, loaders))

    def _cached(self, root: Source) -> Source:
        if not isinstance(root, EncodedSource):
            if self._cache_size is not None:
                raise ValueError(
                    f"cache_size={list(self._cache_size)}: the images of {self.name} are decoded already and stay as they are: "
                    "leave it out."
                )
            return root
        if id(root) not in self._caches:
            size = self._cache_size or self._common(root)
            if size is None:
                raise ValueError(
                    f"The images of {self.name} differ in size: give the one that they are cached at, larger than the views, "
                    "for example data.cache_size=[256,256]."
                )
            self._caches[id(root)] = CachedSource(root, size, self._cache_dir)
        return self._caches[id(root)]

    def _common(self, root: EncodedSource) -> tuple[int, int] | None:
        if id(root) not in self._sizes:
            self._sizes[id(root)] = common_size(root)
        return self._sizes[id(root)]

    def _why_not_held(self, root: Source) -> str:
        if not isinstance(root, EncodedSource):
            return f"resident=true: {self.name} is read one by one, and says of no size that all its images have it."
        if self._common(root) is None:
            return f"resident=true needs images of one size, and those of {self.name} differ: give data.cache=true too."
        return (
            f"resident=true: the images of {self.name} have more than {_WHOLE} times the pixels of a view, and are cropped as "
            "they are decoded: give data.cache=true and a data.cache_size too."
        )

    def _is_held(self, root: Source, size: tuple[int, int], device: torch.device, processes: int) -> bool:
        if (id(root), device) in self._held:  # by another split of the same data
            return True
        if self.resident is not None:
            return self.resident and not (_in_memory(root) and device.type == "cpu")
        decoded = isinstance(root, BulkSource)
        if device.type == "cpu" and decoded:
            return False  # it is in memory, or the system's file cache holds what fits
        if not decoded and (self.workers or not isinstance(root, EncodedSource)):
            return False
        needed = len(root) * root.channels * _area(size)
        shared = 1 if device.type == "cuda" else processes
        most = _SHARE * machine.free_memory(device) / shared
        return needed <= (most if decoded else min(most, _MOST_DECODED))

    def _hold(self, root: Source, size: tuple[int, int], device: torch.device, processes: int) -> Source:
        key = id(root), device
        if key not in self._held:
            self._held[key] = ResidentSource(root, size, device, _cores(processes))
        return self._held[key]

    def _readers(self, root: Source, device: torch.device, processes: int) -> tuple[int, int]:
        """Threads of the training process, and loader processes: this process's share of the cores."""
        if self.workers:
            return 0, self.workers
        if isinstance(root, EncodedSource):
            many = device.type == "cuda" and self.workers is None
            return (0, min(_cores(processes), _MOST_PROCESSES)) if many else (_cores(processes), 0)
        return (1, 0) if device.type == "cuda" else (0, 0)

    def _said(self, source: Source, root: Source, size: tuple[int, int] | None, threads: int, loaders: int) -> str:
        by = f"{loaders} processes" if loaders else f"{threads} threads" if threads else "the training process"
        if isinstance(root, BulkSource):
            where = "mapped from a file" if root.on_disk else "in memory"
            return f"{_count(source)} {where}, read by {by}"
        if not isinstance(root, EncodedSource):
            return f"{_count(source)} read one by one by {by}"
        how = "whole" if size is not None else "and cropped"
        return f"{_count(source)} in files, decoded {how} by {by} ({jpeg.decoder()} reads JPEG)"


def _cores(processes: int) -> int:
    return max(1, machine.cores() // processes)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _count(source: Source) -> str:
    return f"{len(source):,} images"


def _in_memory(root: Source) -> bool:
    return isinstance(root, BulkSource) and not root.on_disk
