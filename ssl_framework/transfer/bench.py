"""What every cell of a study stands on: an encoder, splits that share no sample, and a judge that is asked once a cell."""

import base64
import copy
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_framework.data import Labelled
from ssl_framework.data.split import rooted
from ssl_framework.encoders import EncoderModule
from ssl_framework.metrics import accuracy

_HIDDEN = -1


class Judge:
    """Knows the labels of test, and tells of each cell once how many predictions are right.

    Args:
        test: the split. It is copied without its labels for everybody else.

    Attributes:
        images: test with every label -1.
        asked: cells that were judged.
    """

    def __init__(self, test: Labelled) -> None:
        self._targets = test.targets
        self.images = copy.copy(test)
        self.images.targets = torch.full_like(test.targets, _HIDDEN)
        self.asked: set[Hashable] = set()

    def score(self, cell: Hashable, prediction: Tensor) -> dict[str, Any]:
        """Judge a cell.

        Args:
            cell: what is judged.
            prediction: ``(N,)`` classes.

        Returns:
            ``accuracy``, and ``correct``: whether each prediction is right, as bits in base64.

        Raises:
            RuntimeError: the cell was judged before; whoever looks at test twice can choose by it.
        """
        if cell in self.asked:
            raise RuntimeError(f"test was read before for {cell}: choose on validation, and read test once.")
        self.asked.add(cell)
        right = (prediction == self._targets).numpy()
        return {
            "accuracy": accuracy(prediction, self._targets),
            "correct": base64.b64encode(np.packbits(right).tobytes()).decode(),
        }

    def targets_of(self, rows: Tensor) -> Tensor:
        """Labels of the images that robustness is measured on, which choose nothing."""
        return self._targets[rows]


def correctness(row: Mapping[str, Any], count: int) -> np.ndarray:
    """``(N,)`` bool, of a row's ``correct``."""
    return np.unpackbits(np.frombuffer(base64.b64decode(row["correct"]), np.uint8), count=count).astype(bool)


class Bench(NamedTuple):
    """What the cells of a study share.

    Attributes:
        encoder: pretrained.
        preprocessing: that it knows images by.
        train: labels to learn from are drawn here.
        val: chooses.
        judge: of test.
        encoder_sha256: of its tensors.
        data_sha256: see `data_digest`.
        classes: how many.
        others: ``(M, C, H, W)`` uint8 images of none of them, or None.
    """

    encoder: EncoderModule
    preprocessing: dict[str, Any]
    train: Labelled
    val: Labelled
    judge: Judge
    encoder_sha256: str
    data_sha256: str
    classes: int
    others: Tensor | None = None


def require_disjoint(train: Labelled, val: Labelled, test: Labelled) -> None:
    """Refuse splits that share a sample.

    Raises:
        ValueError: two of them do; the message names them.
    """
    splits = {"train": train, "val": val, "test": test}
    seen = {name: _places(split) for name, split in splits.items()}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = seen[a] & seen[b]
        if shared:
            raise ValueError(
                f"{a} and {b} share {len(shared)} samples: what is learnt from or chosen on would be judged on. "
                "Give splits that are apart."
            )


def _places(split: Labelled) -> set[tuple[int, int]]:
    source, rows = rooted(split.source, split.rows)
    return {(id(source), int(row)) for row in rows}
