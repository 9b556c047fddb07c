"""Two classes of tiny images that anybody can tell apart, and one that takes some looking."""

from typing import Any

import numpy as np
import pytest
import torch

from ssl_framework.data import ArraySource, Labelled
from ssl_framework.downstream import Classification, DownstreamModule, Frozen
from ssl_framework.encoders import EncoderModule, TimmEncoder, resnet_micro, timm_encoder
from ssl_framework.optim import adamw

PREPROCESSING: dict[str, Any] = {"mean": [0.5], "std": [0.25], "size": [8, 8], "channels": 1}
VIT: dict[str, Any] = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2}


def make_split(count: int, *, name: str = "train", classes: int = 3, channels: int = 1, seed: int = 0) -> Labelled:
    """Noise with a bright bar whose row is the class."""
    generator = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    images = generator.integers(0, 120, (count, channels, 8, 8), dtype=np.uint8)
    images[np.arange(count), :, 1 + 2 * targets] = 250
    return Labelled(ArraySource(images if channels > 1 else images[:, 0], targets), (8, 8), split=name)


def make_module(encoder: Any, **options: Any) -> DownstreamModule:
    defaults: dict[str, Any] = {
        "freezing": Frozen(),
        "preprocessing": PREPROCESSING,
        "optimizer": adamw(lr=3e-3, scale_lr="none", weight_decay=0.0),
    }
    return DownstreamModule(encoder, options.pop("task", Classification(3)), **{**defaults, **options})


def small_vit() -> TimmEncoder:
    """Three blocks of width 24 on patches of 4 pixels; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm_encoder("vit_tiny_patch16_224", 1, 8, model_args=VIT)


@pytest.fixture
def encoder() -> EncoderModule:
    """With BatchNorm, drop-path and no dropout of its own; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return resnet_micro(1, 8, drop_path=0.2)
