"""Every sample of every split looked at once: what is in it, and what a file says of it, without training."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from tqdm import tqdm

from ssl_framework import machine
from ssl_framework.data.decode import Kind
from ssl_framework.data.masks import Masks
from ssl_framework.data.split import in_bulk, rooted, unreadable
from ssl_framework.data.threads import spread
from ssl_framework.types import BadSampleError, Source

SIDE = 16
"""Pixels of the side of a thumbnail that images are compared by."""

_AT_ONCE = 256  # samples between two steps of the bar


@runtime_checkable
class FileSource(Source, Protocol):
    """A source of image files, which say more of themselves than their pixels do."""

    def kind_of(self, index: int) -> Kind:
        """What the head of the file says.

        Raises:
            BadSampleError: it cannot be read.
        """
        ...


class Look(NamedTuple):
    """One sample.

    Attributes:
        error: why it cannot be read; then the rest is empty.
        kind: format, mode, whether it is turned, and whether it has several frames; None: it is no file.
        size: height and width.
        content: a digest of its pixels: equal where they are, whatever file they lie in.
        thumbnail: ``(SIDE, SIDE)`` uint8, grey.
        blank: all its pixels have one colour.
        mask: ``(256,)`` pixels of each label in its mask; or why there is none; None: none was looked for.
    """

    error: str | None = None
    kind: tuple[str, str, bool, bool] | None = None
    size: tuple[int, int] = (0, 0)
    content: bytes = bytes(16)
    thumbnail: np.ndarray = np.zeros((SIDE, SIDE), np.uint8)
    blank: bool = False
    mask: np.ndarray | str | None = None


@dataclass
class Looked:
    """All samples of a split: less than 400 bytes each, whatever their size.

    Attributes:
        source: the samples.
        errors: why those that cannot be read cannot.
        kinds: ``N`` times what `Look.kind` says.
        sizes: ``(N, 2)`` height and width.
        contents: ``(N, 16)`` uint8, digests.
        thumbnails: ``(N, SIDE, SIDE)`` uint8.
        blank: ``(N,)`` bool.
        unmasked: why those that have no mask that can be used have none.
        labels: ``(256,)`` pixels of each label in all masks.
    """

    source: Source
    errors: dict[int, str] = field(default_factory=dict[int, str])
    kinds: list[tuple[str, str, bool, bool] | None] = field(default_factory=list[tuple[str, str, bool, bool] | None])
    unmasked: dict[int, str] = field(default_factory=dict[int, str])

    def __post_init__(self) -> None:
        n = len(self.source)
        self.sizes = np.zeros((n, 2), np.int32)
        self.contents = np.zeros((n, 16), np.uint8)
        self.thumbnails = np.zeros((n, SIDE, SIDE), np.uint8)
        self.blank = np.zeros(n, bool)
        self.labels = np.zeros(256, np.int64)

    def take(self, index: int, look: Look) -> None:
        """Keep what was seen of a sample; they come in their order."""
        self.kinds.append(look.kind)
        if look.error is not None:
            self.errors[index] = look.error
        self.sizes[index], self.thumbnails[index], self.blank[index] = look.size, look.thumbnail, look.blank
        self.contents[index] = np.frombuffer(look.content, np.uint8)
        if isinstance(look.mask, str):
            self.unmasked[index] = look.mask
        elif look.mask is not None:
            self.labels += look.mask

    @property
    def readable(self) -> np.ndarray:
        """``(N,)`` bool."""
        found = np.ones(len(self.source), bool)
        found[list(self.errors)] = False
        return found


def survey(sources: Mapping[str, Source], threads: int | None = None, masks: Masks | None = None) -> dict[str, Looked]:
    """Look at all samples, by all cores, with a bar.

    Args:
        sources: by split.
        threads: that decode; None: all cores.
        masks: of the images of all splits but "pretrain", which is learnt from without labels.

    Returns:
        What was seen, by split.
    """
    found = {name: Looked(source) for name, source in sources.items()}
    total = sum(map(len, sources.values()))
    with ThreadPoolExecutor(threads or machine.cores()) as pool, tqdm(total=total, unit=" images", disable=None) as bar:
        for name, looked in found.items():
            bar.set_description(f"reading {name}")
            for index, look in enumerate(_looks(looked.source, pool, None if name == "pretrain" else masks)):
                looked.take(index, look)
                bar.update()
    return found


def look(image: Tensor, kind: tuple[str, str, bool, bool] | None = None) -> Look:
    """What there is to say of an image.

    Args:
        image: ``(C, H, W)`` uint8.
        kind: see `Look`.
    """
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    shape = np.array(pixels.shape, np.int64).tobytes()
    digest = hashlib.blake2b(shape, digest_size=16)
    digest.update(pixels.tobytes())
    small = tv.resize(image, [SIDE, SIDE], antialias=True).float().mean(0).round().to(torch.uint8)
    blank = bool((pixels == pixels[:1, :1]).all())
    return Look(None, kind, (pixels.shape[0], pixels.shape[1]), digest.digest(), small.numpy(), blank)


def _looks(source: Source, pool: ThreadPoolExecutor, masks: Masks | None) -> Iterator[Look]:
    """Of all samples, in their order; a few hundred are under way at a time."""
    root, rows = rooted(source, np.arange(len(source)))
    known = unreadable(source) or {}
    for start in range(0, len(source), _AT_ONCE):
        chosen = range(start, min(start + _AT_ONCE, len(source)))
        images = in_bulk(source, np.array(chosen))
        if images is None:
            yield from spread(pool, lambda index: _one(root, int(rows[index]), masks), chosen)
            continue
        for index, image in zip(chosen, images.cpu(), strict=True):
            yield Look(known[index]) if index in known else look(image)


def _one(root: Source, row: int, masks: Masks | None) -> Look:
    """Of a sample that is decoded here.

    Whatever its reader raises is a finding of the check, said with its name, and not the end of it: one file of a million must
    not hide what is wrong with the others.
    """
    try:
        kind = root.kind_of(row) if isinstance(root, FileSource) else None
        said = None if kind is None else _kind(kind.format, kind.mode, kind.turned, kind.frames > 1)
        seen = look(root.read(row), said)
        return seen if masks is None else seen._replace(mask=_pixels(masks, root.name(row)))
    except BadSampleError as error:
        return Look(str(error))
    except Exception as error:
        return Look(f"its reader failed: {type(error).__name__}: {error}")


def _pixels(masks: Masks, name: str) -> np.ndarray | str:
    """How many pixels of a mask have each label, or why it cannot be used."""
    try:
        return np.bincount(masks.read(name).flatten().numpy(), minlength=256)
    except (ValueError, OSError) as error:  # OSError: a folder that this user may not enter
        return str(error)


@cache
def _kind(*facts: str | bool) -> tuple[str, str, bool, bool]:
    """One object for all samples of a kind."""
    return facts  # pyright: ignore[reportReturnType]  (as it was given)
