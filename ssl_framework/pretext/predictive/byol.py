"""BYOL: Grill et al., 2020, https://arxiv.org/abs/2006.07733."""

from typing import Unpack

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

from ssl_framework.nn import Branch, FullPrecision, Teacher, compare_crops, each, encode_crops
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class BYOL(PretextModule):
    """From one view, the student predicts what a slowly moving average of itself says of the other.

    Grill et al., 2020, https://arxiv.org/abs/2006.07733. The last layers of projector and predictor have a bias, which the
    official code leaves out (byol/utils/networks.py).

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
        h = encode_crops(self.encoder, views)  # (V, B, D)
        z = each(self.projector, h)  # (V, B, P)
        t = each(self.teacher, views.global_crops[:2])  # (2, B, P), no gradient

        # 2 - 2 cos(prediction, target), summed over both directions (equation 2, and below it)
        loss = 4 + 4 * compare_crops(self.criterion, each(self.predictor, z), t)
        return Step(loss, embedding=h.flatten(0, 1), projection=z.flatten(0, 1))
