"""BYOL: Grill et al., 2020, https://arxiv.org/abs/2006.07733."""

from typing import Unpack

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

from ssl_framework.nn import Branch, FullPrecision, Teacher
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class BYOL(PretextModule):
    """From one view, the student predicts what a slowly moving average of itself says of the other.

    Grill et al., 2020, https://arxiv.org/abs/2006.07733

    Args:
        encoder: any.
        hidden_dim: of projector and predictor; 4096 in the paper (section 3.3).
        projection_dim: where student and teacher are compared; 256 (section 3.3).
        momentum: of the teacher at the start, rising to 1 on a cosine; 0.996 (section 3.3).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="self-distillation",
        target="the teacher's projection of the other view",
        prevents_collapse="predictor, stop-gradient and a slowly moving teacher",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2006.07733",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        momentum: float = 0.996,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.projector = BYOLProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.predictor = BYOLPredictionHead(projection_dim, hidden_dim, projection_dim)
        self.teacher = Teacher(Branch(self.encoder, self.projector), momentum)
        self.criterion = FullPrecision(NegativeCosineSimilarity())

    def forward(self, views: Views) -> Step:
        """Each view goes through by itself, so that BatchNorm does not mix them (official code, byol_experiment.py)."""
        first, second = views.global_crops[:2]  # (B, ...) each
        h1, h2 = self.encoder(first).pooled, self.encoder(second).pooled  # (B, D)
        z1, z2 = self.projector(h1), self.projector(h2)  # (B, P)
        t1, t2 = self.teacher(first), self.teacher(second)  # (B, P), no gradient

        # 2 - 2 cos(prediction, target), summed over both directions (equations 2 and 3)
        loss = 4 + 2 * self.criterion(self.predictor(z1), t2) + 2 * self.criterion(self.predictor(z2), t1)
        return Step(loss, embedding=torch.cat([h1, h2]), projection=torch.cat([z1, z2]))
