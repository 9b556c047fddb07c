"""What is attached to an encoder whose last layers were taken off."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.types import Encoding


class Standardization(nn.Module):
    """What a head reads, with mean 0 and deviation 1 in each dimension over the images to learn from; as it is until then.

    Vectors of encoders, and of layers of one, differ in scale by orders of magnitude, and no learning rate suits all. Linear
    probes have had a BatchNorm without weights here for that reason (He et al., 2022, https://arxiv.org/abs/2111.06377,
    appendix A). This one is measured once and stands still, so that no batch moves it.

    Args:
        width: ``D``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def measure(self, values: Iterable[Tensor]) -> None:
        """Set it.

        Args:
            values: ``(..., D)`` each. Dimensions that hardly move are divided by a tenth of what is usual, not by nearly 0.
        """
        count, total, square = 0, 0.0 * self.mean.double(), 0.0 * self.mean.double()
        for value in values:
            rows = value.double().flatten(0, -2)
            count, total, square = count + len(rows), total + rows.sum(0), square + rows.square().sum(0)
        mean = total / count
        variance = (square / count - mean.square()).clamp(min=0)
        usual = variance.mean().sqrt()
        self.mean.copy_(mean)
        self.std.copy_(variance.sqrt().clamp(min=0.1 * float(usual)) if usual > 1e-6 else torch.ones_like(variance))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)``."""
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)


class PooledHead(nn.Module):
    """The head of a task behind a pooling.

    Args:
        pool: maps an `Encoding` to ``(B, W)``.
        task: maps an `Encoding` to outputs.
        layers: of the encoder that the pooling asks for.
        width: ``W``, or ``D`` of the tokens.
        on_tokens: the task's head reads tokens, and not what is pooled.
    """

    def __init__(self, pool: nn.Module, task: nn.Module, layers: tuple[int, ...], width: int, on_tokens: bool = False) -> None:
        super().__init__()
        self.pool, self.task, self.layers, self.on_tokens = pool, task, layers, on_tokens
        self.standard = Standardization(width)

    def read(self, encoding: Encoding) -> Tensor:
        """What the task's head will be given: vectors ``(B, W)`` or tokens ``(B, N, D)``."""
        return tokens_of(encoding) if self.on_tokens else self.pool(encoding)

    def forward(self, encoding: Encoding) -> Tensor:
        """To what the task's head returns."""
        x = self.standard(self.read(encoding))
        return self.task(encoding._replace(tokens=x) if self.on_tokens else encoding._replace(pooled=x))

    def of_vectors(self, x: Tensor) -> Tensor:
        """``(B, W)``, what `read` once said, to what the task's head returns."""
        return self.task(Encoding(self.standard(x)))


class LinearHead(nn.Module):
    """One linear layer on the pooled embedding.

    Args:
        embed_dim: width ``D`` of the embedding.
        outputs: numbers it returns for a sample.
    """

    def __init__(self, embed_dim: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embed_dim, outputs)

    @torch.no_grad()
    def begin_as(self, weights: Tensor) -> None:
        """Begin as a linear model that was fitted elsewhere.

        Args:
            weights: ``(D + 1, outputs)``, the last row those of the constant.
        """
        self.linear.weight.copy_(weights[:-1].T)
        self.linear.bias.copy_(weights[-1])

    def forward(self, encoding: Encoding) -> Tensor:
        """``(B, D)`` of `Encoding.pooled` to ``(B, outputs)``."""
        return self.linear(encoding.pooled)


class MLPHead(nn.Module):
    """Two layers with GELU between them, as wide inside as the embedding.

    Args:
        embed_dim: width ``D`` of the embedding.
        outputs: numbers it returns for a sample.
    """

    def __init__(self, embed_dim: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.Linear(embed_dim, outputs))

    def forward(self, encoding: Encoding) -> Tensor:
        """``(B, D)`` of `Encoding.pooled` to ``(B, outputs)``."""
        return self.layers(encoding.pooled)


class CosineHead(nn.Module):
    """Cosines between the embedding and a direction of each class, times a scale that is learnt.

    Gidaris and Komodakis, 2018, https://arxiv.org/abs/1804.09458, section 3.2; the scale begins at 10, as in their code.

    Args:
        embed_dim: width ``D`` of the embedding.
        outputs: classes.
    """

    def __init__(self, embed_dim: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(embed_dim, outputs, bias=False).weight.detach())
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, encoding: Encoding) -> Tensor:
        """``(B, D)`` of `Encoding.pooled` to ``(B, outputs)``."""
        return self.scale * F.linear(F.normalize(encoding.pooled, dim=1), F.normalize(self.weight, dim=1))


