"""Parts of a source, and how a set is carved into two by a recorded seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.types import Source

_CARVE = 0xCA27E  # names this use of the seed


@runtime_checkable
class BulkSource(Source, Protocol):
    """A source that lies decoded in an array: many samples cost one call."""

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Samples that could not be decoded, and why; `read_many` is not asked for them."""
        ...

    @property
    def on_disk(self) -> bool:
        """Whether the array is mapped from a file."""
        ...

    def read_many(self, index: np.ndarray) -> Tensor:
        """``(B, C, H, W)`` uint8 of the samples `index` ``(B,)``."""
        ...


class Part:
    """Some samples of a source, as a source of their own.

    Args:
        source: the whole.
        rows: ``(N,)`` positions in it.
    """

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        self.source = source
        self.rows = rows.astype(np.int64)

    @property
    def targets(self) -> np.ndarray | None:
        """``(N,)`` int64, or None."""
        return None if self.source.targets is None else self.source.targets[self.rows]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Those of the whole."""
        return self.source.classes

    @property
    def size(self) -> tuple[int, int] | None:
        """That of the whole."""
        return self.source.size

    @property
    def channels(self) -> int:
        """Those of the whole."""
        return self.source.channels

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Tensor:
        """One ``(C, H, W)`` uint8 image."""
        return self.source.read(int(self.rows[index]))

    def name(self, index: int) -> str:
        """What the whole calls it."""
        return self.source.name(int(self.rows[index]))


def origin(source: Source) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Positions of the samples of a source in the source as it was loaded: ``(N,)``."""
    return origin(source.source)[source.rows] if isinstance(source, Part) else np.arange(len(source), dtype=np.int64)


def in_bulk(source: Source, index: np.ndarray) -> Tensor | None:
    """``(B, C, H, W)`` uint8 of the samples `index` ``(B,)`` at once, or None where they are read one by one."""
    root, rows = rooted(source, index)
    return root.read_many(rows) if isinstance(root, BulkSource) else None


def rooted(source: Source, index: np.ndarray) -> tuple[Source, np.ndarray]:
    """What a part is a part of, however often it was carved, and where the samples `index` ``(B,)`` are in that."""
    return rooted(source.source, source.rows[index]) if isinstance(source, Part) else (source, index)


def same_root(one: Source, other: Source) -> bool:
    """Whether two sources are parts of one."""
    nothing = np.empty(0, np.int64)
    return rooted(one, nothing)[0] is rooted(other, nothing)[0]


def unreadable(source: Source) -> dict[int, str] | None:
    """Samples that `in_bulk` cannot give, and why; None where samples are read one by one."""
    root, rows = rooted(source, np.arange(len(source)))
    if not isinstance(root, BulkSource):
        return None
    known = root.unreadable
    return {i: known[row] for i, row in enumerate(rows.tolist()) if row in known} if known else {}


def on_root(source: Source, change: Callable[[Source], Source]) -> Source:
    """The source with what it is a part of replaced by `change` of it."""
    return Part(on_root(source.source, change), source.rows) if isinstance(source, Part) else change(source)


def carve(source: Source, share: float, seed: int) -> tuple[Source, Part]:
    """Two parts without overlap; with labels, `share` of each class goes to the second.

    Args:
        source: the whole.
        share: of the second part, 0 <= share < 1, rounded to whole samples.
        seed: decides which; recorded with the run.

    Returns:
        What stays, and what was carved.

    Raises:
        ValueError: `share` is out of range, or nothing would stay.
    """
    if not 0 <= share < 1:
        raise ValueError(f"A share of {share} cannot be carved from {len(source)} samples: give a number from 0 to below 1.")
    groups = [np.arange(len(source))] if source.targets is None else by_class(source.targets)
    taken = [rows[keyed.permutation(len(rows), _CARVE, seed, c)[: round(share * len(rows))]] for c, rows in enumerate(groups)]
    carved = np.sort(np.concatenate(taken))
    stays = np.setdiff1d(np.arange(len(source)), carved)
    if len(stays) == 0:
        raise ValueError(f"A share of {share} of {len(source)} samples leaves none to train on: give a smaller share.")
    return (source if len(carved) == 0 else Part(source, stays)), Part(source, carved)


def carve_test(source: Source, share: float | None, seed: int) -> tuple[Source, Source | None]:
    """What to train on and what to test on, of a source that has no test split of its own.

    Args:
        source: the whole.
        share: of the test; None: 0.2 of what has labels, and nothing of what has none.
        seed: see `carve`.
    """
    if share is None:
        share = 0.0 if source.targets is None else 0.2
    learn, test = carve(source, share, seed)
    return learn, test if len(test) else None


def by_class(targets: Sequence[int] | np.ndarray | Tensor) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Positions of each class, in the order of the data."""
    labels = torch.as_tensor(targets).numpy()
    return [np.flatnonzero(labels == c) for c in range(int(labels.max()) + 1 if len(labels) else 0)]
