"""What phase 2 asks of a task: targets of a split, a head, a loss, metrics. A task holds plain numbers only."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from ssl_framework.data import Labelled

_SHOWN = 3  # names in an error


class Prediction(NamedTuple):
    """What a model says of N images.

    Attributes:
        value: classes ``(N,)`` or steps ``(N,)`` int64, labels ``(N, C)`` bool, or numbers ``(N, K)`` in the units of the data.
        probability: ``(N, C)`` of each class, where there are classes.
    """

    value: Tensor
    probability: Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A supervised task on top of an encoder. It fits in a checkpoint. A subclass says everything but `state`."""

    def targets(self, split: Labelled) -> Tensor:
        """What is to be said of each sample, ``(N, ...)`` in the order of the split.

        Raises:
            ValueError: the split does not have it, or some of it is no number.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it learns: define targets(split).")

    def prepared(self, targets: Tensor) -> Self:
        """The task with what it takes from the training targets: their scale, how often a class occurs."""
        return self

    def check(self, targets: Tensor) -> None:
        """Look at all targets of a split before anything runs.

        Raises:
            ValueError: they do not belong to this task.
        """

    def head(self, embed_dim: int) -> nn.Module:
        """A new head that turns an `Encoding` of width `embed_dim` into outputs ``(B, ...)``."""
        raise NotImplementedError(f"{type(self).__name__} has no head: define head(embed_dim).")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch, ``()``."""
        raise NotImplementedError(f"{type(self).__name__} has no loss: define loss(outputs, targets).")

    def badness(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """``(N,)``, how wrong each sample is, by which two models are compared: here its loss."""
        one = zip(outputs.split(1), targets.split(1), strict=True)
        return torch.stack([self.loss(output, target) for output, target in one])

    def metrics(self) -> dict[str, Metric]:
        """New metrics by name; ``update`` takes what `readout` returns."""
        raise NotImplementedError(f"{type(self).__name__} has no metrics: define metrics().")

    @property
    def trains(self) -> bool:
        """Whether there is something to learn."""
        return True

    @property
    def num_outputs(self) -> int:
        """Numbers that the head returns for a sample."""
        raise NotImplementedError(f"{type(self).__name__} cannot be learnt beside others: define num_outputs.")

    @property
    def num_targets(self) -> int:
        """Numbers that are to be said of a sample."""
        return 1

    @property
    def whole_targets(self) -> bool:
        """Whether targets are whole numbers ``(N,)``; else floats ``(N, K)``."""
        return True

    @property
    def on_tokens(self) -> bool:
        """Whether the head reads tokens, each at its place, and labels lie on the grid of pixels."""
        return False

    @property
    def resamples(self) -> bool:
        """Whether metrics of samples drawn with replacement mean something, as the bootstrap needs."""
        return True

    @property
    def judged_by(self) -> tuple[str, Literal["min", "max"]]:
        """The metric that a choice on validation asks for, and whether it should be large or small."""
        return "loss", "min"

    def readout(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and targets as the metrics take them: in the units of the data."""
        return outputs, targets

    def predicted(self, outputs: Tensor) -> Prediction:
        """What outputs ``(N, ...)`` of the head mean."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its outputs mean: define predicted(outputs).")

    def as_table(self, prediction: Prediction, classes: Sequence[str] | None) -> dict[str, list[Any]]:
        """The columns of a table of predictions, N values each.

        Args:
            prediction: of N images.
            classes: names, where the data had classes.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no table: define as_table(prediction, classes).")

    @property
    def kind(self) -> str:
        """Its name on the command line: ``MultiLabel`` is ``multi_label``."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def state(self) -> dict[str, Any]:
        """Plain numbers and strings that tell this task from another."""
        return {"kind": self.kind, **_plain(dataclasses.asdict(self))}


def finite(values: Tensor, split: Labelled, what: str) -> Tensor:
    """Refuse targets that are no numbers.

    Raises:
        ValueError: names the first samples.
    """
    wrong = (~values.isfinite()).flatten(1).any(1) if values.ndim > 1 else ~values.isfinite()
    if wrong.any():
        rows = torch.nonzero(wrong)[:, 0].tolist()
        names = ", ".join(split.name(row) for row in rows[:_SHOWN]) + (", ..." if len(rows) > _SHOWN else "")
        raise ValueError(
            f"{what} of {len(rows)} of {len(split)} {split.split} samples is NaN or infinite ({names}): leave these samples "
            "out, or fill in what is missing."
        )
    return values


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
