"""Labelled splits as Lightning wants them: endless keyed batches to train on, and each sample once to measure on."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ssl_framework.data import Labelled
from ssl_framework.data.order import EndlessOrder
from ssl_framework.types import Batch


class LabelledData(pl.LightningDataModule):
    """The splits of phase 2. Several processes share each batch, without duplicates.

    Args:
        train: what is learnt from; often ``data.split("train").subset(10, seed)``.
        val: what is reported on while training.
        test: what is measured once, at the end.
        batch_size: of all processes together; at most the training samples, which may be few.
        eval_batch_size: of validation and test, of all processes together; no result depends on it.
        workers: processes that read ahead, for each split.
        seed: of the order of the training samples.
        balanced: every class is seen equally often in a pass; samples of rare ones come several times.

    Attributes:
        position: global batches consumed, which is all that a resumed run needs to know.
        rows_only: batches to learn from have rows of `train`, ``(B,)`` int64, in place of images; see `Kept`.
    """

    def __init__(
        self,
        train: Labelled,
        val: Labelled | None = None,
        test: Labelled | None = None,
        *,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        workers: int = 0,
        seed: int = 0,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise ValueError(f"batch_size={batch_size}, eval_batch_size={eval_batch_size}: a batch has at least one sample.")
        if len(train) == 0:
            raise ValueError(
                "the training split is empty: there is nothing to learn from. Ask for at least one label per class."
            )
        for split, use in ((train, "learnt from"), (val, "chosen on")):
            if split is not None and split.split == "test":
                raise ValueError(f"the test split would be {use}, and it judges: give train and validation splits of the data.")
        self.train, self.val, self.test = train, val, test
        self.batch_size = min(batch_size, len(train))
        self.eval_batch_size = eval_batch_size
        self.workers = workers
        self.seed, self.balanced = seed, balanced
        self._rows = _evenly(train.targets) if balanced else torch.arange(len(train))
        self._repeat = _repeats(self._rows)
        self.position, self.rows_only = 0, False
        self._read: Callable[[Labelled], Tensor] = _classes

    def attach(self, targets: Callable[[Labelled], Tensor]) -> None:
        """What is learnt of each sample, ``(N, ...)`` in the order of a split; the labels of classes, if nobody says."""
        self._read = targets

    @property
    def batches_per_epoch(self) -> float:
        """Global batches in one pass over the labels."""
        return len(self._rows) / self.batch_size

    def setup(self, stage: str) -> None:
        """Make the batch one that the processes can share equally."""
        _, world = self._place
        if len(self.train) < world:
            raise ValueError(
                f"{len(self.train)} labelled samples cannot be shared by {world} processes: use trainer.devices=1."
            )
        if self.batch_size % world != 0:
            if self.batch_size < len(self.train):
                raise ValueError(
                    f"batch_size={self.batch_size} cannot be shared equally by {world} processes: take a multiple of {world}."
                )
            self.batch_size -= self.batch_size % world  # the data, not the user, made it so

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless batches from `position` on."""
        order = EndlessOrder(len(self._rows), self.batch_size, self.seed)
        rows = torch.stack([self._rows, self._repeat])
        stream = _Training(self.train, self._read(self.train), rows, order, self.position, *self._place, self.rows_only)
        return self._loader(stream, 0 if self.rows_only else self.workers)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Each sample once."""
        return [] if self.val is None else self._measuring(self.val)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Each sample once.

        Raises:
            ValueError: there is no test split.
        """
        if self.test is None:
            raise ValueError('there is no test split to measure on: give LabelledData(..., test=data.split("test")).')
        return self._measuring(self.test)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move the samples; what was drawn for them stays on the CPU."""
        return batch.to(device) if isinstance(batch, Batch) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count what training has consumed."""
        if self.trainer is not None and self.trainer.training:
            self.position += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it is a position in."""
        return {"position": self.position, **self._identity()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a position.

        Raises:
            ValueError: it belongs to other data; the message names the difference.
        """
        for name, value in self._identity().items():
            if state_dict[name] != value:
                raise ValueError(
                    f"the run was started with {name}={state_dict[name]} and is resumed with {name}={value}: "
                    "resume with the settings of the run, or begin a new one."
                )
        self.position = state_dict["position"]

    def _identity(self) -> dict[str, Any]:
        return {"samples": len(self._rows), "batch_size": self.batch_size, "seed": self.seed}

    def _measuring(self, split: Labelled) -> DataLoader[Batch]:
        rank, world = self._place
        if len(split) < world:
            raise ValueError(f"a split of {len(split)} samples cannot be shared by {world} processes: use trainer.devices=1.")
        stream = _Measuring(split, self._read(split), -(-self.eval_batch_size // world), rank, world)
        return self._loader(stream, self.workers)

    def _loader(self, stream: IterableDataset[Batch], workers: int) -> DataLoader[Batch]:
        return DataLoader(stream, batch_size=None, num_workers=workers)

    @property
    def _place(self) -> tuple[int, int]:
        """Rank of this process, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


class _Training(IterableDataset[Batch]):
    """This process's rows of the global batches `start`, `start` + 1, and so on."""

    def __init__(
        self,
        split: Labelled,
        targets: Tensor,
        among: Tensor,
        order: EndlessOrder,
        start: int,
        rank: int,
        world: int,
        rows_only: bool,
    ) -> None:
        self.rows_only = rows_only
        self.split, self.targets, self.order, self.start = split, targets, order, start
        self.among, self.repeat = among
        self.passes = int(self.repeat.max()) + 1  # of one sample in a pass over all: each with crops of its own
        self.share = order.batch_size // world
        self.mine = slice(rank * self.share, (rank + 1) * self.share)

    def __iter__(self) -> Iterator[Batch]:
        first, step = _worker()
        for k in itertools.count(self.start + first, step):
            rows, epoch = (torch.from_numpy(numbers[self.mine].copy()) for numbers in self.order.batch(k))
            epoch = epoch * self.passes + self.repeat[rows]
            among = self.among[rows]
            images = among if self.rows_only else self.split.images(among)
            yield Batch(images, self.targets[among], self.split.index[among], epoch)


class _Measuring(IterableDataset[Batch]):
    """Every sample in one process only. The last batch is filled up, with index -1, so that all processes make equal steps."""

    def __init__(self, split: Labelled, targets: Tensor, share: int, rank: int, world: int) -> None:
        self.split, self.targets, self.share, self.rank, self.world = split, targets, share, rank, world

    def __iter__(self) -> Iterator[Batch]:
        first, step = _worker()
        size, count = self.share * self.world, len(self.split)
        for k in range(first, -(-count // size), step):
            rows = k * size + self.rank + self.world * torch.arange(self.share)
            rows = rows[: -(-(count - k * size) // self.world)]  # equally many in each process
            kept = rows.clamp(max=count - 1)
            index = torch.where(rows < count, self.split.index[kept], -1)
            yield Batch(self.split.images(kept), self.targets[kept], index)


def _evenly(targets: Tensor) -> Tensor:
    """Rows in which every class comes as often as the most frequent one, its samples as evenly as that allows."""
    found = [(targets == label).nonzero()[:, 0] for label in targets.unique()]
    most = max(map(len, found))
    return torch.cat([rows.repeat(-(-most // len(rows)))[:most] for rows in found])


def _repeats(rows: Tensor) -> Tensor:
    """How often each row came before: 0 where it comes for the first time."""
    order = rows.argsort(stable=True)
    ranked = rows[order]
    first = torch.searchsorted(ranked, ranked)
    repeats = torch.empty_like(rows)
    repeats[order] = torch.arange(len(rows)) - first
    return repeats


def _classes(split: Labelled) -> Tensor:
    return split.targets


def _worker() -> tuple[int, int]:
    """Which worker this is, of how many; a loader hands out their batches in turn."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
