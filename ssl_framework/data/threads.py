"""Decoding in threads: decoders leave Python's lock, and nothing is copied between processes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

_TOGETHER = 4  # samples that a thread takes at a time

T = TypeVar("T")
R = TypeVar("R")


def spread(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Like `map`, in the threads of a pool, a few items at a time."""
    everything = list(items)
    parts = [everything[start : start + _TOGETHER] for start in range(0, len(everything), _TOGETHER)]

    def some(part: list[T]) -> list[R]:
        return [work(item) for item in part]

    return chain.from_iterable(pool.map(some, parts))
