"""Which tokens are hidden, drawn from the key of the sample: the same on every device and number of processes."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework import keyed
from ssl_framework.nn.distributed import mean_over_processes
from ssl_framework.nn.precision import widen

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
    order = random_order(key, num_tokens)
    kept = visible(num_tokens, ratio)
    keep = order[:, :kept]
    mask = torch.ones(len(order), num_tokens, dtype=torch.bool, device=order.device).scatter(1, keep, False)
    return keep, mask


def random_order(key: Tensor | None, num_tokens: int) -> Tensor:
    """The tokens of each sample in random order: of ``(B,)`` keys ``(B, N)`` int64. `random_mask` shows the first of them.

    Raises:
        ValueError: no key.
    """
    return keyed.uniform(require_key(key, "Masks"), _STREAM, num_tokens).argsort(dim=1)


def visible(num_tokens: int, ratio: float) -> int:
    """How many of N tokens stay: ``round(N * (1 - ratio))``, at least one and at most all but one.

    Raises:
        ValueError: a ratio outside (0, 1), or fewer than two tokens.
    """
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"mask_ratio={ratio} must lie between 0 and 1, both excluded.")
    if num_tokens < 2:
        raise ValueError(f"Masking needs two tokens or more, the encoder has {num_tokens}: choose a smaller patch_size.")
    return min(max(round(num_tokens * (1.0 - ratio)), 1), num_tokens - 1)


def prefix_lengths(key: Tensor | None, num_tokens: int) -> Tensor:
    """How many tokens at the front of each sample are given and not predicted, uniformly from 1 to all but one.

    El-Nouby et al., 2024, https://arxiv.org/abs/2401.08541, section 3.2, "Prefix Transformer".

    Args:
        key: ``(B,)`` int64, see `Views.key`.
        num_tokens: ``N``.

    Returns:
        ``(B,)`` int64.

    Raises:
        ValueError: no key, or fewer than two tokens.
    """
    if num_tokens < 2:
        raise ValueError(f"A prefix needs two tokens or more, the encoder has {num_tokens}: choose a smaller patch_size.")
    drawn = keyed.uniform(require_key(key, "Prefixes"), _STREAM, 1)[:, 0]
    return 1 + (drawn * (num_tokens - 1)).long()


def normalized_patches(patches: Tensor) -> Tensor:
    """``(B, N, P)`` patches, each by its own mean and standard deviation, in float32 or wider.

    He et al., 2021, https://arxiv.org/abs/2111.06377, section 3, "Reconstruction target".

    Raises:
        ValueError: patches of a single number, which have no standard deviation.
    """
    if patches.shape[-1] < 2:
        raise ValueError(
            "A patch of one number cannot be normalised by itself: set normalize_target=false or a larger patch_size."
        )
    patches = widen(patches)
    mean, var = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    return (patches - mean) / (var + 1e-6).sqrt()


def block_mask(key: Tensor | None, grid: tuple[int, ...], ratio: float, block: int = 1) -> Tensor:
    """Hide the same number of blocks of every sample, uniformly at random.

    Args:
        key: ``(B,)`` int64, see `Views.key`.
        grid: layout of the tokens, with product ``N``; of any rank.
        ratio: share of blocks to hide, at least one and at most all but one.
        block: tokens of a block along each axis, but no more than half of them; those at the end may be smaller.

    Returns:
        ``(B, N)`` bool, true where hidden.

    Raises:
        ValueError: no key, a ratio outside (0, 1), or fewer than two blocks.
    """
    sides, blocks = _blocks(grid, block)
    _, hidden = random_mask(key, math.prod(blocks), ratio)
    return _spread(hidden, blocks, grid, sides)


def patch_mask(key: Tensor | None, size: tuple[int, int], patch: int, ratio: float, block: int = 1) -> Tensor:
    """`block_mask` for an encoder without patches: the image is cut into some, and their pixels are hidden together.

    Args:
        key: ``(B,)`` int64, see `Views.key`.
        size: height and width of the image; of any length, patches at the end may be smaller.
        patch: pixels a side of a patch.
        ratio: share of blocks to hide, at least one and at most all but one.
        block: patches a side of a block.

    Returns:
        ``(B, H, W)`` bool, true where hidden.

    Raises:
        ValueError: no key, a ratio outside (0, 1), or an image of fewer than two patches.
    """
    if patch < 1 or patch >= max(size):
        raise ValueError(f"patch={patch} cuts an image of {size[0]}x{size[1]} into fewer than two: give 1 to {max(size) - 1}.")
    grid = tuple(-(-side // patch) for side in size)
    return _spread(block_mask(key, grid, ratio, block), grid, size, (patch, patch)).unflatten(1, size)


def varied_mask(
    key: Tensor | None, grid: tuple[int, ...], low: float, high: float, share: float = 1.0, block: int = 1, crop: int = 0
) -> Tensor:
    """Hide another number of blocks in every sample, and none in some.

    Args:
        key: ``(B,)`` int64, see `Views.key`.
        grid: layout of the tokens, with product ``N``; of any rank.
        low: least share of blocks to hide.
        high: largest share; a sample's is drawn uniformly between both.
        share: of samples that hide any.
        block: tokens of a block along each axis.
        crop: number of the crop; another number hides others.

    Returns:
        ``(B, N)`` bool, true where hidden. In a sample that hides any it is one block at least.

    Raises:
        ValueError: no key, or shares that are none.
    """
    key = require_key(key, "Masks")
    if not 0 <= low <= high < 1 or not 0 <= share <= 1:
        raise ValueError(f"Masks of {low} to {high} of the tokens in {share} of the samples: give shares, the smaller first.")
    sides, blocks = _blocks(grid, block)
    count = math.prod(blocks)
    drawn = keyed.uniform(keyed.mix(key, crop), _STREAM, count + 2)
    hidden = ((low + (high - low) * drawn[:, 0]) * count).round().clamp(min=1) * (drawn[:, 1] < share)  # (B,)
    rank = drawn[:, 2:].argsort(dim=1).argsort(dim=1)
    return _spread(rank < hidden[:, None], blocks, grid, sides)


def pixel_mask(key: Tensor | None, size: tuple[int, int], share: float) -> Tensor:
    """Every pixel by itself, with this probability: ``(B, H, W)`` bool of ``(B,)`` keys.

    Raises:
        ValueError: no key, or a share outside of (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"corruption={share} must lie between 0 and 1, both excluded.")
    drawn = keyed.uniform(require_key(key, "Masks"), _STREAM, math.prod(size))
    return (drawn < share).unflatten(1, size)


