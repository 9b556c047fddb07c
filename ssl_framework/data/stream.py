"""Batches as an iterable: samples are read where this runs, in the process itself, its threads, or a loader's worker."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ssl_framework import keyed
from ssl_framework.data.encoded import EncodedSource, fit
from ssl_framework.data.order import Order
from ssl_framework.data.split import in_bulk, rooted, unreadable
from ssl_framework.types import BadSampleError, Batch, Draw, Source, ViewMaker, Views

_REPLACE = 0x2EF1  # names the stream of numbers that replacements come from
_TRIES = 100


class _BatchDraw(Draw, Protocol):
    """A draw that can be taken apart."""

    def at(self, position: int) -> Draw:
        """The draw of one sample of the batch."""
        ...


class _Read(NamedTuple):
    """One row of a batch: what was read (None: it comes with the others, at once), which sample, and which were unreadable."""

    content: Tensor | Views | None
    sample: int
    bad: list[int]


Gather: TypeAlias = Callable[[Callable[[int], _Read], Iterable[int]], Iterable[_Read]]
"""How the rows of a batch are read: `map`, or the like of it in threads."""


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
        size: height and width that images are brought to where the source says none (almost all have it); None: they differ,
            and are cropped.

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
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if source.size is None and size is None and views is None:
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
        self._size = source.size or size
        self._unreadable = unreadable(source)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        return map(self.batch, self.numbers(first, step))

    def numbers(self, first: int = 0, step: int = 1) -> Iterable[int]:
        """Which global batches there are: every `step`-th, from the `first` one on."""
        if self.order.batches is None:
            return itertools.count(self.start + first, step)
        return range(self.start + first, self.order.batches, step)

    def batch(self, k: int, gather: Gather = map) -> Batch:
        """This process's rows of global batch `k`."""
        index, epoch = self.order.batch(k)
        share = len(index) // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        chosen, passes = torch.from_numpy(index[mine].copy()), torch.from_numpy(epoch[mine].copy())
        draw = self._draw(chosen, passes)
        if self._unreadable == {}:
            return Batch(self._together(index[mine]), None, chosen, passes, draw=draw)
        rows = list(gather(partial(self._row, chosen.tolist(), passes.tolist(), index, draw), range(share)))
        found = torch.tensor([row.sample for row in rows], dtype=torch.int64)
        bad = [i for row in rows for i in row.bad]
        if bad:
            draw = self._draw(found, passes)
        return self._join(rows, Batch(torch.empty(share, 0, dtype=torch.uint8), None, found, passes, draw=draw), bad)

    def _join(self, rows: list[_Read], batch: Batch, bad: list[int]) -> Batch:
        if bad:
            batch = batch._replace(bad=torch.tensor(bad, dtype=torch.int64))
        if self._unreadable is not None:
            return batch._replace(input=self._together(batch.index.numpy()))
        if self._size is None:
            return batch._replace(crops=_join([cast(Views, row.content) for row in rows], batch.index))
        images = torch.stack([cast(Tensor, row.content).permute(1, 2, 0) for row in rows])  # decoders lay channels last
        return batch._replace(input=images.permute(0, 3, 1, 2))

    def _together(self, index: np.ndarray) -> Tensor:
        images = in_bulk(self.source, index)
        assert images is not None, "only such sources know what is unreadable"
        return images

    def _draw(self, index: Tensor, epoch: Tensor) -> Draw | None:
        """Drawn here, on the CPU, so that nothing waits for a device; None where no views are attached."""
        return None if self.views is None else self.views.draw(index, epoch)

    def _row(self, chosen: list[int], passes: list[int], taken: np.ndarray, draw: Draw | None, position: int) -> _Read:
        """Read the sample at a position of the batch, or the first of its replacements that can be read.

        Args:
            chosen: samples of this process's share.
            passes: their passes over the data.
            taken: samples of the global batch.
            draw: of the share.
            position: in the share.
        """
        index, epoch = chosen[position], passes[position]
        bad: list[int] = []
        for candidate in itertools.chain([index], self._replacements(index, epoch, taken)):
            try:
                return _Read(self._content(candidate, epoch, draw, position if candidate == index else None), candidate, bad)
            except BadSampleError:
                bad.append(candidate)
        raise ValueError(
            f"{self.source.name(index)} cannot be read, nor can {_TRIES} others that were tried in its place: check that "
            "the data are images and can be read from here."
        )

    def _content(self, index: int, epoch: int, draw: Draw | None, position: int | None) -> Tensor | Views | None:
        """One sample: nothing yet where all are read at once, an image of the common size, or crops."""
        if self._unreadable is not None:
            if index in self._unreadable:
                raise BadSampleError(self._unreadable[index])
            return None
        if self._size is not None:
            image = self.source.read(index)
            return image if self.source.size is not None or image.shape[-2:] == self._size else fit(image, self._size)
        assert self.views is not None
        if position is None:  # a replacement, which has a draw of its own
            one = self.views.draw(torch.tensor([index]), torch.tensor([epoch]))
        else:
            one = cast(_BatchDraw, draw).at(position)
        return self._crop(self.views, index, one)

    def _crop(self, views: ViewMaker, index: int, draw: Draw) -> Views:
        """Straight from the decoded image, which is decoded no larger than its views need."""
        root, (row,) = rooted(self.source, np.array([index]))
        if not isinstance(root, EncodedSource):
            return views.crop(root.read(int(row)), draw)
        image, size = root.read_reduced(int(row), lambda size: views.reduction(size, draw))
        return views.crop(image, draw, size)

    def _replacements(self, index: int, epoch: int, avoid: np.ndarray) -> Iterator[int]:
        """Other samples for one that cannot be read: a pure function of (seed, epoch, index) and of its global batch.

        Samples that the batch holds already come last: seen twice in a batch, a sample would be its own negative.
        """
        key = keyed.mix(self.seed, epoch, index)[None]
        drawn = (keyed.uniform(key, _REPLACE, _TRIES)[0] * len(self.source)).long().tolist()
        taken = set(avoid.tolist())
        yield from sorted((i for i in drawn if i != index), key=taken.__contains__)


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
