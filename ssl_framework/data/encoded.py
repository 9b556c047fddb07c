"""Sources of encoded images: what files, tables of bytes and torchvision's data sets have in common."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ssl_framework import keyed
from ssl_framework.data.decode import Reduction
from ssl_framework.types import BadSampleError, Source

_PROBE = 0x512E  # names this use of a seed
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
        """Height and width of one image, from the head of its file where it says so.

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
    """
    chosen = keyed.permutation(len(source), _PROBE)[:_PROBED]
    found: set[tuple[int, int]] = set()
    for index in chosen.tolist():
        try:
            found.add(source.size_of(index))
        except BadSampleError:
            continue  # it is counted when it is met
        if len(found) > 1:
            return None
    return next(iter(found), None)


def state_of(root: Path, files: Iterable[Path]) -> str:
    """A hash of names, sizes and times of change of these files, relative to `root`."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        stat = (root / file).stat()
        digest.update(f"{file.as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