def region_mask(key: Tensor | None, size: tuple[int, int], count: int, share: float) -> Tensor:
    """Rectangles at random places, of sides in proportions of 1 to 2 up to 2 to 1.

    Args:
        key: ``(B,)`` int64, see `Views.key`.
        size: height and width.
        count: rectangles of a sample; they may overlap.
        share: of the input that they cover at most, all together.

    Returns:
        ``(B, H, W)`` bool, true inside.

    Raises:
        ValueError: no key, no rectangle, or a share outside of (0, 1).
    """
    if count < 1 or not 0 < share < 1:
        raise ValueError(f"regions={count} of region_share={share}: give one region or more, and a share between 0 and 1.")
    drawn = keyed.uniform(require_key(key, "Regions"), _STREAM, 3 * count).unflatten(1, (3, count))  # (B, 3, R)
    ratio = 2 ** (2 * drawn[:, 0] - 1)
    inside = torch.ones(len(drawn), count, *size, dtype=torch.bool, device=drawn.device)
    for axis, (length, stretch) in enumerate(zip(size, (ratio.sqrt(), 1 / ratio.sqrt()), strict=True)):
        side = (length * (share / count) ** 0.5 * stretch).floor().clamp(min=1, max=length)  # (B, R)
        start = (drawn[:, 1 + axis] * (length - side + 1)).floor()
        place = torch.arange(length, device=drawn.device)
        along = (place >= start[..., None]) & (place < (start + side)[..., None])  # (B, R, length)
        inside &= along[:, :, :, None] if axis == 0 else along[:, :, None, :]
    return inside.any(dim=1)


