"""A bench of tiny images with a bar whose row is the class, and a plan that takes seconds."""

from typing import Any

import numpy as np
import torch

from ssl_framework.data import ArraySource, Labelled
from ssl_framework.encoders import resnet_micro
from ssl_framework.transfer import Bench, Judge, Plan, recipe

PREPROCESSING: dict[str, Any] = {"mean": [0.5], "std": [0.25], "size": [8, 8], "channels": 1}


def bars(count: int, name: str, seed: int) -> Labelled:
    generator = np.random.default_rng(seed)
    targets = np.arange(count) % 3
    images = generator.integers(0, 200, (count, 8, 8), dtype=np.uint8)
    images[np.arange(count), 1 + 2 * targets] += 40
    return Labelled(ArraySource(images, targets), (8, 8), split=name)


def bench() -> Bench:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = resnet_micro(1, 8)
    splits = {name: bars(count, name, seed) for seed, (name, count) in enumerate({"train": 60, "val": 30, "test": 45}.items())}
    return Bench(
        encoder, PREPROCESSING, splits["train"], splits["val"], Judge(splits["test"]), "e" * 16, recipe.data_digest(splits), 3
    )


def plan(**changes: Any) -> Plan:
    small: dict[str, Any] = {
        "methods": ("scratch", "raw_pixels", "frozen", "last_n", "lora"),
        "budgets": (1, 4),
        "seeds": (0, 1),
        "steps": 4,
        "rates": (1e-3, 1e-2),
        "penalties": (0.01, 1.0),
        "looks": 2,
        "label_noise": (),
        "test_images": 0,
    }
    return Plan(**{**small, **changes})
