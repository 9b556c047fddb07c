"""Splits that hold the same images: told by what is in them, not by where they lie."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ssl_framework.data.split import BulkSource, rooted
from ssl_framework.types import Source

LIMIT = 200_000
"""Samples up to which a split is read for it: some seconds."""

SHARE = 0.01
"""Of a split, that may be found in another: some public sets have a few images twice."""

_HEAD = 64 << 10  # bytes of a file that are looked at: with its size they tell photographs apart
_ROWS = 4096
_NOTHING = 0  # of an image of one colour, which is no copy of another such image

Fingerprints = np.ndarray[Any, np.dtype[np.int64]]


@runtime_checkable
class FileSource(Source, Protocol):
    """A source whose samples are files."""

    def path(self, index: int) -> Path:
        """Where one lies."""
        ...


def fingerprints(source: Source) -> Fingerprints | None:
    """``(N,)`` int64: equal for equal images, 0 for images of one colour; None where that would be dear, or cannot be told.

    Images in memory are told by their pixels, files by their size and first 64 KiB: a file and its pixels share nothing.
    """
    root, rows = rooted(source, np.arange(len(source)))
    if len(rows) > LIMIT:
        return None
    if isinstance(root, BulkSource):
        found = [_of_pixels(root.read_many(part).numpy()) for part in np.split(rows, range(_ROWS, len(rows), _ROWS))]
        return np.concatenate(found) if found else np.empty(0, np.int64)
    if isinstance(root, FileSource):
        return np.array([_of_file(root.path(int(row))) for row in rows], np.int64)
    return None


def shared(known: Fingerprints, split: Fingerprints) -> int:
    """Samples of `split` that are among the `known`."""
    return int((np.isin(split, known) & (split != _NOTHING)).sum())


def require_apart(pretrained_on: Source, held_out: Mapping[str, Source], where: str) -> dict[str, int]:
    """Refuse splits that hold what is trained on.

    Args:
        pretrained_on: samples that are learnt from, with labels or without.
        held_out: splits that choose or judge, by name.
        where: the data, for the message.

    Returns:
        Samples of each split that are among those that are learnt from: few, or it would be an error. A split that could not be
        looked at is left out.

    Raises:
        ValueError: more than 1 % of a split are among them.
    """
    splits = {name: source for name, source in held_out.items() if len(source) and source is not pretrained_on}
    known = fingerprints(pretrained_on) if splits else None
    if known is None:
        return {}
    counts: dict[str, int] = {}
    for name, source in splits.items():
        own = fingerprints(source)
        if own is None:
            continue
        counts[name] = shared(known, own)
        if counts[name] > SHARE * len(own):
            raise ValueError(
                f"{counts[name]:,} of {len(own):,} {name} images of {where} are among the {len(known):,} to train on: what is "
                f"reported on them would be remembered. Give data.path the training images alone, or other {name} images."
            )
    return counts


def _of_pixels(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Fingerprints:
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
    plain = (flat == flat[:, :1]).all(axis=1)
    shape = str(images.shape[1:]).encode()
    return np.array([_NOTHING if plain[row] else _number(shape, flat[row].tobytes()) for row in range(len(flat))], np.int64)


def _of_file(path: Path) -> int:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        return _number(str(path.stat().st_size).encode(), head)
    except OSError:  # it is counted as unreadable when it is met
        return _NOTHING


def _number(*parts: bytes) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little", signed=True)
