"""A run is saved whole or not at all, and its encoder with it."""

import copy
from collections.abc import Set
from pathlib import Path
from typing import Any, Protocol, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ssl_framework.checkpoint import store
from ssl_framework.checkpoint.encoder_file import check_savable, save_encoder
from ssl_framework.checkpoint.files import remove_leftovers, replace_text, sync_folder
from ssl_framework.checkpoint.io import WholeFiles
from ssl_framework.guards import NonFiniteError, Preemption
from ssl_framework.guards.finite import written
from ssl_framework.types import ViewMaker

Plain = dict[str, Any]
_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # what torch's optimisers keep for each weight

FAILURE = "failure"
"""Folder of a run in which what replays steps that were not finite is kept."""


class Exporting(Protocol):
    """What a module must offer so that its encoder can be written."""

    views: ViewMaker

    def exported(self) -> nn.Module:
        """The encoder that phase 2 starts from."""
        ...


class SaveRun(Checkpoint):
    """Write ``checkpoints/step-N.ckpt``, its manifest ``step-N.json``, ``encoder.safetensors`` and ``encoder.yaml``.

    A checkpoint is written after the optimiser step and everything that follows it, beside its place, synced and renamed; then
    it is read back, and its manifest written, with which it counts. A kill anywhere leaves the ones before. The last `keep` are
    kept, older ones deleted when the new one counts.

    A disk that is full is told of, and the run goes on with what is saved; only its last checkpoint must be written.

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
        self._files = WholeFiles()
        self._unset: frozenset[str] = frozenset()  # tensors that say by NaN or infinity that they have no value yet
        self._done = -1  # the step that was looked at last
        self._unvalidated: Plain | None = None  # counters of the loops before the validation that is due

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse an encoder that could not be saved, now and not after the training; write and read files our way."""
        check_savable(cast(Exporting, pl_module).exported())
        self._files = trainer.strategy.checkpoint_io = WholeFiles()
        for callback in _preemptions(trainer):
            callback.saver = self

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what a killed save left behind; say what a resumed run cannot repeat; validate where the stop prevented it."""
        self._done = trainer.global_step
        self._unset = frozenset(_not_finite(pl_module))
        if trainer.is_global_zero:
            store.remove_unfinished(trainer.default_root_dir)
            for folder in (Path(trainer.default_root_dir), store.checkpoint_dir(trainer.default_root_dir)):
                remove_leftovers(folder)
        if trainer.ckpt_path is not None:
            _require_moments(trainer, pl_module)
            _say_what_differs(trainer, Path(trainer.ckpt_path))
        if self._unvalidated is not None:
            self._validate_again(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when an optimiser step has been done and it is time; leave where that was asked for."""
        step = trainer.global_step
        if step == self._done:
            return
        self._done = step
        self._unvalidated = copy.deepcopy(trainer.fit_loop.state_dict()) if _validates_now(trainer) else None
        stops = _asked_to_stop(trainer)
        if stops is not None or step == trainer.max_steps or self._due(trainer, step):
            self.save(trainer, pl_module, must=stops is not None or step == trainer.max_steps)
        if stops is not None:
            stops.leave(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Leave where that was asked for; the validation is done again when the run goes on."""
        stops = None if self._unvalidated is None else _asked_to_stop(trainer)
        if stops is not None:
            self.save(trainer, pl_module, must=True)
            stops.leave(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The validation counts."""
        self._unvalidated = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Plain) -> None:
        """What is saved in the middle of a validation is saved as of before it."""
        if self._unvalidated is not None:
            checkpoint["loops"] = {**checkpoint["loops"], "fit_loop": self._unvalidated}

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep what replays steps that were not finite, beside the checkpoints and not among them."""
        if isinstance(exception, NonFiniteError):
            folder = Path(trainer.default_root_dir) / FAILURE
            trainer.save_checkpoint(folder / "state.ckpt", weights_only=False)  # the optimiser too
            if trainer.is_global_zero:
                replace_text(folder / "failure.json", written(exception.facts))

    def state_dict(self) -> Plain:
        """Whether a validation is owed."""
        return {"owes_validation": self._unvalidated is not None}

    def load_state_dict(self, state_dict: Plain) -> None:
        """Go on with what is owed."""
        self._unvalidated = {} if state_dict["owes_validation"] else None

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, must: bool = False) -> None:
        """Save now; called on all processes together.

        Args:
            trainer: of the run.
            pl_module: likewise.
            must: a disk that is full is an error, and not only told of.

        Raises:
            NonFiniteError: a weight is NaN or infinite; the checkpoints before are kept.
            OSError: it must be saved, and cannot be.
        """
        require_finite(trainer, pl_module, self._unset)
        target = store.checkpoint_dir(trainer.default_root_dir) / f"step-{trainer.global_step:09d}.ckpt"
        failed = self._write(trainer, target) or self._write_encoder(trainer, pl_module)
        if failed is None:
            if trainer.is_global_zero:
                for old in store.checkpoints(trainer.default_root_dir)[: -self.keep]:
                    store.remove(old)
        else:
            kept = store.checkpoints(trainer.default_root_dir)
            said = f"step {trainer.global_step} was not saved: {failed}; kept is {kept[-1].name if kept else 'nothing'}."
            if must:
                raise OSError(f"{said} Free some space, and go on with resume={trainer.default_root_dir}.")
            rank_zero_warn(f"{said} The run goes on; free some space before it ends.")
        trainer.strategy.barrier("SaveRun")

    def _write(self, trainer: pl.Trainer, target: Path) -> str | None:
        """Write a checkpoint and its manifest; why not, if the disk is full, the same on all processes."""
        failed = trainer.strategy.broadcast(store.room_for_another(trainer.default_root_dir))
        if failed is not None:
            return failed
        temporary = target.with_suffix(".tmp")  # a file, or a folder of shards
        trainer.save_checkpoint(temporary, weights_only=False)  # False: the optimiser and the loops too
        if trainer.is_global_zero:
            try:
                if self._files.failure is not None:
                    raise self._files.failure
                temporary.replace(target)
                sync_folder(target.parent)
                facts = {"step": trainer.global_step, "max_steps": trainer.max_steps}
                store.seal(target, {**facts, **_environment(trainer)})
            except OSError as error:
                failed = str(error)
        return trainer.strategy.broadcast(failed)

    def _write_encoder(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> str | None:
        """Write the encoder; why not, if the disk is full, the same on all processes."""
        failed = None
        try:
            self.export(trainer, pl_module)
        except OSError as error:
            failed = str(error)
        return trainer.strategy.broadcast(failed)

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

    def _validate_again(self, trainer: pl.Trainer) -> None:
        """The validation of this step, which the stop cut off."""
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False
        trainer.validating = True
        loop.run()
        trainer.training = True

    def _due(self, trainer: pl.Trainer, step: int) -> bool:
        every = self.every_n_steps
        if every is None:
            data = getattr(trainer, "datamodule", None)  # absent until one is attached
            per_epoch = getattr(data, "batches_per_epoch", trainer.max_steps * trainer.accumulate_grad_batches)
            every = max(1, round(per_epoch / trainer.accumulate_grad_batches))
        return every > 0 and step % every == 0


def full_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module as whole tensors on the CPU; a collective call where FSDP2 has sharded them."""
    state: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        state[name] = whole.detach().to("cpu", copy=True) if isinstance(whole, torch.Tensor) else whole
    return state


