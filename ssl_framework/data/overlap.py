"""Splits that hold the same images: told by what is in them, not by where they lie."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from ssl_framework.data.split import BulkSource, Part, rooted
from ssl_framework.data.threads import spread
from ssl_framework.types import Source

LIMIT = 200_000
"""Samples of two splits together, up to which they are compared."""

LARGEST = 4 << 30
"""Bytes of images in an array, likewise: some seconds."""

SHARE = 0.01
"""Of a split that was given, which may be found in another: some public sets have a few images twice."""

_LEFT = 0.5  # of a split that was carved must be left when copies are taken out
_PIECE = 4096  # bytes at the beginning, the middle and the end of a file
_AT_ONCE = 64 << 20  # bytes
_READERS = 16  # threads that wait for a disk
_NOTHING = 0  # of an image of one colour, which is no copy of another such image

Rows = np.ndarray[Any, np.dtype[np.int64]]


@runtime_checkable
class FileSource(Source, Protocol):
    """A source whose samples are files."""

    def path_of(self, index: int) -> Path:
        """Where one lies."""
        ...


def copies(known: Sequence[Source], split: Source) -> Rows | None:
    """Samples of `split` that are among the `known`: positions ``(n,)``; None where that would be dear, or cannot be told.

    Images in arrays are told by their pixels, but for those of one colour, and files by all their bytes. Few files are read
    whole: those of one size are compared by three pieces first. A file and an array share nothing that could be told cheaply.
    """
    if len(split) + sum(map(len, known)) > LIMIT:
        return None
    parts = [rooted(source, np.arange(len(source))) for source in (*known, split)]
    if all(isinstance(root, FileSource) for root, _ in parts):
        paths = [[root.path_of(int(row)) for row in rows] for root, rows in parts if isinstance(root, FileSource)]
        return _copied_files([path for some in paths[:-1] for path in some], paths[-1])
    if all(isinstance(root, BulkSource) for root, _ in parts):
        if sum(_bytes(root, rows) for root, rows in parts if isinstance(root, BulkSource)) > LARGEST:
            return None
        *others, own = [_of_pixels(root, rows) for root, rows in parts if isinstance(root, BulkSource)]
        return np.flatnonzero(np.isin(own, np.concatenate(others)) & (own != _NOTHING))
    return None


def apart(
    learn: Sequence[Source], held_out: Mapping[str, Source], carved: Collection[str], where: str
) -> tuple[dict[str, Source], dict[str, int]]:
    """Splits that hold nothing of what is learnt from.

    Copies leave a split that was carved from the same pool, for nobody chose them; a split that was given with them is refused.

    Args:
        learn: samples that are learnt from, with labels or without.
        held_out: splits that choose or judge, by name.
        carved: names of those that were carved from `learn`.
        where: the data, for messages.

    Returns:
        The splits; and how many samples of each are copies of what is learnt from, or in "val" of what is tested on; those
        that could not be compared are not counted.

    Raises:
        ValueError: more than 1 % of a split that was given; or most of one that was carved.
    """
    kept, counts = dict(held_out), dict[str, int]()
    for name in sorted(held_out):  # test before val, which is not to hold it either
        chosen_by = {"test on": [kept["test"]]} if name == "val" and "test" in kept else {}
        for what, others in {"train on": learn, **chosen_by}.items():
            rows = copies(others, kept[name])
            if rows is not None:
                counts[name] = counts.get(name, 0) + len(rows)
                found = f"the {sum(map(len, others)):,} to {what}"
                kept[name] = _without(rows, kept[name], found, name, where, carved=name in carved)
    return kept, counts


def _without(rows: Rows, split: Source, others: str, name: str, where: str, *, carved: bool) -> Source:
    """A split without copies, or an error."""
    found = f"{len(rows):,} of {len(split):,} {name} images of {where} are among {others}"
    if not carved and len(rows) > SHARE * len(split):
        raise ValueError(
            f"{found}: what is reported on them would be remembered. Give data.path the training images alone, or other "
            f"{name} images; ssl-framework check lists the copies."
        )
    if carved and len(rows) > (1 - _LEFT) * len(split):
        raise ValueError(
            f"{found}: these data have most images several times. Remove the copies, which ssl-framework check lists."
        )
    if not carved or not len(rows):
        return split
    rank_zero_warn(f"{found}, and are left out of {name}; ssl-framework check lists the copies.")
    return Part(split, np.setdiff1d(np.arange(len(split)), rows))


def require_unseen(learn: Source, held_out: Mapping[str, Source], carved: Collection[str], where: str) -> None:
    """Refuse a test split that was given and is learnt from without labels; tell of other splits that are.

    To pretrain on all images and to label some of them is common, and then monitors judge by images that were seen.

    Args:
        learn: samples that are pretrained on.
        held_out: splits of other data, which have labels, by name.
        carved: names of those that were carved from a pool.
        where: those data, for messages.

    Raises:
        ValueError: more than 1 % of a test split that was given.
    """
    for name, source in held_out.items():
        rows = copies([learn], source)
        if rows is None or not len(rows):
            continue
        found = f"{len(rows):,} of {len(source):,} {name} images of {where} are among the {len(learn):,} to pretrain on"
        if name == "test" and name not in carved and len(rows) > SHARE * len(source):
            raise ValueError(
                f"{found}: what is reported on them would be remembered. Give data.path the training images alone."
            )
        rank_zero_warn(f"{found}, without their labels: what is measured on them, is measured on images that were seen.")


def _bytes(root: BulkSource, rows: Rows) -> int:
    return root.read_many(rows[:1]).numel() * len(rows)


def _of_pixels(root: BulkSource, rows: Rows) -> Rows:
    """``(N,)``: equal for equal images, 0 for images of one colour."""
    step = max(1, _AT_ONCE // max(1, _bytes(root, rows[:1])))
    found = [_numbers(root.read_many(rows[start : start + step]).numpy()) for start in range(0, len(rows), step)]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _numbers(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Rows:
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
    plain = (flat == flat[:, :1]).all(axis=1)
    shape = str(images.shape[1:]).encode()
    digests = [_digest(shape, flat[row]) for row in range(len(flat))]
    return np.where(plain, _NOTHING, np.array([int.from_bytes(one[:8], "little", signed=True) for one in digests], np.int64))


def _copied_files(known: list[Path], split: list[Path]) -> Rows:
    """By size, then by pieces, then by all bytes: each look only at those that the one before could not tell apart."""
    rows = np.arange(len(split))
    with ThreadPoolExecutor(_READERS) as pool:
        for told in (_size, _pieces, _whole):
            own = list(spread(pool, _if_readable(told), [split[row] for row in rows]))
            others = list(spread(pool, _if_readable(told), known))
            both = (set(own) & set(others)) - {None}
            rows = rows[[key in both for key in own]]
            known = [path for path, key in zip(known, others, strict=True) if key in both]
    return rows


def _if_readable(told: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def tell(path: Path) -> Any:
        try:
            return told(path)
        except OSError:  # it is counted as unreadable when it is met
            return None

    return tell


def _size(path: Path) -> int:
    return path.stat().st_size


def _pieces(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        found: list[bytes] = []
        for start in (0, size // 2, max(0, size - _PIECE)):
            file.seek(start)
            found.append(file.read(_PIECE))
    return _digest(str(size).encode(), *found)


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def _digest(*parts: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()
