"""Mean and standard deviation of training images, where the user did not give them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.data.bad import BadSamples
from ssl_framework.data.encoded import fit
from ssl_framework.data.split import in_bulk, unreadable
from ssl_framework.types import BadSampleError, Source

_MEASURE = 0x57A7  # names this use of the seed
_IN_MEMORY = 10_000
_DECODED = 1_000  # the error of a mean is then below 0.01; decoding more would keep the user waiting


class Measured(NamedTuple):
    """Statistics of pixels in 0..1.

    Attributes:
        mean: per channel.
        std: per channel.
        samples: that they were measured on.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    samples: int


def measured(source: Source, size: tuple[int, int], seed: int, bad: BadSamples, name: str) -> Measured:
    """Measure over all pixels of keyed-random samples.

    Args:
        source: the training samples.
        size: that images of mixed sizes are brought to.
        seed: which samples.
        bad: where unreadable ones are reported.
        name: of the data, for messages.

    Raises:
        ValueError: a channel is constant, or too many samples cannot be read.
    """
    quick = in_bulk(source, np.zeros(1, dtype=np.int64)) is not None
    chosen = keyed.permutation(len(source), _MEASURE, seed)[: _IN_MEMORY if quick else _DECODED]
    count, samples, total, squares = 0, 0, np.zeros(source.channels), np.zeros(source.channels)
    for image in _readable(source, chosen, size, bad):
        pixels = image.to(torch.float64).flatten(1) / 255  # (C, pixels)
        count += pixels.shape[1]
        total += pixels.sum(1).numpy()
        squares += pixels.square().sum(1).numpy()
        samples += 1
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if not (std > 0).all():
        raise ValueError(f"{name} cannot be normalised: a channel is constant in {len(chosen)} samples (std {std.tolist()}).")
    shown = ", ".join(f"{m:.4f} +- {s:.4f}" for m, s in zip(mean, std, strict=True))
    rank_zero_info(f"{name}: mean and std measured on {samples} training samples: {shown}")
    return Measured(tuple(mean.tolist()), tuple(std.tolist()), samples)


def _readable(source: Source, chosen: np.ndarray, size: tuple[int, int], bad: BadSamples) -> Iterator[Tensor]:
    """The images that can be read, some hundreds in memory at a time."""
    nothing = unreadable(source) or {}
    for start in range(0, len(chosen), 256):
        part = chosen[start : start + 256]
        images = in_bulk(source, part)
        for place, index in enumerate(part.tolist()):
            if index in nothing:
                bad.report("train", source, index, nothing[index])
            elif images is not None:
                yield images[place]
            else:
                try:
                    image = source.read(index)
                except BadSampleError as error:
                    bad.report("train", source, index, str(error))
                    continue
                yield image if source.size is not None else fit(image, size)
