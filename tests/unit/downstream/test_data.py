import itertools

import pytest
import torch

from ssl_framework.downstream import LabelledData
from ssl_framework.downstream.data import _Measuring
from support import on_ranks

from .conftest import make_split


def _first(data: LabelledData, count: int) -> list:
    return list(itertools.islice(data.train_dataloader(), count))


def test_every_label_once_a_pass_whatever_the_workers():
    data = LabelledData(make_split(10), batch_size=4, seed=1)
    batches = _first(data, 5)
    seen = torch.cat([batch.index for batch in batches])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert torch.cat([batch.epoch for batch in batches]).tolist() == [0] * 10 + [1] * 10
    assert all(torch.equal(data.train.targets[batch.index], batch.target) for batch in batches)
    assert all(torch.equal(data.train.images(batch.index), batch.input) for batch in batches)
    other = LabelledData(make_split(10), batch_size=4, seed=1, workers=2)
    assert torch.equal(seen, torch.cat([batch.index for batch in _first(other, 5)]))
    assert not torch.equal(
        seen, torch.cat([batch.index for batch in _first(LabelledData(make_split(10), batch_size=4, seed=2), 5)])
    )


def test_the_position_is_all_that_a_resumed_run_needs():
    data = LabelledData(make_split(10), batch_size=4)
    expected = _first(data, 6)[4:]
    data.position = 4
    other = LabelledData(make_split(10), batch_size=4)
    other.load_state_dict(data.state_dict())
    assert all(torch.equal(a.index, b.index) for a, b in zip(_first(other, 2), expected, strict=True))
    for changed, word in ((make_split(12), "samples=10"), (make_split(10), "seed=0")):
        with pytest.raises(ValueError, match=word):
            LabelledData(changed, batch_size=4, seed=1).load_state_dict(data.state_dict())


def test_few_labels_make_a_smaller_batch():
    data = LabelledData(make_split(6), batch_size=64)
    assert data.batch_size == 6
    assert data.batches_per_epoch == 1


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 7, 12, 13])
def test_measuring_counts_each_sample_once_in_equal_steps(count, world):
    split = make_split(count)
    ranks = [list(_Measuring(split, split.targets, 2, rank, world)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    for together in zip(*ranks, strict=True):
        assert len({len(batch.index) for batch in together}) == 1
    index = torch.cat([batch.index for batches in ranks for batch in batches])
    assert sorted(index[index >= 0].tolist()) == list(range(count))
    assert (index < 0).sum() < world
    assert all((torch.cat([batch.index for batch in batches]) >= 0).any() for batches in ranks)


class _Place:
    def __init__(self, rank: int, world: int) -> None:
        self.global_rank, self.world_size = rank, world


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_batch(world):
    alone = _first(LabelledData(make_split(13), batch_size=6, seed=3), 7)
    shares = []
    for rank in range(world):
        data = LabelledData(make_split(13), batch_size=6, seed=3)
        data.trainer = _Place(rank, world)
        data.setup("fit")
        shares.append(_first(data, 7))
    for whole, *parts in zip(alone, *shares, strict=True):
        assert torch.equal(whole.index, torch.cat([part.index for part in parts]))


def test_what_cannot_be_shared_is_refused():
    def placed(data: LabelledData, world: int) -> LabelledData:
        data.trainer = _Place(0, world)
        return data

    with pytest.raises(ValueError, match="multiple of 2"):
        placed(LabelledData(make_split(13), batch_size=5), 2).setup("fit")
    few = placed(LabelledData(make_split(7), batch_size=64), 2)
    few.setup("fit")
    assert few.batch_size == 6
    with pytest.raises(ValueError, match=r"3 labelled samples cannot be shared by 4 processes"):
        placed(LabelledData(make_split(3)), 4).setup("fit")
    with pytest.raises(ValueError, match="no test split"):
        LabelledData(make_split(3)).test_dataloader()
    with pytest.raises(ValueError, match="batch_size=0"):
        LabelledData(make_split(3), batch_size=0)


def _positions(rank: int, world: int) -> list[int]:
    data = LabelledData(make_split(8), batch_size=4)
    data.trainer = _Place(rank, world)
    return [int(i) for batch in _first(data, 2) for i in batch.index]


def test_two_processes_see_no_sample_twice():
    seen = on_ranks(2, _positions)
    assert sorted(seen[0] + seen[1]) == list(range(8))


def test_balanced_every_class_comes_equally_often():
    split = make_split(30)
    rare = split._of(split.rows[torch.cat([torch.arange(0, 30, 3), torch.tensor([1, 4, 7, 2])]).numpy()])  # 10, 3 and 1
    assert rare.targets.bincount().tolist() == [10, 3, 1]
    data = LabelledData(rare, batch_size=10, seed=1, balanced=True)
    assert data.batches_per_epoch == 3
    seen = torch.cat([batch.target for batch in _first(data, 3)])
    assert seen.bincount().tolist() == [10, 10, 10]
    index = torch.cat([batch.index for batch in _first(data, 3)])
    assert set(index.tolist()) == set(rare.index.tolist())
    assert sorted(index[seen == 1].bincount()[index[seen == 1].unique()].tolist()) == [3, 3, 4]
    assert data.state_dict()["samples"] == 30
    epochs = torch.cat([batch.epoch for batch in _first(data, 3)])
    keys = set(zip(index.tolist(), epochs.tolist(), strict=True))
    assert len(keys) == 30  # a sample that comes again is cropped anew
    later = torch.cat([batch.epoch for batch in _first(data, 6)[3:]])
    assert int(later.min()) > int(epochs.max())  # and so it is in the next pass
