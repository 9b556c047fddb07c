import os
import time
from pathlib import Path

import pytest
import torch

from ssl_framework.data import cifar10, torchvision_dataset

ROOT = os.environ.get("SSL_FRAMEWORK_DATA")
pytestmark = [pytest.mark.data, pytest.mark.skipif(ROOT is None, reason="SSL_FRAMEWORK_DATA is not set")]


def test_fashion_mnist() -> None:
    data = torchvision_dataset("FashionMNIST", Path(ROOT or "") / "fashion_mnist", channels=1, size=[28, 28], classes=10)
    assert data.num_samples == 54_000
    assert data.facts.mean == pytest.approx((0.2860,), abs=0.002)
    assert data.facts.std == pytest.approx((0.3530,), abs=0.002)
    assert torch.bincount(data.split("val").targets).tolist() == [600] * 10
    assert torch.bincount(data.test_split().targets).tolist() == [1000] * 10


def test_cifar10() -> None:
    start = time.perf_counter()
    data = cifar10(Path(ROOT or "") / "cifar10", channels=3, size=[32, 32], classes=10)
    assert time.perf_counter() - start < 60
    assert data.num_samples == 45_000
    assert torch.bincount(data.test_split().targets).tolist() == [1000] * 10
    assert data.facts.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.006)
    assert data.facts.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.006)
