"""Denoising autoencoder: Vincent et al., 2008, https://doi.org/10.1145/1390156.1390294."""

from typing import Unpack

from ssl_framework.nn import MapDecoder, hide, input_channels, pixel_mask, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class DenoisingAutoencoder(PretextModule):
    """Some pixels are taken away, and the whole input is painted again.

    Vincent et al., 2008, Extracting and Composing Robust Features with Denoising Autoencoders, section 2.3: masking noise,
    and the squared error of section 2.2. The encoder and its convolutional decoder are of today.

    Args:
        encoder: any with a map of tokens: a CNN or a vision transformer.
        corruption: share of pixels taken away; 0.25 (section 5: 0.1 to 0.4, by the data).
        decoder_dim: width of the decoder.
        decoder_depth: its doublings; at 32 pixels a map of 4 or 8 needs 2 or 3.
        training: see `PretextModule`.
    """

    card = Card(
        family="generative",
        group="autoencoding",
        target="the input without noise",
        prevents_collapse="nothing to prevent: the target is the input",
        judged_by="fine-tuning",
        paper="https://doi.org/10.1145/1390156.1390294",
        views=1,
        class_token=False,
    )

    def __init__(
        self,
        encoder: Encoder,
        corruption: float = 0.25,
        decoder_dim: int = 64,
        decoder_depth: int = 3,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.corruption = corruption
        self.decoder = MapDecoder(encoder.embed_dim, input_channels(self.encoder), dim=decoder_dim, depth=decoder_depth)

    def forward(self, views: Views) -> Step:
        """Pixels are drawn from the keys of the samples."""
        x = views.global_crops[0]  # (B, C, H, W)
        size = x.shape[-2], x.shape[-1]
        seen = self.encoder(hide(x, pixel_mask(views.key, size, self.corruption)))
        painted = self.decoder(seen, size)  # (B, C, H, W)
        return Step((widen(painted) - x).square().mean(), embedding=seen.pooled)
