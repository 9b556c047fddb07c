"""MSN: Assran et al., 2022, https://arxiv.org/abs/2204.07141."""

from typing import Unpack

import torch
from lightly.models.modules.heads import MSNProjectionHead
from torch import Tensor

from ssl_framework.nn import (
    Branch,
    Prototypes,
    Teacher,
    cross_entropy,
    encode_local_crops,
    mean_over_processes,
    random_mask,
    require_positive,
    sinkhorn,
    together,
)
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.types import Encoder, Step, Views


class MSN(PretextModule):
    """A view with tokens missing belongs to the same prototypes as the whole other view, and all prototypes are used.

    Assran et al., 2022, https://arxiv.org/abs/2204.07141

    Args:
        encoder: a `TokenEncoder`.
        mask_ratio: share of tokens dropped from the anchor; 0.15 for ViT-S (official code,
            configs/pretrain/msn_vits16.yaml, as what follows).
        hidden_dim: of the projector; 2048.
        projection_dim: where samples meet prototypes; 256.
        prototypes: 1024.
        momentum: of the teacher at the start, rising to 1 on a straight line; 0.996 (src/msn_train.py).
        temperature: of the anchor's scores; 0.1.
        sharpness: temperature of the target's scores, as a share of `temperature`; 0.25.
        entropy: weight of the mean entropy that keeps all prototypes in use; 1.
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="self-distillation",
        target="the teacher's prototypes of the whole other view",
        prevents_collapse="entropy of the mean assignment, and equal shares of prototypes",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2204.07141",
        views=2,
        exports="teacher",
        needs_tokens=True,
    )

    def __init__(
        self,
        encoder: Encoder,
        mask_ratio: float = 0.15,
        hidden_dim: int = 2048,
        projection_dim: int = 256,
        prototypes: int = 1024,
        momentum: float = 0.996,
        temperature: float = 0.1,
        sharpness: float = 0.25,
        entropy: float = 1.0,
        **training: Unpack[Training],
    ) -> None:
        require_tokens(encoder, "MSN")
        super().__init__(encoder, **training)
        require_positive(temperature=temperature, sharpness=sharpness)
        self.mask_ratio, self.temperature, self.sharpness, self.entropy = mask_ratio, temperature, sharpness, entropy
        self.projector = MSNProjectionHead(encoder.embed_dim, hidden_dim, projection_dim)
        self.prototypes = Prototypes(projection_dim, prototypes)
        self.teacher = Teacher(Branch(self.encoder, self.projector), momentum, rise="linear")

    def forward(self, views: Views) -> Step:
        """The second view is the anchor, and local crops are others, which drop no tokens (official code, src/deit.py)."""
        first, second = views.global_crops[:2]  # (B, ...) each
        keep, _ = random_mask(views.key, self.encoder.num_tokens, self.mask_ratio)  # (B, K)
        h = [self.encoder(second, keep=keep).pooled[None], *encode_local_crops(self.encoder, views)]  # (1, B, D), (L, B, D)
        z = torch.cat([together(self.projector, crops) for crops in h])  # (1 + L, B, P)
        scores = self.prototypes(z) / self.temperature  # (1 + L, B, K)

        with torch.no_grad():
            sharp = (self.prototypes(self.teacher(first)) / (self.temperature * self.sharpness)).log_softmax(dim=-1)  # (B, K)
            target = sinkhorn(sharp, epsilon=1.0)  # of sharpened probabilities (official code, src/losses.py)
        prediction = torch.stack([cross_entropy(anchor, target) for anchor in scores]).mean()
        spread = negative_entropy(scores.softmax(dim=-1))
        loss = prediction + self.entropy * spread  # equation 1
        logs = {"prediction": prediction.detach(), "spread": spread.detach()}
        return Step(loss, embedding=torch.cat(h).flatten(0, 1), projection=z.flatten(0, 1), logs=logs, target=target)


def negative_entropy(probabilities: Tensor) -> Tensor:
    """Of the mean over all anchors of all processes: ``(A, B, K)`` to ``()``."""
    mean = mean_over_processes(probabilities.flatten(0, -2).mean(dim=0))
    return (mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum()
