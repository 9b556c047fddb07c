"""SimMIM: Xie et al., 2021, https://arxiv.org/abs/2111.09886."""

from typing import Unpack

import torch
from torch import Tensor, nn

from ssl_framework.nn import block_mask, masked_mean, widen
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.types import Encoder, Step, Views


class SimMIM(PretextModule):
    """Hidden blocks are replaced by a mask token inside the encoder, and one linear layer paints them.

    Xie et al., 2021, https://arxiv.org/abs/2111.09886

    Args:
        encoder: a `TokenEncoder`.
        mask_ratio: share of blocks hidden; 0.6 in the paper (section 4.1.2).
        mask_block: tokens a side of a block; 2, as 32 pixels of patches of 16 (section 4.1.2).
        training: see `PretextModule`.
    """

    card = Card(
        family="generative",
        group="masked",
        target="pixels of hidden patches",
        prevents_collapse="nothing to prevent: the target is the input",
        judged_by="fine-tuning",
        paper="https://arxiv.org/abs/2111.09886",
        views=1,
        needs_tokens=True,
    )

    def __init__(self, encoder: Encoder, mask_ratio: float = 0.6, mask_block: int = 2, **training: Unpack[Training]) -> None:
        tokens = require_tokens(encoder, "SimMIM")
        super().__init__(encoder, **training)
        tokens.learn_mask_token()
        self.mask_ratio, self.mask_block = mask_ratio, mask_block
        self.head = nn.Linear(encoder.embed_dim, tokens.patch_dim)

    def forward(self, views: Views) -> Step:
        """Hide, encode all, compare where hidden."""
        x = views.global_crops[0]  # (B, ...)
        mask = block_mask(views.key, self.encoder.grid, self.mask_ratio, self.mask_block)  # (B, N)
        seen = self.encoder(x, mask=mask)
        painted = self.head(seen.tokens)  # (B, N, P)
        error = absolute_error(painted, self.encoder.patchify(x))  # (B, N)
        return Step(masked_mean(error, mask), embedding=seen.pooled)


def absolute_error(painted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of each patch (section 3.3): ``(B, N, P)`` twice to ``(B, N)``, in float32 or wider."""
    return torch.nn.functional.l1_loss(widen(painted), target, reduction="none").mean(-1)
