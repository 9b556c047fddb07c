"""What a check sees: sizes, kinds, what is the same and what looks the same, classes; whatever the source."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_framework.data import ArraySource, DataModule, FolderSource
from ssl_framework.data.alike import near, same
from ssl_framework.data.findings import facts, findings
from ssl_framework.data.split import Part
from ssl_framework.data.survey import look, survey
from ssl_framework.types import Source


def scenes(count: int, side: int = 48) -> np.ndarray:
    """Smooth pictures, all different: ``(count, side, side, 3)`` uint8."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in small])


def thumbnails(pixels: list[np.ndarray]) -> np.ndarray:
    return np.stack([look(torch.from_numpy(one.copy()).permute(2, 0, 1)).thumbnail for one in pixels])


def every(n: int) -> np.ndarray:
    return np.ones(n, bool)


def test_what_is_seen_of_an_image() -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = look(image)
    assert seen.size == (20, 30)
    assert not seen.blank
    assert look(image.permute(1, 2, 0).contiguous().permute(2, 0, 1)).content == seen.content
    assert look(image.flip(2)).content != seen.content
    assert look(image.reshape(3, 30, 20)).content != seen.content
    assert look(torch.full((3, 5, 5), 7, dtype=torch.uint8)).blank


def test_the_same_pixels_are_found_and_unreadable_ones_left_out() -> None:
    contents = np.arange(6, dtype=np.uint8).repeat(16).reshape(6, 16)
    contents[4] = contents[1]
    contents[5] = contents[0]
    among = np.array([True, True, True, True, True, False])
    assert [group.tolist() for group in same(contents, among)] == [[1, 4]]
    assert same(contents, np.zeros(6, bool)) == []


def changed(pixels: np.ndarray, how: str) -> np.ndarray:
    image = Image.fromarray(pixels)
    if how == "jpeg":
        image.save(file := io.BytesIO(), "JPEG", quality=50)
        return np.asarray(Image.open(file))
    if how == "smaller":
        return np.asarray(image.resize((30, 30), Image.Resampling.LANCZOS))
    return (pixels.astype(int) + 2).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("how", ["jpeg", "smaller", "brighter"])
