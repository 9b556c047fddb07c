"""Which tokens of a sequence see which."""

import torch
from torch import Tensor


def prefix_pattern(prefix: Tensor, tokens: int, extra: int = 0) -> Tensor:
    """The first tokens see each other; each later one sees those before it, and itself.

    Raffel et al., 2019, https://arxiv.org/abs/1910.10683, "prefix LM"; for images El-Nouby et al., 2024,
    https://arxiv.org/abs/2401.08541, section 3.2, "Prefix Transformer". Tokens that are no patches (class token, registers)
    come first and belong to the prefix: all see them, and they see nothing behind it.

    Args:
        prefix: ``(B,)`` int64, how many of the tokens `N` are the prefix of each sample; 0 is causal, ``N`` hides nothing.
        tokens: ``N``.
        extra: tokens ``E`` before them.

    Returns:
        ``(B, 1, E + N, E + N)`` bool, the same for all heads: true where a token (row) sees another (column).

    Raises:
        ValueError: other than whole numbers, one a sample.
    """
    if prefix.dtype != torch.int64 or prefix.ndim != 1:
        raise ValueError(
            f"prefix {tuple(prefix.shape)} {prefix.dtype} does not say of each sample how long its prefix is: "
            "give (B,) torch.int64."
        )
    place = torch.arange(extra + tokens, device=prefix.device)
    return ((place <= place[:, None]) | (place < extra + prefix[:, None, None]))[:, None]
