"""Context encoder: Pathak et al., 2016, https://arxiv.org/abs/1604.07379."""

from typing import Unpack

from ssl_framework.nn import MapDecoder, hide, input_channels, masked_mean, region_mask, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class ContextEncoder(PretextModule):
    """Some rectangles are cut out of a picture, and painted from what surrounds them.

    Pathak et al., 2016, https://arxiv.org/abs/1604.07379: random blocks and the squared error, which is how the paper learns
    features (sections 3.3 and 5.2); its adversarial loss serves sharper pictures.

    Args:
        encoder: any with a map of tokens: a CNN or a vision transformer.
        regions: rectangles; they may overlap.
        region_share: of the picture that they cover at most, all together; a quarter (section 3.3).
        decoder_dim: width of the decoder.
        decoder_depth: its doublings; at 32 pixels a map of 4 or 8 needs 2 or 3.
        training: see `PretextModule`.
    """

    card = Card(
        family="generative",
        group="masked",
        target="pixels of cut-out regions",
        prevents_collapse="nothing to prevent: the target is the input",
        judged_by="fine-tuning",
        paper="https://arxiv.org/abs/1604.07379",
        views=1,
        class_token=False,
    )

    def __init__(
        self,
        encoder: Encoder,
        regions: int = 4,
        region_share: float = 0.25,
        decoder_dim: int = 64,
        decoder_depth: int = 3,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        self.regions, self.region_share = regions, region_share
        self.decoder = MapDecoder(encoder.embed_dim, input_channels(self.encoder), dim=decoder_dim, depth=decoder_depth)

    def forward(self, views: Views) -> Step:
        """Rectangles are drawn from the keys of the samples; the loss looks at them alone (equation 1)."""
        x = views.global_crops[0]  # (B, C, H, W)
        size = x.shape[-2], x.shape[-1]
        hidden = region_mask(views.key, size, self.regions, self.region_share)  # (B, H, W)
        seen = self.encoder(hide(x, hidden))
        error = (widen(self.decoder(seen, size)) - x).square().mean(dim=1)  # (B, H, W)
        return Step(masked_mean(error, hidden), embedding=seen.pooled, mask=hidden.flatten(1))
