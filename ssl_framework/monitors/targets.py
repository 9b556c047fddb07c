"""Whether what is predicted says anything: targets that tell samples apart, and hidden tokens."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_framework.monitors.monitor import Monitor, over_processes

_TINY = 1e-12


class Targets(Monitor):
    """Logs how sharp targets are and how many prototypes they use, and warns of both ways in which they collapse.

    It watches tasks that predict prototypes or clusters (`ssl_framework.types.Step.target`). ``targets/entropy`` is the mean
    entropy of a target, 1 for a uniform one; ``targets/divergence`` the loss less that entropy, which is the divergence from
    the targets where the loss is one cross entropy (Caron et al. 2021, section 5.3); ``targets/used`` the exponential of the
    entropy of the mean target: so many prototypes are in use, as far as a batch can tell.

    - Targets tell samples apart by less than `min_information`, the entropy of the mean target less the mean entropy, in nats.
      Uniform targets do so, which centring without sharpening leads to.
    - One prototype for all samples. Sharpening without centring does it.

    Args:
        every_n_steps: optimiser steps between two looks.
        min_information: nats. Measured on healthy runs: 0.01 and more.
        min_used: prototypes; one batch of any data uses more.
        patience: wrong looks before a warning.
    """

    watches = "targets"

    def __init__(
        self, every_n_steps: int = 50, min_information: float = 0.001, min_used: float = 1.5, patience: int = 2
    ) -> None:
        super().__init__(every_n_steps, patience)
        self._min_information, self._min_used = min_information, min_used

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, seen: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Judge the targets of this batch."""
        target: Tensor | None = seen.get("target")
        if target is None:
            return {}
        if target.ndim == 1:
            target = _hot(target, trainer)
        target = target.float()
        count = target.shape[1]
        entropy = _entropy(target).mean()
        *mean, uncertain, loss = over_processes(
            trainer, torch.cat([target.mean(0), entropy[None], seen["loss"].detach().float().reshape(1)])
        )
        whole = float(_entropy(torch.tensor(mean, dtype=torch.float64)))
        used = math.exp(whole)
        share = uncertain / math.log(count) if count > 1 else 0.0
        self.judge(
            "targets are alike",
            whole - uncertain < self._min_information if used >= self._min_used else None,
            f"they tell samples apart by {whole - uncertain:.1g} nats, and their mean entropy is {share:.1%} of that of "
            f"{count} equal shares: there is nothing to predict. Lower the teacher's temperature (or Sinkhorn's epsilon).",
        )
        self.judge(
            "all samples have one target",
            used < self._min_used,
            f"a batch uses {used:.1f} of {count} prototypes. Look at what should spread them: the centre, equal shares, or "
            "clusters that are found anew.",
        )
        divergence = loss * trainer.accumulate_grad_batches - uncertain
        logged = {"entropy": share, "information": whole - uncertain, "used": used, "divergence": divergence}
        return {f"targets/{name}": value for name, value in logged.items()}


class Masks(Monitor):
    """Logs ``masks/share`` of tokens that are hidden, and warns where that is none, all, or the same in every sample.

    It watches tasks that hide tokens or pixels (`ssl_framework.types.Step.mask`).

    Args:
        every_n_steps: optimiser steps between two looks.
        patience: wrong looks before a warning.
    """

    watches = "masks"

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, seen: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Judge the masks of this batch."""
        mask: Tensor | None = seen.get("mask")
        if mask is None or len(mask) < 2:
            return {}
        varied = (mask != mask[:1]).any().float()
        share, differ = over_processes(trainer, torch.stack([mask.float().mean(), varied]))
        self.judge(
            "masks hide nothing or everything",
            not 0 < share < 1,
            f"{share:.0%} is hidden: there is nothing to guess, or nothing to guess it from. Look at mask_ratio.",
        )
        self.judge(
            "all samples have one mask",
            differ == 0,
            "every sample of a batch hides the same places, and an encoder can learn the rest by heart. Masks are drawn from "
            "Views.key, which should differ from sample to sample.",
        )
        return {"masks/share": share}


def _entropy(probabilities: Tensor) -> Tensor:
    """Over the last axis, in nats."""
    return -(probabilities * probabilities.clamp(min=_TINY).log()).sum(-1)


def _hot(numbers: Tensor, trainer: pl.Trainer) -> Tensor:
    """One-hot rows, as wide on every process."""
    largest = torch.as_tensor(trainer.strategy.reduce(numbers.max(), reduce_op="max"))
    return torch.nn.functional.one_hot(numbers, int(largest) + 1)
