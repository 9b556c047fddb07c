"""Labels of pixels: they follow crops and flips of their images, and what is counted is what a loop counts."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_framework import run
from ssl_framework.data import FolderSource, Labelled, Masks, folder
from ssl_framework.downstream import Augmentation, DownstreamModule, Full, LabelledData, Segmentation, TokenMean
from ssl_framework.downstream.augment import cropped
from ssl_framework.encoders import RawPixels, timm_encoder
from ssl_framework.optim import adamw
from ssl_framework.types import Batch
from ssl_framework.views import affine, one_crop

SIZE = (24, 32)
KNOWN: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.25] * 3, "size": list(SIZE), "channels": 3}


def paint(root: Path, count: int = 8, size: tuple[int, int] = SIZE) -> None:
    """A coloured rectangle on grey: label 1 where it is red, 2 where it is green, 255 on its border."""
    for number in range(count):
        draw = np.random.default_rng(number)
        image, mask = np.full((*size, 3), 128, np.uint8), np.zeros(size, np.uint8)
        top, left = draw.integers(1, size[0] // 2), draw.integers(1, size[1] // 2)
        label = 1 + number % 2
        where = np.s_[top : top + size[0] // 3, left : left + size[1] // 3]
        image[where] = [220, 30, 30] if label == 1 else [30, 220, 30]
        mask[top - 1 : top + size[0] // 3 + 1, left - 1 : left + size[1] // 3 + 1] = 255
        mask[where] = label
        for name, array in (("images", image), ("masks", mask)):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / name / f"{number}.png")


@pytest.fixture
def split(tmp_path: Path) -> Labelled:
    paint(tmp_path / "train")
    source = FolderSource(tmp_path, labels=False, within="images")
    return Labelled(source, SIZE, split="train", masks=Masks())


def cnn() -> Any:
    torch.manual_seed(0)
    return timm_encoder("resnet18", 3, SIZE).cut(2)  # 8 pixels a token


def vit() -> Any:
    torch.manual_seed(0)
    small = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return timm_encoder("vit_tiny_patch16_224", 3, SIZE, model_args=small)


def make(encoder: Any, **options: Any) -> DownstreamModule:
    task = Segmentation(num_classes=3, **options.pop("task", {}))
    defaults: dict[str, Any] = {"freezing": Full(), "preprocessing": KNOWN, "optimizer": adamw(lr=3e-3, scale_lr="none")}
    return DownstreamModule(encoder, task, **{**defaults, **options})


def test_masks_lie_beside_images(split: Labelled, tmp_path: Path):
    masks = split.masks(range(8))
    assert masks.shape == (8, *SIZE)
    for number in range(8):
        assert np.array_equal(masks[number], np.asarray(Image.open(tmp_path / "train" / "masks" / f"{number}.png")))
    assert len(split) == 8  # no mask was taken for an image


def test_masks_are_brought_to_the_size_of_images_without_new_labels(tmp_path: Path):
    paint(tmp_path, size=(60, 60))
    split = Labelled(FolderSource(tmp_path, labels=False, within="images"), SIZE, split="train", masks=Masks())
    masks, images = split.masks(range(8)), split.images(range(8))
    assert masks.shape == (8, *SIZE)
    assert set(masks.unique().tolist()) <= {0, 1, 2, 255}
    red = (images[:, 0].int() - images[:, 1].int()) > 150
    assert (masks[red] == 1).float().mean() > 0.95


@pytest.mark.parametrize("size", [SIZE, (16, 16)])
def test_labels_follow_crops_and_flips(split: Labelled, size: tuple[int, int]):
    """Red is 1 and green 2 in every view, wherever the crop was."""
    views = one_crop(size=size, mean=[0.0] * 3, std=[1.0] * 3, crop_scale=(0.2, 1.0), flip=0.5, seed=3)
    index = torch.arange(8)
    flips = 0
    for epoch in range(6):
        made = views.apply(Batch(split.images(index), None, index), views.draw(index, epoch))
        masks = cropped(split.masks(index).long(), made.boxes[0], size)
        flips += int(made.boxes[0, :, 4].sum())
        colour = made.global_crops[0]
        for label, own, other in ((1, 0, 1), (2, 1, 0)):
            sure = (colour[:, own] - colour[:, other]) > 0.7
            assert (masks[sure] == label).float().mean() > 0.97
        assert set(masks.unique().tolist()) <= {0, 1, 2, 255}
    assert 5 < flips < 43


def test_a_wrong_place_would_be_seen(split: Labelled):
    """The test above fails if masks are not flipped."""
    views = one_crop(size=SIZE, mean=[0.0] * 3, std=[1.0] * 3, crop_scale=(0.5, 1.0), flip=1.0, seed=3)
    index = torch.arange(8)
    made = views.apply(Batch(split.images(index), None, index), views.draw(index, 0))
    boxes = made.boxes[0].clone()
    boxes[:, 4] = 0
    masks = cropped(split.masks(index).long(), boxes, SIZE)
    sure = (made.global_crops[0][:, 0] - made.global_crops[0][:, 1]) > 0.7
    assert (masks[sure] == 1).float().mean() < 0.8


def test_loss_and_measures_leave_out_what_is_ignored():
    task = Segmentation(num_classes=2)
    targets = torch.tensor([[[0, 1], [255, 1]]])
    outputs = torch.tensor([[[[2.0, 0.0], [9.0, 3.0]], [[0.0, 1.0], [0.0, 0.0]]]])  # (1, 2, 2, 2)
    log_p = outputs.log_softmax(1)[0]
    assert task.loss(outputs, targets).item() == pytest.approx(-(log_p[0, 0, 0] + log_p[1, 0, 1] + log_p[1, 1, 1]).item() / 3)
    metrics = task.metrics()
    for metric in metrics.values():
        metric.update(*task.readout(outputs, targets))
    assert metrics["pixel_accuracy"].compute().item() == pytest.approx(2 / 3)
    assert metrics["mean_iou"].compute().item() == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert task.loss(outputs, torch.full((1, 2, 2), 255)).item() == 0
    assert task.badness(outputs, targets).tolist() == pytest.approx([1 / 3])


@pytest.mark.parametrize("decoder", ["linear", "convolutional"])
@pytest.mark.parametrize("make_encoder", [cnn, vit])
def test_colours_are_learnt(decoder: str, make_encoder: Any, split: Labelled):
    torch.manual_seed(0)
    module = make(make_encoder(), task={"decoder": decoder, "width": 16}, augmentation=Augmentation(erasing=0.1))
    data = LabelledData(split, split, split, batch_size=4)
    trainer = run.trainer(steps=40, data=data, val_every=0, logger=False, enable_progress_bar=False, accelerator="cpu")
    trainer.fit(module, datamodule=data)
    found = trainer.test(module, datamodule=data, verbose=False)[0]
    assert found["test/pixel_accuracy"] > 0.85
    assert found["test/mean_iou"] > 0.4
    assert module.intervals == {}


def test_bad_masks_are_told(split: Labelled, tmp_path: Path):
    file = tmp_path / "train" / "masks" / "0.png"
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(file)
    with pytest.raises(ValueError, match=r"0\.png has 5 x 5 pixels, and its image 24 x 32"):
        split.masks([0])
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(file)
    with pytest.raises(ValueError, match="is a picture in colours"):
        split.masks([0])
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        split.masks([0])
    file.unlink()
    with pytest.raises(ValueError, match=r"0\.png has no mask"):
        split.masks([0])
    with pytest.raises(ValueError, match="lies in no folder called pictures"):
        Masks("pictures").path("a/images/0.png")


def test_labels_that_the_head_does_not_know_are_told(split: Labelled):
    task = Segmentation(num_classes=2)
    with pytest.raises(ValueError, match=r"hold the label 2, and the head knows 0 to 1, with 255 ignored"):
        task.check(task.targets(split))
    with pytest.raises(ValueError, match=r"hold the label 255, and the head knows 0 to 2, with 9 ignored"):
        Segmentation(num_classes=3, ignore_index=9).check(Segmentation(num_classes=3, ignore_index=9).targets(split))
    plain = Labelled(split.source, SIZE, split="train", masks=None, table=object())
    with pytest.raises(ValueError, match=r"give labels\.masks"):
        task.targets(plain)


def test_augmentation_that_loses_the_places_is_refused():
    with pytest.raises(ValueError, match="RandAugment turns and shifts images"):
        make(cnn(), augmentation=Augmentation(operations=1))
    with pytest.raises(ValueError, match="turn or shear"):
        make(cnn(), views=affine(size=SIZE, mean=KNOWN["mean"], std=KNOWN["std"]))
    with pytest.raises(ValueError, match="blend labels of classes"):
        make(cnn(), augmentation=Augmentation(mixup=0.5))
    with pytest.raises(ValueError, match="reads every token, so nothing is pooled"):
        make(cnn(), pooling=TokenMean())


def test_an_encoder_of_one_vector_is_refused():
    with pytest.raises(ValueError, match="gives one vector"):
        make(RawPixels(3, list(SIZE)))


@pytest.mark.data
@pytest.mark.skipif("SSL_FRAMEWORK_DATA" not in os.environ, reason="SSL_FRAMEWORK_DATA is not set")
def test_camvid_is_read_with_its_masks():
    data = folder(
        Path(os.environ["SSL_FRAMEWORK_DATA"]) / "camvid", labels=False, within="images", size=(180, 240), batch_size=4
    )
    counts = {name: len(data.split(name, masks=Masks())) for name in ("train", "val", "test")}
    assert counts == {"train": 367, "val": 101, "test": 233}
    split = data.split("train", masks=Masks())
    masks = split.masks(range(0, 367, 40))
    assert masks.shape[1:] == (180, 240)
    assert int(masks.max()) == 11
    task = Segmentation(num_classes=11, ignore_index=11)
    task.check(task.targets(split))
