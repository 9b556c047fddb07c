"""Labels as tired people give them: some are wrong."""

import torch
from torch import Tensor

from ssl_framework import keyed

_ROWS, _CLASSES = 0x40153, 0x40154  # name the uses of a key


def noisy(targets: Tensor, share: float, num_classes: int, key: int) -> Tensor:
    """Replace a share of the labels by another class, all others being as likely: symmetric label noise.

    Angluin and Laird, "Learning from noisy examples", 1988; 20 % and 40 % are usual shares, for one in Zhang and Sabuncu, 2018,
    https://arxiv.org/abs/1805.07836. What is wrong at 20 % is wrong in the same way at 40 % of the same key.

    Args:
        targets: ``(N,)`` int64 labels from 0; they stay as they are.
        share: of the labels, in [0, 1]; exactly ``round(share * N)`` of them are replaced.
        num_classes: of the task, 2 or more.
        key: which labels, and by what: a seed, or `keyed.mix_numbers` of what it is to depend on.

    Returns:
        ``(N,)`` int64.

    Raises:
        ValueError: the share is no share, or there are no such labels.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: give the share of labels to replace, from 0 to 1, such as 0.2.")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a label is replaced by another class, so give 2 or more.")
    require_labels(targets, num_classes)
    n = len(targets)
    rows = torch.from_numpy(keyed.permutation(n, _ROWS, key))[: round(share * n)]
    drawn = keyed.uniform(keyed.mix(key, rows), _CLASSES, 1)[:, 0]
    steps = 1 + (drawn * (num_classes - 1)).long()  # around the circle of classes, never back to the same
    rows, steps = rows.to(targets.device), steps.to(targets.device)
    replaced = targets.clone()
    replaced[rows] = (targets[rows] + steps) % num_classes
    return replaced


def require_labels(targets: Tensor, num_classes: int, count: int | None = None) -> None:
    """Refuse what are no labels of so many classes, or of so many samples."""
    if targets.dtype != torch.int64 or targets.ndim != 1 or len(targets) == 0:
        raise ValueError(f"labels are {targets.dtype} {tuple(targets.shape)}: give int64 of (N,), N at least 1.")
    if count is not None and len(targets) != count:
        raise ValueError(f"there are {len(targets)} labels for {count} samples: give one a sample.")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels go from {low} to {high}, and there are {num_classes} classes: they go from 0.")
