"""A run is saved whole or not at all, and its encoder with it."""

import os
import re
from pathlib import Path
from typing import Any, Protocol, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ssl_framework.checkpoint.encoder_file import check_savable, save_encoder
from ssl_framework.types import ViewMaker


class Exporting(Protocol):
    """What a module must offer so that its encoder can be written."""

    views: ViewMaker

    def exported(self) -> nn.Module:
        """The encoder that phase 2 starts from."""
        ...


_NAME = re.compile(r"step-(\d+)\.ckpt")


class SaveRun(Checkpoint):
    """Write ``checkpoints/step-N.ckpt``, ``encoder.safetensors`` and ``encoder.yaml`` into the run folder.

    A checkpoint is written after the optimiser step and everything that follows it, to a temporary file beside its place,
    synced and renamed: a kill leaves the old one or the new one. The last `keep` are kept.

    Args:
        every_n_steps: optimiser steps between two checkpoints; None saves about once an epoch, and 0 at the end only.
        keep: checkpoints that stay on disk.
        history: plain facts that go into ``encoder.yaml`` (pretext, data, seed, ...).
    """

    def __init__(self, every_n_steps: int | None = None, keep: int = 2, history: dict[str, Any] | None = None) -> None:
        super().__init__()
        if keep < 1:
            raise ValueError(f"keep={keep}: a run that keeps no checkpoint cannot be resumed. Give 1 or more.")
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.history = dict(history or {})
        self._saved = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse an encoder that could not be saved, now and not after the training."""
        check_savable(cast(Exporting, pl_module).exported())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what a killed save left behind."""
        self._saved = trainer.global_step
        if trainer.is_global_zero:
            for leftover in checkpoint_dir(trainer.default_root_dir).glob("*.tmp"):
                leftover.unlink()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when an optimiser step has been done and it is time."""
        step = trainer.global_step
        if step != self._saved and (step == trainer.max_steps or self._due(trainer, step)):
            self.save(trainer, pl_module)

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save now; called on all ranks together."""
        step = self._saved = trainer.global_step
        target = checkpoint_dir(trainer.default_root_dir) / f"step-{step:09d}.ckpt"
        temporary = target.with_suffix(".tmp")
        trainer.save_checkpoint(temporary, weights_only=False)  # False: the optimiser and the loops too
        if trainer.is_global_zero:
            sync_and_rename(temporary, target)
        self.export(trainer, pl_module)
        if trainer.is_global_zero:
            for old in checkpoints(trainer.default_root_dir)[: -self.keep]:
                old.unlink()
        trainer.strategy.barrier("SaveRun")

    def export(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the encoder alone; called on all ranks together."""
        module = cast(Exporting, pl_module)
        state = full_state(module.exported())  # every rank takes part where tensors are sharded
        card = getattr(module, "card", None)  # phase 2 has none, and hands on what it was told of pretraining
        made = {} if card is None else {"pretext": type(pl_module).__name__, "branch": card.exports}
        if trainer.is_global_zero:
            save_encoder(
                module.exported(),
                Path(trainer.default_root_dir),
                state=state,
                preprocessing=_preprocessing(module.views),
                history={**self.history, **made, "steps": trainer.global_step},
            )

    def _due(self, trainer: pl.Trainer, step: int) -> bool:
        every = self.every_n_steps
        if every is None:
            data = getattr(trainer, "datamodule", None)  # absent until one is attached
            per_epoch = getattr(data, "batches_per_epoch", trainer.max_steps * trainer.accumulate_grad_batches)
            every = max(1, round(per_epoch / trainer.accumulate_grad_batches))
        return every > 0 and step % every == 0


def checkpoint_dir(run: str | Path) -> Path:
    """Where a run keeps its training checkpoints."""
    return Path(run) / "checkpoints"


def checkpoints(run: str | Path) -> list[Path]:
    """The whole training checkpoints of a run, oldest first."""
    return sorted(path for path in checkpoint_dir(run).glob("step-*.ckpt") if _NAME.fullmatch(path.name))


def last_checkpoint(run: str | Path) -> Path:
    """The newest training checkpoint of a run folder.

    Raises:
        FileNotFoundError: no such folder, or it has none; the message says what to do.
    """
    if not Path(run).is_dir():
        raise FileNotFoundError(f"There is no run folder {run} to resume: check resume=.")
    found = checkpoints(run)
    if not found:
        raise FileNotFoundError(f"{run} has no checkpoint to resume from: the run ended before its first save. Start it again.")
    return found[-1]


def sync_and_rename(temporary: Path, target: Path) -> None:
    """Put a finished file in its place so that a power cut leaves the old or the new one."""
    for path in (temporary, temporary.parent):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    temporary.replace(target)


def full_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module as whole tensors on the CPU; a collective call where FSDP2 has sharded them."""
    state: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        state[name] = whole.detach().to("cpu", copy=True) if isinstance(whole, torch.Tensor) else whole
    return state


def _preprocessing(views: ViewMaker) -> dict[str, Any]:
    return {"mean": list(views.mean), "std": list(views.std), "size": list(views.size), "channels": len(views.mean)}
