"""A data set as one tensor where it is used: in the memory of the host or of a GPU."""

import numpy as np
import torch
from torch import Tensor

from ssl_framework.data.encoded import decoded
from ssl_framework.data.split import BulkSource
from ssl_framework.types import BadSampleError, Source

_CHUNK = 4096


class ResidentSource:
    """A source whose images lie in one tensor: a batch is one indexing, without workers and copies between processes.

    Args:
        source: what is read once, all of it.
        size: height and width of its images; a few that have another are brought to it.
        device: where they lie from now on.
        threads: that decode; None: all cores.
    """

    def __init__(self, source: Source, size: tuple[int, int], device: torch.device, threads: int | None = None) -> None:
        self.source = source
        self._size = size
        self._images = torch.empty(len(source), *size, source.channels, dtype=torch.uint8, device=device)
        self._unreadable: dict[int, str] = {}
        if isinstance(source, BulkSource):
            for start in range(0, len(source), _CHUNK):
                rows = np.arange(start, min(start + _CHUNK, len(source)))
                self._images[start : start + len(rows)] = source.read_many(rows).permute(0, 2, 3, 1).to(device)
            self._unreadable = dict(source.unreadable)
            return
        done = 0
        for pixels in decoded(source, size, self._unreadable, "decoding", threads):
            self._images[done : done + len(pixels)] = torch.from_numpy(pixels).to(device)
            done += len(pixels)

    @property
    def targets(self) -> np.ndarray | None:
        """``(N,)`` int64, or None."""
        return self.source.targets

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names, or None."""
        return self.source.classes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self._size

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.source.channels

    @property
    def unreadable(self) -> dict[int, str]:
        """Samples that could not be decoded, and why."""
        return self._unreadable

    @property
    def on_disk(self) -> bool:
        """It is in memory."""
        return False

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Tensor:
        """One ``(C, H, W)`` uint8 image.

        Raises:
            BadSampleError: it could not be decoded.
        """
        if index in self._unreadable:
            raise BadSampleError(self._unreadable[index])
        return self._images[index].permute(2, 0, 1)

    def read_many(self, index: np.ndarray) -> Tensor:
        """``(B, C, H, W)`` uint8 of the samples `index` ``(B,)``, on the device, in memory channels last."""
        chosen = torch.from_numpy(index).to(self._images.device, non_blocking=True)
        return self._images.index_select(0, chosen).permute(0, 3, 1, 2)

    def name(self, index: int) -> str:
        """What the source calls it."""
        return self.source.name(index)
