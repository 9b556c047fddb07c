"""A light transformer that fills in the tokens an encoder was not shown."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_framework.machine import plain_attention_is_faster

_Norm: Any = partial(nn.LayerNorm, eps=1e-6)  # as the official code of MAE and I-JEPA has it


class TokenDecoder(nn.Module):
    """Visible tokens go to their places, a learned mask token to all others, and blocks predict every patch.

    He et al., 2021, https://arxiv.org/abs/2111.06377, section 3, "MAE decoder", and Appendix A.1: fixed sine-cosine positions.

    Args:
        in_dim: width of the encoder's tokens.
        grid: layout of all tokens, with product ``N``.
        out_dim: numbers ``P`` to predict a token.
        dim: width of the decoder.
        depth: blocks.
        num_heads: attention heads; they divide `dim`.
    """

    def __init__(self, in_dim: int, grid: tuple[int, ...], out_dim: int, *, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"decoder_dim={dim} is not divisible by decoder_heads={num_heads}.")
        self.embed = nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(grid, dim)[None])  # (1, N, dim)
        self.blocks = nn.Sequential(*(Block(dim, num_heads, qkv_bias=True) for _ in range(depth)))
        self.norm = _Norm(dim)
        self.predict = nn.Linear(dim, out_dim)
        _start(self)

    def forward(self, tokens: Tensor, keep: Tensor, prefix: Tensor) -> Tensor:
        """Predict all tokens.

        Args:
            tokens: ``(B, K, D)`` of the encoder.
            keep: ``(B, K)`` where they belong.
            prefix: ``(B, D)`` a summary that may be attended to (the class token); it is dropped at the end.

        Returns:
            ``(B, N, P)``.
        """
        visible = self.embed(tokens)  # (B, K, dim)
        full = self.mask_token.to(visible.dtype).expand(len(tokens), self.positions.shape[1], -1)  # (B, N, dim)
        full = full.scatter(1, keep[..., None].expand(-1, -1, visible.shape[-1]), visible)
        x = torch.cat([self.embed(prefix)[:, None], full + self.positions.to(full.dtype)], dim=1)  # (B, 1 + N, dim)
        fused = not plain_attention_is_faster(x)
        for block in self.blocks:
            block.attn.fused_attn = fused  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]  (timm's blocks)
        return self.predict(self.norm(self.blocks(x))[:, 1:])


class TokenPredictor(nn.Module):
    """A narrow transformer that says, from the tokens an encoder was shown, what the tokens at other places would be.

    Assran et al., 2023, https://arxiv.org/abs/2301.08243, section 3, "Prediction".

    Args:
        in_dim: width of the encoder's tokens, and of what is predicted.
        grid: layout of all tokens, with product ``N``.
        dim: width of the predictor.
        depth: blocks.
        num_heads: attention heads; they divide `dim`.
    """

    def __init__(self, in_dim: int, grid: tuple[int, ...], *, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"predictor_dim={dim} is not divisible by predictor_heads={num_heads}.")
        self.embed = nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(grid, dim))  # (N, dim)
        self.blocks = nn.Sequential(*(Block(dim, num_heads, qkv_bias=True) for _ in range(depth)))
        self.norm = _Norm(dim)
        self.predict = nn.Linear(dim, in_dim)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for module in self.modules():  # the official code's start (ijepa, src/helper.py)
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, keep: Tensor, places: Tensor) -> Tensor:
        """Predict some tokens.

        Args:
            tokens: ``(B, K, D)`` of the encoder.
            keep: ``(B, K)`` where they belong.
            places: ``(B, M)`` of the tokens to predict.

        Returns:
            ``(B, M, D)``.
        """
        seen = self.embed(tokens)
        positions = self.positions.to(seen.dtype)
        x = torch.cat([seen + positions[keep], self.mask_token.to(seen.dtype) + positions[places]], dim=1)
        fused = not plain_attention_is_faster(x)
        for block in self.blocks:
            block.attn.fused_attn = fused  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]  (timm's blocks)
        return self.predict(self.norm(self.blocks(x))[:, tokens.shape[1] :])


class CrossDecoder(nn.Module):
    """Some hidden tokens look at those that an encoder was shown, and not at each other; each block at its own mix of layers.

    Fu et al., 2024, https://arxiv.org/abs/2401.14391, sections 3.2 to 3.4.

    Args:
        in_dim: width of the encoder's tokens.
        num_layers: of the encoder.
        grid: layout of all tokens, with product ``N``.
        out_dim: numbers ``P`` to predict a token.
        dim: width of the decoder.
        depth: blocks.
        num_heads: attention heads; they divide `dim`.
    """

    def __init__(
        self, in_dim: int, num_layers: int, grid: tuple[int, ...], out_dim: int, *, dim: int, depth: int, num_heads: int
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"decoder_dim={dim} is not divisible by decoder_heads={num_heads}.")
        self.mix = nn.Parameter(torch.randn(depth, num_layers) / num_layers**0.5)
        self.norms = nn.ModuleList(_Norm(in_dim) for _ in range(depth))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(grid, dim))  # (N, dim)
        self.blocks = nn.ModuleList(CrossBlock(dim, in_dim, num_heads) for _ in range(depth))
        self.norm = _Norm(dim)
        self.predict = nn.Linear(dim, out_dim)
        _start(self)

    def forward(self, layers: Sequence[Tensor], places: Tensor, prefix: Tensor) -> Tensor:
        """Predict some tokens.

        Args:
            layers: of the encoder, each ``(B, K, D)``; these tokens carry their positions already.
            places: ``(B, M)`` of the tokens to predict.
            prefix: ``(B, D)`` a summary that is looked at too (the class token), the same for all layers.

        Returns:
            ``(B, M, P)``.
        """
        stacked = torch.stack([torch.cat([prefix[:, None], layer], dim=1) for layer in layers], dim=-1)  # (B, 1 + K, D, layers)
        x = self.mask_token + self.positions[places]  # (B, M, dim)
        for weights, norm, block in zip(self.mix, self.norms, self.blocks, strict=True):
            x = block(x, norm(stacked @ weights))
        return self.predict(self.norm(x))


class CrossBlock(nn.Module):
    """Attention from some tokens to others, then a perceptron, as in a transformer's decoder without self-attention.

    Args:
        dim: width of the tokens that look.
        context_dim: of those that are looked at.
        num_heads: attention heads.
    """

    def __init__(self, dim: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm, self.norm2 = _Norm(dim), _Norm(dim)
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(context_dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """``(B, M, dim)`` and ``(B, K, context_dim)`` to ``(B, M, dim)``."""
        q = self.q(self.norm(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, M, d)
        k, v = self.kv(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, K, d) each
        if plain_attention_is_faster(context):
            seen = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1).to(v.dtype) @ v
        else:
            seen = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def _start(decoder: TokenDecoder | CrossDecoder) -> None:
    """Weights as the official code of MAE and CrossMAE starts them (models_mae.py, ``initialize_weights``)."""
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.normal_(decoder.mask_token, std=0.02)


def sincos_positions(grid: tuple[int, ...], dim: int) -> Tensor:
    """Fixed sine-cosine positions of a grid of any rank (Vaswani et al., 2017, section 3.5; one share of the width an axis).

    Args:
        grid: layout, with product ``N``.
        dim: width; the shares are even numbers, what does not divide stays 0.

    Returns:
        ``(N, dim)`` float32.
    """
    share = dim // (2 * len(grid))  # frequencies an axis
    if share == 0:
        raise ValueError(f"A width of {dim} is too small for {len(grid)} axes: it needs {2 * len(grid)} or more.")
    omega = 10_000.0 ** -(torch.arange(share, dtype=torch.float64) / share)
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid)).reshape(-1, len(grid))  # (N, axes)
    angles = places[..., None] * omega  # (N, axes, share)
    table = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return nn.functional.pad(table, (0, dim - table.shape[1])).float()