def test_what_looks_the_same_is_found_among_others(how: str) -> None:
    pixels = list(scenes(200))
    pixels.append(changed(pixels[17], how))
    assert [(a, b) for a, b, _ in near(thumbnails(pixels), every(201))] == [(17, 200)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_of_few_images_none_look_the_same(count: int) -> None:
    assert near(thumbnails([*scenes(2)])[:count], every(count)) == []


def test_flat_images_are_not_compared() -> None:
    assert near(np.full((5, 16, 16), 9, np.uint8), every(5)) == []


def splits(targets: np.ndarray | None = None, copies: dict[int, int] | None = None) -> dict[str, Source]:
    """40 training, 10 validation and 10 test samples; `copies`: which sample of the 60 has the pixels of which."""
    whole, rows = pool(targets, copies), np.arange(60)
    parts = {"train": rows[:40], "val": rows[40:50], "test": rows[50:]}
    labels, classes = whole.targets, None if targets is None else [*"01234"]
    return {
        name: ArraySource(whole.read_many(part).numpy(), None if labels is None else labels[part], classes)
        for name, part in parts.items()
    }


def pool(targets: np.ndarray | None = None, copies: dict[int, int] | None = None) -> ArraySource:
    pixels = scenes(60, 8)
    for place, of in (copies or {}).items():
        pixels[place] = pixels[of]
    return ArraySource(pixels, targets)


def told(sources: dict[str, Source], **options: Any) -> list[tuple[str, bool, str, int]]:
    return [(one.sort, one.mend, one.split, one.row) for one in findings(survey(sources), (8, 8), **options)]


def test_nothing_is_said_of_data_without_fault() -> None:
    assert told(splits(np.arange(60) % 5)) == []


@pytest.mark.parametrize(
    ("copies", "found"),
    [
        ({55: 3}, ("in two splits", True, "test", 5)),
        ({45: 3}, ("in two splits", True, "val", 5)),
        ({55: 45}, ("in two splits", True, "test", 5)),
        ({8: 3}, ("duplicate", False, "train", 8)),
        ({9: 3}, ("two labels", False, "train", 9)),
    ],
)
def test_copies_by_where_they_are(copies: dict[int, int], found: tuple[str, bool, str, int]) -> None:
    assert told(splits(np.arange(60) % 5, copies)) == [found]


def test_a_copy_that_training_takes_out_is_none_to_mend() -> None:
    whole, rows = pool(copies={45: 3}), np.arange(60)
    parts = {"train": Part(whole, rows[:40]), "val": Part(whole, rows[40:])}
    assert told(parts, left_out={"val": {5}}) == [("left out", False, "val", 5)]
    assert told(parts, left_out={"val": {6}}) == [("in two splits", True, "val", 5)]


def test_what_stays_of_copies_is_compared() -> None:
    """Of three copies, the one that is left out must not hide that the two others are in two splits."""
    whole, rows = pool(copies={45: 3, 55: 3}), np.arange(60)
    parts = {
        "train": Part(whole, np.delete(rows[:40], 3)),
        "val": Part(whole, rows[[3, *range(40, 50)]]),
        "test": Part(whole, rows[50:]),
    }
    assert told(parts, left_out={"val": {0}}) == [("in two splits", True, "test", 5), ("left out", False, "val", 0)]


def test_images_of_one_colour_are_in_no_two_splits() -> None:
    black = np.zeros((3, 8, 8, 1), np.uint8)
    parts = {"train": ArraySource(black, np.zeros(3, int)), "test": ArraySource(black[:1], np.zeros(1, int))}
    assert [one for one in told(parts) if one[0] == "in two splits" or one[1]] == []


def test_a_copy_among_unlabelled_samples_that_are_pretrained_on_is_a_leak_and_one_of_the_labelled_ones_is_none() -> None:
    parts = splits(np.arange(60) % 5)
    unlabelled = ArraySource(scenes(60, 8)[[3, 55]])
    found = findings(survey({"pretrain": unlabelled, **parts}), (8, 8))
    assert [(one.sort, one.split) for one in found] == [("in two splits", "test"), ("duplicate", "train")]


def test_classes_that_a_split_lacks() -> None:
    targets = np.arange(60) % 5
    targets[:40] = np.arange(40) % 4  # none of class 4 in train
    targets[50:] = np.arange(10) % 4
    assert told(splits(targets)) == [("no samples", False, "test", -1), ("no samples", True, "train", -1)]


def test_sizes_and_classes_of_splits() -> None:
    known = facts(survey(splits(np.arange(60) % 5)))
    counts = {"samples": 40, "unreadable": 0, "kinds": {}, "classes": dict.fromkeys("01234", 8)}
    assert known["train"] == counts | {"height": [8, 8, 8], "width": [8, 8, 8]}


def test_a_reader_that_fails_in_its_own_way_is_a_finding_and_not_the_end(tmp_path: Path, kit: Any) -> None:
    for i in range(3):
        kit.picture(tmp_path / f"{i}.png", value=50 * i)

    class Fails(FolderSource):
        def read(self, index: int) -> Tensor:
            if index == 1:
                raise KeyError("a library's own fault")
            return super().read(index)

    looked = survey({"train": Fails(tmp_path, labels=False)})["train"]
    assert looked.errors == {1: 'its reader failed: KeyError: "a library\'s own fault"'}
    assert looked.sizes.tolist() == [[6, 8], [0, 0], [6, 8]]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads: int, tmp_path: Path, kit: Any) -> None:
    for i in range(30):
        kit.picture(tmp_path / f"{i:02}.png", value=i)
    one, other = (survey({"train": FolderSource(tmp_path)}, threads=n)["train"] for n in (1, threads))
    assert np.array_equal(one.contents, other.contents)
    assert one.kinds == other.kinds == [("PNG", "RGB", False, False)] * 30


def test_sources_of_a_data_module() -> None:
    pixels = scenes(60, 8)
    plain = DataModule(ArraySource(pixels, np.arange(60) % 2), None, None, name="n", batch_size=4)
    assert list(plain.sources()) == ["train", "val"]
    stl = DataModule(ArraySource(pixels), None, None, name="n", labelled=ArraySource(pixels, np.arange(60) % 2), batch_size=4)
    assert {name: len(source) for name, source in stl.sources().items()} == {"pretrain": 60, "train": 54, "val": 6}
