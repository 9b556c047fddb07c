"""Jigsaw: Noroozi and Favaro, 2016, https://arxiv.org/abs/1603.09246."""

import math
from typing import Unpack

import torch
from torch import Tensor, nn

from ssl_framework import keyed
from ssl_framework.nn import FullPrecision, distant_orders, require_key, require_tiles, tiles
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views

_STREAM = 1_000_021


class Jigsaw(PretextModule):
    """Nine tiles of a picture are put in another order: which one?

    Noroozi and Favaro, 2016, https://arxiv.org/abs/1603.09246. Each tile is standardised by itself, for neighbours have alike
    means and contrasts, which would tell the order (the paper's shortcuts). The paper also jitters colours against
    chromatic aberration; that belongs to the views.

    Args:
        encoder: any. Of a vision transformer the patch divides the sides of a tile, which may be smaller for it.
        tile_dim: what a tile is projected to; 512 in the paper's fc6 (figure 3).
        hidden_dim: of the classifier; 4096 in its fc7 (figure 3).
        permutations: orders that are told apart; 1000 is best (ablation of the permutation set).
        gap: share of a tile's side that is cut off all around, at random; 64 of 75 pixels stay (figure 3).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="pretext label",
        target="which order of nine tiles",
        prevents_collapse="nothing to prevent: the label is fixed",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/1603.09246",
        views=1,
    )

    def __init__(
        self,
        encoder: Encoder,
        tile_dim: int = 512,
        hidden_dim: int = 4096,
        permutations: int = 1000,
        gap: float = 0.0733,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.gap, self.unit = gap, require_tiles(encoder, None if self.views is None else self.views.size, 3, gap)
        self.orders: Tensor
        self.register_buffer("orders", distant_orders(permutations, 9))  # (P, 9)
        self.tile_head = nn.Sequential(nn.Linear(encoder.embed_dim, tile_dim), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(9 * tile_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, permutations))
        self.criterion = FullPrecision(nn.CrossEntropyLoss())

    def forward(self, views: Views) -> Step:
        """One order of each sample, drawn from its key; every tile goes through the encoder by itself."""
        x = views.global_crops[0]  # (B, C, H, W)
        key = require_key(views.key, "Orders")
        label = (keyed.uniform(key, _STREAM, 1)[:, 0] * len(self.orders)).long()  # (B,)
        pieces = standardised(tiles(x, 3, self.gap, key, self.unit))  # (B, 9, C, h, w)
        mixed = pieces[torch.arange(len(x), device=x.device)[:, None], self.orders[label]]

        h = self.encoder(mixed.flatten(0, 1)).pooled.unflatten(0, (-1, 9))  # (B, 9, D)
        logits = self.head(self.tile_head(h).flatten(1))  # (B, P)
        accuracy = (logits.argmax(1) == label).float().mean()
        chance = math.log(len(self.orders))
        return Step(self.criterion(logits, label), embedding=h.mean(dim=1), logs={"accuracy": accuracy}, chance=chance)


def standardised(pieces: Tensor) -> Tensor:
    """``(..., C, h, w)`` with mean 0 and deviation 1 in every tile; a tile without contrast becomes 0."""
    deviation, mean = torch.std_mean(pieces, dim=(-3, -2, -1), correction=0, keepdim=True)
    return (pieces - mean) / deviation.clamp(min=1e-4)
