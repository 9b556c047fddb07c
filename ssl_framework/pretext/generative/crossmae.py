"""CrossMAE: Fu et al., 2024, https://arxiv.org/abs/2401.14391."""

from typing import Unpack

from ssl_framework.nn import CrossDecoder, normalized_patches, random_order, visible, widen
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.types import Encoder, Step, Views


class CrossMAE(PretextModule):
    """MAE whose decoder looks at the visible patches only, and paints only some of the hidden ones.

    Fu et al., 2024, https://arxiv.org/abs/2401.14391. The decoder sees all layers behind the blocks, not their input, and the
    class token of the last.

    Args:
        encoder: a `TokenEncoder`.
        mask_ratio: share of patches hidden; 0.75 (official code, https://github.com/TonyLianLong/CrossMAE, README).
        paint_ratio: share of the hidden patches that are painted; a third, a quarter of all (official code, README).
        decoder_dim: width of the decoder; 512 (official code, models_cross.py, ViT-B).
        decoder_depth: its blocks; 12 (official code, README).
        decoder_heads: its attention heads; 16 (official code, models_cross.py, ViT-B).
        normalize_target: predict patches normalised by their own mean and standard deviation (as MAE).
        training: see `PretextModule`.
    """

    card = Card(
        family="generative",
        group="masked",
        target="pixels of hidden patches",
        prevents_collapse="nothing to prevent: the target is the input",
        judged_by="fine-tuning",
        paper="https://arxiv.org/abs/2401.14391",
        views=1,
        needs_tokens=True,
        positions="sincos",
    )

    def __init__(
        self,
        encoder: Encoder,
        mask_ratio: float = 0.75,
        paint_ratio: float = 0.3333333333333333,
        decoder_dim: int = 512,
        decoder_depth: int = 12,
        decoder_heads: int = 16,
        normalize_target: bool = True,
        **training: Unpack[Training],
    ) -> None:
        tokens = require_tokens(encoder, "CrossMAE")
        super().__init__(encoder, **training)
        if not 0 < paint_ratio <= 1:
            raise ValueError(f"paint_ratio={paint_ratio} must lie above 0, and at most at 1: it is a share of what is hidden.")
        self.mask_ratio, self.paint_ratio, self.normalize_target = mask_ratio, paint_ratio, normalize_target
        self.decoder = CrossDecoder(
            encoder.embed_dim,
            encoder.num_layers,
            tokens.grid,
            tokens.patch_dim,
            dim=decoder_dim,
            depth=decoder_depth,
            num_heads=decoder_heads,
        )

    def forward(self, views: Views) -> Step:
        """Hide, encode what is left, paint some of the rest."""
        x = views.global_crops[0]  # (B, ...)
        order = random_order(views.key, self.encoder.num_tokens)  # (B, N)
        shown = visible(order.shape[1], self.mask_ratio)
        painted = max(1, round(self.paint_ratio * (order.shape[1] - shown)))
        keep, places = order[:, :shown], order[:, shown : shown + painted]  # (B, K), (B, M)

        seen = self.encoder(x, keep=keep, layers=range(self.encoder.num_layers - 1))
        layers = (*seen.layers, seen.tokens)  # (B, K, D) each; the last behind the final norm
        paint = widen(self.decoder(layers, places, prefix=seen.pooled))  # (B, M, P)
        patches = self.encoder.patchify(x)  # (B, N, P)
        target = normalized_patches(patches) if self.normalize_target else patches
        error = paint - widen(target).gather(1, places[..., None].expand_as(paint))
        return Step(error.square().mean(), embedding=seen.pooled)
