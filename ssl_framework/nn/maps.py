"""A light convolutional decoder that paints an input from the tokens of any encoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework.types import Encoding


class MapDecoder(nn.Module):
    """Tokens on their grid, doubled in size and convolved until they cover the input.

    It asks for nothing but tokens with a grid of two axes, so it takes CNNs and vision transformers, and inputs of any size.

    Args:
        in_dim: width of the tokens.
        out_channels: channels to paint.
        dim: width of the decoder.
        depth: times that the map is doubled with a convolution behind it; what is left is interpolated.
    """

    def __init__(self, in_dim: int, out_channels: int, *, dim: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(in_dim, dim, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.GroupNorm(1, dim), nn.GELU()) for _ in range(depth)
        )
        self.predict = nn.Conv2d(dim, out_channels, 3, padding=1)

    def forward(self, seen: Encoding, size: tuple[int, int]) -> Tensor:
        """``(B, N, D)`` tokens on a grid to ``(B, C, *size)``.

        Raises:
            ValueError: the encoder has no tokens on a grid of two axes.
        """
        if seen.tokens is None or seen.grid is None or len(seen.grid) != 2:
            raise ValueError("Nothing can be painted without a map of tokens, and this encoder has none: take a CNN or a ViT.")
        x = self.embed(seen.tokens.transpose(1, 2).unflatten(2, seen.grid))
        for number, block in enumerate(self.blocks, start=1):
            left = 2 ** (len(self.blocks) - number)
            between = tuple(max(1, min(2 * now, side // left)) for now, side in zip(x.shape[-2:], size, strict=True))
            x = block(F.interpolate(x, between, mode="nearest"))
        return self.predict(F.interpolate(x, size, mode="bilinear"))


def input_channels(encoder: nn.Module) -> int:
    """Channels of an encoder's input: those of its first convolution.

    Raises:
        ValueError: it has none.
    """
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            return layer.in_channels
    raise ValueError(
        f"{type(encoder).__name__} has no convolution, which would say how many channels its input has: take a CNN or a ViT."
    )


def hide(x: Tensor, hidden: Tensor) -> Tensor:
    """``(B, C, H, W)`` with zeros, which is the mean, where ``(B, H, W)`` is set."""
    return torch.where(hidden[:, None], torch.zeros((), dtype=x.dtype, device=x.device), x)
