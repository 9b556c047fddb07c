"""DenseCL: Wang et al., 2020, https://arxiv.org/abs/2011.09157."""

import math
from typing import Unpack

import torch
from lightly.models.modules.heads import DenseCLProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn import FullPrecision, InfoNCE, Queue, Teacher, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class DenseCL(PretextModule):
    """MoCo v2 for every place of the map as well: its positive is the most alike place of the other view.

    Wang et al., 2020, https://arxiv.org/abs/2011.09157. Local crops have no part in it.

    Args:
        encoder: any that has tokens; the places of a CNN's last map are its tokens.
        hidden_dim: of both projectors; 2048 (official code, densecl_imagenet_200ep.py).
        projection_dim: of a key; 128 (section 4.1).
        queue_size: negatives; 65,536 (section 4.1).
        momentum: of the key encoder; 0.999 (section 4.1).
        temperature: of the cosine similarities; 0.2 (section 4.1).
        dense: weight of the loss of places, the rest is MoCo's; 0.5 (official code, densecl_imagenet_200ep.py).
        training: see `PretextModule`.
    """

    card = Card(
        family="contrastive",
        group="dense",
        target="identity of the most alike place of the other view",
        prevents_collapse="negatives of a queue",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2011.09157",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        dense: float = 0.5,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        if not 0 <= dense <= 1:
            raise ValueError(f"dense={dense} must lie between 0 and 1: it is a share of the loss.")
        self.dense = dense
        self.branch = DenseBranch(self.encoder, hidden_dim, projection_dim)
        self.teacher = Teacher(self.branch, momentum, momentum)
        self.queue, self.dense_queue = Queue(queue_size, projection_dim), Queue(queue_size, projection_dim)
        self.criterion = FullPrecision(InfoNCE(temperature))

    def forward(self, views: Views) -> Step:
        """The second view is the key of the first."""
        first, second = views.global_crops[:2]  # (B, ...) each
        h, features, q, places = self.branch(first)  # (B, D), (B, N, D), (B, P), (B, N, P)
        _, other_features, k, other_places = (widen(part) for part in self.teacher(second))  # no gradient

        match = alike(features.detach(), other_features)  # (B, N)
        positives = other_places.gather(1, match[..., None].expand_as(other_places))  # (B, N, P)
        whole = self.criterion(q, k, self.queue.rows)
        dense = self.criterion(places.flatten(0, 1), positives.flatten(0, 1), self.dense_queue.rows)
        self.queue.stage(F.normalize(k, dim=1))
        self.dense_queue.stage(F.normalize(other_places.mean(dim=1), dim=1))
        loss = (1 - self.dense) * whole + self.dense * dense  # equation 3
        logs, chance = {"whole": whole.detach(), "dense": dense.detach()}, math.log(1 + len(self.queue.rows))
        return Step(loss, embedding=h, projection=q, logs=logs, chance=chance)


class DenseBranch(nn.Module):
    """An encoder with a head on its pooled vector and one on each of its tokens (section 3.2).

    Args:
        encoder: maps inputs to an `Encoding` with tokens.
        hidden_dim: of the heads.
        projection_dim: of their output.
    """

    def __init__(self, encoder: nn.Module, hidden_dim: int, projection_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        width = int(encoder.embed_dim)  # pyright: ignore[reportArgumentType]  (an int of every encoder)
        self.head = DenseCLProjectionHead(width, hidden_dim, projection_dim)
        self.dense_head = DenseCLProjectionHead(width, hidden_dim, projection_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(B, ...)`` to pooled ``(B, D)``, tokens ``(B, N, D)``, and both projected."""
        seen = self.encoder(x)
        if seen.tokens is None:
            raise ValueError("DenseCL compares the places of a map, and this encoder has no tokens: take a CNN or a ViT.")
        return seen.pooled, seen.tokens, self.head(seen.pooled), self.dense_head(seen.tokens)


def alike(features: Tensor, others: Tensor) -> Tensor:
    """Of each place the most alike in the other view, by cosine: ``(B, N, D)`` twice to ``(B, N)`` (equation 4)."""
    features, others = F.normalize(widen(features), dim=-1), F.normalize(widen(others), dim=-1)
    with torch.autocast(features.device.type, enabled=False):  # in half precision places tie
        return torch.bmm(features, others.transpose(1, 2)).argmax(dim=-1)
