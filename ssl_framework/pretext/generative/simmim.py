"""SimMIM: Xie et al., 2021, https://arxiv.org/abs/2111.09886."""

from typing import Unpack

import torch
from torch import Tensor, nn

from ssl_framework.nn import PlaceDecoder, block_mask, hide, input_channels, masked_mean, patch_mask, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, TokenEncoder, Views


class SimMIM(PretextModule):
    """Blocks of the input are hidden behind a mask that is learnt, and one linear layer paints them.

    Xie et al., 2021, https://arxiv.org/abs/2111.09886. A `TokenEncoder` puts a mask token in place of hidden ones. For any
    other encoder pixels are hidden, behind one value a channel, as in A2MIM's baseline (Li et al., 2022,
    https://arxiv.org/abs/2205.13943; its code, `MIMResNet` with ``mask_layer=0``).

    Args:
        encoder: any with a map of tokens: a CNN or a vision transformer.
        mask_ratio: share of blocks hidden; 0.6 in the paper (section 4.1.2).
        mask_block: patches a side of a block; 2, as 32 pixels of patches of 16 (section 4.1.2).
        patch: pixels a side of a patch where the encoder is no `TokenEncoder`, which has its own; 4 for images of 32 pixels,
            16 for those of 192 or 224.
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
        class_token=False,
    )

    def __init__(
        self, encoder: Encoder, mask_ratio: float = 0.6, mask_block: int = 2, patch: int = 4, **training: Unpack[Training]
    ) -> None:
        super().__init__(encoder, **training)
        self.mask_ratio, self.mask_block, self.patch = mask_ratio, mask_block, patch
        self.mask_value: nn.Parameter | None = None  # of pixels; a TokenEncoder has its own, of tokens
        if isinstance(encoder, TokenEncoder):
            encoder.learn_mask_token()
            self.head = nn.Linear(encoder.embed_dim, encoder.patch_dim)
        else:
            size = (64, 64) if self.views is None else self.views.size
            self.head = PlaceDecoder(self.encoder, size)
            self.mask_value = nn.Parameter(torch.zeros(input_channels(self.encoder)))  # the mean, to begin with

    def forward(self, views: Views) -> Step:
        """Hide, encode all, compare where hidden."""
        x = views.global_crops[0]  # (B, C, H, W)
        if self.mask_value is None:
            mask = block_mask(views.key, self.encoder.grid, self.mask_ratio, self.mask_block)  # (B, N)
            seen = self.encoder(x, mask=mask)
            painted, target = self.head(seen.tokens), self.encoder.patchify(x)  # (B, N, P)
        else:
            size = x.shape[-2], x.shape[-1]
            mask = patch_mask(views.key, size, self.patch, self.mask_ratio, self.mask_block)  # (B, H, W)
            seen = self.encoder(hide(x, mask, self.mask_value))
            painted, target = self.head(seen, size).movedim(1, -1), x.movedim(1, -1)  # (B, H, W, C)
        return Step(masked_mean(absolute_error(painted, target), mask), embedding=seen.pooled, mask=mask.flatten(1))


def absolute_error(painted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over the last axis (section 3.4): ``(..., P)`` twice to ``(...)``, in float32 or wider."""
    return (widen(painted) - widen(target)).abs().mean(-1)
