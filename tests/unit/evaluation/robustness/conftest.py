"""Real digits, and a small network that has learnt them."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_framework.data import digits
from ssl_framework.evaluation import from_pixels

MEAN, STD = (0.3,), (0.38,)


class Learnt(NamedTuple):
    """A network in evaluation mode, its two ways, and images that it has not seen."""

    network: nn.Module
    logits: Callable[[Tensor], Tensor]
    of_uint8: Callable[[Tensor], Tensor]
    images: Tensor
    x: Tensor
    targets: Tensor


def split(name: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    labelled = digits().split(name)
    return labelled.images(range(len(labelled))), labelled.targets


@pytest.fixture(scope="session")
def images() -> Tensor:
    return split("test")[0][:200]


@pytest.fixture(scope="session")
def learnt() -> Learnt:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2)
        ).append(nn.Linear(256, 10))
        pixels, labels = split("train")
        x = (pixels.float() / 255 - MEAN[0]) / STD[0]
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(150):
            rows = torch.randint(len(x), (128,))
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]), labels[rows]).backward()
            optimizer.step()
    optimizer.zero_grad()
    network.eval()
    test, targets = (part[:200] for part in split("test"))
    return Learnt(
        network,
        from_pixels(network, MEAN, STD),
        lambda stored: network((stored.float() / 255 - MEAN[0]) / STD[0]),
        test,
        test.float() / 255,
        targets,
    )
