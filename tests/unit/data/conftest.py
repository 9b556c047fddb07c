"""Images on the disk, and views and modules that are as small as their protocols allow."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.types import Batch, Views
from support import Numbers

torch.set_num_threads(1)


class Draws:
    def __init__(self, key: Tensor) -> None:
        self.key = key

    def at(self, position: int) -> "Draws":
        return Draws(self.key[position : position + 1])


class TopLeft:
    """Views of mixed sizes: two 4 x 4 corners of each image, their place drawn from the key."""

    mean, std, size = (0.5,), (0.5,), (4, 4)

    def draw(self, index: Tensor, epoch: Tensor | int) -> Draws:
        return Draws(keyed.mix(0, epoch, index))

    def reduction(self, size: tuple[int, int], draw: Draws) -> int:
        return 1

    def crop(self, image: Tensor, draw: Draws, size: tuple[int, int] | None = None) -> Views:
        assert size is None or size == image.shape[-2:]
        place = (keyed.uniform(draw.key, 0, 1)[0, 0] * (image.shape[1] - 4)).long()
        corner = image[:, place : place + 4, :4]
        return Views(torch.stack([corner, corner.flip(-1)])[:, None], key=draw.key)

    def apply(self, batch: Batch, draw: Draws) -> Views:
        raise NotImplementedError

    def center(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class Recorder(pl.LightningModule):
    """Trains one weight, and notes which samples it saw and where the data module stood at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []
        self.positions: list[int] = []
        self.validated = 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert batch.target is None
        self.seen.append(batch.index.tolist())
        self.positions.append(self.trainer.datamodule.position)
        return self.weight * batch.input.float().mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert batch.target is None
        self.validated += len(batch.index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(root: Path, steps: int, **options: object) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    quiet |= {"max_steps": steps, "max_epochs": -1, "check_val_every_n_epoch": None, "val_check_interval": 2}
    return pl.Trainer(accelerator="cpu", devices=1, num_sanity_val_steps=0, default_root_dir=root, **(quiet | options))


@pytest.fixture
def kit() -> object:
    """What the tests share, without a module to import."""

    class Kit:
        numbers, views, recorder, trainer = Numbers, TopLeft, Recorder, staticmethod(trainer)
        picture = staticmethod(picture)

    return Kit


def picture(path: Path, value: int = 100, size: tuple[int, int] = (6, 8)) -> Path:
    """A grey ramp on RGB, `size` is height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), value, np.uint8)
    pixels[:, :, 0] = np.arange(size[1])
    Image.fromarray(pixels).save(path)
    return path
