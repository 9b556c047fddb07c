"""iBOT: Zhou et al., 2021, https://arxiv.org/abs/2111.07832."""

from typing import Unpack

import torch
from torch.nn import functional as F

from ssl_framework.nn import (
    Centre,
    DINOHead,
    Teacher,
    TokenBranch,
    compare_crops,
    cross_entropy,
    encode_local_crops,
    mean_per_sample,
    on_tokens,
    require_positive,
    varied_mask,
    widen,
)
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.schedules import ramp
from ssl_framework.types import Encoder, Step, Views


class IBOT(PretextModule):
    """DINO, and for every hidden token: say to which prototypes the teacher, who sees it, assigns it.

    Zhou et al., 2021, https://arxiv.org/abs/2111.07832. Tokens are hidden in blocks, where the paper takes BEiT's rectangles.

    Args:
        encoder: a `TokenEncoder`.
        hidden_dim: of the head, which crops and tokens share; 2048 (as DINO).
        bottleneck_dim: where samples meet prototypes; 256 (as DINO).
        prototypes: 8192 (official code, main_ibot.py).
        mask_low: least share of tokens hidden; 0.1 (official code, loader.py, told 0.3 with a variation of 0.2).
        mask_high: largest; 0.5.
        mask_share: of crops that hide any; 0.5 (official code, loader.py, told ratios of 0 and 0.3).
        mask_block: tokens a side of a block.
        momentum: of the teacher at the start, rising to 1 on a cosine; 0.996 (as DINO).
        centre_momentum: of both centres; 0.9 (official code, main_ibot.py).
        temperature: of the student; 0.1 (as DINO).
        teacher_temperature: of the teacher at the start; 0.04 (as DINO).
        final_teacher_temperature: what it rises to, for crops as for tokens; 0.07 (as DINO).
        warmup_share: share of training in which it rises; 30 of 100 epochs (official code).
        freeze_share: share of training in which prototypes stand still; 1 of 100 epochs (official code).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="self-distillation",
        target="the teacher's prototypes of another crop, and of hidden tokens",
        prevents_collapse="centring and sharpening of the teacher",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2111.07832",
        views=2,
        exports="teacher",
        needs_tokens=True,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        prototypes: int = 8192,
        mask_low: float = 0.1,
        mask_high: float = 0.5,
        mask_share: float = 0.5,
        mask_block: int = 2,
        momentum: float = 0.996,
        centre_momentum: float = 0.9,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        final_teacher_temperature: float = 0.07,
        warmup_share: float = 0.3,
        freeze_share: float = 0.01,
        **training: Unpack[Training],
    ) -> None:
        require_tokens(encoder, "IBOT").learn_mask_token()
        super().__init__(encoder, **training)
        require_positive(
            temperature=temperature,
            teacher_temperature=teacher_temperature,
            final_teacher_temperature=final_teacher_temperature,
        )
        self.mask = mask_low, mask_high, mask_share, mask_block
        self.temperature, self.freeze_share = temperature, freeze_share
        self.teacher_temperatures, self.warmup_share = (teacher_temperature, final_teacher_temperature), warmup_share
        self.head = DINOHead(encoder.embed_dim, hidden_dim, bottleneck_dim, prototypes)
        self.teacher = Teacher(TokenBranch(self.encoder, self.head, self.head), momentum)
        self.centre, self.token_centre = Centre(prototypes, centre_momentum), Centre(prototypes, centre_momentum)

    def forward(self, views: Views) -> Step:
        """The student sees masked global crops and whole local ones, the teacher whole global crops (section 3.1)."""
        x = views.global_crops[:2].flatten(0, 1)  # (2 * B, ...)
        mask = torch.cat([varied_mask(views.key, self.encoder.grid, *self.mask, crop=crop) for crop in range(2)])  # (2 * B, N)
        seen = self.encoder(x, mask=mask)
        h = torch.cat([seen.pooled.unflatten(0, (2, -1)), *encode_local_crops(self.encoder, views)])  # (V, B, D)
        frozen = self.progress < self.freeze_share
        s = self.head(h, frozen=frozen)  # (V, B, K)
        s_tokens = on_tokens(self.head, seen.tokens, mask, frozen=frozen)  # (M, K) of M hidden

        t, t_tokens = (widen(scores) for scores in self.teacher(x))  # (2 * B, K), (2 * B, N, K), no gradient
        sharpness = ramp(self.progress, self.warmup_share, *self.teacher_temperatures)
        target = F.softmax((t - self.centre.value) / sharpness, dim=-1)
        token_target = F.softmax((t_tokens[mask] - self.token_centre.value) / sharpness, dim=-1)  # (M, K)
        self.centre.stage(t)
        self.token_centre.stage(t_tokens)

        crops = compare_crops(cross_entropy, widen(s) / self.temperature, target.unflatten(0, (2, -1)))  # L_[CLS]
        distance = -(token_target * (widen(s_tokens) / self.temperature).log_softmax(dim=-1)).sum(dim=-1)  # (M,)
        tokens = mean_per_sample(distance, mask)  # L_MIM
        logs = {"crops": crops.detach(), "tokens": tokens.detach()}
        return Step(crops + tokens, embedding=h.flatten(0, 1), projection=s.flatten(0, 1), logs=logs, target=target, mask=mask)
