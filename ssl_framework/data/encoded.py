"""Sources of encoded images: what files, tables of bytes and torchvision's data sets have in common."""

import errno
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from tqdm import tqdm

from ssl_framework import keyed, machine
from ssl_framework.data.decode import Reduction
from ssl_framework.data.threads import spread
from ssl_framework.paths import printable
from ssl_framework.types import BadSampleError, Source

_PROBE = 0x512E  # names this use of a seed
_CHUNK = 32 << 20  # bytes that are decoded at a time: memory does not grow with the data
_LONGER = 16  # times the side that is cut out, at which an image is cut before it is resized
_PASSING = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}
_PROBED = 256  # of a set in which 1 % of the images have another size, 92 % of the probes see one


class Identity(NamedTuple):
    """Which data a source holds, and in what state: a cache is valid for one state.

    Attributes:
        place: where they lie, the same after they have changed.
        state: a hash that changes with them. It does not depend on how images are decoded.
    """

    place: str
    state: str


@runtime_checkable
class EncodedSource(Source, Protocol):
    """A source that decodes an image when it is read."""

    def read_reduced(self, index: int, reduction: Reduction) -> tuple[Tensor, tuple[int, int]]:
        """One image, decoded smaller where `reduction` allows it, and its height and width when it is not.

        Raises:
            BadSampleError: it cannot be decoded.
        """
        ...

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of one image, from the head of its file where that says it.

        Raises:
            BadSampleError: it cannot be read.
        """
        ...

    def identity(self) -> Identity:
        """Which data these are."""
        ...


def common_size(source: EncodedSource) -> tuple[int, int] | None:
    """The size that 256 keyed-random images have in common (all, where there are fewer); None where they differ.

    It depends on the data alone, so that every process, and a resumed run, finds the same.

    Raises:
        ValueError: none of them can be read.
    """
    chosen = keyed.permutation(len(source), _PROBE)[:_PROBED]
    found: set[tuple[int, int]] = set()
    reason = ""
    for index in chosen.tolist():
        try:
            found.add(source.size_of(index))
        except BadSampleError as error:
            reason = f"{printable(source.name(index))}: {error}"
            continue  # it is counted when it is met
        if len(found) > 1:
            return None
    if not found and reason:
        raise ValueError(
            f"None of the {len(chosen)} samples that were tried can be read (the last is {reason}): check that they are images "
            "and can be read from here."
        )
    return next(iter(found), None)


def state_of(root: Path, files: Iterable[Path]) -> str:
    """A hash of names, sizes and times of change of these files, relative to `root`."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        try:
            stat = (root / file).stat()
        except OSError:
            stat = (root / file).lstat()  # a link that leads nowhere
        digest.update(os.fsencode(file.as_posix()) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def decoded(
    source: Source, size: tuple[int, int], bad: dict[int, str], doing: str, threads: int | None = None
) -> Iterator[np.ndarray]:
    """All images of a source at one size, in their order, decoded by all cores, with a bar.

    Args:
        source: the images.
        size: height and width; others are resized until they just cover it and cut at their centre.
        bad: filled with the samples that cannot be decoded, and why; zeros stand in their place.
        doing: what the bar is called.
        threads: that decode; None: all cores.

    Yields:
        ``(n, H, W, C)`` uint8, some 32 MB at a time.

    Raises:
        OSError: a file could not be read because of the disk or the system, and not of what is in it.
    """
    shape = (*size, source.channels)
    rows = max(1, _CHUNK // math.prod(shape))

    def read(index: int) -> Tensor | str:
        try:
            image = source.read(index)
        except BadSampleError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _PASSING:
                raise OSError(error.__cause__.errno, f"{source.name(index)} cannot be read now ({error}): try again") from error
            return str(error)
        return (image if image.shape[-2:] == size else fit(image, size)).permute(1, 2, 0)

    bar = tqdm(total=len(source), desc=doing, unit=" images", disable=None)
    with ThreadPoolExecutor(threads or machine.cores()) as pool, bar:
        for start in range(0, len(source), rows):
            pixels = np.zeros((min(rows, len(source) - start), *shape), np.uint8)
            for row, image in enumerate(spread(pool, read, range(start, start + len(pixels)))):
                if isinstance(image, str):
                    bad[start + row] = image
                else:
                    pixels[row] = image.numpy()
            bar.update(len(pixels))
            yield pixels


def fit(image: Tensor, size: tuple[int, int], *, labels: bool = False) -> Tensor:
    """Resize until `size` is just covered and cut out the centre: ``(C, H, W)`` uint8, any to `size`.

    Args:
        image: of any size; with antialiasing.
        size: height and width.
        labels: the numbers are labels, of which none may come up that was not there: the nearest is taken.
    """
    image = _within(image, size)
    height, width = image.shape[-2:]
    scale = max(size[0] / height, size[1] / width)
    covered = [max(size[0], math.floor(height * scale + 0.5)), max(size[1], math.floor(width * scale + 0.5))]
    how = tv.InterpolationMode.NEAREST_EXACT if labels else tv.InterpolationMode.BILINEAR
    return tv.center_crop(tv.resize(image, covered, interpolation=how, antialias=not labels), list(size))


def _within(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of an image that is far longer than `size`: resized whole, a line of a million pixels fills the memory."""
    height, width = image.shape[-2:]
    scale = max(size[0] / height, size[1] / width)
    most = [math.ceil(_LONGER * side / scale) for side in size]
    return tv.center_crop(image, [min(height, most[0]), min(width, most[1])]) if height > most[0] or width > most[1] else image
