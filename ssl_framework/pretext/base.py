"""What every pretext task shares: it is fed, optimised, followed and logged. A task itself is `__init__` and `forward`."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypedDict

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer

from ssl_framework import keyed, machine, run
from ssl_framework.checkpoint import SaveRun
from ssl_framework.data import DataModule
from ssl_framework.guards.finite import was_skipped
from ssl_framework.nn import Follower, Teacher, input_channels
from ssl_framework.optim import OptimizerSpec
from ssl_framework.types import Batch, Encoder, Step, TokenEncoder, ViewMaker, Views

_DROPOUT_STREAM = 1_000_033


@dataclass(frozen=True)
class Card:
    """What a task is, for people and for the generated tables.

    Attributes:
        family: generative, contrastive or predictive.
        group: the sub-group of the taxonomy, for example "masked" or "self-distillation".
        target: what is predicted or told apart.
        prevents_collapse: what keeps the embedding from becoming constant; "nothing to prevent" where the target is fixed.
        judged_by: the protocol under which the task is judged fairly.
        paper: where it comes from.
        views: global views that it needs of a sample.
        exports: whose encoder is kept, and it is a fact of the paper's code.
        needs_tokens: it hides or drops single tokens, so it trains a `TokenEncoder` only.
        needs_colour: its target is the colour of images, so it trains on those of three channels only.
        class_token: its loss trains the class token of a vision transformer. If not, one that pools by the class token is
            refused: monitors, probes and phase 2 would read a vector that nothing has trained.
        positions: of a vision transformer in the paper's code, which an encoder of the command line has unless it is told
            otherwise: "learn", or "sincos", fixed. A decoder or predictor that is asked for places needs an encoder that tells
            them from the first step on: learnt ones begin near zero, and I-JEPA's collapses in a short training (measured).
    """

    family: Literal["generative", "contrastive", "predictive"]
    group: str
    target: str
    prevents_collapse: str
    judged_by: str
    paper: str
    views: int
    exports: Literal["student", "teacher"] = "student"
    needs_tokens: bool = False
    needs_colour: bool = False
    class_token: bool = True
    positions: Literal["learn", "sincos"] = "learn"

    @property
    def needs(self) -> str:
        """What not every encoder or data set has, in a word or two for tables; empty if nothing."""
        return ", ".join(["tokens"] * self.needs_tokens + ["colour"] * self.needs_colour)


class Training(TypedDict, total=False):
    """What every task takes besides its own numbers, and hands to `PretextModule`."""

    views: ViewMaker | None
    optimizer: OptimizerSpec | None
    seed: int
    compile: bool | str
    channels_last: bool


class PretextModule(pl.LightningModule):
    """Base of all pretext tasks. A subclass defines `card`, `__init__` and `forward`, and overrides no hook.

    Args:
        encoder: what is pretrained.
        views: draws and applies the augmentation; needed to fit, not to call.
        optimizer: how to train; needed to fit, not to call.
        seed: of dropout and drop-path, which are drawn anew each step from (seed, batch, rank).
        compile: run the encoder through `torch.compile`; see `run.compile_in_place`.
        channels_last: keep views and convolutions in the memory layout that processors and tensor cores are fast at.
    """

    card: ClassVar[Card]

    def __init__(
        self,
        encoder: Encoder,
        *,
        views: ViewMaker | None = None,
        optimizer: OptimizerSpec | None = None,
        seed: int = 0,
        compile: bool | str = False,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        assert isinstance(encoder, nn.Module)
        if getattr(encoder, "pools_class_token", False) and not self.card.class_token:
            raise ValueError(
                f"{type(self).__name__} does not train the class token, and this {type(encoder).__name__} gives it as its "
                'vector: take encoder.pool=mean, or pool="mean".'
            )
        self.encoder: Any = encoder
        self.views = views
        self.optimizer = optimizer
        self.seed = seed
        self.progress = 0.0  # share of the training that is done; set before each forward
        self.channels_last = channels_last
        machine.guard_convolutions(encoder)
        run.compile_in_place(encoder, compile)

    def forward(self, views: Views) -> Step:
        """What the task says of a batch of views."""
        raise TypeError(f"{type(self).__name__} has no forward(views) -> Step: a pretext task defines it.")

    def exported(self) -> nn.Module:
        """The encoder that phase 2 starts from, as the card says."""
        if self.card.exports == "student":
            return self.encoder
        teachers = [module for module in self.modules() if isinstance(module, Teacher)]
        return teachers[0].module.get_submodule("encoder")

    # Set-up

    def setup(self, stage: str) -> None:
        """Refuse what would train wrongly, before anything runs; hand the views to the data."""
        name = type(self).__name__
        if self.views is None:
            raise ValueError(f"{name} needs views to train on: {name}(encoder, views=two_crops(...), optimizer=...).")
        if stage == "fit":
            run.require_steps(self.trainer)
            self._require_branch()
        if self.channels_last:
            run.keep_channels_last(self)
        if self._data is not None:
            self._data.attach(self.views)
            if stage == "fit":
                self._data.require_apart()
                self._data.require_unseen(self._data)
            for follower in self._followers if stage == "fit" else ():
                follower.begin(self._data.num_samples)
        else:
            rank_zero_info("Training on a plain DataLoader: fine for a trial, not exactly resumable. A DataModule is.")

    def _require_branch(self) -> None:
        """What phase 2 gets is the encoder that the card names: hours would pass before a wrong one is noticed, if ever."""
        found, name = self.exported(), type(self).__name__
        taught = any(found is part for module in self.modules() if isinstance(module, Teacher) for part in module.modules())
        fits = taught if self.card.exports == "teacher" else found is self.encoder or not taught
        if not fits:  # a teacher that is the student itself, as in the tests of collapse, is either
            branch = "teacher" if taught else "student"
            raise ValueError(
                f"{name}.exported() gives the {branch}'s encoder, and its card says exports={self.card.exports!r}: one of the "
                "two is wrong, and phase 2 would start from another encoder than is said."
            )

    def configure_model(self) -> None:
        """Under FSDP2, shard encoder, teachers and the rest alike."""
        if self._trainer is None or not isinstance(self.trainer.strategy, ModelParallelStrategy):
            return
        if self.optimizer is not None and self.optimizer.whole_tensors:
            raise ValueError(
                "fsdp2 shards every tensor, and LARS needs the norm of whole ones: take optimizer=sgd or adamw, or trainer=ddp."
            )
        mesh = self.device_mesh
        assert mesh is not None
        mesh = mesh["data_parallel"]
        for module in (self.encoder, *(m.module for m in self.modules() if isinstance(m, Teacher)), self):
            fully_shard(module, mesh=mesh)

    def configure_callbacks(self) -> list[Checkpoint]:
        """Save the run and its encoder, unless the Trainer has a checkpoint callback already."""
        return [] if self.trainer.checkpoint_callbacks else [SaveRun()]

    def configure_optimizers(self) -> Any:
        """The optimiser and its schedule over steps."""
        if self.optimizer is None:
            name = type(self).__name__
            raise ValueError(f"{name} needs an optimizer to train: {name}(encoder, views=..., optimizer=adamw(lr=1e-3)).")
        batch = 256  # of a plain loader nothing is known: the learning rate is taken as it stands
        if self._data is not None:
            batch = self._data.batch_size * self.trainer.accumulate_grad_batches
        optimizer, scheduler = self.optimizer.build(
            self, total_steps=int(self.trainer.max_steps), global_batch=batch, fused=not run.is_scaled(self.trainer)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # A step

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor | float]:
        """One forward; what monitors read goes to them, detached."""
        self.progress = min(1.0, self.trainer.global_step / self.trainer.max_steps)
        position = batch_idx if self._data is None else self._data.position
        keyed.reseed(self.device, self.seed, _DROPOUT_STREAM, position, self.global_rank)
        step = self(self._make_views(batch))
        self._log_step(step, len(batch.index))
        seen = {"embedding": step.embedding, "projection": step.projection, "target": step.target, "mask": step.mask}
        told = {name: value.detach() for name, value in seen.items() if value is not None}
        return {"loss": step.loss, **told} | ({} if step.chance is None else {"chance": step.chance})

    def replay(self, batch: Batch, position: int, rank: int = 0) -> Step:
        """What `training_step` computed of a batch, outside a Trainer: same views, same dropout.

        Args:
            batch: of `DataModule.batch_at`, on the device of the module.
            position: of the batch.
            rank: of the process that had it.
        """
        keyed.reseed(self.device, self.seed, _DROPOUT_STREAM, position + 1, rank)  # a batch is counted before its step
        return self(self._make_views(batch))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The pretext loss on samples that are not trained on, always with the same views."""
        step = self(self._make_views(batch))
        self.log("val/loss", step.loss, batch_size=len(batch.index), sync_dist=True)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Optimizer | Any, optimizer_closure: Any = None) -> None:
        """Step, then let teachers and other followers move, unless the step was skipped: a checkpoint sees both or neither."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if not was_skipped(optimizer):
            for follower in self._followers:
                follower.follow(self.progress)

    @cached_property
    def _followers(self) -> tuple[Follower, ...]:
        """Looked for once: a walk over all modules costs more than moving them."""
        return tuple(module for module in self.modules() if isinstance(module, Follower))

    def _make_views(self, batch: Batch) -> Views:
        assert self.views is not None
        draw = batch.draw
        if draw is None:  # a plain loader
            epoch = self.current_epoch if batch.epoch is None else batch.epoch.cpu()
            draw = self.views.draw(batch.index.cpu(), epoch)
        views = self.views.apply(batch._replace(target=None), draw)
        if len(views.global_crops) < self.card.views:
            count = self.card.views
            raise ValueError(
                f"{type(self).__name__} compares {count} views of a sample, and these views make "
                f"{len(views.global_crops)}: take {'two_crops or ' if count == 2 else ''}affine(views={count})."
            )
        if self.dtype == torch.float64:
            views = views._replace(**{name: crops.double() for name, crops in _crops(views).items()})
        return views if self.channels_last else views._replace(**_contiguous(views))

    def _log_step(self, step: Step, batch_size: int) -> None:
        if not run.is_logged(self.trainer):
            return
        logs = {f"train/{name}": value for name, value in step.logs.items()}
        self.log("train/loss", step.loss, prog_bar=True, batch_size=batch_size, sync_dist=True)
        self.log_dict(logs, batch_size=batch_size, sync_dist=True)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=batch_size)
        if self._data is not None:
            self.log("epoch", self._data.position / self._data.batches_per_epoch, batch_size=batch_size)

    @property
    def _data(self) -> DataModule | None:
        data = getattr(self.trainer, "datamodule", None)  # absent from Lightning's Trainer until one is attached
        return data if isinstance(data, DataModule) else None


def _crops(views: Views) -> dict[str, Tensor]:
    crops = {"global_crops": views.global_crops, "local_crops": views.local_crops}
    return {name: crop for name, crop in crops.items() if crop is not None}


def _contiguous(views: Views) -> dict[str, Tensor]:
    """Crops with the layout that they are indexed in; kernels make them channels last."""
    return {name: crop.contiguous() for name, crop in _crops(views).items()}


def require_tokens(encoder: Encoder, task: str) -> TokenEncoder:
    """The encoder as a `TokenEncoder`.

    Raises:
        ValueError: it cannot encode single tokens; the message names encoders that can.
    """
    if isinstance(encoder, TokenEncoder):
        return encoder
    raise ValueError(
        f"{task} hides tokens from its encoder, and {type(encoder).__name__} has none to hide: "
        "take a vision transformer, encoder=vit_micro, vit_tiny or vit_small, or a ViT of encoder=timm."
    )


def require_colour(encoder: Encoder, task: str) -> None:
    """Refuse an encoder of images without colour.

    Raises:
        ValueError: its input has not three channels; the message names data that have.
    """
    assert isinstance(encoder, nn.Module)
    channels = input_channels(encoder)
    if channels != 3:
        raise ValueError(
            f"{task} learns from the colours of images, and its encoder is for images of {channels} channel"
            f"{'s' * (channels > 1)}: take colour images, data=cifar10, stl10, eurosat or your own with data.channels=3, "
            "and an encoder with in_chans=3."
        )
