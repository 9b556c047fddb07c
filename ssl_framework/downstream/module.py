"""Phase 2: a pretrained encoder without its last layers, a new head in their place, trained on labels."""

import copy
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from ssl_framework import keyed, machine, run
from ssl_framework.checkpoint import load_model, save_encoder, save_head
from ssl_framework.data import Labelled, fit
from ssl_framework.downstream import pooling as poolings
from ssl_framework.downstream import tasks
from ssl_framework.downstream.audit import Audit
from ssl_framework.downstream.augment import Augmentation, cropped
from ssl_framework.downstream.data import LabelledData
from ssl_framework.downstream.freezing import Freezer, Frozen, Moment, Policy
from ssl_framework.downstream.heads import NeighbourHead
from ssl_framework.downstream.intervals import Readouts, bootstrap
from ssl_framework.downstream.kept import Kept
from ssl_framework.downstream.measures import Measures
from ssl_framework.downstream.pooling import Pooling
from ssl_framework.downstream.suits import head_of, require_channels, require_places, require_same
from ssl_framework.downstream.tasks import Classification, Prediction, Task
from ssl_framework.encoders import load_strictly, refresh
from ssl_framework.optim import OptimizerSpec
from ssl_framework.types import Batch, Encoder, ViewMaker
from ssl_framework.views.preprocessing import plain

