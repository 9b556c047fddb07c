"""The data module: endless batches without labels for pretraining, labelled splits for everything that is measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader

from ssl_framework.data import overlap
from ssl_framework.data.ahead import ReadAhead
from ssl_framework.data.bad import BadSamples, of_all
from ssl_framework.data.checks import check_alike, check_begun, check_facts, checked_size, checked_statistics
from ssl_framework.data.labelled import Labelled
from ssl_framework.data.masks import Masks
from ssl_framework.data.measure import measured
from ssl_framework.data.order import EndlessOrder, OnePass, Order
from ssl_framework.data.split import carve, unreadable
from ssl_framework.data.storage import Storage
from ssl_framework.data.stream import BatchStream
from ssl_framework.data.table import Table
from ssl_framework.types import BadSampleError, Batch, Facts, Source, ViewMaker

SplitName: TypeAlias = Literal["train", "val", "test"]
Loader: TypeAlias = BatchStream | ReadAhead | DataLoader[Batch]

_TEST_REMEDY = "give test data, or data.test_share=0.2, here and where the encoder is pretrained, so that it sees none of them"


class DataModule(pl.LightningDataModule):
    """One data set, its splits, and the position of the run in it.

    Everything that is random is a function of the seed and of one integer, `position`: the global batches consumed. So a run
    goes on after a kill with the very next batch, whatever the number of workers, and with the same batches on another number
    of processes. The training loader has no end and no labels.

    Args:
        train: samples to pretrain on.
        val: samples that choices are made on; None carves them from the labelled training samples.
        test: samples of the final measurement, read through `test_split` only; None: the data set has none.
        name: what the data set is called in messages.
        labelled: the labelled training samples, where they are others than `train` (STL-10); default `train`.
        batch_size: samples of a batch, all processes together.
        val_share: share of the training samples (of each class, if labelled) that is carved for validation.
        workers: loader processes; 0: threads of the training process; None: threads on a CPU and processes on a GPU for files,
            nothing for decoded images. No result depends on it.
        cache: decode everything once into a file, at one size, and read that; see `ssl_framework.data.cache`.
        cache_size: height and width there, best somewhat larger than the views; None: the size that the images have.
        cache_dir: folder of the cache; None: ``ssl_framework`` in the user's folder of caches.
        resident: hold the images in one tensor on the device; None: where they fit a quarter of the memory that is free.
        on_bad_sample: ``skip``: another sample takes the place of one that cannot be read, drawn by (seed, epoch, sample), and
            more than 1 % of them end the run; ``error``: the first one does.
        seed: of the order of the samples.
        split_seed: of the carving. It is not the run's seed: the splits stay the same when runs are repeated with other seeds,
            and a sample that one run tests on is never one that another pretrained on.
        channels: what the data should have; None: what they have.
        size: height and width; where images differ in size, what they are brought to by `Labelled` (needed there).
        classes: how many there should be; None: as many as there are.
        mean: per channel, inputs in [0, 1]; None: measured on keyed-random training samples (10,000 in memory, 1,000 to
            decode).
        std: per channel.

    Raises:
        ValueError: facts that do not fit the data, no samples, or numbers out of range.
    """

    def __init__(
        self,
        train: Source,
        val: Source | None = None,
        test: Source | None = None,
        *,
        name: str,
        labelled: Source | None = None,
        batch_size: int = 256,
        val_share: float = 0.1,
        workers: int | None = None,
        cache: bool = False,
        cache_size: int | Sequence[int] | None = None,
        cache_dir: str | None = None,
        resident: bool | None = None,
        on_bad_sample: str = "skip",
        seed: int = 0,
        split_seed: int = 0,
        channels: int | None = None,
        size: int | Sequence[int] | None = None,
        classes: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_begun(train, batch_size, workers, name)
        self.name = name
        self.batch_size = batch_size
        self.val_share = val_share
        self.workers = workers
        self.seed = seed
        self.split_seed = split_seed
        self.position = 0
        self.bad_samples = BadSamples(on_bad_sample)
        self._whole: dict[str, bool] = {}  # splits of which every sample is known to be readable
        self._storage = Storage(
            name, cache=cache, cache_size=cache_size, cache_dir=cache_dir, resident=resident, workers=workers
        )
        whole = self._storage.cached(train)
        val, test, labelled = (self._storage.cached(source) for source in (val, test, labelled))
        assert whole is not None
        self._cached = whole.size if whole.size != train.size else None
        train = whole
        learn = labelled if labelled is not None else train
        if val is None:
            learn, val = carve(learn, val_share, split_seed)
        self.train = learn if labelled is None else train
        self._splits: dict[str, Source | None] = {"train": learn, "val": val, "test": test}
        self._copies: overlap.Copies | None = None  # positions before copies were left out
        self._is_apart = False
        self._unseen: list[DataModule] = []  # whose held-out images were looked for in what is pretrained on
        self._views: ViewMaker | None = None
        self._size = checked_size(train, size, name, free=self._cached is not None)
        check_facts(learn, channels, classes, name)
        check_alike(learn, self._splits, name)
        self._statistics = checked_statistics(mean, std, learn.channels)
        self._measured_on = 0

    @property
    def facts(self) -> Facts:
        """What the rest of a run needs to know; mean and std are measured at the first call where they were not given."""
        if self._statistics is None:
            self._statistics = self._measure()
        learn = self._splits["train"]
        assert learn is not None
        return Facts(self.train.channels, self._size, *self._statistics, learn.classes)

    @property
    def num_samples(self) -> int:
        """Training samples: `Batch.index` runs below it."""
        return len(self.train)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, or those that images of mixed sizes are brought to."""
        return self._size

    def sources(self) -> dict[str, Source]:
        """Samples by split: train, val and test, as far as there are some; ``pretrain``, where others than train."""
        own = {} if self.train is self._splits["train"] else {"pretrain": self.train}
        return own | {name: source for name, source in self._splits.items() if source is not None and len(source)}

    @property
    def batches_per_epoch(self) -> float:
        """Global batches in one pass over the training samples; a fraction where the batch does not divide them."""
        return self._order().n / self.batch_size

    def attach(self, views: ViewMaker) -> None:
        """Take the views that crop images of mixed sizes in the loader; a pretext task does it in `setup`."""
        self._views = views

    def setup(self, stage: str) -> None:
        """Unreadable samples are named in the Trainer's run folder, and counted by its processes together."""
        del stage  # all stages alike
        if self.trainer is not None:
            self.bad_samples.together = self.trainer.world_size > 1
            self.bad_samples.writes = self.trainer.is_global_zero
            self.bad_samples.folder = Path(self.trainer.default_root_dir)

    def train_dataloader(self) -> Loader:
        """Endless batches from `position` on, this process's share, without labels.

        Raises:
            ValueError: the batch is larger than the data or cannot be shared equally, or images differ in size and no views are
                attached.
        """
        return self._loader(self.train, self._order(), start=self.position)

    def batch_at(self, position: int, rank: int = 0, world: int = 1) -> Batch:
        """One batch of the training, read here and now: what `train_dataloader` gives at a position.

        Args:
            position: global batches before it.
            rank: whose share of it.
            world: processes that share it.
        """
        place = self._storage.place(self.train, torch.device("cpu"), 1, self._views)
        stream = BatchStream(
            place.source, self._order(), seed=self.seed, rank=rank, world=world, views=self._views, size=place.size
        )
        return stream.batch(position)

    def val_dataloader(self) -> Loader:
        """Whole batches of validation samples, the same each time, without labels; empty where there are none."""
        val = self._splits["val"]
        assert val is not None, "carved where it is not given"
        return self._loader(val, OnePass(len(val), self.batch_size, self.seed, self._world))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move the samples; what was drawn for them stays on the CPU."""
        return batch.to(device) if isinstance(batch, Batch) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count a batch at the moment that it is used: what workers have read ahead does not count.

        Lightning calls it once for each batch, before the step, and never while it reads ahead.
        """
        del dataloader_idx
        trainer = self.trainer
        if trainer is None or not isinstance(batch, Batch):
            return batch
        if batch.target is not None:
            raise ValueError(f"a batch of {self.name} has labels, and pretraining has none to see: its loader hands them out.")
        if trainer.training:
            self.position += 1
        split, source = ("train", self.train) if trainer.training else ("val", self._splits["val"])
        assert source is not None
        for index in () if batch.bad is None else batch.bad.tolist():
            self._report(split, source, index)
        if trainer.world_size > 1 and not self._is_whole(split, source):
            self.bad_samples.note(of_all(trainer, self.bad_samples.told()))
        return batch

    def _is_whole(self, split: str, source: Source) -> bool:
        """Whether every process knows that nothing is unreadable, so that they need not ask each other."""
        if split not in self._whole:
            self._whole[split] = unreadable(source) == {}
        return self._whole[split]

    def split(self, name: SplitName, table: Table | None = None, masks: Masks | None = None) -> Labelled:
        """Images and labels of a split, for phase 2, probes and monitors.

        Args:
            name: of the split.
            table: numbers of the samples, for tasks whose targets are no classes.
            masks: where the labels of their pixels lie.

        Raises:
            ValueError: the data set has no such split, or it has no labels.
        """
        source = self._splits.get(name)
        if source is None or len(source) == 0:
            remedy = {"val": "give data.val_share above 0", "test": _TEST_REMEDY}.get(name)
            if name == "val" and overlap.is_carved(self._splits["val"], self._splits["train"]) and self.val_share > 0:
                learn = self._splits["train"]
                few = "images" if learn is None or learn.targets is None else "images per class"
                remedy = f"too few {few} for data.val_share={self.val_share}: give a larger share"
            raise ValueError(f"{self.name} has no {name} split: {remedy or 'the splits are train, val and test'}.")
        return Labelled(source, self._size, split=name, bad=self.bad_samples, table=table, masks=masks)

    def test_split(self) -> Labelled:
        """The split of the final measurement."""
        return self.split("test")

    def left_out(self) -> dict[str, overlap.Rows]:
        """Copies of what is learnt from that `require_apart` takes out of val and test: positions in each as it was before."""
        return overlap.left_out(self._splits, self._held_out_copies())

    def _held_out_copies(self) -> overlap.Copies:
        if self._copies is None:
            self._copies = overlap.held_out_copies(self._splits)
        return self._copies

    def require_apart(self) -> None:
        """Keep images that are learnt from out of what chooses and judges: see `ssl_framework.data.overlap.apart`.

        Raises:
            ValueError: more than 1 % of a split that was given are copies, or most of one that was carved.
        """
        if not self._is_apart:
            self._splits = overlap.apart(self._splits, self._held_out_copies(), str(self.name))
            self._is_apart = True

    def require_unseen(self, labelled: "DataModule") -> None:
        """Tell of images that are held out and that are pretrained on here without their labels, and refuse test images.

        Args:
            labelled: the data that hold them out: others, or these, whose own splits were compared by `require_apart` unless
                others are pretrained on than those with labels.

        Raises:
            ValueError: more than 1 % of a test split that was given; see `ssl_framework.data.overlap.require_unseen`.
        """
        is_compared = labelled is self and self.train is self._splits["train"]
        if not is_compared and labelled not in self._unseen:
            overlap.require_unseen(self.train, labelled._splits, str(labelled.name))
            self._unseen.append(labelled)

    def record(self) -> dict[str, Any]:
        """What the run folder keeps of the data, as plain containers: facts, sizes of the splits and how they were carved."""
        facts = self.facts
        return {
            "name": self.name,
            "channels": facts.channels,
            "size": list(facts.size),
            "mean": list(facts.mean),
            "std": list(facts.std),
            "measured_on": self._measured_on,  # samples; 0: given, not measured
            "classes": None if facts.classes is None else list(facts.classes),
            "samples": {
                "pretrain": self.num_samples,
                **{key: len(s) if s is not None else 0 for key, s in self._splits.items()},
            },
            "left_out": {
                name: len(rows) for name, rows in (self.left_out() if self._is_apart else {}).items()
            },  # of those compared
            "val_share": self.val_share,
            "split_seed": self.split_seed,
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """The position, what it is a position in, and the unreadable samples."""
        return {"position": self.position, **self._identity(), "bad": self.bad_samples.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the state was saved.

        Raises:
            ValueError: it was saved with other data, another global batch or another seed.
        """
        now = self._identity()
        other = [f"{key} is {now[key]} and was {state_dict.get(key)}" for key in now if now[key] != state_dict.get(key)]
        if other:
            raise ValueError(f"This run cannot go on with other data: {'; '.join(other)}. Give what the run began with.")
        if type(state_dict.get("position")) is not int or state_dict["position"] < 0:
            raise ValueError(f"The checkpoint has position={state_dict.get('position')!r}, which is no number of batches.")
        self.position = state_dict["position"]
        self.bad_samples.load_state_dict(state_dict["bad"])

    def _identity(self) -> dict[str, Any]:
        return {
            "cache_size": None if self._cached is None else list(self._cached),
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "split_seed": self.split_seed,
        }

    @property
    def _world(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _neighbours(self) -> int:
        """Processes of the run on this host: they share its memory and its cores."""
        return 1 if self.trainer is None else max(1, self.trainer.world_size // self.trainer.num_nodes)

    def _order(self) -> EndlessOrder:
        return EndlessOrder(self.num_samples, self.batch_size, self.seed)

    def _loader(self, source: Source, order: Order, start: int = 0) -> Loader:
        if self.batch_size % self._world:
            raise ValueError(
                f"A batch of {self.batch_size} samples cannot be shared equally by {self._world} processes: give a "
                f"data.batch_size that {self._world} divides."
            )
        rank = 0 if self.trainer is None else self.trainer.global_rank
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        place = self._storage.place(source, device, self._neighbours, self._views)
        if source is self.train:
            rank_zero_info(f"{self.name}: {place.said}")
        stream = BatchStream(
            place.source,
            order,
            seed=self.seed,
            start=start,
            rank=rank,
            world=self._world,
            views=self._views,
            size=place.size,
        )
        pin = device.type == "cuda"
        if place.processes:
            own = torch.Generator().manual_seed(self.seed)  # a loader without one draws from the global one
            return DataLoader(stream, batch_size=None, num_workers=place.processes, pin_memory=pin, generator=own)
        return ReadAhead(stream, place.threads, pin) if place.threads else stream

    def _measure(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of the training samples."""
        found = measured(self.train, self._size, self.split_seed, self.bad_samples, str(self.name))
        self._measured_on = found.samples
        return found.mean, found.std

    def _report(self, split: str, source: Source, index: int) -> None:
        """A worker says which samples are bad; why, says reading once more."""
        if (split, index) in self.bad_samples.rows:
            return
        try:
            source.read(index)
            reason = "could not be read by the loader, and could be read when it was tried again"
        except BadSampleError as error:
            reason = str(error)
        self.bad_samples.report(split, source, index, reason)
