"""What is attached to an encoder whose last layers were taken off."""

from torch import Tensor, nn

from ssl_framework.types import Encoding


class PooledHead(nn.Module):
    """The head of a task behind a pooling.

    Args:
        pool: maps an `Encoding` to ``(B, W)``.
        task: maps an `Encoding` to outputs.
        layers: of the encoder that the pooling asks for.
    """

    def __init__(self, pool: nn.Module, task: nn.Module, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.pool, self.task, self.layers = pool, task, layers

    def forward(self, encoding: Encoding) -> Tensor:
        """To what the task's head returns."""
        return self.task(encoding._replace(pooled=self.pool(encoding)))


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
