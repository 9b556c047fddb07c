"""A run that stands still says where, and ends."""

import faulthandler
import multiprocessing
import os
import sys
import threading
import time
from typing import Any, NamedTuple

import pytorch_lightning as pl

EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h."""


class _Beat(NamedTuple):
    """What the run did last, and since when."""

    since: float
    doing: str
    limit: float


class Watchdog(pl.Callback):
    """Ends a process that has waited too long: for data, or within a step, where it may wait for another process.

    torch waits for ever for a loader's worker that is stuck, and half an hour for a process that was stopped. A thread looks at
    what the run did last. Past the limit it says which process stands at which step, in what, prints where every thread is,
    ends the workers of its loaders and leaves with code 70; so the others of the run, which would wait for it, end too.

    List it behind monitors: what they do after a batch is not waiting.

    Args:
        data: seconds that one batch may take to come.
        step: seconds that a step, a validation's batch or a checkpoint may take; compiling is part of the first step.
    """

    def __init__(self, data: float = 120, step: float = 1800) -> None:
        if min(data, step) <= 0:
            raise ValueError(f"data={data}, step={step}: give seconds above 0.")
        self._data, self._step = data, step
        self._beat: _Beat | None = None
        self._over: threading.Event | None = None
        self._where = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to look."""
        self._where = f"process {trainer.global_rank} of {trainer.world_size}"
        self._waits(trainer, "a batch of training")
        self._over = threading.Event()
        threading.Thread(target=self._look, args=(self._over,), daemon=True, name="watchdog").start()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch has come."""
        self._works(trainer, "in its step")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step is done."""
        self._waits(trainer, "a batch of training")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation has data of its own."""
        self._waits(trainer, "a batch of validation")

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """The batch has come."""
        self._works(trainer, "in its validation")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """It is done."""
        self._waits(trainer, "a batch of validation")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What others do at its end may take as long as a step."""
        self._works(trainer, "behind its validation")

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A disk may be slow."""
        self._works(trainer, "in a checkpoint")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look no more."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say where the run was, below the error, and look no more."""
        if self._beat is not None:
            exception.add_note(f"{self._where} was {self._beat.doing}")
        self._stop()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Look no more."""
        self._stop()

    def _waits(self, trainer: pl.Trainer, what: str) -> None:
        self._beat = _Beat(time.monotonic(), f"waiting for {what}, after {_stands(trainer)}", self._data)

    def _works(self, trainer: pl.Trainer, what: str) -> None:
        self._beat = _Beat(time.monotonic(), f"{what}, after {_stands(trainer)}", self._step)

    def _look(self, over: threading.Event) -> None:
        while not over.wait(min(self._data, self._step) / 8):
            beat = self._beat
            if beat is not None and time.monotonic() - beat.since > beat.limit:
                self._leave(beat)

    def _leave(self, beat: _Beat) -> None:
        key = "trainer.data_timeout" if beat.limit == self._data else "trainer.step_timeout"
        sys.stderr.write(
            f"\nerror: {self._where} stands still: {beat.limit:g} s {beat.doing}. Where its threads are is printed below; if "
            f"it is only slow, raise {key}. Its checkpoints are whole: go on with resume=.\n"
        )
        sys.stderr.flush()
        faulthandler.dump_traceback(file=2, all_threads=True)
        try:
            for worker in multiprocessing.active_children():  # one that is stopped would outlive this process, with its memory
                worker.kill()
        finally:
            os._exit(EXIT_CODE)

    def _stop(self) -> None:
        if self._over is not None:
            self._over.set()
        self._over = self._beat = None


def _stands(trainer: pl.Trainer) -> str:
    """Which step, and which batch of the data, was the last."""
    position = getattr(getattr(trainer, "datamodule", None), "position", None)
    return f"step {trainer.global_step}" + ("" if position is None else f" and {position} batches")
