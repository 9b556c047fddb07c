"""How one vector a sample is made of what an encoder says: what the head of a task is attached to."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn

from ssl_framework.types import Encoding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pooling:
    """What the encoder itself calls its vector: the class token, or the mean of its tokens or of its last map."""

    def layers(self, num_layers: int) -> tuple[int, ...]:
        """The layers that are asked of the encoder.

        Raises:
            ValueError: it has not as many.
        """
        return ()

    def module(self, seen: Encoding) -> nn.Module:
        """Maps an `Encoding` to ``(B, W)``.

        Args:
            seen: an example of what the encoder says.

        Raises:
            ValueError: the encoder does not say what is needed.
        """
        return Pooled()

    @property
    def kind(self) -> str:
        """Its name on the command line."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def state(self) -> dict[str, Any]:
        """Plain numbers and strings that tell it from another."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenMean(Pooling):
    """The mean of the tokens or of the last map, also where the encoder's own vector is a class token."""

    def module(self, seen: Encoding) -> nn.Module:
        """Needs tokens."""
        _tokens(seen, "token_mean")
        return MeanOfTokens()


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionPooling(Pooling):
    """A query that is learnt looks at all tokens: the attentive probe.

    Chen et al., 2022, https://arxiv.org/abs/2202.03026 (CAE), "attentive probing", by which AIM
    (https://arxiv.org/abs/2401.08541, section 3.2) is judged as well. A norm, and timm's ``AttentionPoolLatent`` without MLP.

    Args:
        heads: of attention; they divide the width of the tokens.
    """

    heads: int = 8

    def module(self, seen: Encoding) -> nn.Module:
        """Needs tokens of a width that the heads divide."""
        width = _tokens(seen, "attention").shape[-1]
        if self.heads < 1 or width % self.heads:
            fitting = [n for n in range(1, 33) if width % n == 0]
            raise ValueError(f"pooling.heads={self.heads} does not divide tokens {width} wide: take one of {fitting}.")
        return AttentionOverTokens(width, self.heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LastLayers(Pooling):
    """The vectors of the last n layers, one behind the other.

    DINO's linear protocol: Caron et al., 2021, https://arxiv.org/abs/2104.14294, appendix F.2; n = 4 for a ViT-S. The mean of
    the last layer's tokens can be added, as for its ViT-B (with n = 1) and in DINOv2.

    Args:
        n: layers.
        mean: add the mean of the last tokens.
    """

    n: int = 4
    mean: bool = False

    def layers(self, num_layers: int) -> tuple[int, ...]:
        """The last n."""
        if not 1 <= self.n <= num_layers:
            raise ValueError(f"pooling.n={self.n}: the encoder has {num_layers} layers; take 1 to {num_layers}.")
        return tuple(range(num_layers - self.n, num_layers))

    def module(self, seen: Encoding) -> nn.Module:
        """Needs tokens for the mean."""
        if self.mean:
            _tokens(seen, "last_layers with mean")
        return VectorsOfLayers(self.mean)


def restored(state: Mapping[str, Any]) -> Pooling:
    """The pooling that said this of itself, `Pooling.state`.

    Raises:
        ValueError: it is none of ours, or has other numbers.
    """
    numbers = dict(state)
    kinds = {"pooling": Pooling, "token_mean": TokenMean, "attention_pooling": AttentionPooling, "last_layers": LastLayers}
    kind = kinds.get(str(numbers.pop("kind", None)))
    if kind is None:
        raise ValueError(
            f"the pooling {state.get('kind')!r} is not one of {', '.join(kinds)}: it was saved by another version."
        )
    try:
        return kind(**numbers)
    except TypeError as error:
        raise ValueError(f"the pooling {state['kind']} was saved with other numbers ({error}): by another version.") from error


class Pooled(nn.Module):
    """`Encoding.pooled`."""

    def forward(self, seen: Encoding) -> Tensor:
        """``(B, D)``."""
        return seen.pooled


class MeanOfTokens(nn.Module):
    """The mean over tokens."""

    def forward(self, seen: Encoding) -> Tensor:
        """``(B, N, D)`` to ``(B, D)``."""
        assert seen.tokens is not None
        return seen.tokens.mean(dim=1)


class AttentionOverTokens(nn.Module):
    """One learnt query over all tokens, behind a norm.

    Args:
        width: of the tokens.
        heads: of attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = AttentionPoolLatent(width, num_heads=heads, out_features=0)  # the head of the task follows at once

    def forward(self, seen: Encoding) -> Tensor:
        """``(B, N, D)`` to ``(B, D)``."""
        assert seen.tokens is not None
        return self.attention(self.norm(seen.tokens))


class VectorsOfLayers(nn.Module):
    """The vectors of the layers asked for, and the mean of the last tokens.

    Args:
        mean: whether that mean is added.
    """

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, seen: Encoding) -> Tensor:
        """To ``(B, W)``."""
        parts = [*seen.pooled_layers]
        if self.mean:
            assert seen.tokens is not None
            parts.append(seen.tokens.mean(dim=1))
        return torch.cat(parts, dim=1)


def _tokens(seen: Encoding, pooling: str) -> Tensor:
    if seen.tokens is None:
        raise ValueError(f"pooling={pooling} needs tokens, and this encoder gives one vector: take pooling=encoder.")
    return seen.tokens
