"""PIRL: Misra and van der Maaten, 2019, https://arxiv.org/abs/1912.01991."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework import keyed
from ssl_framework.nn import MemoryBank, require_key, require_positive, require_tiles, tiles, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views

_STREAM = 1_000_027


class PIRL(PretextModule):
    """Nine tiles in any order say the same as the whole picture, and the same as a memory of it.

    Misra and van der Maaten, 2019, https://arxiv.org/abs/1912.01991, with the jigsaw as transformation. The tiles are those of
    the second view if there is one, as the authors' code crops twice (VISSL, img_pil_to_patches_and_image.py). All samples of
    a step have the same negatives, each but its own.

    Args:
        encoder: any. Of a vision transformer the patch divides the sides of a tile, which may be smaller for it.
        projection_dim: of a vector; 128 (VISSL, pirl_jigsaw_4node_resnet50.yaml).
        negatives: samples drawn from the memory; 32,000 (VISSL).
        momentum: of the memory; 0.5 (VISSL).
        temperature: of the cosine similarities; 0.07 (VISSL).
        transformed: weight of the loss of tiles, the rest is that of the whole picture; 0.5 (VISSL).
        gap: share of a tile's side that is cut off all around, at random; 64 of 85 pixels stay (VISSL, img_patches_tensor.py).
        training: see `PretextModule`.
    """

    card = Card(
        family="contrastive",
        group="instance",
        target="identity of the sample, from its tiles",
        prevents_collapse="negatives of a memory bank",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/1912.01991",
        views=1,
    )

    def __init__(
        self,
        encoder: Encoder,
        projection_dim: int = 128,
        negatives: int = 32000,
        momentum: float = 0.5,
        temperature: float = 0.07,
        transformed: float = 0.5,
        gap: float = 0.1235,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        require_positive(temperature=temperature, negatives=negatives)
        if not 0 <= transformed <= 1:
            raise ValueError(f"transformed={transformed} must lie between 0 and 1: it is a share of the loss.")
        self.negatives, self.temperature, self.transformed, self.gap = negatives, temperature, transformed, gap
        self.unit = require_tiles(encoder, None if self.views is None else self.views.size, 3, gap)
        self.projector = nn.Linear(encoder.embed_dim, projection_dim)  # f
        self.tile_projector = nn.Linear(encoder.embed_dim, projection_dim)
        self.joint_projector = nn.Linear(9 * projection_dim, projection_dim)  # with the one before: g
        self.bank = MemoryBank(projection_dim, momentum)

    def forward(self, views: Views) -> Step:
        """Equation 5; where samples have no place in the memory, in validation, their own vectors stand in."""
        x, index, key = views.global_crops[0], views.index, require_key(views.key, "Negatives")
        if index is None:
            raise ValueError("PIRL keeps a vector of every sample, and Views.index is None: give Views(..., index=...).")
        order = keyed.uniform(key, _STREAM, 9).argsort(dim=1)  # (B, 9)
        cut = views.global_crops[:2][-1]
        pieces = tiles(cut, 3, self.gap, key, self.unit)[
            torch.arange(len(x), device=x.device)[:, None], order
        ]  # (B, 9, C, h, w)

        h = self.encoder(x).pooled  # (B, D)
        whole = F.normalize(widen(self.projector(h)), dim=1)  # (B, P): f(v_I)
        parts = self.tile_projector(self.encoder(pieces.flatten(0, 1)).pooled).unflatten(0, (-1, 9))  # (B, 9, P)
        jigsaw = F.normalize(widen(self.joint_projector(parts.flatten(1))), dim=1)  # (B, P): g(v_It)

        remembered = self.bank.look_up(index) if self.training else whole.detach()  # (B, P): m_I
        drawn, others = self.bank.draw(key, self.negatives)  # (M,), (M, P)
        own = (index[:, None] == drawn) & self.training  # (B, M): no negative of itself
        with torch.autocast(x.device.type, enabled=False):
            loss = self.transformed * self._nce(remembered, jigsaw, others, own)
            loss = loss + (1 - self.transformed) * self._nce(remembered, whole, others, own)
        self.bank.stage(index, whole)
        return Step(loss, embedding=h, projection=whole)

    def _nce(self, remembered: Tensor, z: Tensor, others: Tensor, own: Tensor) -> Tensor:
        """Equations 3 and 4: the probability of the right one, and of not being each of the wrong ones."""
        right = (remembered * z).sum(dim=1, keepdim=True)  # (B, 1)
        scores = (z @ others.T).masked_fill(own, -torch.inf)  # (B, M)
        log_p = (torch.cat([right, scores], dim=1) / self.temperature).log_softmax(dim=1)  # (B, 1 + M)
        wrong = torch.log1p(-log_p[:, 1:].exp().clamp(max=1 - 1e-6))
        return -(log_p[:, 0] + wrong.sum(dim=1)).mean()
