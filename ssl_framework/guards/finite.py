"""No optimiser step is made of numbers that are no numbers."""

import json
from collections import deque
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  (what all of them are)
from torch.optim import Optimizer


class NonFiniteError(RuntimeError):
    """Too many steps had a loss or a gradient that was NaN or infinite.

    Attributes:
        facts: plain values: ``step`` of ``max_steps``, ``positions`` of its batches in the data (for ``ssl-framework replay``),
            ``ranks`` of the processes whose loss is not finite, ``loss``, ``gradient_norm`` and ``parameters`` whose gradients
            are not.
    """

    def __init__(self, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.facts = facts


class FiniteGate(pl.Callback):
    """Skips optimiser steps whose loss or gradient is NaN or infinite, on all processes alike, and stops after too many.

    A step is skipped before it is made: its gradients are taken away, with which optimisers change neither weights nor moments,
    teachers and queues stay as they are, and BatchNorm's statistics are put back. The position in the data moves on. With
    float16 the scaler skips steps of its own while it looks for its scale; then only a loss that is not finite counts.

    Args:
        in_a_row: skipped steps after which the run stops. DINOv3 stops at the third.
        of_last: likewise, among the last `window` steps.
        window: steps.
    """

    def __init__(self, in_a_row: int = 3, of_last: int = 10, window: int = 1000) -> None:
        if min(in_a_row, of_last, window) < 1:
            raise ValueError(f"in_a_row={in_a_row}, of_last={of_last}, window={window}: give numbers from 1.")
        self._in_a_row, self._of_last, self._window = in_a_row, of_last, window
        self.skipped: deque[int] = deque(maxlen=max(in_a_row, of_last))
        self._loss: Tensor | None = None
        self._positions: list[int] = []
        self._statistics: list[Tensor] = []
        self._before: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Know what a forward pass changes."""
        layers = [layer for layer in pl_module.modules() if isinstance(layer, _BatchNorm)]
        held = [value for layer in layers for value in (layer.running_mean, layer.running_var, layer.num_batches_tracked)]
        self._statistics = [value for value in held if value is not None]
        self._before = [value.clone() for value in self._statistics]
        self._loss, self._positions = None, []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember it, before the first batch of a step."""
        if self._loss is None and self._statistics:
            _copy(self._before, self._statistics)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Note the loss, and which batch it is of."""
        loss = loss.detach()
        self._loss = loss if self._loss is None else self._loss + loss
        position = getattr(getattr(trainer, "datamodule", None), "position", None)
        if position is not None:
            self._positions.append(position - 1)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Look at loss and gradient, and let the step through or take its gradients away.

        Raises:
            NonFiniteError: too many steps were skipped.
        """
        loss, positions, self._loss, self._positions = self._loss, self._positions, None, []
        if loss is None:  # a gradient by hand
            loss = torch.zeros(())
        norm = None if trainer.precision == "16-mixed" else gradient_norm(optimizer)
        here = bool(torch.isfinite(loss if norm is None else loss + norm.to(loss.device)))
        if not trainer.strategy.reduce_boolean_decision(here, all=True):
            facts = {
                "step": trainer.global_step,
                "max_steps": trainer.max_steps,
                "positions": positions,
                "ranks": _ranks(trainer, not bool(torch.isfinite(loss))),
                "loss": float(loss),
                "gradient_norm": None if norm is None else float(norm),
                "parameters": _not_finite(pl_module),
            }
            take_away(optimizer)
            if self._statistics:
                _copy(self._statistics, self._before)
            self._count(facts)

    def state_dict(self) -> dict[str, Any]:
        """Which steps were skipped lately."""
        return {"skipped": list(self.skipped)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = deque(state_dict["skipped"], maxlen=self.skipped.maxlen)

    def _count(self, facts: dict[str, Any]) -> None:
        step = facts["step"]
        self.skipped.append(step)
        row = 1
        while row < len(self.skipped) and self.skipped[-1 - row] == step - row:
            row += 1
        lately = sum(step - other < self._window for other in self.skipped)
        what = f"loss {facts['loss']:g}, gradient norm {_shown(facts['gradient_norm'])}"
        if row >= self._in_a_row or lately >= self._of_last:
            many = f"{row} steps in a row" if row >= self._in_a_row else f"{lately} of the last {self._window} steps"
            raise NonFiniteError(
                f"{many} until step {step} were not finite ({what}), and the run was stopped; none of them changed the "
                "weights. Lower optimizer.lr, set trainer.gradient_clip_val, or take precision=bf16-mixed or 32.",
                facts,
            )
        rank_zero_warn(f"step {step} is not finite ({what}) and was skipped; {self._in_a_row} in a row stop the run.")


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """L2 norm of all gradients that an optimiser would step with, over all processes where they are sharded."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def take_away(optimizer: Optimizer) -> None:
    """A step without gradients changes nothing: neither weights nor moments, nor is anything decayed."""
    optimizer.zero_grad(set_to_none=True)


def was_skipped(optimizer: Optimizer) -> bool:
    """Whether the last step had no gradients."""
    return all(p.grad is None for group in optimizer.param_groups for p in group["params"])


def written(facts: dict[str, Any]) -> str:
    """The facts as JSON, which has no NaN."""
    return json.dumps({key: str(value) if isinstance(value, float) else value for key, value in facts.items()}, indent=2) + "\n"


def _copy(to: list[Tensor], values: list[Tensor]) -> None:
    """One kernel for all, instead of one for each: a ResNet-18 has 60."""
    torch._foreach_copy_(to, values)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]  (the optimisers of torch use it)


def _ranks(trainer: pl.Trainer, bad: bool) -> list[int]:
    """The processes whose own loss is not finite; gradients are common to all."""
    told = torch.tensor([bad], dtype=torch.uint8, device=trainer.strategy.root_device)
    everyone = [told.clone() for _ in range(trainer.world_size)]
    if trainer.world_size > 1:
        dist.all_gather(everyone, told)  # Lightning's goes by way of a function that torch 2.14 deprecates
    return torch.cat(everyone).nonzero().flatten().tolist()


def _not_finite(module: pl.LightningModule) -> list[str]:
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not isinstance(parameter.grad, DTensor) and not bool(parameter.grad.isfinite().all())
    ]


def _shown(norm: float | None) -> str:
    return "left to the scaler of float16" if norm is None else f"{norm:g}"
