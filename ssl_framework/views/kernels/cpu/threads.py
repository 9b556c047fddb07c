"""Work shared by threads that Python starts: as many as torch uses, and none in a loader's worker.

Numba's own thread pools are not used: its ``workqueue`` aborts the process when two threads enter it, and its OpenMP when a
forked child does. Compiled code that leaves Python's lock alone needs neither, and gives the same bits with any number of them.
"""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_PIECES = 4  # for each thread, so that the last to finish is not waited for long


def share(work: Callable[[int, int], None], count: int, least: int) -> None:
    """Have ``work(begin, end)`` done for all of ``range(count)``.

    Args:
        work: safe to run in several threads at once.
        count: what there is to do.
        least: what is not worth a thread.
    """
    threads = min(torch.get_num_threads(), count // least)
    if threads < 2:
        work(0, count)
        return
    pieces = min(threads * _PIECES, count)
    taken = itertools.count()

    def take() -> None:
        while (piece := next(taken)) < pieces:
            work(piece * count // pieces, (piece + 1) * count // pieces)

    others = [_pool(os.getpid()).submit(take) for _ in range(threads - 1)]
    take()
    for other in others:
        other.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """A forked child has a pool of its own: threads are not inherited."""
    del process
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="views")
