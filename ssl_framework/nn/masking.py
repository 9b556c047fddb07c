"""Which tokens are hidden, drawn from the key of the sample: the same on every device and number of processes."""

import torch
from torch import Tensor

from ssl_framework import keyed

_STREAM = 1_000_003  # not one that views draw from


def random_mask(key: Tensor | None, num_tokens: int, ratio: float) -> tuple[Tensor, Tensor]:
    """Hide the same number of tokens of every sample, uniformly at random.

    Args:
        key: ``(B,)`` int64, see `Views.key`.
        num_tokens: ``N``.
        ratio: share to hide; ``round(N * (1 - ratio))`` stay, at least one and at most all but one.

    Returns:
        The tokens that stay, ``(B, K)`` int64 in random order, and the mask ``(B, N)``, true where hidden.

    Raises:
        ValueError: no key, a ratio outside (0, 1), or fewer than two tokens.
    """
    if key is None:
        raise ValueError("Masks are drawn from Views.key, which is None: give Views(..., key=keyed.mix(seed, epoch, index)).")
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"mask_ratio={ratio} must lie between 0 and 1, both excluded.")
    if num_tokens < 2:
        raise ValueError(f"Masking needs two tokens or more, the encoder has {num_tokens}: choose a smaller patch_size.")
    kept = min(max(round(num_tokens * (1.0 - ratio)), 1), num_tokens - 1)
    keep = keyed.uniform(key, _STREAM, num_tokens).argsort(dim=1)[:, :kept]
    mask = torch.ones(len(key), num_tokens, dtype=torch.bool, device=key.device).scatter(1, keep, False)
    return keep, mask
