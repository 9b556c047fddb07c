"""What is odd in a data set, from what was seen of its samples: what must be mended, and what is good to know."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_framework.data.alike import near, same
from ssl_framework.data.bad import LIMIT
from ssl_framework.data.folder import FolderSource
from ssl_framework.data.split import rooted
from ssl_framework.data.survey import Looked
from ssl_framework.paths import printable
from ssl_framework.types import Source

_LONG = 5  # times as long as wide
_MODES = {"CMYK": "of four printing colours", "P": "with a palette", "1": "black and white"}
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")

SORTS = {
    "unreadable": "cannot be read",
    "no mask": "no labels of its pixels that can be used",
    "in two splits": "the same image in two splits: what is tested on was trained on",
    "left out": "the same image in two splits that are carved from one pool: it stays in one of them",
    "no samples": "a class without samples",
    "not read": "files that are left out",
    "two labels": "the same image with two labels",
    "duplicate": "the same image twice",
    "looks the same": "an image that looks like another",
    "one colour": "all pixels are the same",
    "smaller": "smaller than the size that is worked at: it is enlarged",
    "long": f"more than {_LONG} times as long as wide: most of it is cut away",
    "turned": "EXIF turns it, and it is read upright",
    "frames": "several frames or pages: the first is read",
    "deep": "16 bits or floats: scaled to 8 bits",
    "mode": "CMYK, palette or black and white: read as RGB or grey",
    "transparent": "transparent pixels: laid on white",
    "grey": "grey, read as RGB",
}
"""What each sort of finding means, in the order in which they are told."""


class Finding(NamedTuple):
    """Something odd.

    Attributes:
        sort: a key of `SORTS`.
        mend: whether it must be mended before training.
        split: of the sample.
        row: of the sample in it; -1: it is about no sample.
        name: of the sample, the file or the class.
        detail: in a few words.
        other: (split, index) of the sample that it is compared with.
    """

    sort: str
    mend: bool
    split: str
    row: int
    name: str
    detail: str
    other: tuple[str, int] | None = None


def findings(
    looked: Mapping[str, Looked],
    size: tuple[int, int],
    *,
    strict: bool = False,
    near_ones: bool = True,
    left_out: Mapping[str, Collection[int]] | None = None,
) -> list[Finding]:
    """All that is odd, by sort and in the order of the data.

    Args:
        looked: what was seen, by split.
        size: height and width that encoders work at.
        strict: an unreadable sample must be mended even where it would be skipped.
        near_ones: look for images that look the same, too.
        left_out: copies that training takes out of splits, by split.
    """
    order = list(SORTS)
    found = chain(
        *(_unreadable(split, one, strict) for split, one in looked.items()),
        *(_unmasked(split, one) for split, one in looked.items()),
        *(_kinds(split, one, size) for split, one in looked.items()),
        _left_out(looked),
        _classes(looked),
        _alike(looked, near_ones, left_out or {}),
    )
    return sorted(found, key=lambda one: (order.index(one.sort), one.split, one.row))


def facts(looked: Mapping[str, Looked]) -> dict[str, dict[str, Any]]:
    """Plain numbers of each split: samples, sizes, kinds of files, labels."""
    return {split: _facts(one) for split, one in looked.items()}


def _facts(looked: Looked) -> dict[str, Any]:
    readable, source = looked.sizes[looked.readable], looked.source
    sides = {
        name: [int(value) for value in np.quantile(readable[:, axis], (0, 0.5, 1), method="nearest")] if len(readable) else None
        for axis, name in enumerate(("height", "width"))
    }
    kinds = Counter(f"{kind[0]} {kind[1]}" for kind in looked.kinds if kind is not None)
    known: dict[str, Any] = {
        "samples": len(source),
        "unreadable": len(looked.errors),
        **sides,
        "kinds": dict(kinds.most_common()),
    }
    if source.targets is not None:
        counts = _counts(source)
        known["classes"] = dict(sorted(counts.items(), key=lambda item: item[1]))
    if looked.labels.any():
        known["pixels"] = {str(label): int(looked.labels[label]) for label in np.flatnonzero(looked.labels)}
    return known


def _counts(source: Source) -> dict[str, int]:
    """Samples of each class, also of those that have none."""
    assert source.targets is not None
    names = source.classes or tuple(map(str, range(int(source.targets.max(initial=-1)) + 1)))
    count = np.bincount(source.targets, minlength=len(names))
    return {name: int(count[c]) for c, name in enumerate(names)}


def _unreadable(split: str, looked: Looked, strict: bool) -> Iterator[Finding]:
    too_many = strict or len(looked.errors) > LIMIT * len(looked.source)
    for index, why in looked.errors.items():
        yield Finding("unreadable", too_many, split, index, printable(looked.source.name(index)), why)


def _unmasked(split: str, looked: Looked) -> Iterator[Finding]:
    for index, why in looked.unmasked.items():
        yield Finding("no mask", True, split, index, printable(looked.source.name(index)), why)


def _kinds(split: str, looked: Looked, size: tuple[int, int]) -> Iterator[Finding]:
    """What is odd in single images."""
    colours = any(kind is not None and kind[1] not in ("L", "1", *_DEEP) for kind in looked.kinds)
    for index in np.flatnonzero(looked.readable).tolist():
        height, width = looked.sizes[index].tolist()
        told: list[tuple[str, str]] = []
        if looked.blank[index]:
            told.append(("one colour", ""))
        if height < size[0] or width < size[1]:
            told.append(("smaller", f"{height} x {width}, and {size[0]} x {size[1]} is worked at"))
        if max(height, width) > _LONG * min(height, width):
            told.append(("long", f"{height} x {width}"))
        told += _of_file(looked.kinds[index], looked.source.channels, colours)
        for sort, detail in told:
            yield Finding(sort, False, split, index, printable(looked.source.name(index)), detail)


def _of_file(kind: tuple[str, str, bool, bool] | None, channels: int, colours: bool) -> Iterator[tuple[str, str]]:
    """What is odd in a file; `colours`: there are images in colour beside it."""
    if kind is None:
        return
    file, mode, turned, frames = kind
    if turned:
        yield "turned", ""
    if frames:
        yield "frames", file
    if mode in _DEEP:
        yield "deep", "floats" if mode == "F" else "16 bits"
    if mode in _MODES:
        yield "mode", _MODES[mode]
    if mode in _TRANSPARENT:
        yield "transparent", mode
    if mode in ("L", "1", *_DEEP) and channels == 3:
        yield "grey", "among images in colour" if colours else "as all are: data.channels=1 reads grey"


def _left_out(looked: Mapping[str, Looked]) -> Iterator[Finding]:
    """Files that are not read, once for each folder that splits were made of."""
    done: set[Path] = set()
    for split, one in looked.items():
        root, _ = rooted(one.source, np.empty(0, np.int64))
        if isinstance(root, FolderSource) and root.root not in done:
            done.add(root.root)
            for path, why in root.left_out:
                yield Finding("not read", False, split, -1, printable(root.root / path), why)


def _classes(looked: Mapping[str, Looked]) -> Iterator[Finding]:
    """Classes without a sample."""
    for split, one in looked.items():
        if one.source.targets is not None:
            for name, count in _counts(one.source).items():
                if not count:
                    why = "nothing to learn it from" if split == "train" else f"it is not measured on {split}"
                    yield Finding("no samples", split == "train", split, -1, name, why)


def _alike(looked: Mapping[str, Looked], near_ones: bool, left_out: Mapping[str, Collection[int]]) -> Iterator[Finding]:
    """Images that are the same or look the same, in all splits together."""
    splits = list(looked)
    place = [(split, index) for split in splits for index in range(len(looked[split].source))]
    readable = np.concatenate([looked[split].readable for split in splits])
    contents = np.concatenate([looked[split].contents for split in splits])
    single = readable.copy()
    blank = np.concatenate([looked[split].blank for split in splits])
    for group in same(contents, readable):
        single[group[1:]] = False
        yield from _copies(looked, [place[row] for row in group.tolist()], left_out, blank=bool(blank[group[0]]))
    if not near_ones:
        return
    thumbnails = np.concatenate([looked[split].thumbnails for split in splits])
    for one, other, apart in near(thumbnails, single & ~blank):
        (split, index), (first_split, first) = place[other], place[one]
        detail = f"as {_name(looked, first_split, first)} of {first_split}, thumbnails differ by {apart:.1f} of 255"
        yield Finding("looks the same", False, split, index, _name(looked, split, index), detail, (first_split, first))


def _copies(
    looked: Mapping[str, Looked], places: list[tuple[str, int]], left_out: Mapping[str, Collection[int]], *, blank: bool
) -> Iterator[Finding]:
    """Samples with the same pixels. What is left out of a split is no copy in it; images of one colour tell nothing."""
    goes = {place: place[1] in left_out.get(place[0], ()) for place in places}
    first = min(places, key=lambda place: goes[place])  # the first that stays
    for place in places:
        if place == first or (blank and place[0] != first[0]):
            continue
        (split, index), name = place, _name(looked, *place)
        labels = _label(looked, *first), _label(looked, *place)
        detail = f"as {_name(looked, *first)} of {first[0]}"
        if goes[place]:
            yield Finding("left out", False, split, index, name, detail, first)
        elif first[0] != split and {first[0], split} != {"pretrain", "train"}:  # both are learnt from
            yield Finding("in two splits", True, split, index, name, detail, first)
        elif None not in labels and labels[0] != labels[1]:
            yield Finding("two labels", False, split, index, name, f"{detail}: {labels[0]} and {labels[1]}", first)
        else:
            yield Finding("duplicate", False, split, index, name, detail, first)


def _label(looked: Mapping[str, Looked], split: str, index: int) -> str | None:
    """The class of a sample."""
    source = looked[split].source
    if source.targets is None:
        return None
    number = int(source.targets[index])
    return printable(source.classes[number] if source.classes else number)


def _name(looked: Mapping[str, Looked], split: str, index: int) -> str:
    return printable(looked[split].source.name(index))
