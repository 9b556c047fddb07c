"""A light transformer that fills in the tokens an encoder was not shown."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_framework.machine import plain_attention_is_faster


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
        self.norm = nn.LayerNorm(dim)
        self.predict = nn.Linear(dim, out_dim)
        nn.init.normal_(self.mask_token, std=0.02)

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
            block.attn.fused_attn = fused  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        return self.predict(self.norm(self.blocks(x))[:, 1:])


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
