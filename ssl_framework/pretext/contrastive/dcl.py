"""DCL: Yeh et al., 2021, https://arxiv.org/abs/2110.06848."""

import math
from typing import Unpack

from lightly.loss import DCLLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor

from ssl_framework.nn import FullPrecision, compare_crops, encode_crops, mean_over_processes, over_processes, require_positive
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class DCL(PretextModule):
    """SimCLR whose positive pair no longer stands among its own negatives, so that small batches learn as fast as large ones.

    Yeh et al., 2021, https://arxiv.org/abs/2110.06848

    Args:
        encoder: any.
        hidden_dim: of the projector, as in SimCLR.
        projection_dim: where views are compared, as in SimCLR.
        temperature: of the cosine similarities; 0.1 (github.com/raminnakhli/Decoupled-Contrastive-Learning, loss/dcl.py).
        sigma: of DCLW's von Mises-Fisher weighting of positive pairs, 0.5 in the same code; None is DCL, without.
        training: see `PretextModule`.
    """

    card = Card(
        family="contrastive",
        group="instance",
        target="identity of the positive view",
        prevents_collapse="in-batch negatives",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2110.06848",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
        temperature: float = 0.1,
        sigma: float | None = None,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        require_positive(temperature=temperature)
        if sigma is not None:
            require_positive(sigma=sigma)
        self.sigma = sigma
        self.projector = SimCLRProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        weigh = None if sigma is None else self._weigh
        self.criterion = FullPrecision(DCLLoss(temperature, weight_fn=weigh, gather_distributed=True))

    def forward(self, views: Views) -> Step:
        """Both views in one forward, as SimCLR."""
        h = encode_crops(self.encoder, views, joined=True)  # (V, B, D)
        z = self.projector(h.flatten(0, 1))  # (V * B, P)
        loss = compare_crops(self.criterion, z.unflatten(0, h.shape[:2]))
        chance = math.log(over_processes(2 * h.shape[1]) - 2)
        return Step(loss, embedding=h.flatten(0, 1), projection=z, chance=chance)

    def _weigh(self, first: Tensor, second: Tensor) -> Tensor:
        """Of each pair: two minus its share of the mean over all processes, so that far pairs pull harder."""
        assert self.sigma is not None
        likeness = ((first * second).sum(1).detach() / self.sigma).exp()  # (B,)
        return 2 - likeness / mean_over_processes(likeness.mean())
