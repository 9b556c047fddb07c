"""Other libraries, as their own examples use them. Nothing of ours is imported: an environment with one of them is enough.

Each trains with its own transforms, loader, loss and optimiser, at the widths and the batch that all share. Three things are
done in their favour: data sets are repeated, so that no window contains the end of an epoch with its restart of the workers;
there is no online probe unless the method itself has one; and nobody blurs images of 32 pixels.
"""

import importlib
import os
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from throughput_cases import HIDDEN, PROJECTED, Case, case_of
from throughput_window import Windows, claim_pipes, specification
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

_EPOCH = 200_000  # images at least, by repetition
_STEPS = 1_000_000


class ArrayImages(Dataset[Any]):
    """What `torchvision.datasets.CIFAR10` does with its array: an image a sample, by PIL.

    Args:
        file: ``(N, H, W, C)`` uint8, ``.npy``.
        transform: of an image.
    """

    def __init__(self, file: str, transform: Any = None) -> None:
        self.images = np.load(file, mmap_mode="r")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image = Image.fromarray(self.images[index])
        return (image if self.transform is None else self.transform(image)), index % 10


class PlainMicro(nn.Module):
    """Our small encoders as plain timm modules, ``(B, 3, H, W)`` to ``(B, D)``.

    Args:
        name: "resnet_micro", "vit_micro" or "vit_tiny".
        size: side of the images.

    Raises:
        ValueError: another name.
    """

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        from timm.models import ResNet, VisionTransformer  # noqa: PLC0415  (not every peer needs it)
        from timm.models.resnet import BasicBlock  # noqa: PLC0415

        depths = {"vit_micro": 6, "vit_tiny": 12}
        if name in depths:
            kind: Any = {"img_size": size, "patch_size": 4, "embed_dim": 192, "depth": depths[name], "num_heads": 3}
            self.model: Any = VisionTransformer(num_classes=0, **kind)
        elif name == "resnet_micro":
            block: Any = BasicBlock
            stem: Any = {"stem_type": "deep", "stem_width": 8, "zero_init_last": False}
            self.model = ResNet(block, (1, 1, 1, 1), num_classes=0, channels=(16, 32, 64, 128), **stem)
            self.model.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.model.maxpool = nn.Identity()
        else:
            raise ValueError(f"{name} is not one of ours that timm makes: take resnet_micro, vit_micro or vit_tiny.")
        self.num_features: int = self.model.num_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, D)``."""
        return self.model(x)


def plain_encoder(case: Case) -> tuple[nn.Module, int]:
    """The encoder of a case and its width, for libraries that take any module."""
    if case.encoder != "resnet18":
        micro = PlainMicro(case.encoder, case.size)
        return micro, micro.num_features
    model = resnet18()
    model.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]  (torchvision types the layer, not its place)
    if not case.files:
        model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]  (torchvision types the layer, not its place)
    return model, 512


def repeated(dataset: Any) -> Any:
    """The data set several times over: at least `_EPOCH` samples."""
    return ConcatDataset([dataset] * -(-_EPOCH // len(dataset)))


def images(spec: dict[str, Any], transform: Any) -> Any:
    """The images as a torchvision-like data set of (views, label)."""
    return (ImageFolder if case_of(spec).files else ArrayImages)(spec["data"], transform)


def gate(callback: Any, spec: dict[str, Any], windows: Windows, library: str) -> Any:
    """A callback that lets the Trainer step when a window is due.

    Args:
        callback: the base class: of `pytorch_lightning` or of `lightning`, whichever the library uses.
        spec: what is trained.
        windows: says when.
        library: for the record.
    """

    class Gate(callback):  # pyright: ignore[reportUntypedBaseClass]  (whichever Lightning the peer has)
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            windows.begin(
                library=library, precision=trainer.precision, workers=spec["workers"], threads=torch.get_num_threads()
            )

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            windows.step(outputs["loss"])

    return Gate()


def lightly(spec: dict[str, Any], windows: Windows) -> None:
    """Lightly's SimCLR example in pytorch-lightning, with the transform of its CIFAR-10 benchmark where images are small."""
    import pytorch_lightning as pl  # noqa: PLC0415
    from lightly.data import LightlyDataset  # noqa: PLC0415
    from lightly.loss import NTXentLoss  # noqa: PLC0415
    from lightly.models.modules import SimCLRProjectionHead  # noqa: PLC0415
    from lightly.transforms.simclr_transform import SimCLRTransform  # noqa: PLC0415

    case = case_of(spec)

    class SimCLR(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, width = plain_encoder(case)
            self.projection_head = SimCLRProjectionHead(width, HIDDEN, PROJECTED)
            self.criterion = NTXentLoss()

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            first, second = (self.projection_head(self.backbone(view)) for view in batch[0])
            return self.criterion(first, second)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.06)

    transform: Any = SimCLRTransform(input_size=case.size, cj_strength=case.strength, gaussian_blur=case.blur)
    dataset = LightlyDataset(spec["data"], transform=transform) if case.files else images(spec, transform)
    loader = DataLoader(repeated(dataset), case.batch, shuffle=True, drop_last=True, num_workers=spec["workers"])
    trainer = pl.Trainer(
        max_steps=_STEPS,
        devices=1,
        accelerator="auto",
        precision=spec["precision"],
        callbacks=[gate(pl.Callback, spec, windows, f"lightly {version('lightly')}")],
    )
    trainer.fit(SimCLR(), loader)


