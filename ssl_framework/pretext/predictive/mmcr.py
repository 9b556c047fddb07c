"""MMCR: Yerxa et al., 2023, https://arxiv.org/abs/2303.03307."""

from typing import Unpack

import torch
from lightly.models.modules.heads import MMCRProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn import FullPrecision, encode_crops, gather, together
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class MMCR(PretextModule):
    """The mean of a sample's views is long, so views agree, and these means fill all directions.

    Yerxa et al., 2023, https://arxiv.org/abs/2303.03307. All views that are made are used. Without the momentum encoder that
    the official code can add to the means (https://github.com/ThomasYerxa/mmcr, ``MMCR_Momentum``).

    Args:
        encoder: any.
        hidden_dim: of the projector; 8192 (official code, mmcr/imagenet/models.py).
        projection_dim: of its output; 512 (official code).
        compression: weight of the views' own extent, the paper's lambda; 0 (official code, pretrain_imagenet.py).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="redundancy reduction",
        target="the mean of all views of a sample",
        prevents_collapse="nuclear norm of the means",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2303.03307",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 8192,
        projection_dim: int = 512,
        compression: float = 0.0,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        if compression < 0:
            raise ValueError(f"compression={compression} must not be negative: it would stretch the views of a sample apart.")
        self.projector = MMCRProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.criterion = FullPrecision(ManifoldCapacity(compression))

    def forward(self, views: Views) -> Step:
        """All views in one forward, as the official code does."""
        h = encode_crops(self.encoder, views, joined=True, every=True)  # (V, B, D)
        z = together(self.projector, h)  # (V, B, P)
        return Step(self.criterion(z), embedding=h.flatten(0, 1), projection=z.flatten(0, 1))


class ManifoldCapacity(nn.Module):
    """Nuclear norms of means and of views, over the batch of all processes (official code, mmcr/imagenet/loss_mmcr.py).

    Args:
        compression: the weight lambda.
    """

    def __init__(self, compression: float) -> None:
        super().__init__()
        self.compression = compression

    def forward(self, z: Tensor) -> Tensor:
        """``(V, B, P)`` to ``()``."""
        z = F.normalize(z, dim=-1)
        loss = -torch.linalg.matrix_norm(gather(z.mean(dim=0)), "nuc")
        if self.compression:
            loss = loss + self.compression * torch.linalg.matrix_norm(z.transpose(0, 1), "nuc").mean()
        return loss
