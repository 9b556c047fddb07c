"""Tasks with a label for every pixel."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from ssl_framework.data import Labelled
from ssl_framework.downstream.heads import ConvolutionalDecoder, TokenHead
from ssl_framework.downstream.tasks.base import Prediction, Task

_LOOKED_AT = 32  # masks that are checked before anything trains


class LazyMasks:
    """Masks of a split, read when they are asked for: indexed like a tensor ``(N, H, W)`` int64.

    Args:
        split: whose pixels have labels.
        check: of masks that were read.
    """

    def __init__(self, split: Labelled, check: Any) -> None:
        self.split, self.check = split, check

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, rows: Tensor) -> Tensor:
        masks = self.split.masks(rows).long()
        self.check(masks)
        return masks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation(Task):
    """One of several classes for each pixel, from tokens of a transformer or the last map of a CNN.

    Args:
        num_classes: labels 0 to ``num_classes - 1``.
        ignore_index: a label that is neither learnt nor counted.
        decoder: "linear", one layer on each token, as DINOv2's linear segmentation (Oquab et al., 2023,
            https://arxiv.org/abs/2304.07193, section 7.4); "convolutional", two convolutions and twice the resolution.
        width: of the convolutional decoder.
    """

    num_classes: int
    ignore_index: int = 255
    decoder: Literal["linear", "convolutional"] = "linear"
    width: int = 128

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(
                f"task.num_classes={self.num_classes}: give the number of labels, at least 2, without the ignored one."
            )
        if self.decoder not in ("linear", "convolutional"):
            raise ValueError(f"task.decoder={self.decoder}: choose linear or convolutional.")

    def targets(self, split: Labelled) -> Any:
        """Masks ``(N, H, W)`` int64, read as they are needed."""
        split.masks([0])
        return LazyMasks(split, self._known)

    def check(self, targets: Any) -> None:
        """Some of the masks, before anything trains; the others when they are read."""
        rows = torch.linspace(0, len(targets) - 1, min(_LOOKED_AT, len(targets))).long().unique()
        found = torch.cat([targets[row[None]].flatten() for row in rows]).unique()
        if len(found[found != self.ignore_index]) < 2:
            raise ValueError(f"every pixel of {len(rows)} masks has the label {found.tolist()}: there is nothing to learn.")

    def head(self, embed_dim: int) -> nn.Module:
        """On tokens."""
        if self.decoder == "linear":
            return TokenHead(embed_dim, self.num_classes)
        return ConvolutionalDecoder(embed_dim, self.num_classes, self.width)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits ``(B, C, h, w)``, brought to the size of the labels ``(B, H, W)``; 0 if all are ignored."""
        if bool((targets == self.ignore_index).all()):
            return outputs.float().sum() * 0
        return F.cross_entropy(self._enlarged(outputs, targets), targets, ignore_index=self.ignore_index)

    def badness(self, outputs: Tensor, targets: Any) -> Tensor:
        """Share of the pixels of each image that are wrong."""
        shares: list[Tensor] = []
        for row in range(len(outputs)):
            target = targets[torch.tensor([row])]
            wrong = (self._enlarged(outputs[row : row + 1], target).argmax(1) != target)[target != self.ignore_index]
            shares.append(wrong.double().mean() if len(wrong) else torch.zeros((), dtype=torch.float64))
        return torch.stack(shares)

    @property
    def judged_by(self) -> tuple[str, Literal["min", "max"]]:
        """Mean intersection over union."""
        return "mean_iou", "max"

    @property
    def on_tokens(self) -> bool:
        """Yes."""
        return True

    @property
    def resamples(self) -> bool:
        """No: pixels of one image are no samples of their own."""
        return False

    def metrics(self) -> dict[str, Metric]:
        """Intersection over union, the mean over classes, and the share of pixels that are right."""
        options: dict[str, Any] = {"ignore_index": self.ignore_index, "validate_args": False}
        return {
            "mean_iou": MulticlassJaccardIndex(self.num_classes, average="macro", **options),
            "pixel_accuracy": MulticlassAccuracy(self.num_classes, average="micro", **options),
        }

    def readout(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted and true labels, ``(B, H, W)`` both."""
        return self._enlarged(outputs, targets).argmax(dim=1), targets

    def predicted(self, outputs: Tensor) -> Prediction:
        """Labels ``(N, h, w)`` at the resolution of the tokens."""
        return Prediction(outputs.argmax(dim=1))

    def as_table(self, prediction: Prediction, classes: Sequence[str] | None) -> dict[str, list[Any]]:
        """The share of each label among the tokens of an image."""
        return {
            f"share({label})": (prediction.value == label).flatten(1).double().mean(dim=1).tolist()
            for label in range(self.num_classes)
        }

    def _enlarged(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.interpolate(outputs.float(), targets.shape[-2:], mode="bilinear", align_corners=False)

    def _known(self, masks: Tensor) -> None:
        found = masks.unique()
        wrong = found[(found >= self.num_classes) & (found != self.ignore_index)]
        if len(wrong):
            raise ValueError(
                f"masks hold the label {int(wrong[0])}, and the head knows 0 to {self.num_classes - 1}, with "
                f"{self.ignore_index} ignored: give task.num_classes or task.ignore_index as the masks have them."
            )