def solo_learn(spec: dict[str, Any], windows: Windows) -> None:
    """solo-learn's own method, configuration, transforms and loader, put together as its `main_pretrain.py` does."""
    sys.path.insert(0, spec["checkout"])
    lightning: Any = importlib.import_module("lightning.pytorch")
    methods: Any = importlib.import_module("solo.methods")
    misc: Any = importlib.import_module("solo.utils.misc")
    loader: Any = importlib.import_module("solo.data.pretrain_dataloader")

    case = case_of(spec)
    config = _solo_settings(spec, case)
    model = methods.METHODS["simclr"](config)
    misc.make_contiguous(model)
    model = model.to(memory_format=torch.channels_last)
    pipelines = [
        loader.NCropAugmentation(loader.build_transform_pipeline(config.data.dataset, one), one.num_crops)
        for one in config.augmentations
    ]
    indexed = loader.dataset_with_index(ImageFolder if case.files else ArrayImages)
    dataset = repeated(indexed(spec["data"], loader.FullTransformPipeline(pipelines)))
    batches = loader.prepare_dataloader(dataset, batch_size=case.batch, num_workers=spec["workers"])
    waiting = gate(lightning.Callback, spec, windows, commit_of(spec["checkout"]))
    options = {"max_epochs": 1000, "devices": 1, "accelerator": "auto", "precision": spec["precision"]}
    lightning.Trainer(**options, enable_checkpointing=False, callbacks=[waiting]).fit(model, batches)


def _solo_settings(spec: dict[str, Any], case: Case) -> Any:
    """Its configuration for CIFAR-10 or ImageNet-100, on one machine without its services."""
    from omegaconf import OmegaConf  # noqa: PLC0415

    arguments: Any = importlib.import_module("solo.args.pretrain")
    base: Any = importlib.import_module("solo.methods.base")
    recipes = Path(spec["checkout"], "scripts", "pretrain", "imagenet-100" if case.files else "cifar")
    config: Any = OmegaConf.load(recipes / "simclr.yaml")
    config.augmentations = OmegaConf.load(recipes / "augmentations" / "symmetric.yaml")
    config.augmentations[0].gaussian_blur.prob = case.blur
    config.method_kwargs.update(proj_hidden_dim=HIDDEN, proj_output_dim=PROJECTED)
    config.data.update(train_path=spec["data"], val_path=None, num_workers=spec["workers"], format="image_folder")
    config.optimizer.batch_size = case.batch
    config.update(devices=[0], checkpoint={"enabled": False}, auto_resume={"enabled": False})

    def plain(method: str) -> nn.Module:
        del method
        return plain_encoder(case)[0]

    if case.encoder != "resnet18":
        base.BaseMethod._BACKBONES["plain"] = plain  # its list of backbones is closed
        config.backbone.name = "plain"
    return arguments.parse_cfg(config)


