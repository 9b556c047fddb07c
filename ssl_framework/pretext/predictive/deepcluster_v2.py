"""DeepCluster v2: Caron et al., 2020, https://arxiv.org/abs/2006.09882."""

import math
from typing import Unpack

import torch
from lightly.models.modules import SwaVProjectionHead
from torch.nn import functional as F

from ssl_framework.nn import Clusters, FullPrecision, encode_crops, require_positive, together, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class DeepClusterV2(PretextModule):
    """Every crop says to which clusters its sample belonged at the end of the last pass over the data.

    Caron et al., 2020, https://arxiv.org/abs/2006.09882, where it is a baseline. The first global crop is clustered; in the
    official code clusterings take turns with the second. The first pass trains on
    clusters of what was seen so far; the official code goes over the data once before it trains.

    Args:
        encoder: any.
        hidden_dim: of the projector; 2048 (official code, main_deepclusterv2.py).
        projection_dim: where samples are clustered; 128 (official code).
        prototypes: clusters of each clustering; 3000 (official code).
        clusterings: how many, at once; 3 (official code).
        temperature: of the cosine similarities; 0.1 (official code).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="clusters",
        target="the clusters of the sample",
        prevents_collapse="clusters of the whole data set",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2006.09882",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
        prototypes: int = 3000,
        clusterings: int = 3,
        temperature: float = 0.1,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        require_positive(temperature=temperature)
        self.temperature = temperature
        self.projector = SwaVProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.clusters = Clusters(projection_dim, prototypes, clusterings)
        self.criterion = FullPrecision(torch.nn.CrossEntropyLoss())

    def forward(self, views: Views) -> Step:
        """Crops of one size go through together (official code)."""
        if views.index is None:
            raise ValueError("DeepClusterV2 knows samples by Views.index, which is None: give Views(..., index=...).")
        h = encode_crops(self.encoder, views, joined=True)  # (V, B, D)
        z = F.normalize(widen(together(self.projector, h)), dim=-1)  # (V, B, P)

        labels = self.clusters.labels(views.index, z[0])  # (C, B)
        with torch.autocast(z.device.type, enabled=False):
            scores = torch.einsum("vbp,ckp->vcbk", z, self.clusters.centroids.to(z.dtype)) / self.temperature
        loss = self.criterion(scores.flatten(0, 2), labels.expand(len(z), -1, -1).flatten())
        self.clusters.stage(views.index, z[0])
        chance = math.log(self.clusters.centroids.shape[1])
        return Step(loss, embedding=h.flatten(0, 1), projection=z.flatten(0, 1), chance=chance, target=labels[0])
