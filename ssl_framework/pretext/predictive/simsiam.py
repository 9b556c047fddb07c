"""SimSiam: Chen and He, 2020, https://arxiv.org/abs/2011.10566."""

from typing import Unpack

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

from ssl_framework.nn import FullPrecision, compare_crops, each, encode_crops
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class SimSiam(PretextModule):
    """From one view, predict the other; no negatives, no teacher, only a gradient that is stopped.

    Chen and He, 2020, https://arxiv.org/abs/2011.10566. The paper keeps the predictor's learning rate constant (section 4.2);
    here it follows the schedule of everything else.

    Args:
        encoder: any.
        hidden_dim: of the projector; 2048 in the paper (section 3).
        projection_dim: where views are compared; 2048 (section 3).
        bottleneck_dim: hidden width of the predictor; 512, a quarter of `projection_dim` (section 3).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="self-distillation",
        target="the projection of the other view",
        prevents_collapse="predictor and stop-gradient",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2011.10566",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 2048,
        bottleneck_dim: int = 512,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.projector = SimSiamProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.predictor = SimSiamPredictionHead(projection_dim, bottleneck_dim, projection_dim)
        self.criterion = FullPrecision(NegativeCosineSimilarity())

    def forward(self, views: Views) -> Step:
        """Algorithm 1: each view by itself, and no gradient into the target."""
        h = encode_crops(self.encoder, views)  # (V, B, D)
        z = each(self.projector, h)  # (V, B, P)
        p = each(self.predictor, z)  # (V, B, P)
        loss = compare_crops(self.criterion, p, z.detach())  # equation 4
        return Step(loss, embedding=h.flatten(0, 1), projection=z.flatten(0, 1))
