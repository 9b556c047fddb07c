"""NNCLR: Dwibedi et al., 2021, https://arxiv.org/abs/2104.14548."""

import math
from typing import Unpack

import torch
from lightly.models.modules import NNCLRPredictionHead, NNCLRProjectionHead
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.nn import FullPrecision, InBatch, Queue, compare_crops, each, encode_crops, over_processes, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class NNCLR(PretextModule):
    """The positive of a view is not the other view itself, but its nearest neighbour among the last batches.

    Dwibedi et al., 2021, https://arxiv.org/abs/2104.14548

    Args:
        encoder: any.
        hidden_dim: of the projector; 2048 in the paper (section 4.1).
        projection_dim: where views are compared; 256 (section 4.1).
        predictor_dim: hidden width of the predictor; 4096 (section 4.1).
        queue_size: samples among which neighbours are looked for; 98,304 (section 4.1).
        temperature: of the cosine similarities; 0.1 (section 4.1).
        training: see `PretextModule`.
    """

    card = Card(
        family="contrastive",
        group="nearest neighbour",
        target="the nearest neighbour of the other view",
        prevents_collapse="in-batch negatives",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2104.14548",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 256,
        predictor_dim: int = 4096,
        queue_size: int = 98304,
        temperature: float = 0.1,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.projector = NNCLRProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.predictor = NNCLRPredictionHead(projection_dim, predictor_dim, projection_dim)
        self.queue = Queue(queue_size, projection_dim)
        self.criterion = FullPrecision(InBatch(temperature))

    def forward(self, views: Views) -> Step:
        """Algorithm 1, each view by itself; the queue takes in the first view of every sample."""
        h = encode_crops(self.encoder, views)  # (V, B, D)
        projected = each(self.projector, h)  # (V, B, P)
        z = F.normalize(widen(projected), dim=-1)
        neighbours = torch.stack([nearest(target, self.queue.rows) for target in z[:2].detach()])  # (2, B, P)

        # a neighbour looks for the prediction of its view among those of the batch (equation 3)
        loss = compare_crops(lambda p, neighbour: self.criterion(neighbour, p), each(self.predictor, projected), neighbours)
        self.queue.stage(z[0])
        chance = math.log(over_processes(h.shape[1]))
        return Step(loss, embedding=h.flatten(0, 1), projection=z.flatten(0, 1), chance=chance)


def nearest(z: Tensor, rows: Tensor) -> Tensor:
    """Of each ``(B, P)`` unit vector the most alike of ``(K, P)``."""
    with torch.autocast(z.device.type, enabled=False):  # in half precision neighbours tie
        return rows[(z.to(rows.dtype) @ rows.T).argmax(dim=1)]
