"""MoCo v3: Chen, Xie and He, 2021, https://arxiv.org/abs/2104.02057."""

import itertools
import math
from typing import Unpack

from lightly.models.modules.heads import ProjectionHead
from torch import nn

from ssl_framework.nn import Branch, FullPrecision, InBatch, Teacher, compare_crops, each, encode_crops, over_processes
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class MoCoV3(PretextModule):
    """A view predicts its other view, as a slowly moving encoder sees it, among those of the batch; no queue.

    Chen, Xie and He, 2021, https://arxiv.org/abs/2104.02057. The paper freezes the patch projection of vision transformers
    (section 4.2); that belongs to the encoder and is not done here.

    Args:
        encoder: any.
        hidden_dim: of projector and predictor; 4096 (official code, main_moco.py).
        projection_dim: where views are compared; 256 (official code, main_moco.py).
        projector_layers: 3 for vision transformers, 2 for ResNet-50 (official code, moco/builder.py).
        momentum: of the key encoder at the start, rising to 1 on a cosine; 0.99 (official code, main_moco.py).
        temperature: of the cosine similarities; 0.2 for vision transformers, 1.0 for ResNet-50 (official code, CONFIG.md).
        training: see `PretextModule`.
    """

    card = Card(
        family="contrastive",
        group="instance",
        target="identity of the positive view",
        prevents_collapse="in-batch negatives",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2104.02057",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        projector_layers: int = 3,
        momentum: float = 0.99,
        temperature: float = 0.2,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.temperature = temperature
        if projector_layers < 1:
            raise ValueError(f"projector_layers={projector_layers}: a projector has one layer or more.")
        self.projector = _mlp(encoder.embed_dim, *[hidden_dim] * (projector_layers - 1), projection_dim)
        self.predictor = _mlp(projection_dim, hidden_dim, projection_dim)
        self.teacher = Teacher(Branch(self.encoder, self.projector), momentum)
        self.criterion = FullPrecision(InBatch(temperature))

    def forward(self, views: Views) -> Step:
        """Algorithm 1, each view by itself."""
        h = encode_crops(self.encoder, views)  # (V, B, D)
        q = each(self.predictor, each(self.projector, h))  # (V, B, P)
        k = each(self.teacher, views.global_crops[:2])  # (2, B, P), no gradient
        loss = 4 * self.temperature * compare_crops(self.criterion, q, k)  # both directions summed, each times 2 * temperature
        chance = 4 * self.temperature * math.log(over_processes(h.shape[1]))
        return Step(loss, embedding=h.flatten(0, 1), projection=q.flatten(0, 1), chance=chance)


def _mlp(*widths: int) -> nn.Module:
    """Linear layers without bias, BatchNorm behind each, the last without affine (official code, moco/builder.py)."""
    hidden = [(a, b, nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(widths[:-1])]
    return ProjectionHead([*hidden, (widths[-2], widths[-1], nn.BatchNorm1d(widths[-1], affine=False), None)])
