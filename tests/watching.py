"""A small run for monitors to watch: bright and dark images, an encoder with BatchNorm and dropout, no real pretext task."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssl_framework.types import Batch, Encoding

SIZE, WIDTH = (1, 4, 4), 8


def images(labels: Tensor, seed: int) -> Tensor:
    """``(N, 1, 4, 4)`` uint8: class 1 is bright on the left, class 0 on the right, in noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 120, (len(labels), *SIZE), generator=generator)
    left = torch.zeros(SIZE, dtype=torch.int64)
    left[..., :2] = 120
    side = torch.where(labels[:, None, None, None] == 1, left, left.flip(-1))
    return (noise + side).to(torch.uint8)


class Split:
    def __init__(self, n: int, seed: int) -> None:
        self.targets = torch.arange(n) % 2
        self._images = images(self.targets, seed)
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.targets)

    def images(self, positions: Sequence[int]) -> Tensor:
        self.read += positions
        return self._images[list(positions)]


class Data:
    """Labelled splits; `split` refuses where there are no labels, as the data module does."""

    def __init__(self, train: int = 61, val: int = 31) -> None:
        self.splits = {"train": Split(train, 1), "val": Split(val, 2)}

    def split(self, name: str) -> Split:
        return self.splits[name]


class Unlabelled:
    def split(self, name: str) -> Split:
        raise ValueError("the data has no labels")


class Loader:
    """Endless batches, a function of their number."""

    def __init__(self, batch_size: int = 16, start: int = 0) -> None:
        self.batch_size, self.start = batch_size, start

    def __iter__(self) -> Iterator[Batch]:
        number = self.start
        while True:
            index = torch.arange(number * self.batch_size, (number + 1) * self.batch_size)
            yield Batch(images(index % 2, seed=number), None, index)
            number += 1


class Views:
    def center(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 255 - 0.5


class ToyEncoder(nn.Module):
    embed_dim, num_layers = WIDTH, 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 4)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.dropout = nn.Dropout(0.3)
        self.frozen = nn.BatchNorm1d(WIDTH)  # stays in evaluation mode

    def forward(self, x: Tensor, *, layers: Sequence[int] = ()) -> Encoding:
        return Encoding(self.frozen(self.dropout(self.norm(self.conv(x).flatten(1)))))

    def cut(self, k: int) -> "ToyEncoder":
        return self


class Toy(pl.LightningModule):
    """Learns to be far from zero; `plant` replaces what the monitors see."""

    def __init__(self, plant: Callable[[int], dict[str, Tensor | None]] | None = None, views: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder: Any = ToyEncoder()
        self.views: Any = views or Views()
        self.plant = plant

    def on_train_start(self) -> None:
        self.encoder.frozen.eval()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor | None]:
        torch.manual_seed(1000 * self.trainer.global_step + batch_idx % 2)
        h = self.encoder(self.views.center(batch.input)).pooled
        seen: dict[str, Tensor | None] = {"embedding": h.detach(), "projection": None}
        return {"loss": (h.square().mean() - 2).square(), **(self.plant(self.trainer.global_step) if self.plant else seen)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def make_trainer(steps: int, callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return pl.Trainer(max_epochs=-1, max_steps=steps, callbacks=callbacks, **{**quiet, **options})


class Record(pl.Callback):
    """The logged metrics after every batch, with the step. Stands after the monitors."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.rows = prefix, []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(self.prefix)}
        self.rows.append((trainer.global_step, now))


def as_rank(rank: int, world: int) -> None:
    """Tell Lightning which of the processes that `support.on_ranks` started this one is."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), GROUP_RANK="0")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500", TORCHELASTIC_RUN_ID="test")
