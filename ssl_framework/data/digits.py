"""Scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels, without a download."""

from typing import Unpack

import numpy as np
from sklearn.datasets import load_digits

from ssl_framework.data.arrays import ArraySource
from ssl_framework.data.datamodule import DataModule
from ssl_framework.data.options import Options
from ssl_framework.data.split import carve

_INK = 16  # the images count set pixels in blocks of 4 x 4


def digits(test_share: float = 0.2, **options: Unpack[Options]) -> DataModule:
    """The digits, counts of 0..16 scaled to 0..255; they have no official splits, so validation and test are carved.

    Args:
        test_share: share of the test split.
        options: see `DataModule`.
    """
    pixels, targets = load_digits(return_X_y=True)
    images = np.rint(np.asarray(pixels) * (255 / _INK)).astype(np.uint8).reshape(-1, 8, 8)
    train, test = carve(ArraySource(images, np.asarray(targets), name="digits"), test_share, options.get("split_seed", 0))
    return DataModule(train, None, test, name="digits", **options)
