"""What is attached to an encoder whose last layers were taken off."""

from torch import Tensor, nn

from ssl_framework.types import Encoding


class LinearHead(nn.Module):
    """One linear layer on the pooled embedding.

    Args:
        embed_dim: width ``D`` of the embedding.
        outputs: numbers it returns for a sample.
    """

    def __init__(self, embed_dim: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embed_dim, outputs)

    def forward(self, encoding: Encoding) -> Tensor:
        """``(B, D)`` of `Encoding.pooled` to ``(B, outputs)``."""
        return self.linear(encoding.pooled)