class OrdinalHead(nn.Module):
    """One direction, and a threshold between each two steps that begin in their order: CORAL, Cao et al., 2020, section 3.3.

    Args:
        embed_dim: width ``D`` of the embedding.
        steps: of the scale.
    """

    def __init__(self, embed_dim: int, steps: int) -> None:
        super().__init__()
        self.direction = nn.Linear(embed_dim, 1, bias=False)
        self.thresholds = nn.Parameter(torch.linspace(-1, 1, steps - 1))

    def forward(self, encoding: Encoding) -> Tensor:
        """``(B, D)`` of `Encoding.pooled` to logits ``(B, steps - 1)`` of being above each threshold."""
        return self.direction(encoding.pooled) - self.thresholds


class NeighbourHead(nn.Module):
    """Votes of the labelled samples that are most alike; `remember` fills it, and it learns nothing.

    Args:
        embed_dim: width ``D`` of the embedding.
        outputs: classes ``C``.
        samples: labelled ones ``N``.
        k: that vote.
        temperature: of their weights.
    """

    x: Tensor
    y: Tensor

    def __init__(self, embed_dim: int, outputs: int, samples: int, k: int, temperature: float) -> None:
        super().__init__()
        self.outputs, self.k, self.temperature = outputs, k, temperature
        self.register_buffer("x", torch.zeros(samples, embed_dim))
        self.register_buffer("y", torch.full((samples,), -1, dtype=torch.int64))

    def remember(self, pooled: Tensor, targets: Tensor) -> None:
        """Hold the vectors ``(N, D)`` and labels ``(N,)`` of all labelled samples."""
        self.x.copy_(F.normalize(pooled.float(), dim=1))
        self.y.copy_(targets)

    def forward(self, encoding: Encoding) -> Tensor:
        """``(B, D)`` of `Encoding.pooled` to the logarithms ``(B, C)`` of shares of the votes."""
        if len(self.y) == 0 or int(self.y.min()) < 0:
            raise ValueError("these neighbours hold no samples yet: call module.remember(train).")
        with torch.autocast(self.x.device.type, enabled=False):  # in bfloat16 all that are alike are equally alike
            similarity = F.normalize(encoding.pooled.float(), dim=1) @ self.x.T
            nearest, place = similarity.topk(min(self.k, len(self.y)), dim=1)
            weight = ((nearest - 1) / self.temperature).exp()
            votes = weight.new_zeros(len(weight), self.outputs).scatter_add_(1, self.y[place], weight)
            return (votes / votes.sum(dim=1, keepdim=True)).clamp(min=1e-12).log()


class VectorHead(nn.Module):
    """Nothing: the vector itself."""

    def forward(self, encoding: Encoding) -> Tensor:
        """`Encoding.pooled`."""
        return encoding.pooled


class TokenHead(nn.Module):
    """One linear layer on each token: for labels of pixels, or of places in a sequence.

    Args:
        embed_dim: width ``D`` of the tokens.
        outputs: numbers for each.
    """

    def __init__(self, embed_dim: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embed_dim, outputs)

    def forward(self, encoding: Encoding) -> Tensor:
        """Tokens ``(B, N, D)`` on a grid to ``(B, outputs, *grid)``."""
        return on_grid(self.linear(tokens_of(encoding)), encoding)


class ConvolutionalDecoder(nn.Module):
    """Two convolutions on the map of tokens, at their resolution and at twice of it.

    Args:
        embed_dim: width ``D`` of the tokens.
        outputs: labels ``C``.
        width: of the convolutions.
    """

    def __init__(self, embed_dim: int, outputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(embed_dim, width, 3, padding=1), nn.GroupNorm(1, width), nn.GELU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(1, width), nn.GELU())
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, encoding: Encoding) -> Tensor:
        """Tokens ``(B, N, D)`` on a grid ``(h, w)`` to ``(B, outputs, 2 h, 2 w)``."""
        x = self.first(on_grid(tokens_of(encoding), encoding))
        return self.last(self.second(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)))


def tokens_of(encoding: Encoding) -> Tensor:
    """Its tokens.

    Raises:
        ValueError: it has none.
    """
    if encoding.tokens is None:
        raise ValueError("this task labels places of an image, and this encoder gives one vector: take a CNN or a transformer.")
    return encoding.tokens


def on_grid(x: Tensor, encoding: Encoding) -> Tensor:
    """``(B, N, W)`` to ``(B, W, *grid)``."""
    assert encoding.grid is not None
    return x.transpose(1, 2).unflatten(2, encoding.grid)
