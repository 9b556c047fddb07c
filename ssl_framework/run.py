"""How a run is set up: a Trainer that counts steps, its progress bar, and what of a step is logged, compiled and laid out."""

import math
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ProgressBar, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn

from ssl_framework.guards import FiniteGate, Preemption, RankAgreement, Watchdog, WholeRun


class SizedData(Protocol):
    """What `trainer` needs to know of a data module."""

    @property
    def batches_per_epoch(self) -> float:
        """Global batches in one pass over the data; a fraction where the batch does not divide the data."""
        ...


class EpochBar(TQDMProgressBar):
    """Lightning's progress bar over all steps of the run, with the passes over the data in its description.

    Args:
        steps_per_epoch: optimiser steps in one pass over the data.
        refresh_rate: batches between two refreshes; 0 turns the bar off.
    """

    def __init__(self, steps_per_epoch: float, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.steps_per_epoch = steps_per_epoch

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Show the epoch that this step belongs to."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        total = trainer.max_steps / self.steps_per_epoch
        now = min(total, trainer.global_step / self.steps_per_epoch)
        self.train_progress_bar.set_description(f"epoch {now:.1f}/{total:.1f}", refresh=False)

    def init_validation_tqdm(self) -> Tqdm:
        """None is shown for validations: they are short, and their bar would tear the other."""
        return Tqdm(disable=True)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Without Lightning's version number of the logger."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items


def trainer(
    epochs: float | None = None,
    steps: int | None = None,
    *,
    data: SizedData | None = None,
    accumulate: int = 1,
    val_every: int | None = None,
    data_timeout: float = 120,
    step_timeout: float = 1800,
    **options: Any,
) -> pl.Trainer:
    """A Lightning Trainer that counts optimiser steps, never Lightning's epochs.

    Lightning's epoch counters lose samples and updates on resume, so the data module's loader is endless, and epochs become
    steps here: ``ceil(epochs * batches_per_epoch / accumulate)``.

    Args:
        epochs: passes over the data; needs `data`. Give this or `steps`.
        steps: optimiser steps.
        data: the data module that will be fitted on.
        accumulate: batches in one optimiser step.
        val_every: batches between two validations; 0 for none, None for once an epoch (never without `data`).
        data_timeout: seconds that a batch may take to come before the run ends, see `Watchdog`.
        step_timeout: likewise a step.
        options: further arguments of `pytorch_lightning.Trainer`; what counts epochs, steps and validations is decided here.

    Raises:
        ValueError: neither or both of `epochs` and `steps`, epochs without data, nothing to do, or an option decided here.
    """
    decided = {
        "max_epochs": "epochs",
        "max_steps": "steps",
        "val_check_interval": "val_every",
        "accumulate_grad_batches": "accumulate",
    }
    for name in decided.keys() & options.keys():
        raise ValueError(f"{name} is decided by run.trainer: give {decided[name]}= instead.")
    per_epoch = data.batches_per_epoch / accumulate if data is not None else None
    total = _total_steps(epochs, steps, per_epoch)
    if val_every is None:
        val_every = max(1, round(data.batches_per_epoch)) if data is not None else 0
    options.setdefault("num_sanity_val_steps", 0)
    options.setdefault("enable_model_summary", False)
    options.setdefault("log_every_n_steps", 10)
    callbacks: list[pl.Callback] = [Preemption(), FiniteGate(), WholeRun(), RankAgreement()]
    callbacks += options.pop("callbacks", None) or []
    if not any(isinstance(callback, Checkpoint) for callback in callbacks):
        options["enable_checkpointing"] = False  # the module brings its own, see PretextModule.configure_callbacks
    if options.get("enable_progress_bar", True) and not any(isinstance(callback, ProgressBar) for callback in callbacks):
        callbacks.append(EpochBar(per_epoch or total))
    callbacks.append(Watchdog(data_timeout, step_timeout))
    if val_every == 0:
        options["limit_val_batches"] = 0
    return pl.Trainer(
        max_epochs=-1,
        max_steps=total,
        check_val_every_n_epoch=None,
        val_check_interval=val_every or None,
        accumulate_grad_batches=accumulate,
        callbacks=callbacks,
        **options,
    )


def require_steps(trainer: pl.Trainer) -> None:
    """Refuse a Trainer that counts epochs, before it trains.

    Raises:
        ValueError: `max_epochs` is set, or `max_steps` is not; the message has the remedy.
    """
    if trainer.max_epochs != -1 or trainer.max_steps <= 0:
        raise ValueError(
            f"Trainer(max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}) does not count steps alone, and "
            "Lightning's epochs lose samples on resume. Build it with ssl_framework.run.trainer(epochs=..., data=data)."
        )


def is_logged(trainer: pl.Trainer) -> bool:
    """Whether the step under way logs: the first, each `log_every_n_steps`, which reach the loggers, and the last.

    Other steps need not call `self.log`: it takes longer than a small encoder's layer.
    """
    every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]  (set by Lightning's connector)
    done = trainer.global_step + 1
    return done == 1 or done >= trainer.max_steps or (every > 0 and done % every == 0)


def is_scaled(trainer: pl.Trainer) -> bool:
    """Whether gradients are scaled, as float16 needs it."""
    return trainer.precision == "16-mixed"


def keep_channels_last(module: pl.LightningModule) -> None:
    """Store images' weights with channels last, except where FSDP2 shards them.

    Processors and tensor cores convolve that layout without reordering: 1.15 to 1.3 times as fast on CPUs in bfloat16.
    """
    if not isinstance(module.trainer.strategy, ModelParallelStrategy):
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.ndim == 4:  # `Module.to` would take tensors of five dimensions, too, and fail
                tensor.data = tensor.data.to(memory_format=torch.channels_last)


COMPILE_PRESETS = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def compile_in_place(encoder: nn.Module, preset: bool | str) -> None:
    """Run an encoder through `torch.compile`, so that it can still be saved.

    Args:
        encoder: whatever is called as a module.
        preset: False: not; True: torch's default; "reduce-overhead": with CUDA graphs, for small models on a GPU;
            "max-autotune": with measured kernels, minutes at the first step; "max-autotune-no-cudagraphs".

    Raises:
        ValueError: no such preset.
    """
    if preset is False:
        return
    mode = "default" if preset is True else preset
    if mode not in COMPILE_PRESETS:
        raise ValueError(f"compile={preset}: give false, true, {', '.join(COMPILE_PRESETS[:-1])} or {COMPILE_PRESETS[-1]}.")
    encoder.compile(mode=mode)


def _total_steps(epochs: float | None, steps: int | None, per_epoch: float | None) -> int:
    if (epochs is None) == (steps is None):
        raise ValueError(f"A run needs either epochs or steps: got epochs={epochs} and steps={steps}.")
    if steps is not None:
        total = steps
    else:
        assert epochs is not None
        if per_epoch is None:
            raise ValueError("epochs= needs data=, the data module whose passes are counted. Or give steps=.")
        total = math.ceil(epochs * per_epoch - 1e-9)
    if total <= 0:
        raise ValueError(f"Nothing to train: epochs={epochs}, steps={steps} come to {total} steps. Give a positive number.")
    return total