def stable_pretraining(spec: dict[str, Any], windows: Windows) -> None:
    """stable-pretraining's forward, module, transforms and manager, as in its SimCLR benchmarks, without their probes."""
    sys.path.insert(0, spec["checkout"])
    os.environ["SPT_CACHE_DIR"] = str(Path.cwd() / "cache")
    written: Any = types.ModuleType("stable_pretraining._version")  # when it is installed, which a checkout is not
    written.version = "0"
    sys.modules[written.__name__] = written
    lightning: Any = importlib.import_module("lightning")
    spt: Any = importlib.import_module("stable_pretraining")

    case = case_of(spec)
    dataset = spt.data.FromTorchDataset(
        repeated(images(spec, None)), names=["image", "label"], transform=_stable_views(spt, case)
    )
    loader = DataLoader(dataset, case.batch, num_workers=spec["workers"], drop_last=True, shuffle=True)
    waiting = gate(lightning.Callback, spec, windows, commit_of(spec["checkout"]))
    options = {"max_epochs": 1000, "devices": 1, "accelerator": "auto", "precision": spec["precision"]}
    trainer = lightning.Trainer(**options, num_sanity_val_steps=0, enable_checkpointing=False, callbacks=[waiting])
    spt.Manager(trainer=trainer, module=_stable_module(spt, case), data=spt.data.DataModule(train=loader))()


def _stable_module(spt: Any, case: Case) -> Any:
    """Backbone, projector, loss and LARS of its CIFAR-10 benchmark, at the width that all share."""
    forward: Any = importlib.import_module("stable_pretraining.forward")
    if case.encoder == "resnet18":
        backbone, width = spt.backbone.from_torchvision("resnet18", low_resolution=not case.files), 512
        backbone.fc = nn.Identity()
    else:
        backbone, width = plain_encoder(case)
    middle = nn.BatchNorm1d(HIDDEN), nn.ReLU(inplace=True)
    return spt.Module(
        backbone=backbone,
        projector=nn.Sequential(nn.Linear(width, HIDDEN), *middle, nn.Linear(HIDDEN, PROJECTED)),
        forward=forward.simclr,
        simclr_loss=spt.losses.NTXEntLoss(temperature=0.5),
        optim={
            "optimizer": {"type": "LARS", "lr": 5, "weight_decay": 1e-6},
            "scheduler": {"type": "LinearWarmupCosineAnnealing"},
            "interval": "epoch",
        },
    )


def _stable_views(spt: Any, case: Case) -> Any:
    """Its CIFAR-10 recipe, or the one of ImageNet-100, which blurs the first view always and the second seldom."""
    kinds: Any = importlib.import_module("stable_pretraining.data.transforms")
    statistics = spt.data.static.ImageNet if case.files else spt.data.static.CIFAR10

    def view(blur: float, solarize: float) -> Any:
        steps = [
            kinds.RGB(),
            kinds.RandomResizedCrop((case.size, case.size), scale=(0.08, 1.0)),
            kinds.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
            kinds.RandomGrayscale(p=0.2),
        ]
        steps += [kinds.PILGaussianBlur(p=blur)] if blur else []
        steps += [kinds.RandomSolarize(threshold=0.5, p=solarize)] if solarize else []
        return kinds.Compose(*steps, kinds.RandomHorizontalFlip(p=0.5), kinds.ToImage(**statistics))

    return kinds.MultiViewTransform([view(1.0, 0.0), view(0.1, 0.2)] if case.files else [view(0.0, 0.0), view(0.0, 0.0)])


def wait_for_device() -> None:
    """A GPU works behind the host's back."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def commit_of(checkout: str) -> str:
    """Name and commit of a checkout, for the record; the name alone where it has no history."""
    head = Path(checkout, ".git", "HEAD")
    if not head.is_file():
        return Path(checkout).name
    said = head.read_text().strip()
    branch = Path(checkout, ".git", said.removeprefix("ref: "))
    return f"{Path(checkout).name} {(branch.read_text().strip() if branch.is_file() else said)[:12]}"


KINDS = {"lightly": lightly, "solo-learn": solo_learn, "stable-pretraining": stable_pretraining}

if __name__ == "__main__":
    _SPEC = specification()
    KINDS[_SPEC["kind"]](_SPEC, Windows(*claim_pipes(), wait_for_device))
