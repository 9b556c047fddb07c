"""What monitors share: what they may look at, when they look, how they embed, and how they log."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol, cast, runtime_checkable

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from ssl_framework import keyed
from ssl_framework.types import Encoder, ViewMaker


class Labelled(Protocol):
    """A split with labels."""

    @property
    def targets(self) -> Tensor:
        """``(N,)`` int64."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def images(self, positions: Sequence[int]) -> Tensor:
        """``(B, C, H, W)`` uint8 at these positions of the split."""
        ...


class LabelledData(Protocol):
    """Where labelled splits come from: a data module, of the pretraining data or of another set."""

    def split(self, name: Literal["train", "val"]) -> Labelled:
        """The named split.

        Raises:
            ValueError: the data has no labels.
        """
        ...


class Watched(Protocol):
    """What is trained, as far as monitors that embed need to know."""

    encoder: Encoder
    views: ViewMaker | None


class Every:
    """Says when `steps` optimiser steps have passed, once each, also with accumulated micro-batches; and at the last step."""

    def __init__(self, steps: int):
        if steps < 1:
            raise ValueError(f"every_n_steps is {steps}: give at least 1, or leave the monitor out")
        self._steps = steps
        self._seen = 0

    def start(self, trainer: pl.Trainer) -> None:
        """Training starts or resumes here: the step it stands at is done with."""
        self._seen = trainer.global_step

    def due(self, trainer: pl.Trainer) -> bool:
        """Whether it is time; to be asked once after every micro-batch."""
        step = trainer.global_step
        advanced, self._seen = step != self._seen, step
        return advanced and (step % self._steps == 0 or step == trainer.max_steps)

    def next(self, trainer: pl.Trainer) -> bool:
        """Whether the optimiser step under way is one after which it is time."""
        step = trainer.global_step + 1
        return step % self._steps == 0 or step == trainer.max_steps

    def left(self, trainer: pl.Trainer) -> int:
        """Optimiser steps until the next look, from the last one that is done; 0 at a look."""
        step = trainer.global_step
        left = -step % self._steps
        return left if trainer.max_steps < 0 else min(left, trainer.max_steps - step)


class Bank:
    """Keyed random parts of a labelled train and validation split, embedded by what is being trained.

    Args:
        data: where the splits come from.
        max_train: samples of train, at most.
        max_val: samples of validation, at most.
        batch_size: images that are encoded at once.
        seed: of which samples are taken.

    Raises:
        ValueError: a split is empty, a number is not positive, or the data has no labels.
    """

    def __init__(self, data: LabelledData, max_train: int, max_val: int, batch_size: int, seed: int):
        self._batch_size = batch_size
        self._kind = id(data), max_train, max_val, batch_size, seed
        self._seen: tuple[int, tuple[Tensor, Tensor]] | None = None
        self._parts: list[tuple[Labelled, Tensor]] = []
        for stream, (name, limit) in enumerate((("train", max_train), ("val", max_val))):
            if limit < 1 or batch_size < 1:
                raise ValueError(f"max_{name} = {limit} and batch_size = {batch_size} must be at least 1")
            split = data.split(cast(Literal["train", "val"], name))
            if len(split) == 0:
                raise ValueError(f"the {name} split is empty: set val_share above 0, or leave the labelled monitors out")
            order = torch.from_numpy(keyed.permutation(len(split), seed, stream))
            self._parts.append((split, order[:limit].sort().values))
        labels = [split.targets[positions] for split, positions in self._parts]
        self.train_y, self.val_y = labels
        self.num_classes = 1 + max(int(y.max()) for y in labels)

    def embed(self, trainer: pl.Trainer, module: pl.LightningModule) -> tuple[Tensor, Tensor]:
        """Embeddings ``(N, D)`` float32 of the train and the validation part, the same on every process.

        Of two monitors that look at the same images after the same step one embeds, and the other takes what it found.
        """
        step = trainer.global_step
        callbacks: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]  (set by a connector)
        banks = [callback.bank for callback in callbacks if isinstance(callback, Banked) and callback.bank is not None]
        found = next((b._seen[1] for b in banks if b._kind == self._kind and b._seen is not None and b._seen[0] == step), None)
        if found is None:
            train, val = (embed(trainer, module, split, positions, self._batch_size) for split, positions in self._parts)
            found = train, val
        self._seen = step, found
        return found


