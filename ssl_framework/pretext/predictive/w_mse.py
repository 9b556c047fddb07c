"""W-MSE: Ermolov et al., 2020, https://arxiv.org/abs/2007.06346."""

from itertools import combinations
from typing import Unpack

import torch
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework import keyed
from ssl_framework.nn import encode_crops, gather, require_key, together, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views

_STREAM = 1_000_011


class WMSE(PretextModule):
    """Views agree after whitening, which spreads the samples of a batch over all directions.

    Ermolov et al., 2020, https://arxiv.org/abs/2007.06346. Samples are whitened in random groups of the global batch,
    and every pair of views is compared, however many are made.

    Args:
        encoder: any.
        hidden_dim: of the projector; 1024 (official code, https://github.com/htdt/self-supervised, cfg.py).
        projection_dim: of its output; 64 for CIFAR-10 and CIFAR-100, 128 for larger images (official code, README).
        whitening_size: samples that are whitened together; 128, twice the dimension (official code). It divides the batch.
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="redundancy reduction",
        target="the whitened projection of the other view",
        prevents_collapse="whitening",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2007.06346",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 1024,
        projection_dim: int = 64,
        whitening_size: int = 128,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        if whitening_size <= projection_dim:
            raise ValueError(
                f"whitening_size={whitening_size} samples do not span projection_dim={projection_dim} directions: "
                f"take {2 * projection_dim} or a smaller projection_dim."
            )
        self.whitening_size = whitening_size
        self.projector = ProjectionHead(
            [(encoder.embed_dim, hidden_dim, nn.BatchNorm1d(hidden_dim), nn.ReLU()), (hidden_dim, projection_dim, None, None)]
        )

    def forward(self, views: Views) -> Step:
        """Views are encoded each by itself and projected together (official code, methods/w_mse.py)."""
        h = encode_crops(self.encoder, views, every=True)  # (V, B, D)
        z = widen(together(self.projector, h))  # (V, B, P)
        white = self._whiten(z, views.key)  # (V, W * B, P)
        losses = [2 - 2 * F.cosine_similarity(one, other, dim=1).mean() for one, other in combinations(white, 2)]
        return Step(torch.stack(losses).mean().to(z.dtype), embedding=h.flatten(0, 1), projection=z.flatten(0, 1))

    def _whiten(self, z: Tensor, key: Tensor | None) -> Tensor:
        """In float64: a covariance of few samples is close to singular. The groups are drawn from the keys of the samples."""
        everyone = gather(z.transpose(0, 1)).transpose(0, 1).double()  # (V, W * B, P)
        if everyone.shape[1] % self.whitening_size:
            raise ValueError(
                f"whitening_size={self.whitening_size} does not divide the batch of {everyone.shape[1]}: "
                "change data.batch_size or pretext.whitening_size."
            )
        order = keyed.uniform(gather(require_key(key, "Groups")), _STREAM, 1)[:, 0].argsort()
        groups = everyone[:, order].unflatten(1, (-1, self.whitening_size))  # (V, G, S, P)
        with torch.autocast(z.device.type, enabled=False):
            return whiten(groups).flatten(1, 2)


def whiten(x: Tensor) -> Tensor:
    """``(..., S, P)`` to mean 0 and covariance 1 over its S samples, by Cholesky's factor (official code, whitening.py).

    Raises:
        ValueError: the samples do not span P directions.
    """
    x = x - x.mean(dim=-2, keepdim=True)
    covariance = x.transpose(-1, -2) @ x / (x.shape[-2] - 1)
    factor, failed = torch.linalg.cholesky_ex(covariance)  # (..., P, P)
    if failed.any():
        raise ValueError(
            f"{x.shape[-2]} projections do not span their {x.shape[-1]} directions, so nothing can be whitened: take a smaller "
            "projection_dim or a larger whitening_size, and look whether the samples of a batch differ."
        )
    return torch.linalg.solve_triangular(factor, x.transpose(-1, -2), upper=False).transpose(-1, -2)