_HEAD_STREAM = 2_000_003
_DROPOUT_STREAM = 2_000_029
_REINIT_STREAM = 2_000_039
_STANDARD = 2048  # images that what the head reads is standardised by
_AT_ONCE = 256  # images for BatchNorm's statistics


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
        reinit: layers at the end of what is left that begin with fresh weights, instead of being taken off.
        pooling: what the head is attached to; None: the encoder's own vector.
        views: crops, flips and colours for training; the first global view is learnt from. None: images as they are.
        augmentation: what else is done to them in training.
        standardize: where the encoder stands still, give the head what it reads with mean 0 and deviation 1 over the images to
            learn from; see `Standardization`. Where it learns, a scale that was measured before the first step would not hold.
        seed: of the head's weights, and of dropout and drop-path, which are drawn anew each step.
        channels_last: keep convolutions in the memory layout that processors and tensor cores are fast at.

    Raises:
        ValueError: `cut` or `reinit` asks for layers that are not there, `views` normalise or size images otherwise than
            `preprocessing`, or policy or pooling do not suit the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        task: Task,
        *,
        freezing: Policy,
        preprocessing: Mapping[str, Any],
        optimizer: OptimizerSpec | None = None,
        cut: int = 0,
        reinit: int = 0,
        pooling: Pooling | None = None,
        views: ViewMaker | None = None,
        augmentation: Augmentation | None = None,
        standardize: bool = True,
        seed: int = 0,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.task, self.optimizer, self.seed, self.standardize = task, optimizer, seed, standardize
        self.cut, self.reinit, self.pooling = cut, reinit, pooling or Pooling()
        self.views = plain(**preprocessing)
        self.augment, self.augmentation = views, augmentation or Augmentation()
        if task.on_tokens:
            require_places(views, self.augmentation)
        if self.augmentation.mixes and not isinstance(task, Classification):
            raise ValueError(f"mixup and cutmix blend labels of classes, and this is {task.kind}: leave them out.")
        if views is not None:
            require_same(views, self.views)
        self.encoder: Any = copy.deepcopy(encoder) if cut == 0 else encoder.cut(cut)
        require_channels(self.encoder, len(self.views.mean))
        machine.guard_convolutions(self.encoder)
        example = torch.zeros(1, len(self.views.mean), *self.views.size)
        refresh(self.encoder, reinit, int(keyed.mix(seed, _REINIT_STREAM)), example)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(keyed.mix(seed, _HEAD_STREAM)))
            self.head = head_of(task, self.pooling, self.encoder, example)
            self.freezer = Freezer(freezing, self.encoder, example)
        self.kept = Kept(freezing, self.head, views is not None or self.augmentation != Augmentation())
        self.audit = Audit(self.freezer, self.head)
        self.classes: tuple[str, ...] | None = None
        self.measures = nn.ModuleDict({split: Measures(task) for split in ("val", "test")})
        self.readouts, self.intervals = Readouts(), dict[str, list[float]]()
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 images, of any one size, to the head's outputs ``(B, ...)``."""
        return self.head(self.encoder(self._seen(images), layers=self.head.layers))

    def _seen(self, images: Tensor) -> Tensor:
        """Images as the encoder sees them, in the precision of its weights."""
        x = self.views.center(images)
        like = next((p for p in self.encoder.parameters() if p.is_floating_point()), x)
        return x.to(like.dtype)

    @classmethod
    def load(cls, folder: str | Path, *, allow_target: Sequence[str] = ()) -> Self:
        """The model that a run of ``downstream`` left, or `save`, in evaluation mode: for `predict`.

        Args:
            folder: of the run.
            allow_target: functions of your own that make its encoder, see `load_encoder`.

        Raises:
            ValueError: something is missing, damaged, or of another model.
        """
        found = load_model(folder, allow_target=allow_target)
        module = cls(
            found.encoder.encoder,
            tasks.restored(found.task),
            freezing=Frozen(),
            preprocessing=found.encoder.preprocessing,
            pooling=poolings.restored(found.pooling),
        )
        load_strictly(module.head, found.tensors, f"{Path(folder) / 'head.safetensors'}")
        module.classes = found.classes
        return module.eval()

    def save(self, folder: str | Path, history: Mapping[str, Any] | None = None) -> None:
        """Write encoder and head, what `load` reads.

        Args:
            folder: where.
            history: plain values worth keeping.
        """
        images = {"mean": self.views.mean, "std": self.views.std, "size": self.views.size, "channels": len(self.views.mean)}
        save_encoder(self.exported(), folder, preprocessing=images, history=history or {})
        self.save_head(folder)

    def save_head(self, folder: str | Path) -> None:
        """Write the head beside the encoder, which is there already."""
        state = {"task": self.task.state(), "pooling": self.pooling.state()}
        save_head(self.head.state_dict(), folder, **state, classes=self.classes)

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int = 512) -> Prediction:
        """What the model says of images, in evaluation mode.

        Args:
            images: ``(N, C, H, W)`` uint8, of any one size; they are brought to the size that the encoder knows.
            batch_size: images encoded at a time; the result does not depend on it.

        Raises:
            ValueError: they are no uint8 images of the encoder's channels.
        """
        channels = len(self.views.mean)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != channels or len(images) == 0:
            raise ValueError(
                f"images are {images.dtype} {tuple(images.shape)}: give uint8 of (N, {channels}, H, W), N at least 1, from 0 "
                "to 255; the model normalises them itself."
            )
        with self._evaluating():
            outputs = torch.cat([self(part.to(self.device)).cpu() for part in images.split(batch_size)])
        return self.task.predicted(outputs)

    @torch.no_grad()
    def remember(self, train: Labelled, batch_size: int = 512) -> None:
        """Fill a head that learns nothing and holds the labelled samples, if it is one."""
        if not isinstance(self.head.task, NeighbourHead):
            return
        pooled: list[Tensor] = []
        with self._evaluating():
            for rows in torch.arange(len(train)).split(batch_size):
                x = self._seen(train.images(rows).to(self.device))
                pooled.append(self.head.pool(self.encoder(x, layers=self.head.layers)))
            self.head.task.remember(torch.cat(pooled), self.task.targets(train).to(self.device))

    @torch.no_grad()
    def outputs(self, split: Labelled, batch_size: int = 512) -> Tensor:
        """What the head says of every sample of a split, in evaluation mode: ``(N, ...)`` on the CPU."""
        parts = torch.arange(len(split)).split(batch_size)
        with self._evaluating():
            return torch.cat([self(split.images(rows).to(self.device)).cpu() for rows in parts])

    @torch.no_grad()
    def measure(self, split: Labelled, batch_size: int = 512) -> dict[str, float]:
        """Loss and metrics of a split, in one process and without a Trainer.

        Args:
            split: every sample counts once.
            batch_size: samples encoded at a time; the result does not depend on it.
        """
        targets = self._check(split)
        measures = Measures(self.task).to(self.device)
        with self._evaluating():
            for rows in torch.arange(len(split)).split(batch_size):
                outputs = self(split.images(rows).to(self.device))
                measures.add(outputs, self._placed(targets[rows].to(self.device)))
        return {name: float(value) for name, value in measures.found().items()}

    @contextmanager
    def _evaluating(self) -> Generator[None]:
        """Evaluation mode inside, and afterwards the mode that was."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def exported(self) -> nn.Module:
        """The encoder, cut, and fine-tuned if the policy lets it learn."""
        return self.freezer.policy.merged(self.encoder)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; the policy decides for the encoder."""
        super().train(mode)
        self.freezer.mode(mode)
        return self

    # Set-up

    def setup(self, stage: str) -> None:
        """Refuse what would train wrongly, before anything runs."""
        if stage == "fit":
            run.require_steps(self.trainer)
            self._require_warmup()
        if self.channels_last:
            run.keep_channels_last(self)
        if self._data is None:
            raise ValueError("a DownstreamModule reads LabelledData(train, val, test): trainer.fit(module, LabelledData(...)).")
        self._data.attach(self.task.targets)
        for split in {"fit": (self._data.train, self._data.val), "test": (self._data.test,)}.get(stage, ()):
            if split is not None:
                self._check(split)
        if stage == "fit":
            asked = self.trainer.max_steps * self.trainer.accumulate_grad_batches * self._data.batch_size
            self._data.rows_only = self.kept.due(len(self._data.train), asked, self.trainer)

    def _require_warmup(self) -> None:
        """Refuse a warm-up that does not fit into each stage's cycle: a later one would stop the run in its middle."""
        if self.optimizer is None:
            return
        for stage in range(self.encoder.num_layers + 2):
            first, last = self._cycle(stage)
            try:
                self.optimizer.schedule(last - first)
            except ValueError as error:
                kind = self.freezer.policy.kind
                raise ValueError(f"freezing={kind} lets the rate rise anew for steps {first} to {last}: {error}") from error

    def configure_optimizers(self) -> Any:
        """The optimiser over what learns, and its schedule over steps."""
        if self.optimizer is None:
            raise ValueError("DownstreamModule needs an optimizer to train: DownstreamModule(..., optimizer=adamw(lr=1e-3)).")
        assert self._data is not None
        batch = self._data.batch_size * self.trainer.accumulate_grad_batches
        first, last = self._cycle(self.freezer.stage)
        optimizer, scheduler = self.optimizer.build(
            self,
            total_steps=last - first,
            done=max(0, self.trainer.global_step - first),
            global_batch=batch,
            lr_scale=self._lr_scale,
            fused=not run.is_scaled(self.trainer),
        )
        self.audit.optimizer(optimizer.param_groups)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the weights belong to, where the policy stands, and what must not change."""
        checkpoint["downstream"] = {**self._identity(), "stage": self.freezer.stage, "audit": self.audit.state()}

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
        self.freezer.enter(saved["stage"])  # before the optimiser is built, which has the groups of this stage
        self.audit.load_state(saved["audit"])
        self.train(self.training)

    # Steps

    def on_train_start(self) -> None:
        """Note what is frozen; a run that goes on has it noted already, and is compared with that."""
        assert self._data is not None
        train, fresh = self._data.train, not (self.audit.hashes or self.audit.stages)
        if not fresh:
            self.audit.unchanged()
        elif self.freezer.policy.batch_norm == "recompute":
            parts = torch.arange(len(train)).tensor_split(-(-len(train) // _AT_ONCE))  # as large, give or take one
            self.freezer.recompute(self._seen(train.images(rows).to(self.device)) for rows in parts)
        self.eval()
        if self._data.rows_only:
            self.kept.fill(len(train), self._read, self.trainer)
        if fresh and self.standardize and self.kept.still:
            self._measure_standard(len(train))
        self.train()
        if fresh:
            self.audit.watch(self.trainer.global_step)
        self.audit.images(train, self.views)

    @torch.no_grad()
    def _measure_standard(self, images: int) -> None:
        """By the same images in every process, spread over the split."""
        rows = torch.linspace(0, images - 1, min(_STANDARD, images)).round().long()
        kept = self.kept.vectors
        self.head.standard.measure([kept[rows]] if kept is not None else map(self._read, rows.split(_AT_ONCE)))

    def _read(self, rows: Tensor) -> Tensor:
        """What the task's head is given of images to learn from, before it is standardised."""
        assert self._data is not None
        images = self._data.train.images(rows).to(self.device)
        return self.head.read(self.encoder(self._seen(images), layers=self.head.layers))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Go on to the stage of the policy that this step belongs to."""
        self.audit.modes()
        stage = self.freezer.due(self._moment())
        if stage != self.freezer.stage:
            self._enter(stage)

    def on_train_end(self) -> None:
        """What was frozen is the same to the bit."""
        self.audit.unchanged()
        self.kept.vectors = None

    def _enter(self, stage: int) -> None:
        """Another part of the encoder learns from now on: a new optimiser, with what the old one knows of those that stay."""
        self.audit.unchanged()
        old, before = self.trainer.optimizers[0], self._cycle(self.freezer.stage)
        self.freezer.enter(stage)
        self.train()
        strategy = self.trainer.strategy
        strategy.setup_optimizers(self.trainer)
        new = strategy.optimizers[0]
        if self._cycle(stage) == before:
            kept = {parameter for group in new.param_groups for parameter in group["params"]}
            new.state.update({parameter: state for parameter, state in old.state.items() if parameter in kept})
        if isinstance(strategy, DDPStrategy):
            strategy.model = self
            strategy.configure_ddp()  # it synchronises what learnt when it was built, and no more
        self.audit.watch(self.trainer.global_step)

    def _moment(self) -> Moment:
        assert self._data is not None
        samples = self.trainer.global_step * self.trainer.accumulate_grad_batches * self._data.batch_size
        return Moment(self.trainer.global_step, int(self.trainer.max_steps), samples / len(self._data.train))

    def _cycle(self, stage: int) -> tuple[int, int]:
        return self.freezer.policy.cycle(stage, int(self.trainer.max_steps))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """What the encoder says of the images, what the head makes of it, how far that is from the labels."""
        position = batch_idx if self._data is None else self._data.position
        keyed.reseed(self.device, self.seed, _DROPOUT_STREAM, position, self.global_rank)
        if self.kept.vectors is not None:
            assert batch.target is not None
            outputs, targets = self.head.of_vectors(self.kept.vectors[batch.input]), batch.target
        else:
            x, targets = self._train_samples(batch)
            outputs = self.head(self.encoder(x, layers=self.head.layers))
        loss = self.task.loss(outputs, targets)
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
        """Report them, over all processes, and keep the `intervals` of the metrics."""
        self._report("test")
        if self.task.resamples:
            outputs, targets = self.readouts.compute()
            self.intervals = bootstrap(self.task.metrics, outputs, targets, seed=self.seed)
            self.readouts.reset()

    def _train_samples(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Augmented images, and labels, blended where images are."""
        assert batch.target is not None
        if self.augment is None and self.augmentation == Augmentation():
            return self.views.center(batch.input), self._placed(batch.target)
        assert batch.epoch is not None
        index, epoch = batch.index.cpu(), batch.epoch.cpu()
        keys = keyed.mix(self.seed, epoch, index)
        batch = batch._replace(input=self.augmentation.raw(batch.input, keys))
        assert batch.target is not None
        targets: Tensor = batch.target
        if self.augment is None:
            x, targets = self.views.center(batch.input), self._placed(targets)
        else:
            views = self.augment.apply(batch, self.augment.draw(index, epoch))
            x = views.global_crops[0]
            if self.task.on_tokens:
                assert views.boxes is not None
                targets = cropped(targets, views.boxes[0], self.augment.size)
        x = self.augmentation.normalised(x, keys)
        if isinstance(self.task, Classification):
            return self.augmentation.mixed(x, targets, keys, self.task.num_classes)
        return x, targets

    def _placed(self, targets: Tensor) -> Tensor:
        """Labels of pixels as `ViewMaker.center` has the pixels; others as they are."""
        if not self.task.on_tokens or targets.shape[-2:] == self.views.size:
            return targets
        return fit(targets.to(torch.uint8), self.views.size, labels=True).to(targets.dtype)

    def _measure_batch(self, split: str, batch: Batch) -> None:
        outputs = self(batch.input)
        assert batch.target is not None
        real = batch.index >= 0  # the others fill up the last batch, so that all processes make the same steps
        outputs, targets = outputs[real], self._placed(batch.target[real])
        cast(Measures, self.measures[split]).add(outputs, targets)
        if split == "test" and self.task.resamples:
            self.readouts.update(*self.task.readout(outputs, targets))

    def _report(self, split: str) -> None:
        values = {f"{split}/{name}": value for name, value in cast(Measures, self.measures[split]).found().items()}
        self.log_dict(values, prog_bar=True, sync_dist=True)

    def _check(self, split: Labelled) -> Tensor:
        """The split's targets, if they and its images are what this module takes."""
        targets = self.task.targets(split)
        self.task.check(targets)
        channels, expected = split.images([0]).shape[1], len(self.views.mean)
        if channels != expected:
            raise ValueError(
                f"the encoder was pretrained on {expected} channels and these images have {channels}: "
                f"read them with data.channels={expected}, or take an encoder for {channels}."
            )
        return targets

    def _lr_scale(self, name: str) -> float:
        part, _, rest = name.partition(".")
        return self.freezer.rate(rest) if part == "encoder" else self.freezer.head_rate

    def _identity(self) -> dict[str, Any]:
        policy, pooling = self.freezer.policy.state(), self.pooling.state()
        return {"cut": self.cut, "reinit": self.reinit, "freezing": policy, "pooling": pooling, "task": self.task.state()}

    @property
    def _data(self) -> LabelledData | None:
        data = getattr(self.trainer, "datamodule", None)  # absent from Lightning's Trainer until one is attached
        return data if isinstance(data, LabelledData) else None