@runtime_checkable
class Banked(Protocol):
    """A monitor that looks at labelled samples."""

    bank: Bank | None


def watched(module: pl.LightningModule) -> tuple[Encoder, Callable[[Tensor], Tensor]]:
    """The encoder of a module, and what makes its input from uint8 images.

    Raises:
        ValueError: there is none.
    """
    encoder: Encoder | None = getattr(module, "encoder", None)  # no isinstance: it does not see submodules since Python 3.12
    views: ViewMaker | None = getattr(module, "views", None)
    if encoder is None or views is None:
        raise ValueError(
            f"{type(module).__name__} has no encoder or no views, which labelled monitors embed with: "
            "give it views=, or leave OnlineKNN and OnlineProbe out"
        )
    return encoder, views.center


def watched_encoder(module: pl.LightningModule) -> nn.Module:
    """The encoder of a module.

    Raises:
        ValueError: there is none.
    """
    encoder = getattr(module, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"{type(module).__name__} has no encoder to watch: name it encoder, or leave the monitor out")
    return encoder


def embed(trainer: pl.Trainer, module: pl.LightningModule, labelled: Labelled, positions: Tensor, batch_size: int) -> Tensor:
    """Embed samples without leaving a trace: modes, BatchNorm statistics and random states are as before.

    Every process embeds an equal slice, padded with the last sample, and gets all of them.

    Args:
        trainer: knows the processes and the precision.
        module: see `Watched`.
        labelled: the split.
        positions: ``(n,)`` in the split.
        batch_size: images at once.

    Returns:
        ``(n, D)`` float32 on the device of training.
    """
    encoder, center = watched(module)
    assert isinstance(encoder, nn.Module)
    share = -(-len(positions) // trainer.world_size)
    mine = torch.arange(trainer.global_rank * share, (trainer.global_rank + 1) * share).clamp(max=len(positions) - 1)
    precision = trainer.precision_plugin
    parts: list[Tensor] = []
    with _untouched(encoder, module.device), torch.no_grad(), precision.forward_context():
        for chunk in positions[mine].split(batch_size):
            x = precision.convert_input(center(labelled.images(chunk.tolist()).to(module.device)))
            parts.append(encoder(x).pooled.float())
    rows = torch.cat(parts)
    return gather(trainer, rows)[: len(positions)]


def gather(trainer: pl.Trainer, rows: Tensor) -> Tensor:
    """``(n, D)`` on each of W processes to ``(W * n, D)``, rank after rank, without a gradient."""
    if trainer.world_size == 1:
        return rows
    everyone = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(trainer.world_size)]
    dist.all_gather(everyone, rows.contiguous())
    return torch.cat(everyone)


def log(trainer: pl.Trainer, module: pl.LightningModule, values: Mapping[str, float], prog_bar: bool = False) -> None:
    """Log what a monitor saw, at the step where it saw it.

    Lightning passes on what is logged at multiples of `log_every_n_steps` only; a monitor's step may lie between them. So
    its values reach callbacks and the progress bar through Lightning, and the loggers directly.
    """
    module.log_dict(dict(values), on_step=True, on_epoch=False, logger=False, prog_bar=prog_bar, batch_size=1)
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step=trainer.global_step - 1)  # Lightning counts the step just done as one less


@contextmanager
def _untouched(encoder: nn.Module, device: torch.device) -> Generator[None]:
    """Evaluation mode inside; every mode and random state as it was outside."""
    modes = [(child, child.training) for child in encoder.modules()]
    cuda = [device] if device.type == "cuda" else []
    with isolate_rng(include_cuda=False), torch.random.fork_rng(devices=cuda):
        encoder.eval()
        try:
            yield
        finally:
            for child, mode in modes:
                child.training = mode
