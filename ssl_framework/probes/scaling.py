"""Features on one scale, learnt from train only; and what all classifiers ask of features, labels and penalties."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Standardizer(NamedTuple):
    """Shift and scale of each feature, taken from train only."""

    mean: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, D)`` features on the scale of train, in float64."""
        return (x.to(self.mean.dtype) - self.mean).div_(self.std)


def standardizer(train_x: Tensor) -> Standardizer:
    """Learn shift and scale from ``(N, D)`` train features; a constant feature keeps its scale."""
    x = train_x.double()
    std, mean = torch.std_mean(x, dim=0, correction=0)
    constant = std <= torch.finfo(torch.float32).eps * mean.abs()
    return Standardizer(mean, torch.where(constant, torch.ones_like(std), std))


def rescaler(train_x: Tensor) -> Standardizer:
    """Learn the shift of each feature, and one scale for all, from ``(N, D)`` train features.

    A few samples say little of the spread of a single feature. On digits with 1 and 10 labels per class, scaling each feature
    took 64 principal components from 65 % and 89 % down to 30 % and 76 %, and raw pixels from 65 % to 56 %.
    """
    x = train_x.to(torch.promote_types(train_x.dtype, torch.float32))
    mean = x.mean(dim=0)
    spread = (x - mean).square().mean().sqrt()
    constant = spread <= torch.finfo(x.dtype).eps * x.abs().max()
    return Standardizer(mean, torch.where(constant, torch.ones_like(spread), spread).expand_as(mean))


def check(name: str, x: Tensor, y: Tensor) -> None:
    """Refuse what no classifier can use.

    Args:
        name: of the split, for the message.
        x: ``(N, D)``.
        y: ``(N,)``.

    Raises:
        ValueError: the split is empty, its shapes do not fit, a feature is not finite, or a label is negative.
    """
    if x.ndim != 2 or y.shape != x.shape[:1] or len(y) == 0:
        raise ValueError(f"{name}: features {tuple(x.shape)} and labels {tuple(y.shape)}: give (N, D) and (N,), N at least 1")
    if not bool(torch.isfinite(x.sum())) and not bool(torch.isfinite(x).all()):  # a sum of finite numbers may overflow
        raise ValueError(f"{name}: the features hold NaN or infinity: the encoder diverged, or its input is not normalised")
    if int(y.min()) < 0:
        raise ValueError(f"{name}: label {int(y.min())}: number the classes from 0, and leave unlabelled samples out")


def strengths(penalties: Sequence[float], like: Tensor) -> Tensor:
    """Penalties as a ``(P,)`` tensor beside `like`.

    Raises:
        ValueError: there is none, or one is not positive.
    """
    if len(penalties) == 0 or min(penalties) <= 0:
        raise ValueError(f"penalties are {list(penalties)}: give at least one, all positive")
    return torch.tensor(list(penalties), dtype=like.dtype, device=like.device)
