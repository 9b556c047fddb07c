"""Whether the loss is better than that of a model which knows nothing."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from ssl_framework.monitors.monitor import Monitor, over_processes

_FALLS = 0.95  # of the loss a look before


class Chance(Monitor):
    """Logs ``chance/loss``, the loss over what it is where all samples look alike, and warns where it has not left 1.

    It watches tasks that say that number (`ssl_framework.types.Step.chance`): ``log(2N - 1)`` of SimCLR, ``log K`` of those
    that compare with K prototypes or classes.

    Args:
        every_n_steps: optimiser steps between two looks.
        warmup: share of the training before which nothing is judged: many losses begin at chance, and some stay for long.
        margin: share by which a loss has to be better. A look at which it has fallen by a twentieth since the one before does
            not count.
        patience: wrong looks before a warning.
    """

    watches = "chance"

    def __init__(self, every_n_steps: int = 50, warmup: float = 0.1, margin: float = 0.01, patience: int = 2) -> None:
        super().__init__(every_n_steps, patience)
        self._warmup, self._margin = warmup, margin
        self._before = 0.0

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, seen: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Judge the loss of this step."""
        chance: float | None = seen.get("chance")
        if chance is None or chance <= 0:  # one sample has nothing to be told from
            return {}
        loss: Tensor = seen["loss"]
        (value,) = over_processes(trainer, loss.detach().float().reshape(1))
        value *= trainer.accumulate_grad_batches  # Lightning divides what it is given
        young = trainer.global_step < self._warmup * trainer.max_steps or value < _FALLS * self._before
        ignorant, self._before = value >= (1 - self._margin) * chance, value
        self.judge(
            "the loss has not left chance",
            None if young and ignorant else ignorant,
            f"it is {value:.3f}, and {chance:.3f} where all samples look alike, after {self._warmup:.0%} of the training. "
            "Change optimizer.lr by a factor of ten, or look whether the views of a sample still have something in common.",
        )
        return {"chance/loss": value / chance}

    def state_dict(self) -> dict[str, Any]:
        """With the loss at the last look."""
        return {**super().state_dict(), "before": self._before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` stood."""
        super().load_state_dict(state_dict)
        self._before = state_dict["before"]
