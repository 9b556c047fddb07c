"""Which images are the same, and which look the same."""

from collections.abc import Sequence

import numpy as np

from ssl_framework.data.survey import SIDE

_BITS = 3  # in which the hashes of images may differ that are compared
_NEIGHBOURS = 20  # an image is compared with so many behind it, in each of four orders
_CLOSE = 3.0  # mean difference of thumbnails, of 255: JPEG at quality 50 stays below 2
_FLAT = 4.0  # standard deviation of a thumbnail that says too little to be compared
_BAND = 14  # of the 56 bits: with three bits flipped, one of four bands is whole


def same(contents: np.ndarray, among: np.ndarray) -> list[np.ndarray]:
    """Groups of images with equal pixels.

    Args:
        contents: ``(N, 16)`` uint8, digests.
        among: ``(N,)`` bool: which are looked at.

    Returns:
        Positions of each group of two or more, ascending; groups in the order of their first.
    """
    groups: dict[bytes, list[int]] = {}
    for row in np.flatnonzero(among).tolist():
        groups.setdefault(contents[row].tobytes(), []).append(row)
    return [np.array(rows) for rows in groups.values() if len(rows) > 1]


def near(thumbnails: np.ndarray, among: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of images that look the same: another size, another compression, a slight change of brightness.

    A hash of 56 bits says which of two neighbouring cells is brighter. Images are sorted by it in four ways and compared with
    those next to them, so the work grows with their number and not with its square; where hundreds look alike, not every pair
    of them is found. Crops and mirrored images are not.

    Args:
        thumbnails: ``(N, SIDE, SIDE)`` uint8, grey.
        among: ``(N,)`` bool: which are looked at.

    Returns:
        (first, second, mean difference of their thumbnails of 255), ascending.
    """
    rows = np.flatnonzero(among)
    rows = rows[[bool(thumbnails[row].std() >= _FLAT) for row in rows]]
    hashes = _hashes(thumbnails, rows)
    found: dict[tuple[int, int], float] = {}
    for turn in range(4):
        order = np.argsort(_rotated(hashes, turn * _BAND), kind="stable")
        for step in range(1, min(_NEIGHBOURS, len(rows) - 1) + 1):
            one, other = order[:-step], order[step:]
            alike = np.bitwise_count(hashes[one] ^ hashes[other]) <= _BITS
            for a, b in zip(rows[one[alike]].tolist(), rows[other[alike]].tolist(), strict=True):
                pair = (min(a, b), max(a, b))
                if pair not in found:
                    found[pair] = float(np.abs(thumbnails[a].astype(np.int16) - thumbnails[b]).mean())
    return [(a, b, apart) for (a, b), apart in sorted(found.items()) if apart <= _CLOSE]


def _hashes(thumbnails: np.ndarray, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """``(N,)`` uint64: of 8 x 8 cells, whether each is brighter than the one at its left."""
    hashes = np.zeros(len(rows), np.uint64)
    weights = np.uint64(1) << np.arange(56, dtype=np.uint64)
    for start in range(0, len(rows), 4096):
        part = thumbnails[rows[start : start + 4096]].astype(np.float32)
        cells = part.reshape(len(part), 8, SIDE // 8, 8, SIDE // 8).mean((2, 4))
        bits = (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(part), 56)
        hashes[start : start + 4096] = (bits * weights).sum(1, dtype=np.uint64)
    return hashes


def _rotated(hashes: np.ndarray, by: int) -> np.ndarray:
    """The 56 bits turned, so that another band comes first in the order."""
    whole = np.uint64((1 << 56) - 1)
    return ((hashes << np.uint64(by)) | (hashes >> np.uint64(56 - by))) & whole
