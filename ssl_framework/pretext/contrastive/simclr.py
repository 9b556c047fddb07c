"""SimCLR: Chen et al., 2020, https://arxiv.org/abs/2002.05709."""

import math
from typing import Unpack

from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead

from ssl_framework.nn import FullPrecision, compare_crops, encode_crops, over_processes, require_positive
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class SimCLR(PretextModule):
    """Two views of a sample attract each other and repel every other sample of the batch.

    Chen et al., 2020, https://arxiv.org/abs/2002.05709. The projector is that of the official code (tf2/model.py), with
    BatchNorm behind both layers; the last one has a bias here.

    Args:
        encoder: any.
        hidden_dim: of the projector; the width of the encoder in the official code, 2048 for ResNet-50.
        projection_dim: where views are compared; 128 (section 2.3).
        temperature: of the cosine similarities; 0.1 is best with full training on ImageNet (table 5), 0.5 on CIFAR-10
            (appendix B.9).
        training: see `PretextModule`.
    """

    card = Card(
        family="contrastive",
        group="instance",
        target="identity of the positive view",
        prevents_collapse="in-batch negatives",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2002.05709",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
        temperature: float = 0.1,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        require_positive(temperature=temperature)
        self.projector = SimCLRProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.criterion = FullPrecision(NTXentLoss(temperature, gather_distributed=True))

    def forward(self, views: Views) -> Step:
        """Both views in one forward, as the official code does, so BatchNorm sees them together."""
        h = encode_crops(self.encoder, views, joined=True)  # (V, B, D)
        z = self.projector(h.flatten(0, 1))  # (V * B, P)
        loss = compare_crops(self.criterion, z.unflatten(0, h.shape[:2]))
        chance = math.log(over_processes(2 * h.shape[1]) - 1)
        return Step(loss, embedding=h.flatten(0, 1), projection=z, chance=chance)
