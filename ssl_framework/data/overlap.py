"""Splits that hold the same images: told by what is in them, not by where they lie."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from ssl_framework.data.split import BulkSource, Part, rooted, same_root
from ssl_framework.data.threads import spread
from ssl_framework.types import BadSampleError, Source

LIMIT = 200_000
"""Samples of two splits together, up to which they are compared."""

LARGEST = 4 << 30
"""Bytes of images in an array, likewise: some seconds."""

SHARE = 0.01
"""Of a split that was given, which may be found in another: some public sets have a few images twice."""

_LEFT = 0.5  # of a split that was carved, which must be left
_PIECE = 4096  # bytes at the beginning, the middle and the end of a file
_AT_ONCE = 64 << 20  # bytes
_READERS = 16  # threads that wait for a disk
_NOTHING = 0  # of an image of one colour, which is no copy of another such image

Rows = np.ndarray[Any, np.dtype[np.int64]]
Splits = Mapping[str, Source | None]


@runtime_checkable
class FileSource(Source, Protocol):
    """A source whose samples are files."""

    def path_of(self, index: int) -> Path:
        """Where one lies."""
        ...


def copies(known: Sequence[Source], split: Source) -> Rows | None:
    """Samples of `split` that are among the `known`: positions ``(n,)``; None where that would be dear, or cannot be told.

    Images in arrays are told by their pixels and files by all their bytes; images of one colour, and what is no image, are no
    copies. Few files are read whole: those of one size are compared by three pieces first. A file and an array share nothing
    that could be told cheaply, and samples that are read one by one from elsewhere are not looked at.
    """
    if len(split) + sum(map(len, known)) > LIMIT:
        return None
    parts = [rooted(source, np.arange(len(source))) for source in (*known, split)]
    if all(isinstance(root, FileSource) for root, _ in parts):
        paths = [[root.path_of(int(row)) for row in rows] for root, rows in parts if isinstance(root, FileSource)]
        found = _copied_files([path for some in paths[:-1] for path in some], paths[-1])
        return found[[_shows_something(split, int(row)) for row in found]]
    if all(isinstance(root, BulkSource) for root, _ in parts):
        if sum(_bytes(root, rows) for root, rows in parts if isinstance(root, BulkSource)) > LARGEST:
            return None
        *others, own = [_of_pixels(root, rows) for root, rows in parts if isinstance(root, BulkSource)]
        return np.flatnonzero(np.isin(own, np.concatenate(others)) & (own != _NOTHING))
    return None


def held_out_copies(splits: Splits) -> dict[str, Rows]:
    """Samples of val and test that are among those of train, or of val among those of test.

    Args:
        splits: train, val and test.

    Returns:
        Positions in each split that could be compared: see `copies`.
    """
    learn, test = ([one] if (one := splits[name]) is not None else [] for name in ("train", "test"))
    others = {"test": learn, "val": [*learn, *test]}
    found = {name: copies(others[name], split) for name, split in held_out(splits).items()}
    return {name: rows for name, rows in found.items() if rows is not None}


def held_out(splits: Splits) -> dict[str, Source]:
    """Those of val and test that have samples."""
    return {name: split for name in ("val", "test") if (split := splits[name]) is not None and len(split)}


def is_carved(split: Source | None, *pools: Source | None) -> bool:
    """Whether a split is a part of what is trained on, set aside: then nobody chose what is in it."""
    return split is not None and any(same_root(split, pool) for pool in pools if pool is not None)


def apart(splits: Splits, found: Mapping[str, Rows], where: str) -> dict[str, Source | None]:
    """Splits of which none holds what is learnt from.

    Copies leave a split that was carved. A split that was given may have a few.

    Args:
        splits: train, val and test.
        found: by `held_out_copies`.
        where: the data, for messages.

    Raises:
        ValueError: more than 1 % of a split that was given are copies, or most of one that was carved.
    """
    kept = dict(splits)
    for name, rows in found.items():
        split = splits[name]
        assert split is not None
        among = "train or to test on" if name == "val" and splits["test"] is not None else "train on"
        said = f"{len(rows):,} of {len(split):,} {name} images of {where} are among those to {among}"
        if not is_carved(split, splits["train"]):
            _require_few(rows, split, said, f"Give data.path the training images alone, or other {name} images")
        elif len(rows) > (1 - _LEFT) * len(split):
            raise ValueError(f"{said}, and too little is left to judge by. Remove the copies, which ssl-framework check lists.")
        elif len(rows):
            rank_zero_warn(f"{said}, and are left out; ssl-framework check lists the copies.")
            kept[name] = Part(split, np.setdiff1d(np.arange(len(split)), rows))
    return kept


def require_unseen(pool: Source, splits: Splits, where: str) -> None:
    """Tell of held-out images that are pretrained on without their labels, and refuse those of a test split that was given.

    To pretrain on all images and to label some of them is common, and then monitors judge by images that were seen.

    Args:
        pool: what is pretrained on.
        splits: train, val and test, which have labels.
        where: those data, for messages.

    Raises:
        ValueError: more than 1 % of a test split that was given.
    """
    for name, split in held_out(splits).items():
        rows = copies([pool], split)
        if rows is None or not len(rows):
            continue
        said = f"{len(rows):,} of {len(split):,} {name} images of {where} are among the {len(pool):,} to pretrain on"
        if name == "test" and not is_carved(split, splits["train"], pool):
            _require_few(rows, split, said, "Give data.path the training images alone")
        rank_zero_warn(f"{said}, without their labels: what is measured on them, is measured on images that were seen.")


def _require_few(rows: Rows, split: Source, said: str, remedy: str) -> None:
    if len(rows) > SHARE * len(split):
        raise ValueError(
            f"{said}: what is reported on them would be remembered. {remedy}; ssl-framework check lists the copies."
        )


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


def _shows_something(source: Source, index: int) -> bool:
    """Whether a sample can be read, and is not of one colour."""
    try:
        image = source.read(index)
    except BadSampleError:
        return False
    return bool((image != image[:, :1, :1]).any())


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