def _preprocessing(views: ViewMaker) -> dict[str, Any]:
    return {"mean": list(views.mean), "std": list(views.std), "size": list(views.size), "channels": len(views.mean)}


def require_finite(trainer: pl.Trainer, module: pl.LightningModule, but: Set[str] = frozenset()) -> None:
    """Refuse weights that are NaN or infinite; called on all processes together.

    Args:
        trainer: of the run.
        module: likewise.
        but: names of tensors that may be.

    Raises:
        NonFiniteError: there are some; the message names them.
    """
    bad = [name for name in _not_finite(module) if name not in but]
    if trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
        names = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise NonFiniteError(
            f"step {trainer.global_step} left weights that are not finite ({names or 'on another process'}); it was not saved, "
            "and the checkpoint before it is kept. Lower optimizer.lr, or take precision=bf16-mixed or 32.",
            {"step": trainer.global_step, "max_steps": trainer.max_steps, "positions": [], "ranks": [], "parameters": bad},
        )


def _not_finite(module: pl.LightningModule) -> list[str]:
    return [name for name, tensor in module.state_dict().items() if not _is_finite(tensor)]


def _is_finite(tensor: Any) -> bool:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return not isinstance(local, torch.Tensor) or not local.is_floating_point() or bool(local.isfinite().all())


def _asked_to_stop(trainer: pl.Trainer) -> Preemption | None:
    """What ends the run here, if any process was told to stop."""
    return next((callback for callback in _preemptions(trainer) if callback.asked(trainer)), None)


def _preemptions(trainer: pl.Trainer) -> list[Preemption]:
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]  (set by Lightning's connector)
    return [callback for callback in callbacks if isinstance(callback, Preemption)]


def _validates_now(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates after the batch that has just been trained on."""
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    every = trainer.val_check_batch
    return bool(trainer.enable_validation) and isinstance(every, int) and batches % every == 0


def _environment(trainer: pl.Trainer) -> Plain:
    return store.environment(trainer.strategy.root_device, trainer.world_size)


def _require_moments(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Refuse moments that do not lie beside their weights: torch counts them when it loads them, and looks at no shape."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    for optimizer in trainer.optimizers:
        for parameter, state in optimizer.state.items():
            for key in _MOMENTS:
                held = state.get(key)
                if isinstance(held, Tensor) and held.shape != parameter.shape:
                    raise ValueError(
                        f"{trainer.ckpt_path} cannot be gone on from: {key} of {names.get(parameter, 'a weight')} has shape "
                        f"{tuple(held.shape)}, and the weight {tuple(parameter.shape)}. It was changed, or belongs to another "
                        "run; begin anew, or take one from a backup."
                    )


def _say_what_differs(trainer: pl.Trainer, path: Path) -> None:
    """A run that goes on elsewhere is not the one that it would have been, to the bit."""
    if path.with_suffix(".json").is_file():
        other = store.differences(store.read_manifest(path), _environment(trainer))
        if other:
            rank_zero_warn(f"going on is not bit-exact, because {', '.join(other)}.")
