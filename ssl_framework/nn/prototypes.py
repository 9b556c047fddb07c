"""Directions that samples are compared with, and the head of DINO that ends in them."""

import torch
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.nn.masking import on_tokens
from ssl_framework.nn.precision import widen


class Prototypes(nn.Module):
    """Unit vectors that are learnt. The score of a sample is the cosine between it and each.

    The weights are normalised where they are used, as DINO's weight-normalised last layer does with its gain fixed at 1
    (https://github.com/facebookresearch/dino, ``vision_transformer.py``, ``DINOHead``).

    The scores are computed in float32 or wider: they are divided by temperatures down to 0.02, where the rounding of half
    precision moves a softmax by more than a percent (measured).

    Args:
        dim: width of a sample.
        count: prototypes ``K``.

    Raises:
        ValueError: `count` is less than one.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"prototypes={count}: there must be at least one.")
        self.weight = nn.Parameter(nn.Linear(dim, count, bias=False).weight.detach())  # torch's initial values

    def forward(self, z: Tensor, *, frozen: bool = False) -> Tensor:
        """Cosines ``(..., K)`` of ``(..., dim)``. While `frozen`, the prototypes get a gradient of zero."""
        with torch.autocast(z.device.type, enabled=False):
            weight = F.normalize(self.weight, dim=1)
            if frozen:  # zero and not none: DistributedDataParallel waits for all gradients
                weight = weight.detach() + 0 * weight
            return F.linear(F.normalize(widen(z), dim=-1), weight)


class DINOHead(nn.Module):
    """Three layers with GELU, a bottleneck on the unit sphere, and prototypes (official code, ``vision_transformer.py``).

    Args:
        in_dim: of the encoder.
        hidden_dim: of the layers.
        bottleneck_dim: where samples meet prototypes.
        out_dim: prototypes ``K``.
    """

    def __init__(self, in_dim: int, hidden_dim: int, bottleneck_dim: int, out_dim: int) -> None:
        super().__init__()
        blocks = [(in_dim, hidden_dim, None, nn.GELU()), (hidden_dim, hidden_dim, None, nn.GELU())]
        self.layers = ProjectionHead([*blocks, (hidden_dim, bottleneck_dim, None, None)])
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = Prototypes(bottleneck_dim, out_dim)

    def forward(self, x: Tensor, *, frozen: bool = False) -> Tensor:
        """``(..., in_dim)`` to ``(..., K)``; `frozen` as in `Prototypes`."""
        return self.prototypes(self.layers(x), frozen=frozen)


class TokenBranch(nn.Module):
    """An encoder with a head on its pooled vector and one on each of its tokens.

    Args:
        encoder: a `TokenEncoder`.
        head: of the pooled vector.
        token_head: of the tokens; it may be the same.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, token_head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.token_head = token_head

    def forward(self, x: Tensor, *, only: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(B, ...)`` to scores ``(B, K)`` and ``(B, N, K)``, or ``(M, K)`` of the M tokens where `only` ``(B, N)`` is set."""
        seen = self.encoder(x)
        scores = self.token_head(seen.tokens) if only is None else on_tokens(self.token_head, seen.tokens, only)
        return self.head(seen.pooled), scores


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Of soft targets: ``(..., K)`` twice to ``()``, the mean over samples."""
    return -(target * torch.log_softmax(logits, dim=-1)).sum(dim=-1).mean()
