"""Whether the encoder is told anything, and moves by sensible steps."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ssl_framework.guards.finite import was_skipped
from ssl_framework.monitors.monitor import Monitor
from ssl_framework.monitors.watch import watched_encoder

_SAMPLED = 1024  # numbers of each tensor whose step is measured
_STARVED = 1e-7  # of the whole gradient
_STILL = 0.01  # of the largest learning rate so far: below it nothing needs to move
_SMALLEST_SCALE = 1.0  # of float16: gradients are then no larger than without one, and still overflow


class Gradients(Monitor):
    """Logs gradient norms, the size of a step beside that of the weights, and float16's scale; warns where learning is cut off.

    - ``gradients/norm``, and ``gradients/encoder_share`` of it that reaches the encoder: alarm where nothing does. A loss on
      detached features trains its head and looks healthy.
    - ``gradients/update_ratio``: how far the encoder moves in a step, over the size of its weights (of 1,024 numbers of each
      tensor). About 1e-3 is usual. Alarm at exactly 0, while the learning rate is above a hundredth of its largest: an
      optimiser without the encoder; and above `max_update_ratio`: steps as large as the weights forget what was learnt.
    - ``gradients/scale``: alarm where float16's scaler is down to 1, and gradients overflow nevertheless.

    Args:
        every_n_steps: optimiser steps between two looks.
        max_update_ratio: measured on healthy runs: at most 0.1.
        patience: wrong looks before a warning.
    """

    watches = "gradients"

    def __init__(self, every_n_steps: int = 50, max_update_ratio: float = 0.5, patience: int = 2) -> None:
        super().__init__(every_n_steps, patience)
        self._max_ratio = max_update_ratio
        self._highest = 0.0
        self._found: dict[str, Tensor] = {}
        self._before: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Measure the gradient of a step that is looked at, and note the weights before it."""
        self._highest = max(self._highest, _rate(optimizer))
        self._found, self._before = {}, []
        if not self._every.next(trainer) or was_skipped(optimizer):
            return
        encoder = [p for p in watched_encoder(pl_module).parameters() if p.requires_grad]
        inside = {id(p) for p in encoder}
        others = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in inside]
        device = pl_module.device  # which those that have none do not tell
        self._found = {name: _norm((p.grad for p in some), device) for name, some in (("encoder", encoder), ("others", others))}
        self._before = [part.clone() for part in _parts(encoder)]

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, seen: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Judge the step that was just made."""
        if not self._before:
            return {}
        optimizer = trainer.optimizers[0]
        now = _parts(p for p in watched_encoder(module).parameters() if p.requires_grad)
        moved = _norm((a - b for a, b in zip(now, self._before, strict=True)), module.device)
        size = _norm(self._before, module.device)
        numbers = torch.stack([self._found["encoder"], self._found["others"], moved, size]).tolist()
        self._found, self._before = {}, []
        encoder, others, ratio = numbers[0], numbers[1], numbers[2] / max(numbers[3], 1e-30)
        norm = (encoder**2 + others**2) ** 0.5
        share = encoder / norm if norm > 0 else 0.0
        finite = math.isfinite(norm)  # else float16's scaler has skipped the step
        self.judge(
            "no gradient reaches the encoder",
            share <= _STARVED if finite else None,
            f"its gradient has the norm {encoder:.3g}, that of all else {others:.3g}. The loss does not depend on the encoder: "
            "something detaches its features, or it was frozen.",
        )
        moves = finite and _rate(optimizer) > _STILL * self._highest
        self.judge(
            "the encoder does not move",
            numbers[2] == 0 if moves else None,
            f"a step with learning rate {_rate(optimizer):.3g} left its weights as they were: no optimiser holds them.",
        )
        self.judge(
            "steps are as large as the weights",
            ratio > self._max_ratio,
            f"a step moves the encoder by {ratio:.2g} of the size of its weights (about 0.001 is usual, the limit is "
            f"{self._max_ratio:g}). Lower optimizer.lr.",
        )
        logged = {"norm": norm, "encoder_share": share, "update_ratio": ratio}
        scale = scale_of(trainer)
        if scale is not None:
            logged["scale"] = scale
            self.judge(
                "float16 has no scale left",
                scale <= _SMALLEST_SCALE,
                f"its scaler is down to {scale:g}: gradients overflow whatever it does. Take precision=bf16-mixed or 32.",
            )
        return {f"gradients/{name}": value for name, value in logged.items()}

    def state_dict(self) -> dict[str, Any]:
        """With the largest learning rate so far."""
        return {**super().state_dict(), "highest": self._highest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` stood."""
        super().load_state_dict(state_dict)
        self._highest = state_dict["highest"]


def scale_of(trainer: pl.Trainer) -> float | None:
    """By what float16 multiplies the loss; None for other precisions."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())


def _rate(optimizer: Optimizer) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _norm(tensors: Iterable[Tensor | None], device: torch.device) -> Tensor:
    """L2 norm of all of them together, ``()`` float32, over all processes where they are sharded."""
    own = [t.detach() for t in tensors if t is not None]
    if not own:
        return torch.zeros((), device=device)
    norm = torch.nn.utils.get_total_norm(own)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).float()


def _parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The first numbers of each as it lies in memory: no layout is copied."""
    local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    return [t.detach().as_strided((min(_SAMPLED, t.numel()),), (1,), t.storage_offset()) for t in local]
