"""Object detection: torchvision's Faster R-CNN or RetinaNet on an encoder that was pretrained here."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.utilities.types import EVAL_DATALOADERS
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from ssl_framework import keyed, machine, run
from ssl_framework.data.boxes import Boxed, CocoBoxes
from ssl_framework.data.order import EndlessOrder
from ssl_framework.downstream.audit import Audit
from ssl_framework.downstream.freezing import Freezer, Moment, Policy
from ssl_framework.downstream.pyramid import Pyramid
from ssl_framework.optim import OptimizerSpec
from ssl_framework.types import Encoder
from ssl_framework.views.preprocessing import plain

_FLIP, _STEP, _HEAD = 0xF11B, 0xDE7EC7, 0xDE7  # name uses of a seed

Target = dict[str, Tensor]
Pairs = tuple[list[Tensor], list[Target]]


class DetectionData(pl.LightningDataModule):
    """Images with boxes, in batches of lists, for they differ in size. The order is a function of the seed and the position.

    Args:
        train: what is learnt from.
        val: what is reported on while training.
        test: what is measured once.
        batch_size: of all processes together.
        flip: probability that a training image is mirrored, boxes and all.
        workers: processes that read ahead.
        seed: of order and flips.
    """

    def __init__(
        self,
        train: CocoBoxes,
        val: CocoBoxes | None = None,
        test: CocoBoxes | None = None,
        *,
        batch_size: int = 4,
        flip: float = 0.5,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or not 0 <= flip <= 1:
            raise ValueError(f"batch_size={batch_size}, flip={flip}: at least one image, and a probability.")
        self.train, self.val, self.test = train, val, test
        self.batch_size, self.flip, self.workers, self.seed = min(batch_size, len(train)), flip, workers, seed
        self.position = 0

    @property
    def batches_per_epoch(self) -> float:
        """Global batches in one pass."""
        return len(self.train) / self.batch_size

    def train_dataloader(self) -> DataLoader[Pairs]:
        """Endless batches from `position` on."""
        rank, world = self._place
        if self.batch_size % world:
            raise ValueError(f"batch_size={self.batch_size} cannot be shared equally by {world} processes: take a multiple.")
        return DataLoader(_Learnt(self, rank, world), batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> EVAL_DATALOADERS:
        """Each image once."""
        return [] if self.val is None else self._measured(self.val)

    def test_dataloader(self) -> EVAL_DATALOADERS:
        """Each image once."""
        if self.test is None:
            raise ValueError("there is no test split to measure on: give DetectionData(..., test=CocoBoxes(...)).")
        return self._measured(self.test)

    def on_after_batch_transfer(self, batch: Pairs, dataloader_idx: int) -> Pairs:
        """Count what training has consumed."""
        if self.trainer is not None and self.trainer.training:
            self.position += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it is a position in."""
        return {"position": self.position, "samples": len(self.train), "batch_size": self.batch_size, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a position.

        Raises:
            ValueError: it belongs to other data.
        """
        for name in ("samples", "batch_size", "seed"):
            own = self.state_dict()[name]
            if state_dict[name] != own:
                raise ValueError(f"the run was started with {name}={state_dict[name]} and is resumed with {name}={own}.")
        self.position = state_dict["position"]

    def _measured(self, split: CocoBoxes) -> DataLoader[Pairs]:
        return DataLoader(_Measured(split, self.batch_size, *self._place), batch_size=None, num_workers=self.workers)

    @property
    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


class _Learnt(IterableDataset[Pairs]):
    def __init__(self, data: DetectionData, rank: int, world: int) -> None:
        self.data, self.order = data, EndlessOrder(len(data.train), data.batch_size, data.seed)
        share = data.batch_size // world
        self.mine = slice(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[Pairs]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for k in itertools.count(self.data.position + first, step):
            rows, epochs = (numbers[self.mine] for numbers in self.order.batch(k))
            yield _pairs([self._one(int(row), int(epoch)) for row, epoch in zip(rows, epochs, strict=True)])

    def _one(self, row: int, epoch: int) -> Boxed:
        one = self.data.train.read(row)
        one = Boxed(one.image, one.boxes[~one.crowd], one.labels[~one.crowd], one.crowd[~one.crowd])
        drawn = float(keyed.uniform(keyed.mix(self.data.seed, epoch, row)[None], _FLIP, 1))
        return mirrored(one) if drawn < self.data.flip else one


class _Measured(IterableDataset[Pairs]):
    def __init__(self, split: CocoBoxes, size: int, rank: int, world: int) -> None:
        self.split, self.size, self.rows = split, size, range(rank, len(split), world)

    def __iter__(self) -> Iterator[Pairs]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        starts = range(0, len(self.rows), self.size)
        for start in itertools.islice(starts, first, None, step):
            yield _pairs([self.split.read(row) for row in self.rows[start : start + self.size]])


def mirrored(one: Boxed) -> Boxed:
    """Left and right exchanged, boxes and all."""
    width, boxes = one.image.shape[-1], one.boxes
    return one._replace(
        image=one.image.flip(-1), boxes=torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    )


def _pairs(ones: Sequence[Boxed]) -> Pairs:
    """Images in [0, 1], and their boxes as torchvision's detectors take them."""
    images = [one.image.float() / 255 for one in ones]
    return images, [{"boxes": one.boxes, "labels": one.labels, "iscrowd": one.crowd.long()} for one in ones]


class DetectionModule(pl.LightningModule):
    """Phase 2 for boxes: an encoder, cut, a feature pyramid and a detector on it.

    Args:
        encoder: pretrained; it is copied.
        classes: names of the things, without the background.
        freezing: which part of the encoder learns.
        preprocessing: of the images that the encoder saw; its size is not used: see `shorter`.
        optimizer: how to train.
        detector: "faster_rcnn" (Ren et al., 2015, https://arxiv.org/abs/1506.01497) or "retinanet" (Lin et al., 2017,
            https://arxiv.org/abs/1708.02002), torchvision's.
        cut: layers to take off.
        shorter: images are scaled until their shorter side has so many pixels, 800 in the papers.
        longer: and their longer side no more than so many.
        channels: of the pyramid's maps.
        seed: of new weights, and of what a step draws.

    Raises:
        ValueError: the encoder has no maps, or a number makes no sense.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: Sequence[str],
        *,
        freezing: Policy,
        preprocessing: Mapping[str, Any],
        optimizer: OptimizerSpec | None = None,
        detector: Literal["faster_rcnn", "retinanet"] = "faster_rcnn",
        cut: int = 0,
        shorter: int = 800,
        longer: int = 1333,
        channels: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if detector not in ("faster_rcnn", "retinanet"):
            raise ValueError(f"detector={detector}: choose faster_rcnn or retinanet.")
        if not classes or shorter < 1 or longer < shorter:
            raise ValueError(
                f"classes={list(classes)}, shorter={shorter}, longer={longer}: give classes, and sides in their order."
            )
        self.classes, self.optimizer, self.seed = tuple(classes), optimizer, seed
        self.numbers = {"detector": detector, "cut": cut, "shorter": shorter, "longer": longer, "channels": channels}
        own: Any = copy.deepcopy(encoder) if cut == 0 else encoder.cut(cut)
        machine.guard_convolutions(own)
        mean, std = list(preprocessing["mean"]), list(preprocessing["std"])
        example = torch.zeros(1, len(mean), *preprocessing["size"])
        if freezing.batch_norm == "recompute":
            raise ValueError("detection does not recompute BatchNorm's statistics: give freezing.batch_norm=frozen or adapt.")
        _leave_out(own, example)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(keyed.mix(seed, _HEAD)))
            self.freezer = Freezer(freezing, own, example)
            pyramid = Pyramid(own, example, channels)
            self.detector = _detector(detector, pyramid, 1 + len(classes), mean, std, shorter, longer)
        heads = nn.ModuleList(part for name, part in self.detector.named_children() if name != "backbone")
        self.audit = Audit(self.freezer, nn.ModuleList([pyramid.join, *heads]))
        self._seen: tuple[list[Target], list[Target]] = ([], [])
        self.views = plain(**preprocessing)  # what `SaveRun` writes of the images
        self.train()

    @property
    def encoder(self) -> Any:
        """The encoder, cut."""
        return cast(Pyramid, self.detector.backbone).encoder

    def forward(self, images: list[Tensor]) -> list[Target]:
        """Images ``(C, H, W)`` in [0, 1] to ``boxes`` ``(n, 4)``, ``labels`` ``(n,)`` and ``scores`` ``(n,)`` of each."""
        return self.detector(images)

    def exported(self) -> nn.Module:
        """The encoder, fine-tuned if the policy lets it learn."""
        return self.freezer.policy.merged(self.encoder)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation; the policy decides for the encoder."""
        super().train(mode)
        self.freezer.mode(mode)
        return self

    def setup(self, stage: str) -> None:
        """Refuse what would train wrongly."""
        if stage == "fit":
            run.require_steps(self.trainer)

    def configure_optimizers(self) -> Any:
        """Over what learns, with a schedule over steps."""
        if self.optimizer is None:
            raise ValueError("DetectionModule needs an optimizer to train: DetectionModule(..., optimizer=adamw(lr=1e-4)).")
        data: Any = getattr(self.trainer, "datamodule", None)
        optimizer, scheduler = self.optimizer.build(
            self,
            total_steps=int(self.trainer.max_steps),
            global_batch=data.batch_size * self.trainer.accumulate_grad_batches,
            lr_scale=self._rate,
            fused=not run.is_scaled(self.trainer),
        )
        self.audit.optimizer(optimizer.param_groups)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Note what is frozen."""
        total = int(self.trainer.max_steps)
        if self.freezer.due(Moment(total, total, 1e9)) != self.freezer.stage:
            raise ValueError(
                f"freezing={self.freezer.policy.kind} changes while it trains, which detection does not do: take another."
            )
        self.audit.watch(self.trainer.global_step)

    def on_train_batch_start(self, batch: Pairs, batch_idx: int) -> None:
        """What is frozen evaluates."""
        self.audit.modes()

    def on_train_end(self) -> None:
        """What was frozen is the same to the bit."""
        self.audit.unchanged()

    def training_step(self, batch: Pairs, batch_idx: int) -> Tensor:
        """The sum of the detector's losses."""
        data: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  (Lightning sets it)
        keyed.reseed(self.device, self.seed, _STEP, data.position, self.global_rank)  # detectors draw which boxes to learn from
        losses: dict[str, Tensor] = self.detector(*batch)
        loss = torch.stack(list(losses.values())).sum()
        if run.is_logged(self.trainer):
            self.log_dict({f"train/{name}": value for name, value in losses.items()}, batch_size=len(batch[0]), sync_dist=True)
            self.log("train/loss", loss, prog_bar=True, batch_size=len(batch[0]), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """A new measurement."""
        self._seen = ([], [])

    def validation_step(self, batch: Pairs, batch_idx: int) -> None:
        """Find things and compare."""
        for kept, new in zip(self._seen, self._found(batch), strict=True):
            kept.extend(new)

    def on_validation_epoch_end(self) -> None:
        """Report."""
        self._report("val")

    def on_test_epoch_start(self) -> None:
        """A new measurement."""
        self._seen = ([], [])

    def test_step(self, batch: Pairs, batch_idx: int) -> None:
        """Find things and compare."""
        for kept, new in zip(self._seen, self._found(batch), strict=True):
            kept.extend(new)

    def on_test_epoch_end(self) -> None:
        """Report."""
        self._report("test")

    def _found(self, batch: Pairs) -> tuple[list[Target], list[Target]]:
        images, targets = batch
        found = [{key: value.cpu() for key, value in one.items()} for one in self(images)]
        return found, [{key: value.cpu() for key, value in one.items()} for one in targets]

    def _report(self, split: str) -> None:
        values = average_precision(*self._seen)
        kept = {"map": "mean_average_precision", "map_50": "average_precision_50", "map_75": "average_precision_75"}
        self.log_dict({f"{split}/{name}": values[key] for key, name in kept.items()}, prog_bar=True)

    def _rate(self, name: str) -> float:
        prefix = "detector.backbone.encoder."
        return self.freezer.rate(name.removeprefix(prefix)) if name.startswith(prefix) else self.freezer.head_rate


def average_precision(found: list[Target], targets: list[Target]) -> dict[str, Tensor]:
    """COCO's mean over thresholds of overlap from 0.5 to 0.95, by torchmetrics and pycocotools, over all processes.

    Args:
        found: boxes, labels and scores of each image of this process, on the CPU.
        targets: boxes, labels and crowds of each.

    Raises:
        ValueError: pycocotools is not installed.
    """
    from torchmetrics.detection import MeanAveragePrecision  # noqa: PLC0415  (asks for pycocotools when it is made)

    try:
        metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox", distributed_available_fn=lambda: False)
    except ModuleNotFoundError as error:
        raise ValueError("average precision needs pycocotools: pip install ssl-framework[detection].") from error
    parts: list[Any] = [(found, targets)]
    if dist.is_initialized():  # as objects: processes have different numbers of images, and images of boxes
        parts = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (found, targets))
    for part in parts:
        metric.update(*part)
    return metric.compute()


def _leave_out(encoder: Any, example: Tensor) -> None:
    """Freeze what no map depends on, such as a final norm: it would have no gradient, for which processes would wait."""
    encoder.eval()
    learning = [p for p in encoder.parameters() if p.requires_grad]
    with torch.enable_grad():
        seen = encoder(example, layers=tuple(range(encoder.num_layers)))
        if not learning or not seen.layers:
            return
        total = torch.stack([one.sum() for one in seen.layers]).sum()
        gradients = torch.autograd.grad(total, learning, allow_unused=True)
    for parameter, gradient in zip(learning, cast(Sequence[Tensor | None], gradients), strict=True):
        parameter.requires_grad_(gradient is not None)


def _detector(
    kind: str, pyramid: Pyramid, num_classes: int, mean: list[float], std: list[float], shorter: int, longer: int
) -> FasterRCNN | RetinaNet:
    """Anchors are eight strides large on each map (Lin et al., 2017, feature pyramids, section 4.1: 32 pixels at stride 4)."""
    strides = [*pyramid.strides, 2 * pyramid.strides[-1]]
    ratios = ((0.5, 1.0, 2.0),) * len(strides)
    divisible = math.lcm(32, *(stride for stride in pyramid.strides if stride > 0))
    options: dict[str, Any] = {
        "min_size": shorter,
        "max_size": longer,
        "image_mean": mean,
        "image_std": std,
        "size_divisible": divisible,
    }
    if kind == "faster_rcnn":
        names = [str(i) for i in range(len(pyramid.strides))]
        pool = MultiScaleRoIAlign(featmap_names=names, output_size=7, sampling_ratio=2)
        anchors = AnchorGenerator(tuple((8 * stride,) for stride in strides), ratios)
        return FasterRCNN(pyramid, num_classes, rpn_anchor_generator=anchors, box_roi_pool=pool, **options)
    sizes = tuple(tuple(round(4 * stride * 2 ** (i / 3)) for i in range(3)) for stride in strides)
    return RetinaNet(pyramid, num_classes, anchor_generator=AnchorGenerator(sizes, ratios), **options)
