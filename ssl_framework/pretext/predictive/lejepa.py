"""LeJEPA: Balestriero and LeCun, 2025, https://arxiv.org/abs/2511.08544."""

from typing import Unpack

import torch
from lightly.models.modules.heads import LeJEPAProjectionHead
from torch import Tensor, nn

from ssl_framework import keyed
from ssl_framework.nn import (
    FullPrecision,
    encode_crops,
    gather,
    mean_over_processes,
    require_key,
    require_positive,
    together,
    widen,
)
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views

_STREAM = 1_000_013


class LeJEPA(PretextModule):
    """Every view predicts the mean of the global ones, and embeddings are kept standard normal: no teacher, no stop-gradient.

    Balestriero and LeCun, 2025, https://arxiv.org/abs/2511.08544

    Args:
        encoder: any.
        hidden_dim: of the projector; 2048 (official example, MINIMAL.md).
        projection_dim: of its output; 64. It is 16 in the official example.
        regularity: weight of the test for a normal distribution, the paper's lambda; 0.05, and 0.02 in the official
            example.
        directions: random directions that are tested in a step; 1024 (official README).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="joint-embedding prediction",
        target="the mean of the global views",
        prevents_collapse="embeddings tested to be standard normal",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2511.08544",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 64,
        regularity: float = 0.05,
        directions: int = 1024,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        require_positive(directions=directions)
        if not 0 <= regularity <= 1:
            raise ValueError(f"regularity={regularity} must lie between 0 and 1: it is the share of the loss.")
        self.regularity, self.directions = regularity, directions
        self.projector = LeJEPAProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.normality = FullPrecision(SIGReg())

    def forward(self, views: Views) -> Step:
        """Algorithm 2."""
        h = encode_crops(self.encoder, views, joined=True)  # (V, B, D)
        z = widen(together(self.projector, h))  # (V, B, P)
        prediction = (z - z[:2].mean(dim=0)).square().mean()
        normality = self.normality(z, self._draw(views.key, z.shape[-1]))
        loss = (1 - self.regularity) * prediction + self.regularity * normality
        logs = {"prediction": prediction.detach(), "normality": normality.detach()}
        return Step(loss, embedding=h.flatten(0, 1), projection=z.flatten(0, 1), logs=logs)

    def _draw(self, key: Tensor | None, dim: int) -> Tensor:
        """Unit vectors ``(M, P)``, other ones each step and the same on all processes: from the keys of the global batch."""
        key = require_key(key, "Directions")
        keys = keyed.mix(gather(key).sum(), torch.arange(self.directions, device=key.device))
        return nn.functional.normalize(keyed.normal(keys, _STREAM, dim), dim=1)


class SIGReg(nn.Module):
    """Epps and Pulley's test of each random projection against the standard normal, over all processes (algorithm 1).

    The integral over [-5, 5] has 17 knots in the paper; its integrand is even, so half of them are computed. The official code
    spends all 17 on [0, 3] (lejepa/univariate/epps_pulley.py).
    """

    def __init__(self) -> None:
        super().__init__()
        self.knots: Tensor
        self.register_buffer("knots", torch.linspace(0, 5, 9), persistent=False)

    def forward(self, z: Tensor, directions: Tensor) -> Tensor:
        """``(V, B, P)`` and ``(M, P)`` to ``()``, the mean over views and directions."""
        t = self.knots.to(z.dtype)
        angle = (z @ directions.T.to(z.dtype))[..., None] * t  # (V, B, M, T)
        real = mean_over_processes(angle.cos().mean(dim=1))  # (V, M, T): the characteristic function
        imaginary = mean_over_processes(angle.sin().mean(dim=1))
        normal = (-t.square() / 2).exp()
        error = ((real - normal).square() + imaginary.square()) * normal
        batch = len(gather(z[0, :, :1].detach()))
        return 2 * batch * torch.trapezoid(error, t, dim=-1).mean()
