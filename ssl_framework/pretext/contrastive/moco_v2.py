"""MoCo v2: Chen et al., 2020, https://arxiv.org/abs/2003.04297."""

import math
from typing import Unpack

import torch
from lightly.models.modules import MoCoProjectionHead
from torch.nn import functional as F

from ssl_framework.nn import Branch, FullPrecision, InfoNCE, Queue, Teacher, encode_crops, together, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class MoCoV2(PretextModule):
    """A view finds its other view, as a slowly moving encoder sees it, among the keys of the last batches.

    Chen et al., 2020, https://arxiv.org/abs/2003.04297; He et al., 2020, https://arxiv.org/abs/1911.05722. BatchNorm is not
    shuffled over GPUs: with synchronised BatchNorm each statistic is that of the whole batch.

    Args:
        encoder: any.
        hidden_dim: of the projector; 2048 in the paper (section 3).
        projection_dim: of a key; 128 (He et al., section 3.3).
        queue_size: negatives; 65,536 (He et al., figure 3).
        momentum: of the key encoder; 0.999 (He et al., section 4.1).
        temperature: of the cosine similarities; 0.2 (section 3: best with the projector).
        training: see `PretextModule`.
    """

    card = Card(
        family="contrastive",
        group="queue",
        target="identity of the positive view",
        prevents_collapse="negatives of a queue",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2003.04297",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.projector = MoCoProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.teacher = Teacher(Branch(self.encoder, self.projector), momentum, momentum)
        self.queue = Queue(queue_size, projection_dim)
        self.criterion = FullPrecision(InfoNCE(temperature))

    def forward(self, views: Views) -> Step:
        """The second view is the key; the first, and local crops, are its queries."""
        k = F.normalize(widen(self.teacher(views.global_crops[1])), dim=1)  # (B, P), no gradient
        first = views._replace(global_crops=views.global_crops[:1])
        h = encode_crops(self.encoder, first)  # (1 + L, B, D)
        q = together(self.projector, h)  # (1 + L, B, P)

        loss = torch.stack([self.criterion(query, k, self.queue.rows) for query in q]).mean()
        self.queue.stage(k)
        chance = math.log(1 + len(self.queue.rows))
        return Step(loss, embedding=h.flatten(0, 1), projection=q.flatten(0, 1), chance=chance)
