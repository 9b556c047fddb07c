"""I-JEPA: Assran et al., 2023, https://arxiv.org/abs/2301.08243."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn import Teacher, TokenPredictor, target_blocks, widen
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.types import Encoder, Step, Views


class IJEPA(PretextModule):
    """From some tokens of a picture, predict what a slowly moving encoder that sees all of it says of several blocks.

    Assran et al., 2023, https://arxiv.org/abs/2301.08243. Blocks have fixed sizes, see `nn.target_blocks`. The
    distance is the smooth L1 of the official code (src/train.py); the paper's is squared.

    Args:
        encoder: a `TokenEncoder`.
        blocks: to be predicted; 4 (official code, configs, as what follows).
        block_share: of the tokens that a block covers; 0.175, the middle of 0.15 and 0.2.
        block_ratio_low: smallest height of a block over its width; 0.75.
        block_ratio_high: largest; 1.5.
        predictor_dim: width of the predictor; 384.
        predictor_depth: its blocks; 6, the default of src/helper.py, for a ViT-B; 12 for a ViT-H.
        predictor_heads: its attention heads; 12, as many as those of a ViT-B, its encoder (src/helper.py).
        momentum: of the target encoder at the start, rising to 1 on a straight line; 0.996 (src/train.py).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="joint-embedding prediction",
        target="the teacher's tokens of hidden blocks",
        prevents_collapse="predictor, stop-gradient and a slowly moving teacher",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2301.08243",
        views=1,
        exports="teacher",
        needs_tokens=True,
        class_token=False,
        positions="sincos",
    )

    def __init__(
        self,
        encoder: Encoder,
        blocks: int = 4,
        block_share: float = 0.175,
        block_ratio_low: float = 0.75,
        block_ratio_high: float = 1.5,
        predictor_dim: int = 384,
        predictor_depth: int = 6,
        predictor_heads: int = 12,
        momentum: float = 0.996,
        **training: Unpack[Training],
    ) -> None:
        tokens = require_tokens(encoder, "IJEPA")
        super().__init__(encoder, **training)
        self.blocks, self.block_share, self.block_ratios = blocks, block_share, (block_ratio_low, block_ratio_high)
        target_blocks(torch.zeros(1, dtype=torch.int64), tokens.grid, blocks, block_share, self.block_ratios)  # or say why not
        self.predictor = TokenPredictor(
            encoder.embed_dim, tokens.grid, dim=predictor_dim, depth=predictor_depth, num_heads=predictor_heads
        )
        self.teacher = Teacher(Tokens(self.encoder), momentum, rise="linear")

    def forward(self, views: Views) -> Step:
        """The context goes through the encoder once, each block through the predictor."""
        x = views.global_crops[0]  # (B, ...)
        places, keep = target_blocks(views.key, self.encoder.grid, self.blocks, self.block_share, self.block_ratios)
        seen = self.encoder(x, keep=keep)  # (B, K, D)
        target = self.teacher(x)  # (B, N, D), no gradient
        losses = [
            F.smooth_l1_loss(
                widen(self.predictor(seen.tokens, keep, place)),
                target.gather(1, place[..., None].expand(-1, -1, target.shape[-1])),
            )
            for place in places
        ]
        return Step(torch.stack(losses).mean(), embedding=seen.pooled)


class Tokens(nn.Module):
    """The tokens of an encoder, each normalised over its features (official code, train.py, ``forward_target``).

    Args:
        encoder: a `TokenEncoder`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)`` to ``(B, N, D)``, float32 or wider."""
        tokens = widen(self.encoder(x).tokens)
        return F.layer_norm(tokens, tokens.shape[-1:])
