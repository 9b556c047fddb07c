"""MaskFeat: Wei et al., 2021, https://arxiv.org/abs/2112.09133."""

from typing import Unpack

import torch
from torch import Tensor, nn

from ssl_framework.nn import block_mask, gradient_histograms, input_channels, masked_mean, require_positive, widen
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.types import Encoder, Step, Views


class MaskFeat(PretextModule):
    """Hidden patches are described, not painted: by histograms of the directions in which their brightness changes.

    Wei et al., 2021, https://arxiv.org/abs/2112.09133. Numbers are those of the official code for images
    (https://github.com/facebookresearch/SlowFast). Blocks are hidden uniformly; the paper takes BEiT's rectangles.

    Args:
        encoder: a `TokenEncoder` of a grid of two axes.
        mask_ratio: share of blocks hidden; 0.4 (configs/masked_ssl/in1k_VIT_B_MaskFeat_PT.yaml).
        mask_block: tokens a side of a block.
        bins: directions that are told apart; 9 (slowfast/models/masked.py).
        cells: histograms of a patch along each side; 2, as 8 pixels of a patch of 16 (slowfast/models/masked.py).
        training: see `PretextModule`.
    """

    card = Card(
        family="generative",
        group="masked",
        target="histograms of gradients of hidden patches",
        prevents_collapse="nothing to prevent: the target is a function of the input",
        judged_by="fine-tuning",
        paper="https://arxiv.org/abs/2112.09133",
        views=1,
        needs_tokens=True,
        class_token=False,
    )

    def __init__(
        self,
        encoder: Encoder,
        mask_ratio: float = 0.4,
        mask_block: int = 2,
        bins: int = 9,
        cells: int = 2,
        **training: Unpack[Training],
    ) -> None:
        require_tokens(encoder, "MaskFeat").learn_mask_token()
        super().__init__(encoder, **training)
        require_positive(bins=bins, cells=cells)
        if len(self.encoder.grid) != 2:
            raise ValueError(
                f"MaskFeat describes images, and these tokens have a grid of {list(self.encoder.grid)}: take a ViT."
            )
        self.mask_ratio, self.mask_block, self.bins, self.cells = mask_ratio, mask_block, bins, cells
        self.head = nn.Linear(encoder.embed_dim, input_channels(self.encoder) * bins * cells**2)
        nn.init.trunc_normal_(self.head.weight, std=0.02)  # slowfast/models/head_helper.py, `MSSeparateHead`
        nn.init.zeros_(self.head.bias)

    def forward(self, views: Views) -> Step:
        """Hide, encode all, compare where hidden."""
        x = views.global_crops[0]  # (B, C, H, W)
        mask = block_mask(views.key, self.encoder.grid, self.mask_ratio, self.mask_block)  # (B, N)
        seen = self.encoder(x, mask=mask)
        error = (widen(self.head(seen.tokens)) - self._target(x)).square().mean(dim=-1)  # (B, N)
        return Step(masked_mean(error, mask), embedding=seen.pooled, mask=mask)

    @torch.no_grad()
    def _target(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, N, P)``: channels, directions and cells of each patch."""
        rows, columns = self.encoder.grid
        found = gradient_histograms(x, (rows * self.cells, columns * self.cells), self.bins)
        patches = found.unflatten(-1, (columns, self.cells)).unflatten(-3, (rows, self.cells))
        return patches.permute(0, 3, 5, 1, 2, 4, 6).flatten(3).flatten(1, 2)  # (B, rows, columns, C, bins, cells, cells)
