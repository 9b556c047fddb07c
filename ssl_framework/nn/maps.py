"""Painting from the map of any encoder, by light convolutions or one linear layer, and hiding pixels from it."""

import copy

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
        tokens, grid = require_map(seen)
        x = self.embed(tokens.transpose(1, 2).unflatten(2, grid))
        for number, block in enumerate(self.blocks, start=1):
            left = 2 ** (len(self.blocks) - number)
            between = tuple(max(1, min(2 * now, side // left)) for now, side in zip(x.shape[-2:], size, strict=True))
            x = block(F.interpolate(x, between, mode="nearest"))
        return self.predict(F.interpolate(x, size, mode="bilinear"))


class PlaceDecoder(nn.Module):
    """One linear layer for every place of the last map, which paints the pixels that the place stands for.

    Xie et al., 2021, https://arxiv.org/abs/2111.09886, section 3.4: of a map 32 times smaller than the image, each vector is
    mapped to 32 x 32 pixels (in its code a 1x1 convolution and `nn.PixelShuffle`). How many they are, along each axis by
    itself, is found by encoding one blank image.

    Args:
        encoder: any with a map of tokens; it is left as it is.
        size: height and width of the images. A picture that comes out larger, or is asked for in another size, is interpolated.

    Raises:
        ValueError: the encoder has no convolution, or no tokens on a grid of two axes.
    """

    def __init__(self, encoder: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        channels, blind = input_channels(encoder), copy.deepcopy(encoder).eval()
        with torch.no_grad():
            tokens, grid = require_map(blind(next(blind.parameters()).new_zeros(1, channels, *size)))
        self.stride = (-(-size[0] // grid[0]), -(-size[1] // grid[1]))
        self.predict = nn.Linear(tokens.shape[-1], channels * self.stride[0] * self.stride[1])

    def forward(self, seen: Encoding, size: tuple[int, int]) -> Tensor:
        """``(B, N, D)`` tokens on a grid to ``(B, C, *size)``."""
        tokens, (rows, columns) = require_map(seen)
        x = self.predict(tokens).unflatten(2, (-1, *self.stride)).unflatten(1, (rows, columns))
        x = x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)  # (B, C, rows * height, columns * width)
        return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear")


def require_map(seen: Encoding) -> tuple[Tensor, tuple[int, int]]:
    """Tokens ``(B, N, D)`` and the rows and columns of their grid.

    Raises:
        ValueError: the encoder has no tokens on a grid of two axes.
    """
    if seen.tokens is None or seen.grid is None or len(seen.grid) != 2:
        raise ValueError("Nothing can be painted without a map of tokens, and this encoder has none: take a CNN or a ViT.")
    return seen.tokens, (seen.grid[0], seen.grid[1])


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


def hide(x: Tensor, hidden: Tensor, value: Tensor | None = None) -> Tensor:
    """``(B, C, H, W)`` with ``(C,)`` values where ``(B, H, W)`` is set; with zeros, which are the mean, if there are none."""
    value = x.new_zeros(()) if value is None else value.to(x.dtype)[:, None, None]
    return torch.where(hidden[:, None], value, x)
