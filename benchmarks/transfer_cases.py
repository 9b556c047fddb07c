"""What the benchmark of transfer compares: policies, numbers of labels, and encoders with tasks."""

import os
from pathlib import Path
from typing import Literal, NamedTuple

from catalogue_cases import CASES, words_of

from ssl_framework.downstream import (
    BiasOnly,
    Frozen,
    Full,
    Gradual,
    LastN,
    LayerDecay,
    LpFt,
    NormOnly,
    Policy,
    Surgical,
)

Budget = int | Literal["all"]

POLICIES: dict[str, Policy] = {
    "frozen": Frozen(),
    "bias_only": BiasOnly(),
    "norm_only": NormOnly(),
    "last_n (1)": LastN(n=1),
    "surgical (first)": Surgical(blocks=(0,)),
    "gradual": Gradual(),
    "layer_decay": LayerDecay(),
    "lp_ft": LpFt(),
    "full (encoder 0.1)": Full(encoder_lr=0.1),
    "full": Full(),
}
"""LoRA corrects linear layers, which this encoder does not have."""

BUDGETS: dict[Budget, int] = {10: 5, 100: 5, "all": 2}
"""Labels a class, and seeds."""

STEPS: dict[Budget, int | None] = {10: 150, 100: 300, "all": None}
"""Optimiser steps of 64; None: three epochs."""

CHOICE = 300
"""Steps at most that a learning rate is chosen by."""

RATES = (3e-4, 1e-3, 3e-3)

CUTS = (1000, 1e-2)
"""Steps and rate of the heads that cuts are compared by: enough to converge. After 150 steps at 3e-3 the wide last layer led,
because more weights move faster; converged, the layer before it led by two points (rotation, digits, 10 labels a class)."""


class Cell(NamedTuple):
    """An encoder and what it is transferred to.

    Attributes:
        pretext: that it was pretrained with, on Fashion-MNIST's images.
        data: whose labels are learnt.
    """

    pretext: str
    data: str


CELLS = [
    Cell(pretext, data) for pretext in ("simclr", "rotation", "denoising_autoencoder") for data in ("fashion_mnist", "digits")
]
"""The first one is that of the policies."""


def encoder_folder(pretext: str) -> Path:
    """Where the encoder of a pretext task is kept between two runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "ssl_framework" / "benchmarks" / "transfer" / pretext


def pretrain_words(pretext: str) -> list[str]:
    """The recipe of the catalogue, on all training images."""
    return [*words_of(pretext, CASES["fashion_mnist"]), "seed=0", "data=fashion_mnist"]
