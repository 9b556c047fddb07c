"""What keeps each task from collapsing, taken out: of the module after it was built, and of nothing else.

Each function gets the task and a `MonkeyPatch`, for what the task calls by name. It is as small as it can be: a term of a loss
gone, an assignment that may be unequal, a predictor or a stopped gradient left out.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn import Teacher
from ssl_framework.pretext.contrastive import npid
from ssl_framework.pretext.predictive import data2vec, dinov2, msn, swav, w_mse

Removal = Callable[[Any, pytest.MonkeyPatch], None]


class Live(Teacher):
    """The student itself in the place of its teacher: it does not lag behind, and the gradient reaches it."""

    def __init__(self, student: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = student

    def forward(self, x: Tensor, **options: Any) -> Any:
        return self.module(x, **options)

    def follow(self, progress: float) -> None:
        pass

    def train(self, mode: bool = True) -> "Live":
        nn.Module.train(self, mode)  # a teacher evaluates, and this is the student
        return self


class Only(nn.Module):
    """A function in the place of a criterion."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


def cosine(first: Tensor, second: Tensor, *negatives: Tensor) -> Tensor:
    """Minus the mean cosine of positive pairs, ``(B, P)`` twice to ``()``; the negatives are not looked at."""
    return -F.cosine_similarity(first, second, dim=1).mean()


def softmax(scores: Tensor, epsilon: float) -> Tensor:
    """In the place of `sinkhorn`: samples choose prototypes, and prototypes get no equal share of them."""
    return (scores.detach() / epsilon).softmax(dim=-1)


# Negatives


def negatives(task: Any, patch: pytest.MonkeyPatch) -> None:
    task.criterion = Only(cosine)


def negatives_of_npid(task: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(npid, "contrast", lambda own, others, constant, samples: -own.mean())


def negatives_of_pirl(task: Any, patch: pytest.MonkeyPatch) -> None:
    task._nce = cosine


# Teachers, stopped gradients, predictors


def predictor(task: Any, patch: pytest.MonkeyPatch) -> None:
    """SimSiam without one is SimSiam without a stopped gradient: both directions of the loss add up to half of that."""
    task.predictor = nn.Identity()


def teacher(task: Any, patch: pytest.MonkeyPatch) -> None:
    task.teacher = Live(task.teacher._student[0])


def teacher_and_predictor(task: Any, patch: pytest.MonkeyPatch) -> None:
    teacher(task, patch)
    predictor(task, patch)


def negatives_teacher_and_predictor(task: Any, patch: pytest.MonkeyPatch) -> None:
    """MoCo v3 without negatives alone is BYOL, which does not collapse."""
    negatives(task, patch)
    teacher_and_predictor(task, patch)


def teacher_and_normalisation(task: Any, patch: pytest.MonkeyPatch) -> None:
    def mean_of_layers(self: Any, x: Tensor) -> Tensor:
        count = min(self.count, self.encoder.num_layers)
        return torch.stack(self.encoder(x, layers=range(-count, 0)).layers).mean(0)

    patch.setattr(data2vec.TopLayers, "forward", mean_of_layers)
    teacher(task, patch)


def centring(task: Any, patch: pytest.MonkeyPatch) -> None:
    for name in {"centre", "token_centre"} & {name for name, _ in task.named_children()}:
        getattr(task, name).stage = lambda outputs: None


def sharper_teacher(task: Any, patch: pytest.MonkeyPatch) -> None:
    relation = task.criterion.criterion
    relation.teacher_temperature = relation.temperature


# Clusters


def equal_shares_of_swav(task: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(swav, "sinkhorn", softmax)


def equal_shares_of_msn(task: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(msn, "sinkhorn", softmax)
    task.entropy = 0.0


def equal_shares_of_dinov2(task: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dinov2, "sinkhorn", softmax)
    task.spread = 0.0


def clustering(task: Any, patch: pytest.MonkeyPatch) -> None:
    """Centroids are weights like others: no k-means over all samples, and the label is the nearest one now."""
    clusters = task.clusters
    centroids = nn.Parameter(clusters.centroids.clone())
    del clusters.centroids
    clusters.centroids = centroids
    clusters.follow = lambda progress: clusters._staged.clear()


# Terms of losses


def normality(task: Any, patch: pytest.MonkeyPatch) -> None:
    task.regularity = 0.0


def redundancy(task: Any, patch: pytest.MonkeyPatch) -> None:
    task.criterion.criterion.redundancy = 0.0


def variability(task: Any, patch: pytest.MonkeyPatch) -> None:
    task.criterion.criterion.variance = task.criterion.criterion.covariance = 0.0


def whitening(task: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(w_mse, "whiten", lambda x: x)


def covariance_and_teacher(task: Any, patch: pytest.MonkeyPatch) -> None:
    task.contrast = 0.0
    teacher(task, patch)


def nuclear_norm(task: Any, patch: pytest.MonkeyPatch) -> None:
    """What is left is the length of each sample's mean, without their matrix."""
    task.criterion = Only(lambda z: -F.normalize(z, dim=-1).mean(dim=0).norm(dim=-1).sum())


def frobenius_norm(task: Any, patch: pytest.MonkeyPatch) -> None:
    def distance(z: Tensor) -> Tensor:
        z = F.normalize(z, dim=1)
        return z.shape[0] * z.shape[2] * (z - z.mean(dim=0)).square().mean(dim=(1, 2)).sum()

    task.criterion = Only(distance)
