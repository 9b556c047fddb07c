"""Numbers that judge: accuracy with its uncertainty over seeds, and the spread of features without labels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy import special
from torch import Tensor
from torch.nn import functional as F


class Interval(NamedTuple):
    """A mean and how far it may be off: ``mean ± half_width``."""

    mean: float
    half_width: float


def budget_order(budget: int | str) -> tuple[bool, float]:
    """Sorts budgets of labels: so many of each class, then shares such as "10%", then "all"."""
    if isinstance(budget, int):
        return False, budget
    return True, float(budget[:-1]) if budget.endswith("%") else math.inf


def budget_in_words(budget: int | str) -> str:
    """``10 labels a class``, ``10% of the labels``, ``all labels``."""
    if isinstance(budget, int):
        return f"{budget} label{'s' if budget != 1 else ''} a class"
    return f"{budget} {'of the labels' if budget.endswith('%') else 'labels'}"


def accuracy(prediction: Tensor, target: Tensor) -> float:
    """Share of samples that are predicted right, in [0, 1].

    Args:
        prediction: ``(N,)`` classes, or ``(N, C)`` scores of which the largest wins.
        target: ``(N,)`` classes.

    Raises:
        ValueError: there is no sample, or the lengths differ.
    """
    predicted = prediction.argmax(dim=1) if prediction.ndim == 2 else prediction
    if predicted.shape != target.shape or target.numel() == 0:
        raise ValueError(
            f"{tuple(prediction.shape)} predictions cannot be compared with {tuple(target.shape)} targets: "
            "give one of each per sample, and at least one sample"
        )
    return float((predicted == target).double().mean())


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean over seeds with Student's t interval.

    Args:
        values: one number a seed.
        confidence: how often such an interval covers the true mean, in (0, 1).

    Returns:
        Mean and half width; a single value says nothing of spread, so its half width is infinite.

    Raises:
        ValueError: no value, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value: run at least one seed")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.inf)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    quantile = float(special.stdtrit(n - 1, (1 + confidence) / 2))
    return Interval(mean, quantile * math.sqrt(variance / n))


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Interval of the mean of ``a - b``, seed by seed: what both share (the labels drawn, the split) cancels.

    Args:
        a: one number a seed.
        b: the other method's number for the same seeds in the same order.
        confidence: as in `interval`.

    Raises:
        ValueError: the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired: run both with the same seeds")
    return interval([x - y for x, y in zip(a, b, strict=True)], confidence)


def rankme(features: Tensor) -> float:
    """Effective rank of the features as they are, by Garrido et al. 2023 (https://arxiv.org/abs/2210.02885, equation 1).

    A shared offset is one strong direction and lowers it; `effective_rank` leaves the offset out.

    Args:
        features: ``(N, D)``; as N bounds the answer, take N > D.

    Returns:
        exp of the entropy of the normalised singular values, between 0 (all zero) and min(N, D).
    """
    return _entropy_rank(_matrix(features), scale=None)


def effective_rank(features: Tensor) -> float:
    """Directions in which centred features vary (Roy and Vetterli 2007).

    It sees dimensional collapse, and is blind to features that are constant but for noise: read it with `normalised_std`.

    Args:
        features: ``(N, D)``; as N - 1 bounds the answer, take N > D.

    Returns:
        exp of the entropy of the normalised singular values, from 0 (nothing varies) to min(N - 1, D).
    """
    x = _matrix(features).double()
    return _entropy_rank(x - x.mean(dim=0), scale=torch.linalg.matrix_norm(x))


def normalised_std(features: Tensor) -> float:
    """Spread of directions: standard deviation of l2-normalised features, averaged over dimensions, times sqrt(D).

    It sees complete collapse, and is blind to features that all lie on one line: read it with `effective_rank`. The signal is
    SimSiam's (Chen and He 2021, section 4.1).

    Args:
        features: ``(N, D)`` with at least 2 rows.

    Returns:
        About 0 where all samples look the same, about 1 where directions spread evenly.
    """
    x = _matrix(features)
    return float(F.normalize(x, dim=1).std(dim=0, correction=0).mean() * math.sqrt(x.shape[1]))


def _matrix(features: Tensor) -> Tensor:
    if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] < 1:
        raise ValueError(f"features have the shape {tuple(features.shape)}: give (N, D) with at least 2 samples")
    return features.detach().to(torch.promote_types(features.dtype, torch.float32))


def _entropy_rank(x: Tensor, scale: Tensor | None) -> float:
    x = x.double()  # so that squares tell apart what float32 resolves
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    values = torch.linalg.eigvalsh(gram.cpu()).clamp(min=0).sqrt()  # a quarter of the time of singular values
    # What float32 features cannot resolve beside their own size is rounding, not rank.
    floor = torch.finfo(torch.float32).eps * (values.norm() if scale is None else scale)
    values = values[values > floor]
    if values.numel() == 0:
        return 0.0
    share = values / values.sum()
    return float(torch.exp(-(share * share.log()).sum()))
