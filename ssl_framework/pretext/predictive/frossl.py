"""FroSSL: Skean et al., 2023, https://arxiv.org/abs/2310.02903."""

from typing import Unpack

import torch
from lightly.models.modules import BarlowTwinsProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn import FullPrecision, each, encode_crops, gather
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class FroSSL(PretextModule):
    """Views agree, and the features of each view spread their variance over all directions.

    Skean et al., 2023, https://arxiv.org/abs/2310.02903; the form for any number of views
    (https://github.com/OFSkean/FroSSL, solo/losses/frossl.py, ``multiview_frossl_loss_func``), which does not centre features.

    Args:
        encoder: any.
        hidden_dim: of the projector; 2048 (official code, scripts/pretrain/imagenet100).
        projection_dim: of its output; 1024 (official code).
        invariance: weight of the distance between views; 1 (official code; 2 for all of ImageNet, 1.4 for STL-10).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="redundancy reduction",
        target="the mean of all views of a sample",
        prevents_collapse="Frobenius norm of each view's covariance",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2310.02903",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 1024,
        invariance: float = 1.0,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.projector = BarlowTwinsProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.criterion = FullPrecision(FrobeniusEntropy(invariance))

    def forward(self, views: Views) -> Step:
        """Each view by itself."""
        h = encode_crops(self.encoder, views, every=True)  # (V, B, D)
        z = each(self.projector, h)  # (V, B, P)
        return Step(self.criterion(z), embedding=h.flatten(0, 1), projection=z.flatten(0, 1))


class FrobeniusEntropy(nn.Module):
    """Equations 3 and 6, over the batch of all processes.

    Args:
        invariance: weight of the distance between views.
    """

    def __init__(self, invariance: float) -> None:
        super().__init__()
        self.invariance = invariance

    def forward(self, z: Tensor) -> Tensor:
        """``(V, B, P)`` to ``()``."""
        z = F.normalize(gather(z.transpose(0, 1)), dim=0).transpose(0, 1)  # (V, W * B, P): each feature has length 1
        v, n, p = z.shape
        gram = z.transpose(1, 2) @ z if n > p else z @ z.transpose(1, 2)  # the same norm: take the smaller
        spread = 2 * torch.linalg.matrix_norm(gram / p).log().sum()  # a trace of 1, since p features have length 1
        distance = (z - z.mean(dim=0)).square().mean(dim=(1, 2)).sum()
        return spread + self.invariance * v * p * distance
