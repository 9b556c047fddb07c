"""Tasks whose targets are classes: one of several for each sample, or any number of them."""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MultilabelAUROC, MultilabelAveragePrecision, MultilabelF1Score

from ssl_framework.data import Labelled
from ssl_framework.downstream.heads import CosineHead, LinearHead, MLPHead
from ssl_framework.downstream.tasks.base import Prediction, Task, finite

Head = Literal["linear", "mlp", "cosine"]
Weights = Literal["none", "inverse", "effective"]


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One of several classes for each sample.

    Args:
        num_classes: how many, from the facts of the data.
        label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al., 2016, arXiv 1512.00567).
        head_kind: "linear"; "mlp", with one hidden layer; "cosine", where the length of a vector does not count (Gidaris and
            Komodakis, 2018, https://arxiv.org/abs/1804.09458).
        class_weights: of the loss, for classes that occur more or less often: "none"; "inverse" of their frequency;
            "effective", the inverse of their effective number (Cui et al., 2019, https://arxiv.org/abs/1901.05555), which tames
            rare ones.
        frequencies: how often each class occurs; found in the training targets.
    """

    num_classes: int
    label_smoothing: float = 0.0
    head_kind: Head = "linear"
    class_weights: Weights = "none"
    frequencies: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(
                f"num_classes={self.num_classes}: telling classes apart needs at least 2. Check the labels of the data."
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} must lie in [0, 1).")
        if self.head_kind not in ("linear", "mlp", "cosine"):
            raise ValueError(f"task.head_kind={self.head_kind}: choose linear, mlp or cosine.")
        if self.class_weights not in ("none", "inverse", "effective"):
            raise ValueError(f"task.class_weights={self.class_weights}: choose none, inverse or effective.")

    def targets(self, split: Labelled) -> Tensor:
        """``(N,)`` int64 labels."""
        return split.targets

    def prepared(self, targets: Tensor) -> Self:
        """With the frequencies of the classes, if they weigh."""
        if self.class_weights == "none":
            return self
        return dataclasses.replace(self, frequencies=tuple(targets.bincount(minlength=self.num_classes).tolist()))

    @property
    def num_outputs(self) -> int:
        """A logit for each class."""
        return self.num_classes

    def head(self, embed_dim: int) -> nn.Module:
        """On the pooled vector."""
        kinds = {"linear": LinearHead, "mlp": MLPHead, "cosine": CosineHead}
        return kinds[self.head_kind](embed_dim, self.num_classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits ``(B, num_classes)`` and labels ``(B,)`` or shares of them ``(B, num_classes)``.

        Where classes weigh, the mean weight of all training samples is 1.
        """
        if not self.frequencies:
            return F.cross_entropy(outputs.float(), targets, label_smoothing=self.label_smoothing)
        weights = torch.tensor(weights_of(self.frequencies, self.class_weights), device=outputs.device)
        each = F.cross_entropy(outputs.float(), targets, label_smoothing=self.label_smoothing, reduction="none")
        weight = targets.float() @ weights if targets.is_floating_point() else weights[targets]
        return (weight * each).mean()

    @property
    def judged_by(self) -> tuple[str, Literal["min", "max"]]:
        """The metric that a choice on validation asks for."""
        return ("accuracy", "max")

    def metrics(self) -> dict[str, Metric]:
        """Share of samples whose largest logit is the right one, and the mean of the shares of the classes that occur."""
        return {
            "accuracy": MulticlassAccuracy(self.num_classes, average="micro", validate_args=False),
            "balanced_accuracy": OverPresent(MulticlassAccuracy(self.num_classes, average=None, validate_args=False)),
        }

    def badness(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """1 where the largest logit is not the right one, else 0."""
        return (outputs.argmax(dim=1) != targets).double()

    def predicted(self, outputs: Tensor) -> Prediction:
        """The class with the largest logit, and softmax."""
        return Prediction(outputs.argmax(dim=1), outputs.double().softmax(dim=1))

    def as_table(self, prediction: Prediction, classes: Sequence[str] | None) -> dict[str, list[Any]]:
        """``predicted``, its ``probability``, and that of every class."""
        assert prediction.probability is not None
        known = list(classes or ())[: self.num_classes]
        names = [*known, *(str(number) for number in range(len(known), self.num_classes))]
        return {
            "predicted": [names[number] for number in prediction.value.tolist()],
            "probability": prediction.probability.amax(dim=1).tolist(),
            **{f"p({name})": values for name, values in zip(names, prediction.probability.T.tolist(), strict=True)},
        }

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


class OverPresent(Metric):
    """The mean of a metric of each class over those that occur among the targets; of the others it says nothing.

    Args:
        each: gives a number for each class.
        absent: whether a class must also be absent from some sample: curves need both.
    """

    full_state_update = False

    def __init__(self, each: Metric, absent: bool = False) -> None:
        super().__init__()
        self.each, self.absent = each, absent
        self.positives: Tensor
        self.samples: Tensor
        classes = int(getattr(each, "num_classes", None) or getattr(each, "num_labels", 0))
        self.add_state("positives", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (Metric.update takes anything)
        """``(B, C)`` scores; labels ``(B,)``, or ``(B, C)`` of 0 and 1."""
        self.each.update(outputs, targets)
        counts = targets.bincount(minlength=len(self.positives)) if targets.ndim == 1 else targets.sum(0)
        self.positives += counts
        self.samples += len(targets)

    def compute(self) -> Tensor:
        """NaN where no class occurs."""
        present = self.positives > 0
        if self.absent:
            present &= self.positives < self.samples
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes without positives, which are left out
            return self.each.compute()[present].float().mean()

    def reset(self) -> None:
        """Forget."""
        super().reset()
        self.each.reset()


def weights_of(frequencies: Sequence[int], kind: Weights) -> list[float]:
    """The weight of each class, so that the mean over all samples is 1; a class that does not occur has none.

    "inverse": ``1 / n``. "effective": ``(1 - b) / (1 - b ** n)`` with ``b = 1 - 1 / N`` of N samples (Cui et al., equation 12;
    there b is one of 0.9 to 0.9999).
    """
    total = sum(frequencies)
    rest = 1 - 1 / total
    raw = [0.0 if n == 0 else 1 / n if kind == "inverse" else (1 - rest) / (1 - rest**n) for n in frequencies]
    scale = total / math.fsum(weight * n for weight, n in zip(raw, frequencies, strict=True))
    return [scale * weight for weight in raw]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(Task):
    """Any number of classes for each sample, each by itself: columns of 0 and 1.

    Args:
        columns: of the table, one a class.
    """

    columns: Sequence[str]

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("task.columns=[]: name the columns of 0 and 1, one a class.")

    def targets(self, split: Labelled) -> Tensor:
        """``(N, C)`` float32 of 0 and 1."""
        return finite(split.numbers(self.columns), split, f"task.columns={list(self.columns)}")

    def check(self, targets: Tensor) -> None:
        """Only 0 and 1, and both of them somewhere."""
        odd = targets[(targets != 0) & (targets != 1)]
        if len(odd):
            raise ValueError(f"task.columns={list(self.columns)}: labels are 0 or 1, and there is {odd[0]:g}.")
        if bool((targets == targets[:1]).all()):
            raise ValueError(f"task.columns={list(self.columns)}: every sample has the same labels; there is nothing to learn.")

    @property
    def num_outputs(self) -> int:
        """A logit for each label."""
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
        """Binary cross-entropy of logits and labels, ``(B, C)`` both."""
        return F.binary_cross_entropy_with_logits(outputs.float(), targets)

    @property
    def judged_by(self) -> tuple[str, Literal["min", "max"]]:
        """The metric that a choice on validation asks for."""
        return ("mean_average_precision", "max")

    def metrics(self) -> dict[str, Metric]:
        """Means over the classes that occur: average precision, area under the ROC curve, F1 at a probability of one half."""
        count = len(self.columns)
        return {
            "mean_average_precision": OverPresent(MultilabelAveragePrecision(count, average=None, validate_args=False)),
            "auroc": OverPresent(MultilabelAUROC(count, average=None, validate_args=False), absent=True),
            "f1": OverPresent(MultilabelF1Score(count, average=None, validate_args=False)),
        }

    def readout(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and labels as whole numbers."""
        return outputs.float(), targets.int()

    def predicted(self, outputs: Tensor) -> Prediction:
        """Labels with a probability above one half."""
        return Prediction(outputs > 0, outputs.double().sigmoid())

    def as_table(self, prediction: Prediction, classes: Sequence[str] | None) -> dict[str, list[Any]]:
        """The probability of each label, under the name of its column."""
        assert prediction.probability is not None
        return dict(zip(self.columns, prediction.probability.T.tolist(), strict=True))
