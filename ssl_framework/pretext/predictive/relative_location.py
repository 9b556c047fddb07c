"""Relative location: Doersch et al., 2015, https://arxiv.org/abs/1505.05192."""

import math
from typing import Unpack

import torch
from torch import nn

from ssl_framework.nn import FullPrecision, require_key, require_tiles, tiles
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views

_NEIGHBOURS = (0, 1, 2, 3, 5, 6, 7, 8)  # of the tile in the middle


class RelativeLocation(PretextModule):
    """Of two tiles of a picture, one of them from the middle: where is the other? Asked of all eight that surround it.

    Doersch et al., 2015, https://arxiv.org/abs/1505.05192. A gap and a random shift part the tiles, so that no
    edge that goes on gives the answer away (section 3.1). As in the paper's grids, where a patch takes part in up to eight
    pairs (section 3.2), a tile is encoded once. The paper also drops colours, against chromatic aberration.

    Args:
        encoder: any. Of a vision transformer the patch divides the sides of a tile, which may be smaller for it.
        hidden_dim: of the classifier; 4096 in the paper, where a second such layer follows (figure 3).
        gap: share of a cell's side that is cut off at each end, at random places; the paper leaves half a tile between two
            (section 3.1), which small images have no room for.
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="pretext label",
        target="which of eight places",
        prevents_collapse="nothing to prevent: the label is fixed",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/1505.05192",
        views=1,
    )

    def __init__(self, encoder: Encoder, hidden_dim: int = 4096, gap: float = 0.125, **training: Unpack[Training]) -> None:
        super().__init__(encoder, **training)
        self.gap, self.unit = gap, require_tiles(encoder, None if self.views is None else self.views.size, 3, gap)
        self.head = nn.Sequential(
            nn.Linear(2 * encoder.embed_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, len(_NEIGHBOURS))
        )
        self.criterion = FullPrecision(nn.CrossEntropyLoss())

    def forward(self, views: Views) -> Step:
        """Nine tiles of each sample, eight pairs."""
        x = views.global_crops[0]  # (B, C, H, W)
        pieces = tiles(x, 3, self.gap, require_key(views.key, "Tiles"), self.unit)  # (B, 9, C, h, w)
        h = self.encoder(pieces.flatten(0, 1)).pooled.unflatten(0, (len(x), -1))  # (B, 9, D)
        pairs = torch.cat([h[:, 4:5].expand(-1, 8, -1), h[:, _NEIGHBOURS]], dim=2)  # (B, 8, 2 * D)
        logits = self.head(pairs).flatten(0, 1)  # (8 * B, 8)
        label = torch.arange(8, device=x.device).repeat(len(x))
        accuracy = (logits.argmax(1) == label).float().mean()
        chance = math.log(8)
        return Step(self.criterion(logits, label), embedding=h.flatten(0, 1), logs={"accuracy": accuracy}, chance=chance)
