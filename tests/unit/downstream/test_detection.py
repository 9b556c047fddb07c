"""Boxes: read from COCO's files, mirrored with their images, found by detectors on encoders of both kinds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_framework import run
from ssl_framework.data import CocoBoxes
from ssl_framework.downstream import DetectionData, DetectionModule, Frozen, Full, Gradual, LastN
from ssl_framework.downstream.detection import average_precision, mirrored
from ssl_framework.downstream.pyramid import Pyramid
from ssl_framework.encoders import RawPixels, timm_encoder
from ssl_framework.optim import adamw
from support import on_ranks

KNOWN: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.25] * 3, "size": [64, 64], "channels": 3}


def paint(root: Path, count: int = 12) -> dict[str, Any]:
    """Red squares (7) and green ones (3) on grey."""
    (root / "images").mkdir(parents=True)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 7, "name": "red"}, {"id": 3, "name": "green"}],
    }
    for number in range(count):
        draw = np.random.default_rng(number)
        image = np.full((64, 80, 3), 128, np.uint8)
        for thing in range(1 + number % 2):
            side, label = int(draw.integers(16, 28)), int(draw.integers(2))
            top, left = int(draw.integers(0, 64 - side)), int(draw.integers(40 * thing, 40 * thing + 40 - side))
            image[top : top + side, left : left + side] = [220, 30, 30] if label else [30, 220, 30]
            key = len(content["annotations"])
            box = [left, top, side, side]
            content["annotations"].append(
                {"id": key, "image_id": number, "category_id": 7 if label else 3, "bbox": box, "iscrowd": 0}
            )
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 64})
    (root / "boxes.json").write_text(json.dumps(content))
    return content


@pytest.fixture
def split(tmp_path: Path) -> CocoBoxes:
    paint(tmp_path)
    return CocoBoxes(tmp_path / "images", tmp_path / "boxes.json")


def cnn() -> Any:
    torch.manual_seed(0)
    return timm_encoder("resnet18", 3, 64)


def vit() -> Any:
    torch.manual_seed(0)
    return timm_encoder(
        "vit_tiny_patch16_224", 3, 64, model_args={"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    )


def make(encoder: Any, **options: Any) -> DetectionModule:
    defaults: dict[str, Any] = {"freezing": Full(), "preprocessing": KNOWN, "optimizer": adamw(lr=1e-3, scale_lr="none")}
    return DetectionModule(encoder, ("green", "red"), shorter=64, longer=96, channels=32, **{**defaults, **options})


def test_boxes_are_read_with_their_classes(split: CocoBoxes, tmp_path: Path):
    assert split.classes == ("green", "red")  # by the number of the category
    content = json.loads((tmp_path / "boxes.json").read_text())
    assert len(split) == 12
    assert sum(split.counts().values()) == len(content["annotations"])
    for row in range(12):
        one = split.read(row)
        for (left, top, right, bottom), label in zip(one.boxes.int().tolist(), one.labels.tolist(), strict=True):
            inside = one.image[:, top:bottom, left:right].float().mean((1, 2))
            assert inside.tolist() == ([30, 220, 30] if label == 1 else [220, 30, 30])


def test_a_mirrored_image_has_its_boxes_where_its_things_are(split: CocoBoxes):
    one = split.read(1)
    turned = mirrored(one)
    assert torch.equal(mirrored(turned).boxes, one.boxes)
    for (left, top, right, bottom), label in zip(turned.boxes.int().tolist(), turned.labels.tolist(), strict=True):
        inside = turned.image[:, top:bottom, left:right].float().mean((1, 2))
        assert inside.tolist() == ([30, 220, 30] if label == 1 else [220, 30, 30])


def test_order_and_flips_belong_to_seed_and_position(split: CocoBoxes):
    def first(data: DetectionData, count: int) -> list[Any]:
        loader = iter(data.train_dataloader())
        return [next(loader) for _ in range(count)]

    data, other = DetectionData(split, batch_size=4, seed=1), DetectionData(split, batch_size=4, seed=1, workers=0)
    whole = first(data, 6)
    other.load_state_dict({**other.state_dict(), "position": 4})
    for (images, targets), (again, same) in zip(whole[4:], first(other, 2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(images, again, strict=True))
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(targets, same, strict=True))
    with pytest.raises(ValueError, match="seed=1"):
        DetectionData(split, batch_size=4, seed=2).load_state_dict(data.state_dict())
    still = first(DetectionData(split, batch_size=12, flip=0.0), 1)[0]
    turned = first(DetectionData(split, batch_size=12, flip=1.0), 1)[0]
    assert all(torch.equal(a.flip(-1), b) for a, b in zip(still[0], turned[0], strict=True))


@pytest.mark.parametrize("encoder", [cnn, vit])
def test_a_pyramid_has_maps_of_falling_resolution(encoder: Any):
    example = torch.zeros(1, 3, 64, 64)
    pyramid = Pyramid(encoder(), example, 16).eval()
    found = pyramid(torch.zeros(2, 3, 64, 96))
    assert list(found) == ["0", "1", "2", "3", "pool"]
    sizes = [tuple(one.shape[-2:]) for one in found.values()]
    assert all(one.shape[:2] == (2, 16) for one in found.values())
    assert sizes[:4] == [(64 // stride, 96 // stride) for stride in pyramid.strides]
    assert pyramid.strides == sorted(pyramid.strides)


@pytest.mark.parametrize("detector", ["faster_rcnn", "retinanet"])
@pytest.mark.parametrize("encoder", [cnn, vit])
@pytest.mark.filterwarnings("ignore")
def test_a_step_learns_and_things_are_measured(encoder: Any, detector: str, split: CocoBoxes):
    module, data = make(encoder(), detector=detector), DetectionData(split, split, split, batch_size=4)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    trainer = run.trainer(steps=2, data=data, val_every=0, logger=False, enable_progress_bar=False, accelerator="cpu")
    trainer.fit(module, datamodule=data)
    assert any(not torch.equal(before[name], p) for name, p in module.named_parameters() if ".encoder." in name)
    found = trainer.test(module, datamodule=data, verbose=False)[0]
    assert 0 <= found["test/average_precision_50"] <= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_squares_are_found(split: CocoBoxes):
    module, data = make(cnn()), DetectionData(split, test=split, batch_size=4)
    trainer = run.trainer(steps=150, data=data, val_every=0, logger=False, enable_progress_bar=False, accelerator="cpu")
    trainer.fit(module, datamodule=data)
    assert trainer.test(module, datamodule=data, verbose=False)[0]["test/average_precision_50"] > 0.5


@pytest.mark.filterwarnings("ignore")
def test_what_is_frozen_stays_so(split: CocoBoxes):
    module, data = make(cnn(), freezing=Frozen()), DetectionData(split, batch_size=4)
    trainer = run.trainer(steps=2, data=data, val_every=0, logger=False, enable_progress_bar=False, accelerator="cpu")
    before = {name: value.clone() for name, value in module.encoder.state_dict().items()}
    trainer.fit(module, datamodule=data)
    assert all(torch.equal(before[name], value) for name, value in module.encoder.state_dict().items())
    assert module.audit.stages[0]["frozen_tensors"] == len(before)
    assert make(cnn(), freezing=LastN(n=1)).freezer.rate("model.conv1.weight") == 0
    trainer = run.trainer(steps=2, data=data, val_every=0, logger=False, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(ValueError, match="freezing=gradual changes while it trains"):
        trainer.fit(make(cnn(), freezing=Gradual()), datamodule=data)


def truth(split: CocoBoxes, rows: range, shift: float = 0.0) -> tuple[list[Any], list[Any]]:
    """Boxes as they are, or shifted, and what they should be."""
    ones = [split.read(row) for row in rows]
    draw = torch.Generator().manual_seed(rows.start)
    found = [
        {"boxes": one.boxes + shift, "labels": one.labels, "scores": torch.rand(len(one.labels), generator=draw)}
        for one in ones
    ]
    return found, [{"boxes": one.boxes, "labels": one.labels, "iscrowd": one.crowd.long()} for one in ones]


def test_average_precision_of_the_truth_is_one(split: CocoBoxes):
    assert average_precision(*truth(split, range(12)))["map"].item() == pytest.approx(1)
    assert average_precision(*truth(split, range(12), shift=8.0))["map_75"].item() == 0


def test_processes_with_unequal_images_measure_as_one(split: CocoBoxes):
    found, targets = truth(split, range(5), shift=2.0)

    def measure(rank: int, world: int) -> float:
        return average_precision(found[rank::world], targets[rank::world])["map"].item()

    assert on_ranks(2, measure) == pytest.approx([average_precision(found, targets)["map"].item()] * 2)


def test_what_no_map_depends_on_does_not_wait_for_a_gradient():
    frozen = {name for name, p in make(vit(), freezing=Full()).encoder.named_parameters() if not p.requires_grad}
    assert frozen == {"mask_token", "model.norm.weight", "model.norm.bias"}


def test_strides_that_torchvision_would_round_are_refused():
    torch.manual_seed(0)
    model = {"patch_size": 14, "embed_dim": 24, "depth": 2, "num_heads": 2}
    encoder = timm_encoder("vit_tiny_patch16_224", 3, 56, model_args=model)
    with pytest.raises(ValueError, match=r"a map of 4 rows for 56 pixels has a stride of 14, .* take an encoder with patches"):
        make(encoder, preprocessing={**KNOWN, "size": [56, 56]})


def test_what_is_found_in_an_image_does_not_depend_on_the_padding():
    pyramid = Pyramid(vit(), torch.zeros(1, 3, 64, 64), 16).eval()
    x = torch.randn(1, 24, 8, 8)
    wide = torch.cat([x, torch.zeros(1, 24, 8, 8)], dim=3)
    with torch.no_grad():
        for (_, own), (_, padded) in zip(pyramid.join({"0": x}).items(), pyramid.join({"0": wide}).items(), strict=True):
            inside = own.shape[-1] // 2
            torch.testing.assert_close(own[..., :inside], padded[..., :inside])


BAD: list[tuple[Any, str]] = [
    (
        lambda c: c["annotations"].append({"id": 9, "image_id": 99, "category_id": 7, "bbox": [0, 0, 5, 5]}),
        "image 99, which the file",
    ),
    (lambda c: c["annotations"].append({"id": 9, "image_id": 0, "category_id": 5, "bbox": [0, 0, 5, 5]}), "category 5, which"),
    (lambda c: c["annotations"].append({"id": 9, "image_id": 0, "category_id": 7, "bbox": [70, 0, 50, 5]}), "lies outside"),
    (lambda c: c["images"].append({"id": 99, "file_name": "lost.png", "width": 5, "height": 5}), "1 of 13 images are not in"),
    (lambda c: c.pop("categories"), "lacks categories"),
    (lambda c: c["images"].clear(), "lists no images|which the file does not list"),
]


@pytest.mark.parametrize(("spoil", "says"), BAD)
def test_a_bad_annotation_is_told(spoil: Any, says: str, tmp_path: Path):
    content = paint(tmp_path)
    spoil(content)
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        CocoBoxes(tmp_path / "images", tmp_path / "boxes.json")


def test_other_bad_words_are_told(tmp_path: Path):
    content = paint(tmp_path)
    content["annotations"].append({"id": 9, "image_id": 0, "category_id": 7, "bbox": [0, 0, 0, 5]})
    content["images"][0]["width"] = 81
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    split = CocoBoxes(tmp_path / "images", tmp_path / "boxes.json")
    assert split.empty == 1
    with pytest.raises(ValueError, match="is 80 x 64, and its annotation says 81 x 64"):
        split.read(0)
    with pytest.raises(ValueError, match="has the category 'green'"):
        CocoBoxes(tmp_path / "images", tmp_path / "boxes.json", classes=("red",))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        CocoBoxes(tmp_path / "nowhere", tmp_path / "boxes.json")
    (tmp_path / "boxes.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        CocoBoxes(tmp_path / "images", tmp_path / "boxes.json")
    with pytest.raises(ValueError, match="has none: take a CNN or a transformer"):
        make(RawPixels(3, [64, 64]), freezing=Frozen())
    with pytest.raises(ValueError, match="choose faster_rcnn or retinanet"):
        make(cnn(), detector="yolo")
