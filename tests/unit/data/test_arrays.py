from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_framework.data import ArraySource, arrays

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)
TARGETS = np.arange(40) % 4


@pytest.mark.parametrize("layout", ["hwc", "chw", "hw", "fortran"])
def test_layouts(layout: str) -> None:
    stored: Any = {
        "hwc": IMAGES,
        "chw": IMAGES.transpose(0, 3, 1, 2),
        "hw": IMAGES[..., 0],
        "fortran": np.asfortranarray(IMAGES),
    }[layout]
    source = ArraySource(stored)
    assert source.size == (5, 6)
    assert source.channels == (1 if layout == "hw" else 3)
    expected = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)[:, : source.channels]
    assert torch.equal(source.read(7), expected[7])
    assert torch.equal(source.read_many(np.array([3, 1])), expected[[3, 1]])


def test_npy_stays_on_the_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "y.npy", TARGETS)
    data = arrays(tmp_path / "x.npy", tmp_path / "y.npy", batch_size=4)
    whole = data.test_split().source.source
    assert isinstance(whole._images, np.memmap)
    split = data.split("train")
    assert torch.equal(split.images(range(len(split))), torch.from_numpy(IMAGES[split.index]).permute(0, 3, 1, 2))
    assert (split.index % 4 == split.targets).all()
    assert next(iter(data.train_dataloader())).input.shape == (4, 3, 5, 6)


def test_npz_with_and_without_a_test_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, targets=TARGETS, test_images=IMAGES[:8], test_targets=TARGETS[:8])
    assert len(arrays(tmp_path / "a.npz").test_split()) == 8
    np.savez(tmp_path / "b.npz", images=IMAGES, targets=TARGETS)
    assert len(arrays(tmp_path / "b.npz", test_share=0.5).test_split()) == 20


def test_bool_and_floats_of_0_to_1_are_scaled() -> None:
    assert ArraySource(IMAGES[..., 0] > 127).read(0).unique().tolist() == [0, 255]
    assert torch.equal(ArraySource(IMAGES / 255).read(5), ArraySource(IMAGES).read(5))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[..., 0].astype(np.float32), r"floats from 0 to 255: give floats in 0\.\.1"),
        (np.full((3, 4, 4), np.nan), "without NaN"),
        (IMAGES[..., 0].astype(np.uint16), r"holds uint16.*x // 257"),
        (IMAGES[..., 0].astype(np.int64), "holds int64.*astype"),
        (IMAGES[0], "no axis|shape"),
        (IMAGES[:0], "not empty"),
        (IMAGES[0, 0], "shape"),
        (IMAGES.repeat(2, 3), "no axis of 1 or 3 channels"),
        (np.zeros((4, 3, 8, 3), np.uint8), "two axes that could be the channels"),
    ],
)
def test_arrays_that_do_not_say_how_they_are_meant(images: np.ndarray, message: str) -> None:
    if images.shape == IMAGES[0].shape:
        images = images[None, None]
    with pytest.raises(ValueError, match=message):
        ArraySource(images)


@pytest.mark.parametrize("targets", [TARGETS[:-1], TARGETS.astype(float), TARGETS - 1, TARGETS[:, None]])
def test_labels_that_do_not_fit(targets: np.ndarray) -> None:
    with pytest.raises(ValueError, match="40 whole numbers from 0"):
        ArraySource(IMAGES, targets)


def test_labels_without_a_name() -> None:
    with pytest.raises(ValueError, match="label 3 has no name"):
        ArraySource(IMAGES, TARGETS, ["a", "b"])


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"cannot be read as arrays of numbers.*without objects"):
        arrays(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    (np.save if name == "x.npy" else lambda f, x: np.savez(f, images=x))(tmp_path / name, IMAGES)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot be read as arrays"):
        arrays(tmp_path / name)


def test_other_files_and_keys(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES)
    with pytest.raises(ValueError, match=r"holds \['x'\]: it needs `images`"):
        arrays(tmp_path / "a.npz")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"not a \.npy or \.npz file"):
        arrays(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="no array file"):
        arrays(tmp_path / "gone.npy")
