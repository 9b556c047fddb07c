"""SwAV: Caron et al., 2020, https://arxiv.org/abs/2006.09882."""

import math
from typing import Any, Unpack

import torch
from lightly.models.modules import SwaVProjectionHead
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.nn import (
    FullPrecision,
    Prototypes,
    Queue,
    compare_crops,
    cross_entropy,
    encode_crops,
    require_positive,
    sinkhorn,
    together,
    widen,
)
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class SwAV(PretextModule):
    """One view predicts to which prototypes the other is assigned, where every prototype gets its share of the batch.

    Caron et al., 2020, https://arxiv.org/abs/2006.09882. Defaults are those of batches of 256 (official code,
    scripts/swav_200ep_bs256_pretrain.sh). Prototypes are normalised where they are used, and not between steps as there. The
    queue begins with random vectors, which the script waits for to be gone: with `queue_start` as it is they are, but in runs
    of a few hundred steps.

    Args:
        encoder: any.
        hidden_dim: of the projector; 2048 (main_swav.py).
        projection_dim: where samples meet prototypes; 128.
        prototypes: 3000.
        temperature: of the student's scores; 0.1.
        epsilon: of Sinkhorn's assignment; 0.05.
        queue_size: samples of earlier batches that are assigned with a small batch; 3840, and 0 for large batches.
        queue_start: share of training after which the queue helps; 15 of 200 epochs.
        freeze_share: share of training in which prototypes stand still; 5005 steps, which are one of 200 epochs.
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="clusters",
        target="the prototypes of the other view",
        prevents_collapse="equal shares of all prototypes",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2006.09882",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
        prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        queue_size: int = 3840,
        queue_start: float = 0.075,
        freeze_share: float = 0.005,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        require_positive(temperature=temperature, epsilon=epsilon)
        self.temperature, self.epsilon = temperature, epsilon
        self.queue_start, self.freeze_share = queue_start, freeze_share
        self.projector = SwaVProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.prototypes = Prototypes(projection_dim, prototypes)
        self.queues: Any = torch.nn.ModuleList(Queue(queue_size, projection_dim) for _ in range(2 if queue_size else 0))
        self.criterion = FullPrecision(cross_entropy)

    def forward(self, views: Views) -> Step:
        """Crops of one size go through together (official code, main_swav.py)."""
        h = encode_crops(self.encoder, views, joined=True)  # (V, B, D)
        z = F.normalize(widen(together(self.projector, h)), dim=-1)  # (V, B, P)
        scores = self.prototypes(z, frozen=self.progress < self.freeze_share)  # (V, B, K)
        codes = torch.stack([self._assign(scores[i].detach(), i) for i in range(2)])  # (2, B, K)

        loss = compare_crops(self.criterion, scores / self.temperature, codes)  # equation 1
        for i, queue in enumerate(self.queues):
            queue.stage(z[i])
        chance, target = math.log(codes.shape[-1]), codes.flatten(0, 1)
        return Step(loss, embedding=h.flatten(0, 1), projection=z.flatten(0, 1), chance=chance, target=target)

    @torch.no_grad()
    def _assign(self, scores: Tensor, view: int) -> Tensor:
        """Codes ``(B, K)`` of this process's samples, assigned together with its share of the queue of this view."""
        if not self.queues or self.progress < self.queue_start:
            return sinkhorn(scores, self.epsilon)
        older = self.queues[view].share()  # (S, P)
        return sinkhorn(torch.cat([scores, self.prototypes(older)]), self.epsilon)[: len(scores)]
