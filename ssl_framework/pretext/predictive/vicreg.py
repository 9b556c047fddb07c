"""VICReg: Bardes et al., 2021, https://arxiv.org/abs/2105.04906."""

from typing import Unpack

from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead

from ssl_framework.nn import FullPrecision, compare_crops, each, encode_crops
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class VICReg(PretextModule):
    """Views agree, every feature varies over the batch, and no two features say the same.

    Bardes et al., 2021, https://arxiv.org/abs/2105.04906

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
        self.criterion = FullPrecision(VICRegLoss(invariance, variance, covariance, gather_distributed=True))

    def forward(self, views: Views) -> Step:
        """Algorithm 1, each view by itself (official code, main_vicreg.py)."""
        h = encode_crops(self.encoder, views)  # (V, B, D)
        z = each(self.projector, h)  # (V, B, P)
        return Step(compare_crops(self.criterion, z), embedding=h.flatten(0, 1), projection=z.flatten(0, 1))
