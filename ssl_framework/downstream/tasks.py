"""What phase 2 learns from labels: the head it needs, its loss, its metrics, and which labels it can take."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from ssl_framework.downstream.heads import LinearHead


@runtime_checkable
class Task(Protocol):
    """A supervised task on top of an encoder. It holds numbers only, so it fits in a checkpoint."""

    def head(self, embed_dim: int) -> nn.Module:
        """A new head that turns an `Encoding` of width `embed_dim` into outputs ``(B, ...)``."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch, ``()``."""
        ...

    def metrics(self) -> dict[str, Metric]:
        """New metrics by name; ``update(outputs, targets)`` takes what `loss` takes."""
        ...

    def check(self, targets: Tensor) -> None:
        """Look at all labels of a split before anything runs.

        Raises:
            ValueError: they do not belong to this task.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Plain numbers and strings that tell this task from another."""
        ...


@dataclasses.dataclass(frozen=True)
class Classification:
    """One of several classes for each sample.

    Args:
        num_classes: how many, from the facts of the data.
        label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al., 2016, arXiv 1512.00567).
    """

    num_classes: int
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(
                f"num_classes={self.num_classes}: telling classes apart needs at least 2. Check the labels of the data."
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} must lie in [0, 1).")

    def head(self, embed_dim: int) -> nn.Module:
        """One linear layer on the pooled embedding."""
        return LinearHead(embed_dim, self.num_classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits ``(B, num_classes)`` and labels ``(B,)``."""
        return F.cross_entropy(outputs.float(), targets, label_smoothing=self.label_smoothing)

    def metrics(self) -> dict[str, Metric]:
        """Share of samples whose largest logit is the right one."""
        return {"accuracy": MulticlassAccuracy(self.num_classes, average="micro", validate_args=False)}

    def check(self, targets: Tensor) -> None:
        """Labels are whole numbers from 0 to ``num_classes - 1``, and at least two differ."""
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f"labels run from {low} to {high}, and a head of {self.num_classes} classes takes 0 to {self.num_classes - 1}. "
                "Give num_classes as the data has them (task.num_classes=null reads it from the data)."
            )
        if low == high:
            raise ValueError(f"every label is {low}: there is nothing to learn from one class. Check the labels of the data.")

    def state(self) -> dict[str, Any]:
        """Its numbers."""
        return {"kind": "classification", **dataclasses.asdict(self)}
