"""VICRegL: Bardes et al., 2022, https://arxiv.org/abs/2210.01571."""

from typing import Unpack

import torch
from lightly.models.modules.heads import VicRegLLocalProjectionHead, VICRegProjectionHead
from torch import Tensor

from ssl_framework.nn import FullPrecision, each, place_positions
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.pretext.predictive.vicreg import Variability
from ssl_framework.types import Encoder, Encoding, Step, Views


class VICRegL(PretextModule):
    """VICReg for whole samples, and for places of their maps that lie or look alike in two crops.

    Bardes et al., 2022, https://arxiv.org/abs/2210.01571. Where looks decide, every place is matched; where positions decide,
    the closest are. Positions know of flips (official code: main_vicregl.py, whose default forgets them).

    Args:
        encoder: any that has tokens on a grid; the places of a CNN's last map are its tokens.
        hidden_dim: of the expander; 8192 (official code, main_vicregl.py).
        projection_dim: of its output; 8192 (official code).
        local_hidden_dim: of the expander of places; 512 (official code).
        local_projection_dim: of its output; 512 (official code).
        matches_first: places of a global crop that are matched by position, at most all; 20 (official code).
        matches_second: places of the crop that it is compared with; 4 (official code).
        alpha: weight of the loss of whole samples, the rest is that of places; 0.75 (official code, README; there also 0.9).
        invariance: weight of the distance between what is matched; 25 (as VICReg).
        variance: weight of the hinge on the standard deviation of each feature; 25 (as VICReg).
        covariance: weight of the covariances between features; 1 (as VICReg).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="redundancy reduction",
        target="the projection of the other view, and of matching places",
        prevents_collapse="variance of each feature, covariance of pairs",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2210.01571",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 8192,
        projection_dim: int = 8192,
        local_hidden_dim: int = 512,
        local_projection_dim: int = 512,
        matches_first: int = 20,
        matches_second: int = 4,
        alpha: float = 0.75,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        if not 0 <= alpha <= 1 or min(matches_first, matches_second) < 1:
            raise ValueError(
                f"alpha={alpha} is a share of the loss, and {matches_first} and {matches_second} matches, 1 or more."
            )
        self.matches, self.alpha = (matches_first, matches_second), alpha
        self.projector = VICRegProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.local_projector = VicRegLLocalProjectionHead(encoder.embed_dim, local_hidden_dim, local_projection_dim)
        # covariances are averaged over views, where VICReg adds them (official code, main_vicregl.py)
        self.criterion = FullPrecision(Variability(invariance, variance, covariance))

    def forward(self, views: Views) -> Step:
        """Each crop by itself."""
        crops = [*views.global_crops[:2], *(() if views.local_crops is None else views.local_crops)]
        seen = [self.encoder(crop) for crop in crops]
        h = torch.stack([crop.pooled for crop in seen])  # (V, B, D)
        z = each(self.projector, h)  # (V, B, P)
        places = [self._places(crop, views, v) for v, crop in enumerate(seen)]  # (B, N_v, Q) and (B, N_v, 2) each

        whole = self.criterion(z)
        pairs = [(i, j) for i in range(2) for j in range(len(crops)) if j != i]
        local = torch.stack([self._compare(places[i], places[j]) for i, j in pairs]).mean()
        loss = self.alpha * whole + (1 - self.alpha) * local
        logs = {"whole": whole.detach(), "local": local.detach()}
        return Step(loss, embedding=h.flatten(0, 1), projection=z.flatten(0, 1), logs=logs)

    def _places(self, seen: Encoding, views: Views, crop: int) -> tuple[Tensor, Tensor]:
        if seen.tokens is None or seen.grid is None or views.boxes is None:
            raise ValueError(
                "VICRegL matches places by where they lie in the picture: take an encoder with tokens on a grid (a CNN or "
                "a ViT), and views with boxes."
            )
        number = crop if crop < 2 else len(views.global_crops) + crop - 2
        return self.local_projector(seen.tokens), place_positions(views.boxes[number], seen.grid)

    def _compare(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
        """Matches by looks and by position, in both directions (official code, ``_local_loss``)."""
        losses: list[Tensor] = []
        for one, other, counts in zip(first, second, ((None, None), self.matches), strict=True):
            distance = torch.cdist(one.detach().double(), other.detach().double())  # (B, N, M)
            losses.append(self.criterion(matched(first[0], second[0], distance, counts[0])))
            losses.append(self.criterion(matched(second[0], first[0], distance.mT, counts[1])))
        return torch.stack(losses).sum() / 2


def matched(z: Tensor, others: Tensor, distance: Tensor, count: int | None) -> Tensor:
    """The places whose nearest place in the other crop is nearest of all, with it, in the order of the map.

    Args:
        z: ``(B, N, P)``.
        others: ``(B, M, P)``.
        distance: ``(B, N, M)``.
        count: of pairs, at most N; None for all.

    Returns:
        ``(2, B, count, P)``.
    """
    near, which = distance.min(dim=2)  # (B, N)
    places = near.shape[1]
    best = near.topk(places if count is None else min(count, places), dim=1, largest=False).indices  # (B, count)
    best = best.sort(dim=1).values
    partner = which.gather(1, best)
    width = (-1, -1, z.shape[-1])
    return torch.stack([z.gather(1, best[..., None].expand(width)), others.gather(1, partner[..., None].expand(width))])
