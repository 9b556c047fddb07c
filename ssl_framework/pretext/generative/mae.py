"""MAE: He et al., 2021, https://arxiv.org/abs/2111.06377."""

from typing import Unpack

from torch import Tensor

from ssl_framework.nn import TokenDecoder, normalized_patches, random_mask, widen
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.types import Encoder, Step, Views


class MAE(PretextModule):
    """The encoder sees a quarter of the patches; a light decoder paints the others.

    He et al., 2021, https://arxiv.org/abs/2111.06377

    Args:
        encoder: a `TokenEncoder`.
        mask_ratio: share of patches hidden; 0.75 (section 4.1, figure 5).
        decoder_dim: width of the decoder; 512 (table 1b).
        decoder_depth: its blocks; 8 (table 1a).
        decoder_heads: its attention heads; 16 (official code, models_mae.py).
        normalize_target: predict patches normalised by their own mean and standard deviation, which is better (table 1d).
        training: see `PretextModule`.
    """

    card = Card(
        family="generative",
        group="masked",
        target="pixels of hidden patches",
        prevents_collapse="nothing to prevent: the target is the input",
        judged_by="fine-tuning",
        paper="https://arxiv.org/abs/2111.06377",
        views=1,
        needs_tokens=True,
        positions="sincos",
    )

    def __init__(
        self,
        encoder: Encoder,
        mask_ratio: float = 0.75,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        normalize_target: bool = True,
        **training: Unpack[Training],
    ) -> None:
        tokens = require_tokens(encoder, "MAE")
        super().__init__(encoder, **training)
        self.mask_ratio = mask_ratio
        self.normalize_target = normalize_target
        self.decoder = TokenDecoder(
            encoder.embed_dim, tokens.grid, tokens.patch_dim, dim=decoder_dim, depth=decoder_depth, num_heads=decoder_heads
        )

    def forward(self, views: Views) -> Step:
        """Hide, encode what is left, decode all, compare where hidden."""
        x = views.global_crops[0]  # (B, ...)
        keep, mask = random_mask(views.key, self.encoder.num_tokens, self.mask_ratio)  # (B, K), (B, N)
        seen = self.encoder(x, keep=keep)
        painted = self.decoder(seen.tokens, keep, prefix=seen.pooled)  # (B, N, P)
        loss = masked_error(painted, self._target(x), mask)
        return Step(loss, embedding=seen.pooled, mask=mask)

    def _target(self, x: Tensor) -> Tensor:
        patches = self.encoder.patchify(x)  # (B, N, P)
        return normalized_patches(patches) if self.normalize_target else patches


def masked_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of hidden patches alone: ``(B, N, P)`` twice and ``(B, N)`` to ``()``, in float32 or wider."""
    error = (widen(prediction) - widen(target)).square().mean(-1)  # (B, N)
    return (error * mask).sum() / mask.sum()