def target_blocks(
    key: Tensor | None, grid: tuple[int, ...], count: int, share: float, ratios: tuple[float, float]
) -> tuple[list[Tensor], Tensor]:
    """Rectangles to be predicted, and the tokens in none of them: I-JEPA's multi-block masking with sizes that do not change.

    Assran et al., 2023, https://arxiv.org/abs/2301.08243, section 3 and appendix A.1. There the sizes of a batch are drawn and
    its contexts cut to the smallest; here blocks have all proportions between `ratios`, and a context has the tokens that
    are left for certain, so that no step has another shape.

    Args:
        key: ``(B,)`` int64, see `Views.key`.
        grid: rows and columns of the tokens, with product ``N``.
        count: blocks of a sample; they may overlap.
        share: of the tokens that a block covers.
        ratios: smallest and largest height of a block over its width.

    Returns:
        Tokens of each block, ``count`` times ``(B, M_i)`` int64, and the context ``(B, K)`` int64, in random order.

    Raises:
        ValueError: no key, a grid of other than two axes, numbers that are none, or blocks that leave no context.
    """
    key, n = require_key(key, "Blocks"), math.prod(grid)
    if len(grid) != 2:
        raise ValueError(f"Blocks are rectangles, and these tokens have a grid of {list(grid)}: take an encoder of images.")
    if count < 1 or not 0 < share < 1 or not 0 < ratios[0] <= ratios[1]:
        raise ValueError(f"{count} blocks of {share} of the tokens in proportions of {list(ratios)}: none can be drawn.")
    drawn = keyed.uniform(key, _STREAM, 2 * count + n)
    blocks: list[Tensor] = []
    free = torch.ones(len(key), n, dtype=torch.bool, device=key.device)
    for i in range(count):
        ratio = ratios[0] * (ratios[1] / ratios[0]) ** (i / max(1, count - 1))
        sides = [min(side, max(1, round((n * share * r) ** 0.5))) for side, r in zip(grid, (ratio, 1 / ratio), strict=True)]
        corner = [(drawn[:, 2 * i + a] * (grid[a] - sides[a] + 1)).long() for a in range(2)]  # (B,) each
        rows = corner[0][:, None] + torch.arange(sides[0], device=key.device)  # (B, h)
        columns = corner[1][:, None] + torch.arange(sides[1], device=key.device)  # (B, w)
        blocks.append((rows[:, :, None] * grid[1] + columns[:, None, :]).flatten(1))
        free = free.scatter(1, blocks[-1], False)
    left = n - sum(block.shape[1] for block in blocks)
    if left < 1:
        raise ValueError(
            f"{count} blocks of {share} of {n} tokens leave none to predict from: take fewer or smaller ones, or a smaller "
            "patch_size."
        )
    order = torch.where(free, drawn[:, 2 * count :], 2.0).argsort(dim=1)  # tokens in no block first
    return blocks, order[:, :left]


def _blocks(grid: tuple[int, ...], block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens of a block along each axis, two blocks at least where there are two tokens; and how many blocks."""
    if block < 1:
        raise ValueError(f"mask_block={block} must be 1 or more.")
    sides = tuple(min(block, max(1, side // 2)) for side in grid)
    return sides, tuple(-(-side // own) for side, own in zip(grid, sides, strict=True))


def _spread(hidden: Tensor, blocks: tuple[int, ...], grid: tuple[int, ...], sides: tuple[int, ...]) -> Tensor:
    """Blocks ``(B, M)`` to tokens ``(B, N)``."""
    hidden = hidden.unflatten(1, blocks)
    for axis, (side, own) in enumerate(zip(grid, sides, strict=True), start=1):
        hidden = hidden.repeat_interleave(own, dim=axis).narrow(axis, 0, side)
    return hidden.flatten(1)


def mean_per_sample(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over samples of each one's mean over what it hides, 0 where it hides nothing.

    Args:
        values: ``(M,)`` of all hidden tokens, sample by sample.
        mask: ``(B, N)`` bool, true where hidden, M times in all.
    """
    weight = mask.to(values.dtype) / mask.sum(dim=1, keepdim=True)  # (B, N); of samples that hide nothing, none is taken
    return (values * weight[mask]).sum() / len(mask)


def on_tokens(head: nn.Module, tokens: Tensor, mask: Tensor, **options: Any) -> Tensor:
    """A head on single tokens alone, where it has no statistics over them.

    How many there are differs from step to step, and a processor's library keeps what it prepares for each new shape:
    gigabytes in some hundred steps. So rows of zeros fill up to the next eighth of all tokens, and are left out again.

    Args:
        head: of ``(..., D)``, each row by itself.
        tokens: ``(B, N, D)``.
        mask: ``(B, N)`` bool, true where the head is wanted, M times in all.
        options: further arguments of the head.

    Returns:
        ``(M, ...)``, sample by sample.
    """
    rows = tokens[mask]  # (M, D)
    missing = -len(rows) % max(1, mask.numel() // 8)
    return head(F.pad(rows, (0, 0, 0, missing)), **options)[: len(rows)]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of ``(B, N)`` numbers where the mask ``(B, N)`` is set, over all processes.

    Samples may hide different numbers of tokens. The mean of all is then not the mean of each one's mean, so every
    sum is divided by the number that a process hides on average.
    """
    weight = mask.to(values.dtype)
    return (values * weight).sum() / mean_over_processes(weight.sum())


def require_key(key: Tensor | None, what: str) -> Tensor:
    """The keys of the samples, from which a task draws what is random in it.

    Args:
        key: ``(B,)`` int64, see `Views.key`.
        what: is drawn, for the message.

    Raises:
        ValueError: there are none.
    """
    if key is None:
        raise ValueError(f"{what} are drawn from Views.key, which is None: give Views(..., key=keyed.mix(seed, epoch, index)).")
    return key
