"""Batches as an iterable: samples are read where this runs, in the process itself or in a loader's worker."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ssl_framework import keyed
from ssl_framework.data.order import Order
from ssl_framework.data.split import in_bulk
from ssl_framework.types import BadSampleError, Batch, Draw, Source, ViewMaker, Views

_REPLACE = 0x2EF1  # names the stream of numbers that replacements come from
_TRIES = 100


class BatchStream(IterableDataset[Batch]):
    """This process's rows of global batches, from one on. Labels are never read: pretraining does not see them.

    Worker `w` of `n` makes batches ``start + w``, ``start + w + n``, ...; a loader hands them out in turn, so the sequence does
    not depend on the number of workers.

    Args:
        source: the samples.
        order: which samples make up a batch; the endless one has no end, and so this has no length.
        seed: of the replacements for samples that cannot be read.
        start: the first global batch.
        rank: this process.
        world: processes; they share each batch equally, in the order of their ranks.
        views: draw for each batch, and crop in the worker where the source's images differ in size.

    Raises:
        ValueError: the images differ in size and there are no views.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        views: ViewMaker | None = None,
    ) -> None:
        super().__init__()
        if source.size is None and views is None:
            raise ValueError(
                "The images differ in size and are cropped while they are loaded, but no views are known: fit a pretext task "
                "that has views, or call data.attach(views) first."
            )
        self.source = source
        self.order = order
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world = world
        self.views = views
        self._crops = source.size is None

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        numbers = (
            itertools.count(self.start + first, step)
            if self.order.batches is None
            else range(self.start + first, self.order.batches, step)
        )
        return map(self.batch, numbers)

    def batch(self, k: int) -> Batch:
        """This process's rows of global batch `k`."""
        index, epoch = self.order.batch(k)
        share = len(index) // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        passes = torch.from_numpy(epoch[mine].copy())
        images = in_bulk(self.source, index[mine])
        if images is not None:
            chosen = torch.from_numpy(index[mine].copy())
            return Batch(images, None, chosen, passes, draw=self._draw(chosen, passes))
        images, read, bad = self._read(index[mine], epoch[mine], avoid=index)
        found = torch.tensor(read, dtype=torch.int64)
        unreadable = torch.tensor(bad, dtype=torch.int64) if bad else None
        draw = self._draw(found, passes)
        if not self._crops:
            return Batch(torch.stack(images), None, found, passes, bad=unreadable, draw=draw)
        assert self.views is not None
        crops = [self.views.crop(images[i], self.views.draw(found[i : i + 1], passes[i : i + 1])) for i in range(share)]
        nothing = torch.empty(share, 0, dtype=torch.uint8)
        return Batch(nothing, None, found, passes, _join(crops, found), unreadable, draw)

    def _draw(self, index: Tensor, epoch: Tensor) -> Draw | None:
        """Drawn here, on the CPU, so that nothing waits for a device; None where no views are attached."""
        return None if self.views is None else self.views.draw(index, epoch)

    def _read(self, index: np.ndarray, epoch: np.ndarray, avoid: np.ndarray) -> tuple[list[Tensor], list[int], list[int]]:
        """Images, the samples that they are, and the samples that could not be read."""
        images: list[Tensor] = []
        read: list[int] = []
        bad: list[int] = []
        for i, e in zip(index.tolist(), epoch.tolist(), strict=True):
            for candidate in itertools.chain([i], self._replacements(i, e, avoid)):
                try:
                    images.append(self.source.read(candidate))
                    read.append(candidate)
                    break
                except BadSampleError:
                    bad.append(candidate)
            else:
                raise ValueError(
                    f"{self.source.name(i)} cannot be read, nor can {_TRIES} others that were tried in its place: check that "
                    "the data are images and can be read from here."
                )
        return images, read, bad

    def _replacements(self, index: int, epoch: int, avoid: np.ndarray) -> Iterator[int]:
        """Other samples for one that cannot be read: a pure function of (seed, epoch, index) and of its global batch.

        Samples that the batch holds already come last: seen twice in a batch, a sample would be its own negative.
        """
        key = keyed.mix(self.seed, epoch, index)[None]
        drawn = (keyed.uniform(key, _REPLACE, _TRIES)[0] * len(self.source)).long().tolist()
        taken = set(avoid.tolist())
        return iter(sorted((i for i in drawn if i != index), key=taken.__contains__))


def _join(crops: list[Views], index: Tensor) -> Views:
    """Views of one sample each to views of the batch."""

    def cat(parts: list[Tensor | None], dim: int) -> Tensor | None:
        there = [part for part in parts if part is not None]
        assert len(there) in {0, len(parts)}, "views of one maker are alike"
        return torch.cat(there, dim) if there else None

    return Views(
        global_crops=torch.cat([v.global_crops for v in crops], 1),  # (V, B, C, H, W)
        local_crops=cat([v.local_crops for v in crops], 1),
        index=index,
        key=cat([v.key for v in crops], 0),
        boxes=cat([v.boxes for v in crops], 1),
    )
