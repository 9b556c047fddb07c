"""In which order samples are seen: pure functions of (seed, number of samples, batch size), so one integer is the position."""

from typing import Any, Protocol, TypeAlias

import numpy as np

from ssl_framework import keyed

Rows: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

_SHUFFLE = 0x0DE5  # names this use of the seed, so that carving a validation set with the same seed draws other numbers


class Order(Protocol):
    """Which samples make up global batch `k`."""

    @property
    def batches(self) -> int | None:
        """How many there are; None without end."""
        ...

    def batch(self, k: int) -> tuple[Rows, Rows]:
        """Sample numbers and their passes over the data, ``(B,)`` each, of all processes together."""
        ...


class EndlessOrder:
    """Permutation of pass 0, then of pass 1, and so on, cut into batches of one size.

    A batch may span two passes: each sample comes exactly once in a pass, none is dropped, and no batch is short. Where a batch
    spans two passes and ``n >= 3 * batch_size``, samples at the head of the new pass that are in the batch already change
    places with the next ones that are not, so no sample is its own negative. With fewer samples such a batch may hold one
    twice.

    Args:
        n: samples.
        batch_size: samples of a batch, all processes together.
        seed: of the permutations.

    Raises:
        ValueError: the batch is larger than the data.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        if batch_size > n:
            raise ValueError(
                f"The batch is larger than the data: batch_size={batch_size}, training samples={n}. "
                f"Give data.batch_size={n} or less."
            )
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self._cache: dict[int, Rows] = {}

    @property
    def batches(self) -> None:
        """Without end."""

    def batch(self, k: int) -> tuple[Rows, Rows]:
        """Global batch `k` ``(B,)``: sample numbers, and the pass that each belongs to."""
        place = np.arange(k * self.batch_size, (k + 1) * self.batch_size, dtype=np.int64)
        epoch = place // self.n
        index = np.concatenate([self.epoch(int(e))[place[epoch == e] % self.n] for e in np.unique(epoch)])
        return index, epoch

    def epoch(self, e: int) -> Rows:
        """The order of pass `e` ``(n,)``."""
        if e not in self._cache:
            order = self._permutation(e)
            if e > 0 and self.n >= 3 * self.batch_size:
                self._part_from_last_pass(order, e)
            self._cache = {**{k: v for k, v in self._cache.items() if k == e - 1}, e: order}
        return self._cache[e]

    def _part_from_last_pass(self, order: Rows, e: int) -> None:
        """Move what the batch over the boundary holds already out of the head of `order`, in place.

        Partners come from before the last `batch_size` places, so that the tail of a pass is the plain permutation's, whatever
        happened at its head, and no pass depends on more than the one before it.
        """
        tail = (e * self.n) % self.batch_size  # places of the spanning batch that the last pass fills
        if tail == 0:
            return
        head = self.batch_size - tail
        last = self._permutation(e - 1)[-tail:]
        twice = np.flatnonzero(np.isin(order[:head], last))
        free = head + np.flatnonzero(~np.isin(order[head : self.n - self.batch_size], last))[: len(twice)]
        assert len(free) == len(twice), "n >= 3 * batch_size leaves enough places"
        order[twice], order[free] = order[free].copy(), order[twice].copy()

    def _permutation(self, e: int) -> Rows:
        return keyed.permutation(self.n, _SHUFFLE, self.seed, e)


class OnePass:
    """The same whole batches each time, for validation: shuffled once, since files often lie sorted by class.

    Where there are fewer samples than one batch, the one batch holds as many as the processes can share equally.

    Args:
        n: samples.
        batch_size: samples of a batch, all processes together.
        seed: of the order.
        world: processes.
    """

    def __init__(self, n: int, batch_size: int, seed: int, world: int = 1) -> None:
        self.batch_size = min(batch_size, n // world * world)
        self.order = keyed.permutation(n, _SHUFFLE, seed)

    @property
    def batches(self) -> int:
        """Whole batches; what is left over is not seen."""
        return len(self.order) // self.batch_size if self.batch_size else 0

    def batch(self, k: int) -> tuple[Rows, Rows]:
        """Global batch `k` ``(B,)``: sample numbers, and pass 0."""
        index = self.order[k * self.batch_size : (k + 1) * self.batch_size]
        return index, np.zeros_like(index)
