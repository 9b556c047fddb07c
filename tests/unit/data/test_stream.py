from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from ssl_framework.data import ArraySource, DataModule
from ssl_framework.data.order import EndlessOrder
from ssl_framework.data.stream import BatchStream
from ssl_framework.types import Batch


class Ragged:
    """Images of mixed sizes."""

    targets, classes, size, channels = None, None, None, 1

    def __len__(self) -> int:
        return 30

    def read(self, index: int) -> torch.Tensor:
        return torch.arange((8 + index) * 9, dtype=torch.int64).remainder(251).to(torch.uint8).view(1, 8 + index, 9)

    def name(self, index: int) -> str:
        return str(index)


def sequence(loader: Any, n: int) -> list[tuple[list[int], list[int]]]:
    return [(b.index.tolist(), b.epoch.tolist()) for b in islice(loader, n)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("position", [0, 1, 5, 6])
def test_from_any_position_the_rest_is_the_tail_of_the_uninterrupted_sequence(kit: Any, workers: int, position: int) -> None:
    whole = sequence(DataModule(kit.numbers(50), batch_size=16, name="n").train_dataloader(), 14)
    data = DataModule(kit.numbers(50), batch_size=16, name="n", workers=workers)
    data.position = position
    assert sequence(data.train_dataloader(), 14 - position) == whole[position:]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_same_global_batches(kit: Any, world: int) -> None:
    order = EndlessOrder(50, 12, seed=0)
    streams = [iter(BatchStream(kit.numbers(50), order, rank=r, world=world)) for r in range(world)]
    for k in range(12):
        parts = [next(s) for s in streams]
        index, epoch = order.batch(k)
        assert [len(p.index) for p in parts] == [12 // world] * world
        assert torch.cat([p.index for p in parts]).tolist() == index.tolist()
        assert torch.cat([p.epoch for p in parts]).tolist() == epoch.tolist()


def test_images_belong_to_their_index(kit: Any) -> None:
    for batch in islice(BatchStream(kit.numbers(50), EndlessOrder(50, 16, 0)), 5):
        assert batch.input.shape == (16, 1, 2, 2)
        assert batch.input.dtype == torch.uint8
        assert batch.input[:, 0, 0, 0].tolist() == batch.index.tolist()


def test_labels_never_reach_pretraining() -> None:
    source = ArraySource(torch.zeros(20, 4, 4, dtype=torch.uint8).numpy(), list(range(10)) * 2)
    data = DataModule(source, batch_size=4, name="n", val_share=0.2)
    assert next(iter(data.train_dataloader())).target is None
    data = DataModule(source, source, batch_size=4, name="n")
    assert next(iter(data.val_dataloader())).target is None


def test_neither_the_order_nor_a_loader_draws_from_the_global_generators(kit: Any) -> None:
    before = torch.get_rng_state()
    data = DataModule(kit.numbers(50), batch_size=16, name="n", workers=1)
    next(iter(data.train_dataloader()))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_replaced_by_a_sample_that_the_batch_lacks(kit: Any, workers: int) -> None:
    bad = (3, 17)
    data = DataModule(kit.numbers(200, bad), kit.numbers(4), batch_size=20, name="n", workers=workers)
    healthy = sequence(DataModule(kit.numbers(200), kit.numbers(4), batch_size=20, name="n").train_dataloader(), 10)
    named = []
    for batch, (index, _) in zip(islice(data.train_dataloader(), 10), healthy, strict=True):
        here = sorted(set(bad) & set(index))
        assert ([] if batch.bad is None else sorted(batch.bad.tolist())) == here
        named += here
        kept = [i for i in index if i not in bad]
        assert [i for i in batch.index.tolist() if i in kept] == kept
        assert not set(batch.index.tolist()) & set(bad)
        assert len(set(batch.index.tolist())) == 20
        assert batch.input[:, 0, 0, 0].tolist() == batch.index.tolist()
    assert sorted(named) == sorted(bad)


def test_replacements_do_not_depend_on_the_number_of_processes(kit: Any) -> None:
    source, order = kit.numbers(100, (3, 17, 50, 51)), EndlessOrder(100, 12, 0)
    one = BatchStream(source, order)
    two = [BatchStream(source, order, rank=r, world=2) for r in range(2)]
    for k in range(9):
        assert one.batch(k).index.tolist() == [i for s in two for i in s.batch(k).index.tolist()]


def test_a_source_without_one_readable_sample_stops() -> None:
    class Dead(Ragged):
        size = (2, 2)

        def read(self, index: int) -> torch.Tensor:
            from ssl_framework.types import BadSampleError

            raise BadSampleError("planted")

    with pytest.raises(ValueError, match="cannot be read, nor can 100 others"):
        BatchStream(Dead(), EndlessOrder(30, 5, 0)).batch(0)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_mixed_sizes_are_cropped_where_they_are_read(kit: Any, workers: int) -> None:
    data = DataModule(Ragged(), batch_size=6, name="n", size=[8, 8], workers=workers)
    data.attach(kit.views())
    batches = list(islice(data.train_dataloader(), 6))
    for batch in batches:
        assert batch.input.shape == (6, 0)
        assert batch.crops is not None
        assert batch.crops.global_crops.shape == (2, 6, 1, 4, 4)
        assert batch.crops.global_crops.dtype == torch.uint8
        assert batch.crops.index.tolist() == batch.index.tolist()
        assert torch.equal(batch.draw.key, batch.crops.key)
        assert torch.equal(batch.draw.key, kit.views().draw(batch.index, batch.epoch).key)
        for i, index in enumerate(batch.index.tolist()):
            one = kit.views().draw(batch.index[i : i + 1], batch.epoch[i : i + 1])
            assert torch.equal(batch.crops.global_crops[:, i], kit.views().crop(data.train.read(index), one).global_crops[:, 0])


def test_mixed_sizes_without_views_say_what_to_do() -> None:
    data = DataModule(Ragged(), batch_size=6, name="n", size=[8, 8])
    with pytest.raises(ValueError, match=r"differ in size.*data\.attach\(views\)"):
        data.train_dataloader()


def test_a_loader_has_no_length_so_that_lightning_neither_ends_nor_shards_it(kit: Any) -> None:
    for workers in (0, 1):
        loader = DataModule(kit.numbers(50), batch_size=16, name="n", workers=workers).train_dataloader()
        assert isinstance(loader, DataLoader if workers else BatchStream)
        with pytest.raises(TypeError):
            len(loader)


def test_batches_survive_collation_to_a_device(kit: Any) -> None:
    from pytorch_lightning.utilities import move_data_to_device

    batch = move_data_to_device(
        next(iter(DataModule(kit.numbers(50), batch_size=4, name="n").train_dataloader())), torch.device("cpu")
    )
    assert isinstance(batch, Batch)
    assert batch.crops is None


def test_a_replacement_is_not_a_sample_of_the_same_batch_while_there_are_others(kit: Any) -> None:
    order = EndlessOrder(40, 30, 0)
    stream = BatchStream(kit.numbers(40, (3, 9)), order)
    batches = [stream.batch(k) for k in range(12)]
    replaced = [b for k, b in enumerate(batches) if b.bad is not None and len(set(order.batch(k)[0])) == 30]
    assert len(replaced) > 2
    for k, batch in enumerate(batches):
        assert not (set(batch.index.tolist()) - set(order.batch(k)[0].tolist())) & {3, 9}
        new = [i for i, j in zip(batch.index.tolist(), order.batch(k)[0].tolist(), strict=True) if i != j]
        assert not set(new) & set(order.batch(k)[0].tolist())
