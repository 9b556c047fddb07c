"""Barlow Twins: Zbontar et al., 2021, https://arxiv.org/abs/2103.03230."""

from typing import Unpack

import torch
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.utils import dist
from torch import Tensor, nn

from ssl_framework.nn import FullPrecision, compare_crops, each, encode_crops, mean_over_processes
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class BarlowTwins(PretextModule):
    """Every feature of one view correlates with itself in the other, and with no other feature.

    Zbontar et al., 2021, https://arxiv.org/abs/2103.03230

    Args:
        encoder: any.
        hidden_dim: of the projector; 8192 in the paper (section 2.2).
        projection_dim: features that are told apart; 8192 (section 2.2).
        redundancy: weight of correlations between different features; 0.0051 (official code, main.py; section 2.2: 0.005).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="redundancy reduction",
        target="the same feature of the other view",
        prevents_collapse="features that must not be correlated",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2103.03230",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 8192,
        projection_dim: int = 8192,
        redundancy: float = 0.0051,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.projector = BarlowTwinsProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.criterion = FullPrecision(CrossCorrelation(redundancy))

    def forward(self, views: Views) -> Step:
        """Each view by itself (official code, main.py)."""
        h = encode_crops(self.encoder, views)  # (V, B, D)
        z = each(self.projector, h)  # (V, B, P)
        return Step(compare_crops(self.criterion, z), embedding=h.flatten(0, 1), projection=z.flatten(0, 1))


class CrossCorrelation(nn.Module):
    """Equations 1 and 2, over the batch of all processes: their sums travel, not their samples.

    Args:
        redundancy: the weight lambda.
    """

    def __init__(self, redundancy: float) -> None:
        super().__init__()
        self.redundancy = redundancy

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``(B, P)`` twice to ``()``."""
        a, b = standardize(first), standardize(second)
        batch, width = a.shape
        if batch < width and dist.world_size() == 1:  # the squares of all elements of A'B, from matrices that are smaller
            own = (a * b).mean(dim=0)  # (P,)
            all_squares = ((a @ a.T) * (b @ b.T)).sum() / batch**2
            return (own - 1).square().sum() + self.redundancy * (all_squares - own.square().sum())
        c = mean_over_processes(a.T @ b / batch)  # (P, P)
        wrong = (c - torch.eye(width, device=c.device, dtype=c.dtype)).square()
        own = wrong.diagonal().sum()
        return own + self.redundancy * (wrong.sum() - own)


def standardize(z: Tensor) -> Tensor:
    """``(B, P)`` to mean 0 and variance 1 of each feature, over the batch of all processes, as BatchNorm has it."""
    z = z - mean_over_processes(z.mean(0))
    return z / (mean_over_processes(z.square().mean(0)) + 1e-5).sqrt()
