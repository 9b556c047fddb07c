"""Whether two views of a sample are more alike than those of two samples."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.monitors.monitor import Monitor, over_processes

_SURE = 2.0  # standard errors
_ENOUGH = 64  # samples: of fewer, those of a new network are too much alike to tell


class Similarity(Monitor):
    """Logs how alike projections are, and warns where a sample's own views are no more alike than those of others.

    ``similarity/positive`` and ``similarity/negative`` are mean cosines between the first two views, of the same and of
    different samples of a process's batch. ``similarity/alignment`` and ``similarity/uniformity`` are those of Wang and Isola
    2020 (https://arxiv.org/abs/2005.10242, equations 1 and 2; lower is better). It watches tasks that project two views; where
    these are masked, nothing is judged: what is hidden differs more than the samples do, at first (measured: iBOT, DINOv2);
    neither are batches of fewer than 64.

    Args:
        every_n_steps: optimiser steps between two looks.
        patience: wrong looks before a warning.
    """

    watches = "similarity"

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, seen: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Compare the first two views of this batch."""
        projection: Tensor | None = seen.get("projection")
        samples = len(batch.index)
        if projection is None or samples < 2 or len(projection) < 2 * samples:
            return {}
        values = over_processes(trainer, compared(projection[:samples], projection[samples : 2 * samples]))
        gap, square, positive, negative, alignment, uniformity = values
        everyone = samples * trainer.world_size
        error = math.sqrt(max(square - gap**2, 0.0) / everyone)
        self.judge(
            "two views of a sample are strangers",
            not gap > _SURE * error if seen.get("mask") is None and everyone >= _ENOUGH else None,
            f"their mean cosine is {positive:.3f}, that of two samples {negative:.3f}. Either the projections have collapsed, "
            "or views of different samples are taken for positives: look at the views, and in which order they are compared.",
        )
        logged = {"positive": positive, "negative": negative, "alignment": alignment, "uniformity": math.log(uniformity)}
        return {f"similarity/{name}": value for name, value in logged.items()}


@torch.no_grad()
def compared(first: Tensor, second: Tensor) -> Tensor:
    """Means over the samples of a batch, of two views.

    Args:
        first: ``(B, P)``.
        second: ``(B, P)``, of the same samples.

    Returns:
        ``(6,)``: the cosine with itself less that with others, its square, both cosines, alignment, and uniformity before its
        logarithm.
    """
    a, b = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
    count = len(a)
    cosines, own = a @ b.T, a @ a.T  # (B, B)
    positive = cosines.diagonal()
    negative = (cosines.sum(1) - positive) / (count - 1)
    gap = positive - negative
    others = (4 * (own - 1)).exp()  # exp(-2 |a - a'|^2) of unit vectors
    uniformity = (others.sum() - others.diagonal().sum()) / (count * (count - 1))
    alignment = 2 - 2 * positive.mean()
    return torch.stack([gap.mean(), gap.square().mean(), positive.mean(), negative.mean(), alignment, uniformity])
