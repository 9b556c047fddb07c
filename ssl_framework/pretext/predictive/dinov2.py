"""DINOv2: Oquab et al., 2023, https://arxiv.org/abs/2304.07193."""

from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.nn import (
    DINOHead,
    FullPrecision,
    Teacher,
    TokenBranch,
    compare_crops,
    cross_entropy,
    encode_local_crops,
    gather,
    mean_per_sample,
    on_tokens,
    own_rows,
    require_positive,
    sinkhorn,
    varied_mask,
    widen,
)
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.schedules import ramp
from ssl_framework.types import Encoder, Step, Views


class DINOv2(PretextModule):
    """iBOT with a head of its own for tokens, Sinkhorn's assignment in place of centres, and embeddings that keep apart.

    Oquab et al., 2023, https://arxiv.org/abs/2304.07193. Tokens are hidden in blocks, where the paper takes BEiT's rectangles.
    Two heads and Sinkhorn are as in the paper (section 4) and train/vitg14.yaml of the official code, whose default is one head
    and centres. The nearest neighbour is sought among the samples of all processes, there among those of one.

    Args:
        encoder: a `TokenEncoder`.
        hidden_dim: of both heads; 2048 (official code, ssl_default_config.yaml).
        bottleneck_dim: where samples meet prototypes; 256 (official code).
        prototypes: of each head; 65,536 (official code).
        mask_low: least share of tokens hidden; 0.1 (official code).
        mask_high: largest; 0.5 (official code).
        mask_share: of crops that hide any; 0.5 (official code).
        mask_block: tokens a side of a block.
        momentum: of the teacher at the start, rising to 1 on a cosine; 0.992 (official code).
        temperature: of the student; 0.1 (official code).
        teacher_temperature: of the teacher at the start; 0.04 (official code).
        final_teacher_temperature: what it rises to; 0.07 (official code).
        warmup_share: share of training in which it rises; 30 of 100 epochs (official code).
        freeze_share: share of training in which prototypes stand still; 1 of 100 epochs (official code).
        spread: weight of the KoLeo term that keeps embeddings apart; 0.1 (official code).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="self-distillation",
        target="the teacher's prototypes of another crop, and of hidden tokens",
        prevents_collapse="equal shares of all prototypes, and distance to the nearest neighbour",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2304.07193",
        views=2,
        exports="teacher",
        needs_tokens=True,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        prototypes: int = 65536,
        mask_low: float = 0.1,
        mask_high: float = 0.5,
        mask_share: float = 0.5,
        mask_block: int = 2,
        momentum: float = 0.992,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        final_teacher_temperature: float = 0.07,
        warmup_share: float = 0.3,
        freeze_share: float = 0.01,
        spread: float = 0.1,
        **training: Unpack[Training],
    ) -> None:
        require_tokens(encoder, "DINOv2").learn_mask_token()
        super().__init__(encoder, **training)
        require_positive(
            temperature=temperature,
            teacher_temperature=teacher_temperature,
            final_teacher_temperature=final_teacher_temperature,
        )
        self.mask = mask_low, mask_high, mask_share, mask_block
        self.temperature, self.freeze_share, self.spread = temperature, freeze_share, spread
        self.teacher_temperatures, self.warmup_share = (teacher_temperature, final_teacher_temperature), warmup_share
        self.head = DINOHead(encoder.embed_dim, hidden_dim, bottleneck_dim, prototypes)
        self.token_head = DINOHead(encoder.embed_dim, hidden_dim, bottleneck_dim, prototypes)
        self.teacher = Teacher(TokenBranch(self.encoder, self.head, self.token_head), momentum)
        self.closeness = FullPrecision(kozachenko_leonenko)

    def forward(self, views: Views) -> Step:
        """The student sees masked global crops and whole local ones, the teacher whole global crops."""
        x = views.global_crops[:2].flatten(0, 1)  # (2 * B, ...)
        mask = torch.cat([varied_mask(views.key, self.encoder.grid, *self.mask, crop=crop) for crop in range(2)])  # (2 * B, N)
        seen = self.encoder(x, mask=mask)
        h = torch.cat([seen.pooled.unflatten(0, (2, -1)), *encode_local_crops(self.encoder, views)])  # (V, B, D)
        frozen = self.progress < self.freeze_share
        s = self.head(h, frozen=frozen)  # (V, B, K)
        s_tokens = on_tokens(self.token_head, seen.tokens, mask, frozen=frozen)  # (M, K) of M hidden

        t, t_tokens = self.teacher(x, only=mask)  # (2 * B, K), (M, K), no gradient
        sharpness = ramp(self.progress, self.warmup_share, *self.teacher_temperatures)
        target = sinkhorn(t, sharpness).unflatten(0, (2, -1))
        token_target = sinkhorn(t_tokens, sharpness)  # (M, K)

        crops = compare_crops(cross_entropy, widen(s) / self.temperature, target)
        distance = -(token_target * (widen(s_tokens) / self.temperature).log_softmax(dim=-1)).sum(dim=-1)  # (M,)
        tokens = mean_per_sample(distance, mask)
        apart = self.closeness(h[0]) + self.closeness(h[1])
        logs = {"crops": crops.detach(), "tokens": tokens.detach(), "apart": apart.detach()}
        loss = crops + tokens + self.spread * apart
        return Step(
            loss, embedding=h.flatten(0, 1), projection=s.flatten(0, 1), logs=logs, target=target.flatten(0, 1), mask=mask
        )


def kozachenko_leonenko(h: Tensor) -> Tensor:
    """Minus the mean logarithm of the distance to the nearest other sample of all processes: ``(B, D)`` to ``()``.

    Sablayrolles et al., 2018, https://arxiv.org/abs/1806.03198, section 3.2; on the unit sphere, as in DINOv2's official code.
    """
    own = F.normalize(h, dim=1)
    everyone = gather(own)  # (W * B, D)
    rows = own_rows(len(own))
    with torch.no_grad():
        likeness = own @ everyone.T
        likeness[:, rows].fill_diagonal_(-2)
        nearest = likeness.argmax(dim=1)
    return -((own - everyone[nearest]).norm(dim=1) + 1e-8).log().mean()
