"""Does a model know when it may be wrong? Its confidence beside its accuracy, and beside its confidence in other images."""

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from ssl_framework.evaluation.robustness.noise import require_labels

BINS = 15  # Guo et al., table 1

_SURE = 1 - 2**-24  # torchmetrics puts 1 into a bin of its own, and takes anything above 1 for a logit


def calibration_error(logits: Tensor, targets: Tensor, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence is from accuracy, on average over bins of confidence of equal width.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599, equation 3.

    Args:
        logits: ``(N, K)``.
        targets: ``(N,)`` int64 classes.
        bins: of confidence, in [0, 1].

    Returns:
        0 (as sure as it is right) to 1. Few samples raise it: the noise of each bin counts as an error.

    Raises:
        ValueError: logits are not finite, or labels do not belong to them.
    """
    require_logits(logits)
    require_labels(targets, logits.shape[1], len(logits))
    probabilities = logits.double().softmax(dim=1).clamp(max=_SURE)
    return float(multiclass_calibration_error(probabilities, targets, logits.shape[1], n_bins=bins, norm="l1"))


def max_softmax(logits: Tensor) -> Tensor:
    """``(N,)`` the largest probability: higher where a sample looks familiar.

    Hendrycks and Gimpel, 2017, https://arxiv.org/abs/1610.02136.
    """
    return logits.double().softmax(dim=1).amax(dim=1)


def energy_score(logits: Tensor) -> Tensor:
    """``(N,)`` the negative free energy at temperature 1, ``logsumexp``: higher where a sample looks familiar.

    Liu et al., "Energy-based Out-of-distribution Detection", 2020, https://arxiv.org/abs/2010.03759.
    """
    return logits.double().logsumexp(dim=1)


def ood_auroc(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """Can samples of the test set be told from others by what a model says of them?

    Args:
        inside: ``(N, K)`` logits of samples from where the model learnt.
        outside: ``(M, K)`` logits of others.

    Returns:
        Of "softmax" (`max_softmax`) and "energy" (`energy_score`): the probability that a sample from inside has a higher score
        than one from outside, ties counting half. 0.5 is chance.

    Raises:
        ValueError: logits are not finite, or of other classes.
    """
    require_logits(inside)
    require_logits(outside)
    if inside.shape[1] != outside.shape[1]:
        raise ValueError(f"logits are of {inside.shape[1]} and {outside.shape[1]} classes: give those of one model.")
    truth = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).numpy()
    scores = {"softmax": max_softmax, "energy": energy_score}
    return {
        name: float(roc_auc_score(truth, torch.cat([score(inside), score(outside)]).cpu().numpy()))
        for name, score in scores.items()
    }


def require_logits(logits: Tensor) -> None:
    """Refuse what is no output of a classifier, or of one that has broken."""
    if not logits.is_floating_point() or logits.ndim != 2 or len(logits) == 0 or logits.shape[1] < 2:
        raise ValueError(f"logits are {logits.dtype} {tuple(logits.shape)}: give floats of (N, K), N at least 1, K at least 2.")
    broken = int((~logits.detach().isfinite()).any(dim=1).sum())
    if broken:
        raise ValueError(
            f"{broken} of {len(logits)} logits are not finite: the model's training has diverged, or its file is damaged."
        )
