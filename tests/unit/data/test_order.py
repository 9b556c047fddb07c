import numpy as np
import pytest

from ssl_framework.data.order import EndlessOrder, OnePass


@pytest.mark.parametrize(("n", "batch"), [(64, 8), (50, 16), (37, 12), (10, 10), (11, 10), (7, 3)])
def test_every_sample_comes_exactly_once_in_each_pass_and_no_batch_is_short(n: int, batch: int) -> None:
    order = EndlessOrder(n, batch, seed=3)
    batches = [order.batch(k) for k in range(4 * n)]
    assert all(index.shape == epoch.shape == (batch,) for index, epoch in batches)
    index, epoch = (np.concatenate([b[i] for b in batches]) for i in range(2))
    for e in range(4):
        assert sorted(index[epoch == e]) == list(range(n))
    assert (np.diff(epoch) >= 0).all()


@pytest.mark.parametrize(("n", "batch"), [(50, 16), (48, 16), (37, 12), (100, 33), (31, 7)])
def test_a_batch_over_two_passes_holds_no_sample_twice(n: int, batch: int) -> None:
    assert n >= 3 * batch
    order = EndlessOrder(n, batch, seed=1)
    spanning = 0
    for k in range(10 * n):
        index, epoch = order.batch(k)
        spanning += epoch[0] != epoch[-1]
        assert len(set(index)) == batch
    assert spanning > 10 or n % batch == 0


def test_batch_k_does_not_depend_on_what_was_asked_before() -> None:
    order = EndlessOrder(50, 16, seed=0)
    forward = [order.batch(k) for k in range(40)]
    for k in reversed(range(40)):
        fresh = EndlessOrder(50, 16, seed=0).batch(k)
        for got in (fresh, order.batch(k)):
            assert np.array_equal(got[0], forward[k][0])
            assert np.array_equal(got[1], forward[k][1])


def test_passes_and_seeds_differ() -> None:
    order = EndlessOrder(50, 10, seed=0)
    assert not np.array_equal(order.epoch(0), order.epoch(1))
    assert not np.array_equal(order.epoch(0), EndlessOrder(50, 10, seed=1).epoch(0))


def test_a_batch_larger_than_the_data_says_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"larger than the data: batch_size=11, training samples=10.*data\.batch_size=10 or less"
    ):
        EndlessOrder(10, 11, seed=0)


@pytest.mark.parametrize(
    ("n", "batch", "world", "batches", "size"), [(25, 8, 1, 3, 8), (5, 8, 2, 1, 4), (1, 8, 2, 0, 0), (0, 8, 1, 0, 0)]
)
def test_one_pass_has_whole_batches_that_processes_share_equally(
    n: int, batch: int, world: int, batches: int, size: int
) -> None:
    order = OnePass(n, batch, 0, world)
    assert order.batches == batches
    seen = [int(i) for k in range(batches) for i in order.batch(k)[0]]
    assert len(seen) == len(set(seen)) == batches * size
    assert all((order.batch(k)[1] == 0).all() for k in range(batches))
