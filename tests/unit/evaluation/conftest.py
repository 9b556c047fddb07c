"""Noise with a bright bar whose row is the class."""

import numpy as np
import torch

from ssl_framework.data import ArraySource, Labelled


def make_split(count: int, *, name: str = "train", classes: int = 3, seed: int = 0) -> Labelled:
    generator = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    images = generator.integers(0, 120, (count, 8, 8), dtype=np.uint8)
    images[np.arange(count), 1 + 2 * targets] = 250
    return Labelled(ArraySource(images, targets), (8, 8), split=name)


def prepare(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255 - 0.5
