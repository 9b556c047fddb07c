"""VICReg: Bardes et al., 2021, https://arxiv.org/abs/2105.04906."""

from typing import Unpack

import torch
from lightly.models.modules.heads import VICRegProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn import FullPrecision, compare_crops, each, encode_crops, gather
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class VICReg(PretextModule):
    """Views agree, every feature varies over the batch, and no two features say the same.

    Bardes et al., 2021, https://arxiv.org/abs/2105.04906. Variances are averaged over views and covariances added, as in the
    official code (main_vicreg.py); the paper adds both.

    Args:
        encoder: any.
        hidden_dim: of the expander; 8192 in the paper (section 4.2).
        projection_dim: of its output; 8192 (section 4.2).
        invariance: weight of the distance between views; 25 (section 4.2).
        variance: weight of the hinge on the standard deviation of each feature; 25 (section 4.2).
        covariance: weight of the covariances between features; 1 (section 4.2).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="redundancy reduction",
        target="the projection of the other view",
        prevents_collapse="variance of each feature, covariance of pairs",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2105.04906",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 8192,
        projection_dim: int = 8192,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.projector = VICRegProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.criterion = FullPrecision(Variability(invariance, variance, 2 * covariance))

    def forward(self, views: Views) -> Step:
        """Each view by itself (official code, main_vicreg.py)."""
        h = encode_crops(self.encoder, views)  # (V, B, D)
        z = each(self.projector, h)  # (V, B, P)
        return Step(self.criterion(z), embedding=h.flatten(0, 1), projection=z.flatten(0, 1))


class Variability(nn.Module):
    """Equation 6, over the batch of all processes; the last two terms are means over views.

    Args:
        invariance: weight of the distance between views: of each global crop from every other crop.
        variance: weight of the hinge on the standard deviation of each feature.
        covariance: weight of the covariances between features.
    """

    def __init__(self, invariance: float, variance: float, covariance: float) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def forward(self, z: Tensor) -> Tensor:
        """``(V, B, P)``, or places ``(V, B, N, P)`` whose statistics are each place's own, to ``()``."""
        distance = compare_crops(F.mse_loss, z, z[:2])
        everyone = gather(z.transpose(0, 1)).transpose(0, 1)  # (V, W * B, ..., P)
        spread = torch.stack([narrowness(view) for view in everyone]).mean()
        shared = torch.stack([redundancy(view) for view in everyone]).mean()
        return self.invariance * distance + self.variance * spread + self.covariance * shared


def narrowness(z: Tensor) -> Tensor:
    """How far standard deviations over the batch stay below 1 (equations 1 and 2): ``(B, ..., P)`` to ``()``."""
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def redundancy(z: Tensor) -> Tensor:
    """Squared covariances of different features, added and divided by P (equations 3 and 4): ``(B, ..., P)`` to ``()``.

    The squares of all elements of Z'Z and of ZZ' have the same sum: the smaller matrix is made.
    """
    batch, width = len(z), z.shape[-1]
    z = (z - z.mean(dim=0)).reshape(batch, -1, width).transpose(0, 1)  # (N, B, P)
    products = z @ z.mT if batch < width else z.mT @ z
    different = products.square().sum(dim=(1, 2)) - z.square().sum(dim=1).square().sum(dim=1)  # (N,)
    return different.mean() / ((batch - 1) ** 2 * width)
