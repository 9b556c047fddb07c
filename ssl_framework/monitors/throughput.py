"""How fast training goes, and whether it waits for data."""

import time
from typing import Any

import pytorch_lightning as pl

from ssl_framework.monitors.watch import Every, log
from ssl_framework.types import Batch


class Throughput(pl.Callback):
    """Logs ``throughput/samples_per_s`` (of all processes) and ``throughput/data_wait`` (share of time, 0 to 1).

    The wait is what passes between two batches: fetching, moving to the device, and what callbacks listed after this one do, so
    list it last. The first batch, and batches before which a validation ran or a checkpoint was written, are left out.
    Times are the process's own and the device is never waited for: where it runs behind, the wait is an upper bound.

    Args:
        every_n_steps: optimiser steps that one value covers.
    """

    def __init__(self, every_n_steps: int = 50):
        self._every = Every(every_n_steps)
        self._ended: float | None = None
        self._started = 0.0
        self._samples, self._elapsed, self._waited = 0, 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._every.start(trainer)
        self._ended = None
        self._samples, self._elapsed, self._waited = 0, 0.0, 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is there."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The batch is done; log, if it is time."""
        assert isinstance(batch, Batch)
        now = time.perf_counter()
        if self._ended is not None:
            self._samples += len(batch.index) * trainer.world_size
            self._elapsed += now - self._ended
            self._waited += self._started - self._ended
        if self._every.due(trainer) and self._elapsed > 0:
            values = {"samples_per_s": self._samples / self._elapsed, "data_wait": self._waited / self._elapsed}
            log(trainer, pl_module, {f"throughput/{name}": value for name, value in values.items()})
            self._samples, self._elapsed, self._waited = 0, 0.0, 0.0
        self._ended = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation is not training."""
        self._ended = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Neither is writing a file."""
        self._ended = None
