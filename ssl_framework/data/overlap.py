"""Splits that hold the same images: told by what is in them, not by where they lie."""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from ssl_framework.data.split import BulkSource, Part, rooted, same_root
from ssl_framework.data.threads import spread
from ssl_framework.types import Source

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

_USE = {"train": "train on", "test": "test on"}

Rows = np.ndarray[Any, np.dtype[np.int64]]
Splits = Mapping[str, Source | None]
Copies = Mapping[str, Mapping[str, Rows]]
"""Of val and test, positions of samples that are in another split, by that split; without what could not be compared."""


@runtime_checkable
class FileSource(Source, Protocol):
    """A source whose samples are files."""

    def path_of(self, index: int) -> Path:
        """Where one lies."""
        ...


def copies(known: Source, split: Source, told: dict[int, Rows] | None = None) -> Rows | None:
    """Samples of `split` that are among the `known`: positions ``(n,)``; None where that would be dear, or cannot be told.

    Images in arrays are told by their pixels and files by all their bytes; images of one colour, and what is no image, are no
    copies. Few files are read whole: those of one size are compared by three pieces first. A file and an array share nothing
    that could be told cheaply, and samples that are read one by one from elsewhere are not looked at.

    Args:
        known: samples to find.
        split: samples to look at.
        told: digests of sources of arrays that were compared before, by ``id``; those of these are added.
    """
    if len(known) + len(split) > LIMIT:
        return None
    (root, rows), (own_root, own_rows) = (rooted(source, np.arange(len(source))) for source in (known, split))
    if isinstance(root, FileSource) and isinstance(own_root, FileSource):
        return _copied_files([root.path_of(int(row)) for row in rows], [own_root.path_of(int(row)) for row in own_rows], split)
    if isinstance(root, BulkSource) and isinstance(own_root, BulkSource):
        if _bytes(root, rows) + _bytes(own_root, own_rows) > LARGEST:
            return None
        told = {} if told is None else told
        for source, its_root, its_rows in ((known, root, rows), (split, own_root, own_rows)):
            if id(source) not in told:
                told[id(source)] = _of_pixels(its_root, its_rows)
        own = told[id(split)]
        return np.flatnonzero(np.isin(own, told[id(known)]) & (own != _NOTHING))
    return None


def held_out_copies(splits: Splits, tell: Callable[[Source, Source], Rows | None] | None = None) -> Copies:
    """Samples of val and test that are among those of train, and of val among those of test.

    Args:
        splits: train, val and test.
        tell: says which samples of the second are among the first; default `copies`.
    """
    tell = partial(copies, told={}) if tell is None else tell
    found: dict[str, dict[str, Rows]] = {}
    for name, split in held_out(splits).items():
        for other in ("train", "test") if name == "val" else ("train",):
            known = splits[other]
            rows = None if known is None else tell(known, split)
            if rows is not None:
                found.setdefault(name, {})[other] = rows
    return found


def held_out(splits: Splits) -> dict[str, Source]:
    """Those of val and test that have samples."""
    return {name: split for name in ("val", "test") if (split := splits[name]) is not None and len(split)}


def is_carved(split: Source | None, *pools: Source | None) -> bool:
    """Whether a split is a part of what is trained on, set aside by us or by the user: nobody looked at what is in it."""
    return split is not None and any(same_root(split, pool) for pool in pools if pool is not None)


def left_out(splits: Splits, found: Copies) -> dict[str, Rows]:
    """Positions that `apart` takes out of splits that were carved."""
    carved = {name: some for name, some in found.items() if is_carved(splits[name], splits["train"])}
    return {name: _union(some) for name, some in carved.items()}


def apart(splits: Splits, found: Copies, where: str) -> dict[str, Source | None]:
    """Splits of which none holds what is learnt from.

    Copies leave a split that was carved. A split that was given may have a few.

    Args:
        splits: train, val and test.
        found: by `held_out_copies`.
        where: the data, for messages.

    Raises:
        ValueError: more than 1 % of a split that was given are copies, or most of one that was carved.
    """
    kept, goes = dict(splits), left_out(splits, found)
    for name, some in found.items():
        split, rows = splits[name], _union(some)
        assert split is not None
        of = {other: len(known) for other in some if len(some[other]) and (known := splits[other]) is not None}
        among = " and ".join(f"the {count:,} to {_USE[other]}" for other, count in of.items())
        said = f"{len(rows):,} of {len(split):,} {name} images of {where} are among {among}"
        if name not in goes:
            alone = "Give data.path the training images alone, or" if "train" in of else "Give"
            _require_few(rows, split, said, f"{alone} other {name} images")
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
    told: dict[int, Rows] = {}
    for name, split in held_out(splits).items():
        rows = copies(pool, split, told)
        if rows is None or not len(rows):
            continue
        said = f"{len(rows):,} of {len(split):,} {name} images of {where} are among the {len(pool):,} to pretrain on"
        if name == "test" and not is_carved(split, splits["train"], pool):
            _require_few(rows, split, said, "Give data.path the training images alone")
        rank_zero_warn(f"{said}, without their labels: what is measured on them, is measured on images that were seen.")


def _union(some: Mapping[str, Rows]) -> Rows:
    return np.unique(np.concatenate(list(some.values())))


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
    plain = (images == images[..., :1, :1]).all(axis=(1, 2, 3))
    shape = str(images.shape[1:]).encode()
    digests = [_digest(shape, flat[row]) for row in range(len(flat))]
    return np.where(plain, _NOTHING, np.array([int.from_bytes(one[:8], "little", signed=True) for one in digests], np.int64))


def _copied_files(known: list[Path], split: list[Path], source: Source) -> Rows:
    """By size, then by pieces, then by all bytes: each look only at those that the one before could not tell apart."""
    rows, own = np.arange(len(split)), list[Any]()
    with ThreadPoolExecutor(_READERS) as pool:
        for told in (_size, _pieces, _whole):
            own = list(spread(pool, _if_readable(told), [split[row] for row in rows]))
            others = list(spread(pool, _if_readable(told), known))
            both = (set(own) & set(others)) - {None}
            rows = rows[[key in both for key in own]]
            own = [key for key in own if key in both]
            known = [path for path, key in zip(known, others, strict=True) if key in both]
        one_of_each = dict(zip(own, rows.tolist(), strict=True))
        shows = dict(zip(one_of_each, spread(pool, partial(_shows_something, source), one_of_each.values()), strict=True))
    return rows[[shows[key] for key in own]]


def _shows_something(source: Source, index: int) -> bool:
    """Whether a sample can be read, and is not of one colour."""
    try:
        image = source.read(index)
    except Exception:  # whatever a source of a user's raises: it is told of when the sample is met
        return False
    return bool((image != image[:, :1, :1]).any())


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
