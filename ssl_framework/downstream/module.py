"""Phase 2: a pretrained encoder without its last layers, a new head in their place, trained on labels."""

import copy
from collections.abc import Mapping
from typing import Any, Self, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from ssl_framework import keyed, machine, run
from ssl_framework.data import Labelled
from ssl_framework.downstream.data import LabelledData
from ssl_framework.downstream.freezing import Freezing
from ssl_framework.downstream.tasks import Task
from ssl_framework.optim import OptimizerSpec
from ssl_framework.types import Batch, Encoder, ViewMaker
from ssl_framework.views.preprocessing import plain

_HEAD_STREAM = 2_000_003
_DROPOUT_STREAM = 2_000_029


class DownstreamModule(pl.LightningModule):
    """Transfer as the lecture has it: cut the last layers, attach a head, freeze what remains or not, train.

    Args:
        encoder: pretrained; it is copied and stays as it is.
        task: what is learnt; it makes the head and the loss.
        freezing: which part of the encoder learns.
        optimizer: how to train; needed to fit, not to call.
        preprocessing: what was done to the images that the encoder saw: ``mean``, ``std``, ``size``, ``channels``, as they come
            with an encoder file (``load_encoder(...).preprocessing``).
        cut: layers to take off the encoder's end.
        views: augmentation for training; its first global view is learnt from. None trains on the images as they are.
        seed: of the head's weights, and of dropout and drop-path, which are drawn anew each step.
        channels_last: keep convolutions in the memory layout that processors and tensor cores are fast at.

    Raises:
        ValueError: `cut` is negative or leaves no layer, or `views` normalise or size images otherwise than `preprocessing`.
    """

    def __init__(
        self,
        encoder: Encoder,
        task: Task,
        *,
        freezing: Freezing,
        preprocessing: Mapping[str, Any],
        optimizer: OptimizerSpec | None = None,
        cut: int = 0,
        views: ViewMaker | None = None,
        seed: int = 0,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.task, self.freezing, self.optimizer, self.cut, self.seed = task, freezing, optimizer, cut, seed
        self.views = plain(**preprocessing)
        self.augment = views
        if views is not None:
            _require_same(views, self.views)
        self.encoder: Any = copy.deepcopy(encoder) if cut == 0 else encoder.cut(cut)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(keyed.mix(seed, _HEAD_STREAM)))
            self.head = task.head(self.encoder.embed_dim)
        machine.guard_convolutions(self.encoder)
        freezing.prepare(self.encoder)
        self.measures = nn.ModuleDict({split: self._new_measures() for split in ("val", "test")})
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 images, of any one size, to the head's outputs ``(B, ...)``."""
        return self.head(self.encoder(self.views.center(images)))

    @torch.no_grad()
    def measure(self, split: Labelled, batch_size: int = 512) -> dict[str, float]:
        """Loss and metrics of a split, in one process and without a Trainer.

        Args:
            split: every sample counts once.
            batch_size: samples encoded at a time; the result does not depend on it.
        """
        self._check(split)
        training = self.training
        self.eval()
        measures = self._new_measures().to(self.device)
        for images, targets in split.batches(batch_size):
            self._measure(measures, self(images.to(self.device)), targets.to(self.device))
        self.train(training)
        return {name: float(value) for name, value in _computed(measures).items()}

    def exported(self) -> nn.Module:
        """The encoder, cut, and fine-tuned if the policy lets it learn."""
        return cast(nn.Module, self.encoder)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; the policy decides for the encoder."""
        super().train(mode)
        self.freezing.mode(self.encoder, mode)
        return self

    # Set-up

    def setup(self, stage: str) -> None:
        """Refuse what would train wrongly, before anything runs."""
        if stage == "fit":
            run.require_steps(self.trainer)
        if self.channels_last:
            run.keep_channels_last(self)
        if self._data is None:
            raise ValueError("a DownstreamModule reads LabelledData(train, val, test): trainer.fit(module, LabelledData(...)).")
        for split in {"fit": (self._data.train, self._data.val), "test": (self._data.test,)}.get(stage, ()):
            if split is not None:
                self._check(split)

    def configure_optimizers(self) -> Any:
        """The optimiser over what learns, and its schedule over steps."""
        if self.optimizer is None:
            raise ValueError("DownstreamModule needs an optimizer to train: DownstreamModule(..., optimizer=adamw(lr=1e-3)).")
        assert self._data is not None
        batch = self._data.batch_size * self.trainer.accumulate_grad_batches
        optimizer, scheduler = self.optimizer.build(
            self,
            total_steps=int(self.trainer.max_steps),
            global_batch=batch,
            lr_scale=self._lr_scale,
            fused=not run.is_scaled(self.trainer),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the weights belong to."""
        checkpoint["downstream"] = self._identity()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another cut, policy or task.

        Raises:
            ValueError: names what differs.
        """
        saved, own = checkpoint.get("downstream", {}), self._identity()
        for name, value in own.items():
            if saved.get(name) != value:
                raise ValueError(
                    f"the checkpoint was trained with {name}={saved.get(name)}, this module has {name}={value}: "
                    "resume with the settings of the run, or begin a new one."
                )

    # Steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """What the encoder says of the images, what the head makes of it, how far that is from the labels."""
        position = batch_idx if self._data is None else self._data.position
        keyed.reseed(self.device, self.seed, _DROPOUT_STREAM, position, self.global_rank)
        outputs = self.head(self.encoder(self._train_images(batch)))
        assert batch.target is not None
        loss = self.task.loss(outputs, batch.target)
        if run.is_logged(self.trainer):
            self.log("train/loss", loss, prog_bar=True, batch_size=len(outputs), sync_dist=True)
            self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=len(outputs))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Gather loss and metrics of validation."""
        self._measure_batch("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Report them, over all processes."""
        self._report("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Gather loss and metrics of test."""
        self._measure_batch("test", batch)

    def on_test_epoch_end(self) -> None:
        """Report them, over all processes."""
        self._report("test")

    def _train_images(self, batch: Batch) -> Tensor:
        if self.augment is None:
            return self.views.center(batch.input)
        assert batch.epoch is not None
        draw = self.augment.draw(batch.index.cpu(), batch.epoch.cpu())
        return self.augment.apply(batch, draw).global_crops[0]

    def _measure_batch(self, split: str, batch: Batch) -> None:
        outputs = self(batch.input)
        assert batch.target is not None
        real = batch.index >= 0  # the others fill up the last batch, so that all processes make the same steps
        self._measure(cast(nn.ModuleDict, self.measures[split]), outputs[real], batch.target[real])

    def _measure(self, measures: nn.ModuleDict, outputs: Tensor, targets: Tensor) -> None:
        if len(targets) == 0:
            return
        for name, metric in measures.items():
            assert isinstance(metric, Metric)
            if name == "loss":
                metric.update(self.task.loss(outputs, targets), weight=len(targets))
            else:
                metric.update(outputs, targets)

    def _report(self, split: str) -> None:
        measures = cast(nn.ModuleDict, self.measures[split])
        values = {f"{split}/{name}": value for name, value in _computed(measures).items()}
        self.log_dict(values, prog_bar=True, sync_dist=True)

    def _new_measures(self) -> nn.ModuleDict:
        return nn.ModuleDict({"loss": MeanMetric(nan_strategy="error"), **self.task.metrics()})

    def _check(self, split: Labelled) -> None:
        self.task.check(split.targets)
        channels, expected = split.images([0]).shape[1], len(self.views.mean)
        if channels != expected:
            raise ValueError(
                f"the encoder was pretrained on {expected} channels and these images have {channels}: "
                f"read them with data.channels={expected}, or take an encoder for {channels}."
            )

    def _lr_scale(self, name: str) -> float:
        part, _, rest = name.partition(".")
        return self.freezing.lr_scale(rest) if part == "encoder" else 1.0

    def _identity(self) -> dict[str, Any]:
        return {"cut": self.cut, "freezing": self.freezing.state(), "task": self.task.state()}

    @property
    def _data(self) -> LabelledData | None:
        data = getattr(self.trainer, "datamodule", None)  # absent from Lightning's Trainer until one is attached
        return data if isinstance(data, LabelledData) else None


def _computed(measures: nn.ModuleDict) -> dict[str, Tensor]:
    """Values over all processes; afterwards the metrics are empty again."""
    values: dict[str, Tensor] = {}
    for name, metric in measures.items():
        assert isinstance(metric, Metric)
        values[name] = metric.compute()
        metric.reset()
    return values


def _require_same(views: ViewMaker, plain_views: ViewMaker) -> None:
    for name in ("mean", "std", "size"):
        given, needed = getattr(views, name), getattr(plain_views, name)
        if tuple(given) != tuple(needed):
            raise ValueError(
                f"views have {name}={given}, and the encoder was pretrained with {name}={needed}: "
                "make the views from the preprocessing of the encoder, not from the data."
            )
