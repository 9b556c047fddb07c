"""Whether the features still tell samples apart."""

from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.metrics import effective_rank, normalised_std, rankme
from ssl_framework.monitors.monitor import Monitor, MonitorWarning
from ssl_framework.monitors.watch import gather

_RISE = 1.1  # by how much a value grows between two looks at features that are widening


class CollapseWarning(MonitorWarning):
    """Features that have stopped to tell samples apart, or are about to."""


class Collapse(Monitor):
    """Logs spread and effective rank of embedding and projection, and warns by name when they collapse.

    No single number sees every collapse: features that are constant but for noise have nearly full rank, features on one line
    have a healthy spread. So both are logged, as ``collapse/embedding_std`` and ``collapse/embedding_rank`` (and
    ``projection_...``): `normalised_std` and `effective_rank` over the last rows seen, from all processes.

    A warning comes once for each kind, when a value has been low at `patience` looks and has not recovered in between, and
    again only after it has recovered. A look at which the value has risen by a tenth since the look before does not count: a
    network that is new begins narrow and widens (measured: the scores of iBOT and DINO begin at 0.1 to 0.2 and reach 0.5 in
    60 steps; where the teacher is not centred, they stay):

    - complete collapse: the spread is below its limit, all samples look the same;
    - dimensional collapse: the rank is below `min_rank_share` of what the rows could show, few directions are used;
    - not finite: NaN or infinity.

    Args:
        every_n_steps: optimiser steps between two looks.
        min_projection_std: where a loss compares directions, about 1 is healthy. Measured: 0.53 and more for SimCLR and BYOL,
            0.04 and less after a collapse.
        min_embedding_std: a generative task has no reason to spread directions, its embeddings share a strong common part, so
            the limit is lower. Measured: 0.04 for MAE in its first steps, 0.001 for a constant with noise.
        min_rank_share: measured: 0.05 for fresh ResNets and ViTs on images that look alike; rank 1 of 128 dimensions is 0.008.
        patience: looks that are low, and no better than the one before.
        max_dims: of wider features, that many keyed random dimensions are looked at: the cost of a rank grows with their cube.
        max_rows: rows that are kept, at most, and at most twice the dimensions: the rank of fewer rows than dimensions is a
            statement about the rows.
    """

    watches = "collapse"
    category = CollapseWarning

    def __init__(
        self,
        every_n_steps: int = 50,
        min_projection_std: float = 0.2,
        min_embedding_std: float = 0.02,
        min_rank_share: float = 0.03,
        patience: int = 2,
        max_dims: int = 256,
        max_rows: int = 2048,
    ):
        super().__init__(every_n_steps, patience)
        for name, value in (("max_dims", max_dims), ("max_rows", max_rows)):
            if value < 1:
                raise ValueError(f"{name} is {value}: give at least 1")
        self._min_std = {"projection": min_projection_std, "embedding": min_embedding_std}
        self._min_rank_share = min_rank_share
        self._max_dims, self._max_rows = max_dims, max_rows
        self._rows: dict[str, Tensor] = {}
        self._before: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with no rows."""
        super().on_train_start(trainer, pl_module)
        self._rows = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the rows of this batch, and look if it is time."""
        seen = cast(Mapping[str, Tensor | None], outputs or {})  # a step that was skipped has no outputs
        for name in ("embedding", "projection"):
            features = seen.get(name)
            if features is not None:
                self._keep(name, features, trainer)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, seen: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Judge the last rows of all processes."""
        values: dict[str, float] = {}
        for name, rows in self._rows.items():
            values |= self._measure(name, gather(trainer, rows))
        return values

    def state_dict(self) -> dict[str, Any]:
        """With what was seen last."""
        return {**super().state_dict(), "before": dict(self._before)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` stood; the rows fill up again."""
        super().load_state_dict(state_dict)
        self._before = dict(state_dict["before"])

    def _keep(self, name: str, features: Tensor, trainer: pl.Trainer) -> None:
        width = min(features.shape[1], self._max_dims)
        limit = -(-min(self._max_rows, 2 * width) // trainer.world_size)
        if len(features) * trainer.accumulate_grad_batches * self._every.left(trainer) >= limit:
            return  # batches to come will fill all rows before they are looked at
        width = features.shape[1]
        rows = features.detach()
        if width > self._max_dims:
            chosen = torch.from_numpy(keyed.permutation(width, self._max_dims)[: self._max_dims]).to(rows.device)
            rows = rows[:, chosen]
        before = self._rows.get(name)
        both = rows.float() if before is None else torch.cat([before, rows.float()])
        self._rows[name] = both[-limit:].clone()

    def _measure(self, name: str, rows: Tensor) -> dict[str, float]:
        if len(rows) < 2:
            return {}
        finite = bool(torch.isfinite(rows).all())
        advice = "it holds NaN or infinity: lower the learning rate, or use bf16 instead of fp16"
        self._narrow(name, "not finite", float(finite), 1.0, advice)
        if not finite:
            return {}
        std, rank = normalised_std(rows), effective_rank(rows)
        possible = min(rows.shape[1], len(rows) - 1)
        self._narrow(
            name,
            "complete collapse",
            std,
            self._min_std[name],
            f"all samples look nearly the same (spread {std:.3f}, 1 is healthy, the limit is {self._min_std[name]:g})",
        )
        self._narrow(
            name,
            "dimensional collapse",
            rank,
            max(self._min_rank_share * possible, min(1.5, possible / 2)),
            f"it uses {rank:.1f} of {possible} directions (the limit is {self._min_rank_share:.0%})",
        )
        return {f"collapse/{name}_std": std, f"collapse/{name}_rank": rank, f"collapse/{name}_rankme": rankme(rows)}

    def _narrow(self, name: str, what: str, value: float, limit: float, why: str) -> None:
        kind = f"{what} of the {name}"
        before = self._before.get(kind, value)
        self._before[kind] = value
        widens = value < limit and value > _RISE * before
        self.judge(kind, None if widens else value < limit, why)
