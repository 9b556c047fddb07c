"""Reading ahead: the same batches, in the same order, and no thread that stays."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_framework.data.ahead import _AT_ONCE, ReadAhead
from ssl_framework.data.order import EndlessOrder, OnePass
from ssl_framework.data.stream import BatchStream, Gather
from ssl_framework.data.threads import spread
from ssl_framework.types import Batch, Views
from support import in_a_child


class Uneven:
    """Image `i` is filled with `i`, and comes late or early; some are a fault of ours."""

    targets, classes, size, channels = None, None, (2, 2), 1

    def __init__(self, n: int, broken: frozenset[int] = frozenset()) -> None:
        self.n, self.broken = n, broken

    def __len__(self) -> int:
        return self.n

    def read(self, index: int) -> Tensor:
        time.sleep(index * 7 % 4 / 2000)
        if index in self.broken:
            raise KeyError(f"fault at {index}")
        return torch.full((1, 2, 2), index, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return f"number {index}"


class Noting(BatchStream):
    """Notes which batches were begun."""

    begun: list[int]

    def batch(self, k: int, gather: Gather = map) -> Batch:
        self.begun.append(k)
        return super().batch(k, gather)


def stream(n: int = 40, start: int = 0, broken: frozenset[int] = frozenset(), finite: bool = False) -> Noting:
    order = OnePass(n, 8, 0) if finite else EndlessOrder(n, 8, 0)
    made = Noting(Uneven(n, broken), order, start=start)
    made.begun = []
    return made


def same(ahead: Iterator[Batch], plain: Iterator[Batch], count: int) -> bool:
    pairs = list(zip(islice(ahead, count), islice(plain, count), strict=True))
    assert len(pairs) == count
    fields = ("input", "index", "epoch")
    return all(torch.equal(getattr(a, field), getattr(b, field)) for a, b in pairs for field in fields)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("start", [0, 1, 7])
def test_the_batches_of_the_stream_in_its_order_from_any_start(threads: int, start: int):
    ahead = ReadAhead(stream(start=start), threads)
    assert same(iter(ahead), iter(stream(start=start)), 12)
    assert same(iter(ahead), iter(stream(start=start)), 2)  # and again from there


@pytest.mark.parametrize(("n", "batches"), [(40, 5), (43, 5), (8, 1), (16, 2)])
def test_an_order_with_an_end_ends(n: int, batches: int):
    ahead = iter(ReadAhead(stream(n, finite=True), 2))
    assert same(ahead, iter(stream(n, finite=True)), batches)
    assert next(ahead, None) is None


def test_unreadable_samples_are_replaced_as_by_the_stream(kit: Any):
    def made() -> BatchStream:
        return BatchStream(kit.numbers(40, bad=(3, 11, 12)), EndlessOrder(40, 8, 0))

    ahead, plain = (list(islice(batches, 6)) for batches in (ReadAhead(made(), 3), made()))
    assert [None if b.bad is None else b.bad.tolist() for b in ahead] == [
        None if b.bad is None else b.bad.tolist() for b in plain
    ]
    assert any(batch.bad is not None for batch in ahead)
    assert same(iter(ahead), iter(plain), 6)


def test_a_fault_in_a_thread_reaches_who_asked_for_the_batch():
    order = EndlessOrder(40, 8, 0)
    broken = int(order.batch(3)[0][5])
    batches = iter(ReadAhead(stream(broken=frozenset({broken})), 2))
    assert same(batches, iter(stream()), 3)  # those before it come
    with pytest.raises(KeyError, match=f"fault at {broken}"):
        next(batches)
    assert next(batches, None) is None


def use_and_break(batches: Iterator[Batch]) -> None:
    for _ in batches:
        break


def use_and_forget_in_a_circle(batches: Iterator[Batch]) -> None:
    next(batches)
    circle: list[Any] = [batches]
    circle.append(circle)


def use_and_fail(batches: Iterator[Batch]) -> None:
    def fail() -> None:
        for batch in batches:
            raise ZeroDivisionError(len(batch.index))

    with pytest.raises(ZeroDivisionError):
        fail()


@pytest.mark.parametrize("use", [use_and_break, use_and_forget_in_a_circle, use_and_fail, lambda batches: None])
def test_who_stops_early_leaves_no_thread(use: Callable[[Iterator[Batch]], None]):
    before = set(threading.enumerate())
    use(iter(ReadAhead(stream(), 2)))
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_what_waits_is_not_read_once_it_is_closed():
    noting = stream()
    batches = iter(ReadAhead(noting, 1))
    next(batches)
    batches.close()
    begun = len(noting.begun)
    time.sleep(0.05)
    assert len(noting.begun) == begun <= 1 + _AT_ONCE


def test_no_more_than_two_batches_are_read_ahead_and_no_fewer():
    noting = stream()
    batches = iter(ReadAhead(noting, 2))
    assert noting.begun == []  # nothing before it is asked for
    for k in range(6):
        next(batches)
        until = time.monotonic() + 20
        while len(noting.begun) < k + 1 + _AT_ONCE and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.01)
        assert sorted(noting.begun) == list(range(k + 1 + _AT_ONCE))
    del batches


def test_it_works_in_a_forked_child():
    warm = iter(ReadAhead(stream(), 2))
    next(warm)  # the parent has threads, and the child has none of them

    def read() -> None:
        assert same(iter(ReadAhead(stream(), 2)), iter(stream()), 5)

    assert in_a_child(read) == 0
    del warm


def test_pinned_batches_hold_the_same_images_and_crops(monkeypatch: pytest.MonkeyPatch, kit: Any):
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor.clone()) or pinned[-1])

    class Mixed(Uneven):
        size = None

        def read(self, index: int) -> Tensor:
            return super().read(index).repeat(1, 3, 4)

    class WithLocal(kit.views):
        def crop(self, *args: Any) -> Views:
            views = super().crop(*args)
            return views._replace(local_crops=255 - views.global_crops)

    def first(pin: bool, mixed: bool) -> Batch:
        source, views = (Mixed(40), WithLocal()) if mixed else (Uneven(40), None)
        return next(iter(ReadAhead(BatchStream(source, EndlessOrder(40, 8, 0), views=views), 2, pin=pin)))

    images = first(pin=True, mixed=False).input
    assert any(images is tensor for tensor in pinned)
    assert torch.equal(images, first(pin=False, mixed=False).input)
    pinned.clear()
    ours, theirs = first(pin=True, mixed=True).crops, first(pin=False, mixed=True).crops
    assert ours is not None
    assert theirs is not None
    for name in ("global_crops", "local_crops"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
        assert any(getattr(ours, name) is tensor for tensor in pinned)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 30])
@pytest.mark.parametrize("threads", [1, 3])
def test_work_is_spread_in_order(count: int, threads: int):
    def work(item: int) -> int:
        time.sleep(item * 7 % 4 / 2000)
        return item * item

    with ThreadPoolExecutor(threads) as pool:
        assert list(spread(pool, work, iter(range(count)))) == [i * i for i in range(count)]


def test_spread_work_is_done_by_several_threads_and_its_faults_are_seen():
    meet = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        list(spread(pool, lambda item: meet.wait(20) if item % 4 == 0 else None, range(8)))  # two threads, or none meets
        with pytest.raises(ZeroDivisionError):
            list(spread(pool, lambda item: 1 // (5 - item), range(8)))
