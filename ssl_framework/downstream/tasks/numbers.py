"""Tasks whose targets are numbers of a table: on a scale with units, or steps in an order."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassCohenKappa
from torchmetrics.regression import MeanAbsoluteError, R2Score

from ssl_framework.data import Labelled
from ssl_framework.downstream.heads import LinearHead, OrdinalHead
from ssl_framework.downstream.tasks.base import Prediction, Task, finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """One number or several for each sample. The head learns them standardised; metrics and predictions have their units.

    Args:
        columns: of the table.
        distance: "squared", or "huber" (absolute beyond one standard deviation), which minds outliers less.
        mean: of each column; found in the training targets.
        std: of each column.
    """

    columns: Sequence[str]
    distance: Literal["squared", "huber"] = "squared"
    mean: Sequence[float] = ()
    std: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("task.columns=[]: name the columns of the table that are to be predicted.")
        if self.distance not in ("squared", "huber"):
            raise ValueError(f"task.distance={self.distance}: choose squared or huber.")

    def targets(self, split: Labelled) -> Tensor:
        """``(N, K)`` float32, in the units of the table."""
        return finite(split.numbers(self.columns), split, f"task.columns={list(self.columns)}")

    def prepared(self, targets: Tensor) -> Self:
        """With mean and deviation of each column."""
        std, mean = torch.std_mean(targets.double(), dim=0, correction=0)
        still = [name for name, value in zip(self.columns, std.tolist(), strict=True) if value == 0]
        if still:
            raise ValueError(
                f"task.columns: {', '.join(still)} is the same for all training samples; there is nothing to learn."
            )
        return dataclasses.replace(self, mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    @property
    def num_outputs(self) -> int:
        """A number for each column."""
        return len(self.columns)

    @property
    def num_targets(self) -> int:
        """A number for each column."""
        return len(self.columns)

    @property
    def whole_targets(self) -> bool:
        """No."""
        return False

    def head(self, embed_dim: int) -> nn.Module:
        """One linear layer on the pooled vector."""
        return LinearHead(embed_dim, len(self.columns))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of standardised numbers, ``(B, K)`` both."""
        mean, std = self._scale(outputs)
        distance = F.mse_loss if self.distance == "squared" else F.huber_loss
        return distance(outputs.float(), (targets - mean) / std)

    def readout(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Both in the units of the table; of one column, ``(B,)``."""
        outputs, targets = self.predicted(outputs).value, targets.double()  # sums of squares of years do not fit into float32
        return (outputs[:, 0], targets[:, 0]) if len(self.columns) == 1 else (outputs, targets)

    def predicted(self, outputs: Tensor) -> Prediction:
        """``(N, K)`` float64, in the units of the table."""
        mean, std = self._scale(outputs)
        return Prediction(outputs.double() * std.double() + mean.double())

    def as_table(self, prediction: Prediction, classes: Sequence[str] | None) -> dict[str, list[Any]]:
        """The columns that were learnt."""
        return dict(zip(self.columns, prediction.value.T.tolist(), strict=True))

    @property
    def judged_by(self) -> tuple[str, Literal["min", "max"]]:
        """The metric that a choice on validation asks for."""
        return ("mean_absolute_error", "min")

    def metrics(self) -> dict[str, Metric]:
        """Mean absolute error in the units of the table, and the share of the variance that is explained."""
        return {"mean_absolute_error": MeanAbsoluteError(), "r2": R2Score()}

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if not self.mean:
            raise ValueError("this Regression knows no scale yet: fit it, or take task.prepared(training targets).")
        return torch.tensor(self.mean, device=like.device), torch.tensor(self.std, device=like.device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ordinal(Task):
    """Steps in an order, 0 to ``steps - 1``: one direction, and a threshold between each two.

    CORAL: Cao et al., 2020, https://arxiv.org/abs/1901.07884: the probabilities of being above each threshold share their
    weights, so they fall from one to the next.

    Args:
        column: of the table: whole numbers from 0.
        steps: how many; 0: found in the training targets.
    """

    column: str
    steps: int = 0

    def targets(self, split: Labelled) -> Tensor:
        """``(N,)`` int64."""
        values = finite(split.numbers([self.column])[:, 0], split, f"task.column={self.column}")
        if bool((values != values.round()).any()) or bool((values < 0).any()):
            raise ValueError(f"task.column={self.column}: steps are whole numbers from 0, and there are others.")
        return values.long()

    def prepared(self, targets: Tensor) -> Self:
        """With the number of steps."""
        return dataclasses.replace(self, steps=self.steps or int(targets.max()) + 1)

    def check(self, targets: Tensor) -> None:
        """Steps that there are, and at least two of them."""
        last = int(targets.max())
        if self.steps and last >= self.steps:
            raise ValueError(
                f"task.column={self.column}: there is step {last}, and the head knows 0 to {self.steps - 1}: give "
                f"task.steps={last + 1}, if the labels to learn from lack the last ones."
            )
        if int(targets.min()) == int(targets.max()):
            raise ValueError(f"task.column={self.column}: every sample is at step {int(targets.min())}; nothing can be learnt.")

    @property
    def num_outputs(self) -> int:
        """A logit for each threshold."""
        return self.steps - 1

    def head(self, embed_dim: int) -> nn.Module:
        """One direction and ``steps - 1`` thresholds."""
        if self.steps < 2:
            raise ValueError("this Ordinal does not know its steps yet: take task.prepared(training targets), or give steps.")
        return OrdinalHead(embed_dim, self.steps)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy of being above each threshold: logits ``(B, steps - 1)``, steps ``(B,)`` (equation 4)."""
        above = targets[:, None] > torch.arange(outputs.shape[1], device=outputs.device)
        return F.binary_cross_entropy_with_logits(outputs.float(), above.float())

    def readout(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Thresholds that are passed with a probability above one half, and steps, ``(B,)`` int64 (equation 1)."""
        return (outputs > 0).sum(1), targets

    def predicted(self, outputs: Tensor) -> Prediction:
        """Thresholds that are passed with a probability above one half (equation 1)."""
        return Prediction((outputs > 0).sum(dim=1))

    def as_table(self, prediction: Prediction, classes: Sequence[str] | None) -> dict[str, list[Any]]:
        """The column that was learnt."""
        return {self.column: prediction.value.tolist()}

    @property
    def judged_by(self) -> tuple[str, Literal["min", "max"]]:
        """The metric that a choice on validation asks for."""
        return ("mean_absolute_error", "min")

    def metrics(self) -> dict[str, Metric]:
        """Mean distance in steps, and the quadratic weighted kappa, which is 0 for guesses and 1 for the truth."""
        kappa = MulticlassCohenKappa(self.steps, weights="quadratic", validate_args=False)
        return {"mean_absolute_error": MeanAbsoluteError(), "weighted_kappa": kappa}
