"""Whether every sample is trained on, once in a pass over the data."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from ssl_framework.data import DataModule
from ssl_framework.monitors.monitor import Monitor
from ssl_framework.types import Batch


class Samples(Monitor):
    """Counts how often each sample came, and warns where some come too often, or not at all.

    ``samples/repeated`` is the share, of what was read since the last look, that had come as often as passes over the data were
    begun; ``samples/missing`` the share of samples which came less often than passes were completed. Both are 0 for a
    `DataModule`, but for unreadable samples, which others stand in for (``samples/unreadable``, how many). Processes that read
    the same samples, or an order that is drawn anew in the middle of a pass, show here. A resumed run counts from where it was
    resumed. It watches a `DataModule`.

    Args:
        every_n_steps: optimiser steps between two looks.
        max_share: that may be repeated or missing; a tenth of it is what a `DataModule` lets be unreadable.
        patience: wrong looks before a warning.
    """

    watches = "samples"

    def __init__(self, every_n_steps: int = 50, max_share: float = 0.1, patience: int = 2) -> None:
        super().__init__(every_n_steps, patience)
        self._max_share = max_share
        self._counts: Tensor | None = None
        self._start, self._read, self._excess = 0, 0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        super().on_train_start(trainer, pl_module)
        data = _data(trainer)
        self._counts = None if data is None else torch.zeros(data.num_samples, dtype=torch.int32, device=pl_module.device)
        self._start = self._read = 0 if data is None else data.position * data.batch_size
        self._excess = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count this batch."""
        if self._counts is not None and isinstance(batch, Batch):
            self._counts.index_add_(0, batch.index, torch.ones_like(batch.index, dtype=torch.int32))
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, seen: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Judge all counts."""
        data = _data(trainer)
        if data is None or self._counts is None:
            return {}
        counts = self._counts
        if trainer.world_size > 1:
            counts = counts.clone()
            dist.all_reduce(counts)
        total, end = data.num_samples, data.position * data.batch_size
        begun = -(-end // total) - self._start // total
        completed = max(0, end // total - -(-self._start // total))
        excess, rare = torch.stack([(counts - begun).clamp(min=0).sum(), (counts < completed).sum()]).tolist()
        repeated, missing = max(0.0, (excess - self._excess) / max(1, end - self._read)), rare / total
        self._read, self._excess = end, excess
        self.judge(
            "samples are repeated",
            repeated > self._max_share,
            f"{repeated:.0%} of what was read had come in the same pass before. Processes read the same samples, or the order "
            "is drawn anew within a pass: use the loader of DataModule.",
        )
        self.judge(
            "samples never come",
            missing > self._max_share,
            f"{missing:.0%} of the samples came less than {completed} times in {completed} whole passes: use the loader of "
            "DataModule.",
        )
        unreadable = sum(split == "train" for split, _ in data.bad_samples.rows)
        return {
            "samples/repeated": repeated,
            "samples/missing": missing,
            "samples/unreadable": float(unreadable),
            "samples/per_process": float(len(batch.index)),
        }


def _data(trainer: pl.Trainer) -> DataModule | None:
    data = getattr(trainer, "datamodule", None)  # absent from Lightning's Trainer until one is attached
    return data if isinstance(data, DataModule) else None
