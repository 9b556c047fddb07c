"""data2vec: Baevski et al., 2022, https://arxiv.org/abs/2202.03555."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn import Teacher, block_mask, masked_mean, widen
from ssl_framework.pretext.base import Card, PretextModule, Training, require_tokens
from ssl_framework.types import Encoder, Step, Views


class Data2Vec(PretextModule):
    """From a masked input, predict what the upper layers of a slowly moving average of the encoder make of the whole one.

    Baevski et al., 2022, https://arxiv.org/abs/2202.03555. Blocks are hidden uniformly; the paper takes BEiT's rectangles.
    The official code for images is https://github.com/facebookresearch/data2vec_vision.

    Args:
        encoder: a `TokenEncoder`.
        mask_ratio: share of blocks hidden; 0.6 in the paper for images (section 4.1).
        mask_block: tokens a side of a block.
        top_layers: layers of the teacher that are averaged, at most all; 6 (section 4.1).
        momentum: of the teacher at the start; 0.9998 (official code, beit/README.md).
        final_momentum: at the end, reached on a straight line; 0.9998, so it stays. 0.9999 in the second training of ViT-L.
        beta: where the smooth L1 loss turns from a square to a line; 2 (official code, beit/README.md).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="self-distillation",
        target="the teacher's layers, of the whole input",
        prevents_collapse="normalised targets, stop-gradient and a slowly moving teacher",
        judged_by="fine-tuning",
        paper="https://arxiv.org/abs/2202.03555",
        views=1,
        exports="teacher",
        needs_tokens=True,
        class_token=False,
    )

    def __init__(
        self,
        encoder: Encoder,
        mask_ratio: float = 0.6,
        mask_block: int = 2,
        top_layers: int = 6,
        momentum: float = 0.9998,
        final_momentum: float = 0.9998,
        beta: float = 2.0,
        **training: Unpack[Training],
    ) -> None:
        tokens = require_tokens(encoder, "Data2Vec")
        super().__init__(encoder, **training)
        tokens.learn_mask_token()
        self.mask_ratio, self.mask_block, self.beta = mask_ratio, mask_block, beta
        self.head = nn.Linear(encoder.embed_dim, encoder.embed_dim)
        self.teacher = Teacher(TopLayers(self.encoder, top_layers), momentum, final_momentum, rise="linear")

    def forward(self, views: Views) -> Step:
        """The student sees what is left, the teacher everything."""
        x = views.global_crops[0]  # (B, ...)
        mask = block_mask(views.key, self.encoder.grid, self.mask_ratio, self.mask_block)  # (B, N)
        seen = self.encoder(x, mask=mask)
        target = self.teacher(x)  # (B, N, D), no gradient
        predicted = widen(self.head(seen.tokens))  # (B, N, D)
        error = F.smooth_l1_loss(predicted, target, reduction="none", beta=self.beta).mean(-1)  # (B, N), section 3.4
        return Step(masked_mean(error, mask), embedding=seen.pooled, mask=mask)


class TopLayers(nn.Module):
    """The mean of an encoder's upper layers, each normalised over its features (section 3.3), normalised once more.

    The second time is the official code's (beit/README.md, ``--post_target_layer_norm``).

    Args:
        encoder: a `TokenEncoder`.
        count: layers, at most all.
    """

    def __init__(self, encoder: nn.Module, count: int) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"top_layers={count} must be 1 or more.")
        self.encoder: Any = encoder
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)`` to ``(B, N, D)``, float32 or wider."""
        count = min(self.count, self.encoder.num_layers)
        layers = self.encoder(x, layers=range(-count, 0)).layers
        mean = torch.stack([F.layer_norm(widen(layer), layer.shape[-1:]) for layer in layers]).mean(0)
        return F.layer_norm(mean, mean.shape[-1:])
