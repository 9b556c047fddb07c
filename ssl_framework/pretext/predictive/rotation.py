"""RotNet: Gidaris et al., 2018, https://arxiv.org/abs/1803.07728."""

import math
from typing import Unpack

import torch
from torch import nn

from ssl_framework.nn import FullPrecision
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class Rotation(PretextModule):
    """Every sample is turned by 0, 90, 180 and 270 degrees, and the encoder must say by how much.

    Gidaris et al., 2018, https://arxiv.org/abs/1803.07728. All four turns of a sample are in the batch, which the paper found
    better than one at random (section 3.1).

    Args:
        encoder: any.
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="pretext label",
        target="which of four rotations",
        prevents_collapse="nothing to prevent: the label is fixed",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/1803.07728",
        views=1,
    )

    def __init__(self, encoder: Encoder, **training: Unpack[Training]) -> None:
        super().__init__(encoder, **training)
        self.head = nn.Linear(encoder.embed_dim, 4)
        self.criterion = FullPrecision(nn.CrossEntropyLoss())

    def forward(self, views: Views) -> Step:
        """Classify the turn; a square input is needed, for a quarter turn changes the shape of any other."""
        x = views.global_crops[0]  # (B, C, H, W)
        if x.shape[-1] != x.shape[-2]:
            raise ValueError(f"Rotation turns by 90 degrees and needs square views, not {tuple(x.shape[-2:])}: set views.size.")
        turned = torch.cat([x.rot90(k, dims=(-2, -1)) for k in range(4)])  # (4 * B, C, H, W)
        label = torch.arange(4, device=x.device).repeat_interleave(len(x))  # (4 * B,)

        h = self.encoder(turned).pooled  # (4 * B, D)
        logits = self.head(h)  # (4 * B, 4)
        accuracy = (logits.argmax(1) == label).float().mean()
        chance = math.log(4)
        return Step(self.criterion(logits, label), embedding=h, logs={"accuracy": accuracy}, chance=chance)
