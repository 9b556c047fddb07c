"""Colorization: Zhang, Isola and Efros, 2016, https://arxiv.org/abs/1603.08511."""

from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.nn import ColourWeights, MapDecoder, colour_bins, lab, nearest_bins, require_positive, widen
from ssl_framework.pretext.base import Card, PretextModule, Training, require_colour
from ssl_framework.types import Encoder, Step, Views


class Colorization(PretextModule):
    """The lightness of an image is seen, and the colour of each place is guessed, as a distribution over bins of ab.

    Zhang et al., 2016, https://arxiv.org/abs/1603.08511. Rare colours weigh more, or the guess would be greyish everywhere: by
    their distribution in the training data, which is counted on the way where the paper has ImageNet's. The encoder keeps its
    three channels: all of them are the lightness. Views should leave colours alone: they are the target.

    Args:
        encoder: any with a map of tokens and three channels: a CNN or a vision transformer.
        stride: pixels a side of a place; 4, as 224 over 56 in the paper's network. So it is at 32 pixels, too: 8 x 8 places are
            what the last map of a small encoder has, and photographs are stored with no more than half their pixels' colours.
        neighbours: bins that share a colour; 5 (section 2.1).
        sigma: of the Gaussians over ab, of the target and of the distribution of colours; 5 (sections 2.1 and 2.2).
        uniform_share: lambda, how much of a uniform distribution tames the weights; 0.5 (section 2.2). 1: no weights.
        decoder_dim: width of the decoder.
        decoder_depth: its doublings; 1, as in the paper's network, which predicts at twice the size of its last features.
        training: see `PretextModule`.
    """

    card = Card(
        family="generative",
        group="cross-channel",
        target="quantised ab colour of each place",
        prevents_collapse="nothing to prevent: the target is a function of the input",
        judged_by="fine-tuning",
        paper="https://arxiv.org/abs/1603.08511",
        views=1,
        needs_colour=True,
        class_token=False,
    )

    def __init__(
        self,
        encoder: Encoder,
        stride: int = 4,
        neighbours: int = 5,
        sigma: float = 5.0,
        uniform_share: float = 0.5,
        decoder_dim: int = 64,
        decoder_depth: int = 1,
        **training: Unpack[Training],
    ) -> None:
        require_colour(encoder, "Colorization")
        super().__init__(encoder, **training)
        require_positive(stride=stride, sigma=sigma)
        self.stride, self.neighbours, self.sigma = stride, neighbours, sigma
        bins = colour_bins()  # (Q, 2)
        if not 1 <= neighbours <= len(bins):
            raise ValueError(f"neighbours={neighbours} must lie between 1 and {len(bins)}, the number of colours.")
        self.bins: Tensor
        self.normalization: Tensor
        self.register_buffer("bins", bins.to(torch.get_default_dtype()), persistent=False)
        mean, std = ((0.0,) * 3, (1.0,) * 3) if self.views is None else (self.views.mean, self.views.std)
        self.register_buffer("normalization", torch.tensor([mean, std])[:, :, None, None], persistent=False)
        self.weights = ColourWeights(bins, sigma, uniform_share)
        self.decoder = MapDecoder(encoder.embed_dim, len(bins), dim=decoder_dim, depth=decoder_depth)

    def forward(self, views: Views) -> Step:
        """Weighted cross-entropy of the places (equation 2), its mean over them."""
        x = views.global_crops[0]  # (B, 3, H, W)
        mean, std = self.normalization
        colours = lab((widen(x) * std + mean).clamp(0, 1))
        grey = ((colours[:, :1] / 100 - mean) / std).to(x.dtype)  # (B, 3, H, W), three times the lightness
        places = max(1, x.shape[-2] // self.stride), max(1, x.shape[-1] // self.stride)
        ab = F.adaptive_avg_pool2d(colours[:, 1:], places).permute(0, 2, 3, 1)  # (B, h, w, 2)
        index, share = nearest_bins(ab, self.bins, self.neighbours, self.sigma)  # (B, h, w, K)
        weight = self.weights(index[..., 0])
        self.weights.stage(index[..., 0])

        seen = self.encoder(grey)
        guess = widen(self.decoder(seen, places)).log_softmax(1).permute(0, 2, 3, 1)  # (B, h, w, Q)
        entropy = -(share * guess.gather(-1, index)).sum(-1)  # (B, h, w)
        return Step((weight * entropy).mean(), embedding=seen.pooled)
