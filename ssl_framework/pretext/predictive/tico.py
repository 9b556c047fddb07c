"""TiCo: Zhu et al., 2022, https://arxiv.org/abs/2206.10698."""

from typing import Unpack

import torch
from lightly.models.modules.heads import TiCoProjectionHead
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.nn import Branch, Follower, Teacher, compare_crops, each, encode_crops, mean_over_processes, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class TiCo(PretextModule):
    """Views agree, and samples keep away from the directions that samples of the past have filled.

    Zhu et al., 2022, https://arxiv.org/abs/2206.10698. The covariance is a memory: no gradient runs through its newest part.

    Args:
        encoder: any.
        hidden_dim: of the projector; 4096 in the paper.
        projection_dim: where views are compared; 256 in the paper.
        momentum: of the target encoder at the start, rising to 1 on a cosine; 0.99 in the paper.
        memory: momentum of the covariance, the paper's beta; 0.9.
        contrast: weight of the covariance, the paper's rho; 8.
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="redundancy reduction",
        target="a slowly moving encoder's projection of the other view",
        prevents_collapse="covariance of the past",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2206.10698",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        momentum: float = 0.99,
        memory: float = 0.9,
        contrast: float = 8.0,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.contrast = contrast
        self.projector = TiCoProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.teacher = Teacher(Branch(self.encoder, self.projector), momentum)
        self.covariance = Covariance(projection_dim, memory)

    def forward(self, views: Views) -> Step:
        """Algorithm 1, each view by itself and both directions."""
        h = encode_crops(self.encoder, views)  # (V, B, D)
        z = each(self.projector, h)  # (V, B, P)
        t = F.normalize(widen(each(self.teacher, views.global_crops[:2])), dim=-1)  # (2, B, P), no gradient
        z = F.normalize(widen(z), dim=-1)

        with torch.autocast(z.device.type, enabled=False):
            c = self.covariance(z[:2])  # (P, P)
            agreement = 1 - compare_crops(lambda a, b: (a * b).sum(dim=1).mean(), z, t)
            crowding = ((z @ c) * z).sum(dim=-1).mean()
        loss = agreement + self.contrast * crowding
        logs = {"agreement": agreement.detach(), "crowding": crowding.detach()}
        return Step(loss, embedding=h.flatten(0, 1), projection=z.flatten(0, 1), logs=logs)


class Covariance(Follower):
    """A moving second moment of all processes' samples.

    Args:
        dim: width ``P``.
        memory: momentum.
    """

    def __init__(self, dim: int, memory: float) -> None:
        super().__init__()
        self.memory = memory
        self.value: Tensor
        self.register_buffer("value", torch.zeros(dim, dim))
        self._staged: list[Tensor] = []

    @torch.no_grad()
    def forward(self, z: Tensor) -> Tensor:
        """``(..., P)`` to ``(P, P)``: what the covariance becomes with this batch; it is kept once the optimiser has moved."""
        flat = z.detach().flatten(0, -2)
        batch = mean_over_processes(flat.T @ flat / len(flat))
        if self.training:
            self._staged.append(batch)
        return self.memory * self.value.to(batch.dtype) + (1 - self.memory) * batch

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """Take in what was staged."""
        if self._staged:
            batch = torch.stack(self._staged).mean(0).to(self.value.dtype)
            self._staged.clear()
            self.value.lerp_(batch, 1 - self.memory)
