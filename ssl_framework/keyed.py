"""Counter-based randomness: every number is a pure function of its key, wherever and in whatever batch it is computed.

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) as a hash
of (key, stream, counter), in wrapping int64 arithmetic, so CPU and GPU give the same bits.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB
_WORD = 2**64 - 1


def mix(*parts: int | Tensor) -> Tensor:
    """Hash integers to one int64 key; tensors broadcast against each other.

    Args:
        parts: numbers or int64 tensors, for example ``(seed, epoch, index)``. Their order matters.

    Returns:
        int64 tensor of the broadcast shape; a scalar tensor for plain numbers.
    """
    device = next((part.device for part in parts if isinstance(part, Tensor)), None)
    state = torch.zeros((), dtype=torch.int64, device=device)
    for part in parts:
        state = _finish(state * _MIX1 + part + _GOLDEN)
    return state


def mix_numbers(*parts: int) -> int:
    """`mix` of plain numbers, without a tensor: twenty times as fast."""
    state = 0
    for part in parts:
        state = _finish_number((state * _MIX1 + part + _GOLDEN) & _WORD)
    return state - (1 << 64) if state >> 63 else state


def uniform(key: Tensor, stream: int, n: int) -> Tensor:
    """`n` uniform numbers for each key.

    Args:
        key: ``(B,)`` int64.
        stream: names what is drawn, so that one draw more does not move another.
        n: numbers a key.

    Returns:
        ``(B, n)`` float64 in [0, 1), with 53 random bits.
    """
    counter = torch.arange(1, n + 1, dtype=torch.int64, device=key.device)
    bits = _finish(mix(key, stream)[:, None] + counter * _GOLDEN)
    return _shift(bits, 11).to(torch.float64) / 2**53


def normal(key: Tensor, stream: int, n: int) -> Tensor:
    """`n` standard normal numbers for each key, by Box and Muller's transform: ``(B, n)`` float64."""
    u = uniform(key, stream, 2 * n)
    radius = torch.sqrt(-2 * torch.log1p(-u[:, :n]))
    return radius * torch.cos(2 * math.pi * u[:, n:])


def permutation(n: int, *parts: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of `n` things that belongs to these numbers, for example ``permutation(n, seed, epoch)``: ``(n,)`` int64."""
    words = mix_numbers(*parts) & _WORD
    return np.random.Generator(np.random.Philox(key=words)).permutation(n)


def reseed(device: torch.device, *parts: int) -> None:
    """Seed torch's generators of the CPU and of this process's device by `mix_numbers` of `parts`.

    `torch.manual_seed` notes the seed for all kinds of devices, used or not, which takes a millisecond.
    """
    seed = mix_numbers(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _finish(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def _finish_number(x: int) -> int:
    x = ((x ^ (x >> 30)) * _MIX1) & _WORD
    x = ((x ^ (x >> 27)) * _MIX2) & _WORD
    return x ^ (x >> 31)


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right: int64 shifts copy the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)
