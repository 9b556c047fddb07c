"""Tasks that train nothing: neighbours that vote, images that are found, pairs that are told apart."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ssl_framework.data import Labelled
from ssl_framework.downstream.heads import NeighbourHead, VectorHead
from ssl_framework.downstream.tasks.base import Prediction, Task
from ssl_framework.downstream.tasks.classes import Classification

_AT_ONCE = 512  # queries that are compared at a time
_BINS = 20_000  # of similarities between -1 and 1


@dataclasses.dataclass(frozen=True)
class Neighbours(Classification):
    """Classification by the labelled samples that are most alike: the head holds their vectors, and learns nothing.

    Wu et al., 2018, https://arxiv.org/abs/1805.01978, section 3.4.

    Args:
        k: neighbours that vote.
        temperature: one at cosine similarity ``s`` has the weight ``exp(s / temperature)``.
        samples: that the head holds; found in the training labels.
    """

    k: int = 20
    temperature: float = 0.07
    samples: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or not self.temperature > 0:
            raise ValueError(f"task.k={self.k}, task.temperature={self.temperature}: both must be positive.")

    @property
    def trains(self) -> bool:
        """Nothing."""
        return False

    def prepared(self, targets: Tensor) -> Self:
        """With the number of samples."""
        return dataclasses.replace(self, samples=len(targets))

    def head(self, embed_dim: int) -> nn.Module:
        """Room for a vector of every labelled sample."""
        return NeighbourHead(embed_dim, self.num_classes, self.samples, self.k, self.temperature)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(Task):
    """Each test image asks for others of its class among all other test images, by cosine similarity.

    Recall at k is the share of queries with one among the first k; average precision counts all that there are, of which the
    first says little (Musgrave et al., 2020, https://arxiv.org/abs/2003.08505). Classes with one image ask for nothing.

    Args:
        at: numbers k.
    """

    at: Sequence[int] = (1, 5, 10)

    def __post_init__(self) -> None:
        if not self.at or min(self.at) < 1:
            raise ValueError(f"task.at={list(self.at)}: give numbers from 1, such as [1,5,10].")

    @property
    def trains(self) -> bool:
        """Nothing."""
        return False

    @property
    def resamples(self) -> bool:
        """No: an image that is drawn twice would find itself."""
        return False

    @property
    def judged_by(self) -> tuple[str, Literal["min", "max"]]:
        """All that there is to find."""
        return "mean_average_precision", "max"

    def targets(self, split: Labelled) -> Tensor:
        """``(N,)`` int64 labels."""
        return split.targets

    def check(self, targets: Tensor) -> None:
        """Some class has two images, and there are two classes."""
        counts = targets.unique(return_counts=True)[1]
        if len(counts) < 2 or int(counts.max()) < 2:
            raise ValueError("retrieval needs two classes, and two images of one of them: there is nothing to find.")

    def head(self, embed_dim: int) -> nn.Module:
        """None: the vector itself."""
        return VectorHead()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Zero: nothing is learnt."""
        return outputs.new_zeros(())

    def metrics(self) -> dict[str, Metric]:
        """Recall at each k, and mean average precision."""
        found: dict[str, Metric] = {f"recall_at_{k}": Ranking(_recall(k)) for k in self.at}
        return {**found, "mean_average_precision": Ranking(_average_precision)}

    def predicted(self, outputs: Tensor) -> Prediction:
        """The vectors."""
        return Prediction(outputs)

    def as_table(self, prediction: Prediction, classes: Sequence[str] | None) -> dict[str, list[Any]]:
        """Refused: vectors are what ``embed`` writes."""
        raise ValueError(f"{self.kind} predicts no values: ssl-framework embed writes the vectors.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification(Retrieval):
    """Of every two test images, whether they are of one class, by their cosine similarity.

    Args:
        at: not used.
    """

    @property
    def judged_by(self) -> tuple[str, Literal["min", "max"]]:
        """The area under the ROC curve."""
        return "auroc", "max"

    def metrics(self) -> dict[str, Metric]:
        """Area under the ROC curve, and the error where as many are wrongly taken as wrongly refused."""
        return {"auroc": Ranking(_auroc), "equal_error_rate": Ranking(_equal_error_rate)}


class Ranking(Metric):
    """A function of all vectors and labels of a split, of all processes.

    Args:
        function: of ``(N, D)`` unit vectors and ``(N,)`` labels.
    """

    full_state_update = False

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.add_state("x", default=[], dist_reduce_fx="cat")
        self.add_state("y", default=[], dist_reduce_fx="cat")
        self.x: Any
        self.y: Any

    def update(self, x: Tensor, y: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (Metric.update takes anything)
        """``(B, D)`` vectors and ``(B,)`` labels."""
        self.x.append(F.normalize(x.detach().float(), dim=1))
        self.y.append(y.detach())

    def compute(self) -> Tensor:
        """A number."""
        return self.function(dim_zero_cat(self.x), dim_zero_cat(self.y))


def _ranked(x: Tensor, y: Tensor, keep: int) -> Iterator[Tensor]:
    """``(q, keep)`` bool of some queries that can find something: whether the image at each place is of their class."""
    counts = y.bincount(minlength=1 + int(y.max()))
    asking = (counts[y] > 1).nonzero()[:, 0]
    for queries in asking.split(_AT_ONCE):
        similarity = x[queries] @ x.T
        similarity[torch.arange(len(queries), device=x.device), queries] = -2  # never itself
        places = similarity.topk(min(keep, len(x) - 1), dim=1).indices
        yield y[places] == y[queries, None]


def _recall(k: int) -> Callable[[Tensor, Tensor], Tensor]:
    def recall(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([right.any(dim=1) for right in _ranked(x, y, k)]).double().mean()

    return recall


def _average_precision(x: Tensor, y: Tensor) -> Tensor:
    place = torch.arange(1, len(x), device=x.device)
    found = [
        (right.cumsum(dim=1) / place).double().mul(right).sum(dim=1) / right.sum(dim=1) for right in _ranked(x, y, len(x) - 1)
    ]
    return torch.cat(found).mean()


def _pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """``(_BINS,)`` float64: how many pairs of one class, and of two, have each similarity."""
    same, other = x.new_zeros(_BINS, dtype=torch.float64), x.new_zeros(_BINS, dtype=torch.float64)
    for queries in torch.arange(len(x), device=x.device).split(_AT_ONCE):
        bins = ((x[queries] @ x.T + 1) / 2 * _BINS).long().clamp(0, _BINS - 1)
        later = torch.arange(len(x), device=x.device)[None] > queries[:, None]  # each pair once
        alike = y[queries, None] == y[None]
        same += bins[later & alike].bincount(minlength=_BINS)
        other += bins[later & ~alike].bincount(minlength=_BINS)
    return same, other


def _auroc(x: Tensor, y: Tensor) -> Tensor:
    """Pairs within one bin, a ten-thousandth wide, count as ties."""
    same, other = _pairs(x, y)
    below = other.cumsum(0) - other
    return (same * (below + other / 2)).sum() / (same.sum() * other.sum())


def _equal_error_rate(x: Tensor, y: Tensor) -> Tensor:
    same, other = _pairs(x, y)
    refused = (same.cumsum(0) - same) / same.sum()  # of one class, below the threshold
    taken = 1 - (other.cumsum(0) - other) / other.sum()  # of two classes, at or above it
    place = int((refused - taken).abs().argmin())
    return (refused[place] + taken[place]) / 2
