import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ssl_framework.data import FolderSource, Masks, folder
from ssl_framework.types import BadSampleError

SIZE = {"size": [4, 4], "batch_size": 2}


def classes(root: Path, kit: Any, per_class: int = 10, names: tuple[str, ...] = ("cat", "ant")) -> Path:
    for c, name in enumerate(names):
        for i in range(per_class):
            kit.picture(root / name / f"{i:02}.png", value=100 * c + i)
    return root


def test_folders_are_classes_in_alphabetical_order(kit: Any, tmp_path: Path) -> None:
    data = folder(classes(tmp_path, kit), val_share=0.25, **SIZE)
    assert data.facts.classes == ("ant", "cat")
    sizes = {name: len(data.split(name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 12, "val": 4, "test": 4}
    train = data.split("train")
    images = train.images(range(12))
    assert images.shape == (12, 3, 4, 4)
    assert ((images[:, 1, 0, 0] >= 100) == (train.targets == 0)).all()  # ants were painted 100 and more
    assert data.record()["measured_on"] == 12


def test_size_may_be_one_number_and_channels_one(kit: Any, tmp_path: Path) -> None:
    data = folder(classes(tmp_path, kit), size=5, channels=1, batch_size=2)
    assert data.facts.size == (5, 5)
    assert data.facts.channels == len(data.facts.mean) == 1
    assert data.split("train").images([0]).shape == (1, 1, 5, 5)


def test_train_val_and_test_folders_are_the_splits(kit: Any, tmp_path: Path) -> None:
    for i, name in enumerate(("train", "val", "test")):
        classes(tmp_path / name, kit, per_class=i + 1)
    data = folder(tmp_path, **SIZE)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [2, 4, 6]


@pytest.mark.parametrize("name", ["train", "test", "Val"])
def test_a_class_called_like_a_split_does_not_swallow_the_others(kit: Any, tmp_path: Path, name: str) -> None:
    classes(tmp_path, kit, names=("bus", "car", name))
    with pytest.raises(ValueError, match=rf"has {name}, called like splits, beside bus, car, .*rename {name};.*data\.path"):
        folder(tmp_path, **SIZE)


@pytest.mark.parametrize(("one", "two"), [("val", "valid"), ("valid", "validation"), ("Test", "test")])
def test_two_names_of_one_split(kit: Any, tmp_path: Path, one: str, two: str) -> None:
    for name in ("train", one, two):
        classes(tmp_path / name, kit, per_class=2)
    with pytest.raises(ValueError, match=rf"both {one} and {two}, two names of the (val|test) split: keep one"):
        folder(tmp_path, **SIZE)


def test_splits_without_train(kit: Any, tmp_path: Path) -> None:
    for name in ("val", "test"):
        classes(tmp_path / name, kit, per_class=2)
    with pytest.raises(ValueError, match=r"the splits test, val and none called train: rename"):
        folder(tmp_path, **SIZE)


def test_hidden_folders_and_files_beside_splits_do_not_matter(kit: Any, tmp_path: Path) -> None:
    for i, name in enumerate(("Train", "validation", "__MACOSX", ".cache")):
        classes(tmp_path / name, kit, per_class=2 + i)
    (tmp_path / "README.txt").write_text("x")
    data = folder(tmp_path, test_share=0, **SIZE)
    assert [len(data.split(name)) for name in ("train", "val")] == [4, 6]


def test_a_test_class_that_training_lacks_is_named(kit: Any, tmp_path: Path) -> None:
    classes(tmp_path / "train", kit)
    classes(tmp_path / "test", kit, names=("ant", "yak"))
    with pytest.raises(ValueError, match=r"'yak'.*not among the training classes ant, cat"):
        folder(tmp_path, **SIZE)


def test_a_split_that_lacks_a_class_keeps_the_numbers(kit: Any, tmp_path: Path) -> None:
    classes(tmp_path / "train", kit)
    classes(tmp_path / "test", kit, names=("cat",))
    assert set(folder(tmp_path, **SIZE).test_split().targets.tolist()) == {1}


def test_a_test_split_of_unlabelled_images_is_carved_where_it_is_asked_for(kit: Any, tmp_path: Path) -> None:
    for i in range(20):
        kit.picture(tmp_path / f"{i}.jpg")
    with pytest.raises(ValueError, match=r"no test split: give test data, or data\.test_share="):
        folder(tmp_path, **SIZE).split("test", masks=Masks("images", "masks"))
    data = folder(tmp_path, test_share=0.25, **SIZE)
    test = data.split("test", masks=Masks("images", "masks"))
    assert len(test) == 5
    learnt = {data.train.name(i) for i in range(len(data.train))}
    assert not learnt & {test.name(i) for i in range(5)}


@pytest.mark.parametrize("place", ["", "deep/er/", "2024/"])
def test_unlabelled_images_of_any_nesting(kit: Any, tmp_path: Path, place: str) -> None:
    for i in range(12):
        kit.picture(tmp_path / place / f"part{i % 2}" / "x" / f"{i}.jpg")
    data = folder(tmp_path, **SIZE)
    data.attach(kit.views())
    assert data.facts.classes is None
    assert data.num_samples == 11  # validation is carved; a test that nothing could be measured on is not
    assert all(batch.target is None for batch in islice(data.train_dataloader(), 8))
    with pytest.raises(ValueError, match="no labels"):
        data.split("train")


def test_labels_may_be_asked_for_and_refused(kit: Any, tmp_path: Path) -> None:
    classes(tmp_path, kit)
    assert folder(tmp_path, labels=False, **SIZE).facts.classes is None
    kit.picture(tmp_path / "ant" / "deeper" / "a.png")
    assert folder(tmp_path, **SIZE).facts.classes is None
    assert folder(tmp_path, labels=True, **SIZE).facts.classes == ("ant", "cat")
    kit.picture(tmp_path / "stray.png")
    with pytest.raises(ValueError, match=r"stray\.png lies in no class folder"):
        folder(tmp_path, labels=True, **SIZE)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"no image folder at {re.escape(str(tmp_path / 'gone'))}: check data\.path"):
        folder(tmp_path / "gone", **SIZE)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(FileNotFoundError, match=r"no images in .*put files with the endings .*\.png"):
        folder(tmp_path, **SIZE)


def test_a_file_in_place_of_a_folder(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a folder"):
        folder(kit.picture(tmp_path / "a.png"), **SIZE)


@pytest.mark.parametrize("path", [None, "None", "None/images", ""])
def test_no_path(path: str | None) -> None:
    with pytest.raises(ValueError, match=r"data\.path=FOLDER, or set the environment variable SSL_FRAMEWORK_DATA"):
        folder(path, **SIZE)


def test_a_class_without_images(kit: Any, tmp_path: Path) -> None:
    classes(tmp_path, kit)
    (tmp_path / "bee").mkdir()
    with pytest.raises(ValueError, match=r"class 'bee' has no images.*remove it"):
        folder(tmp_path, **SIZE)


def test_no_size(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"may differ in size.*data\.size=\[96,96\]"):
        folder(classes(tmp_path, kit), batch_size=2)


def test_channels_that_no_image_has(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="channels=4"):
        folder(classes(tmp_path, kit), channels=4, **SIZE)


def test_hidden_files_and_loops_are_left_out_and_dangling_links_unreadable(kit: Any, tmp_path: Path) -> None:
    classes(tmp_path, kit, per_class=2)
    kit.picture(tmp_path / "cat" / "._00.png")
    kit.picture(tmp_path / ".thumbs" / "00.png")
    kit.picture(tmp_path / "__MACOSX" / "cat" / "00.png")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat" / "dangling.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "cat" / "folder.png").mkdir()
    source = FolderSource(tmp_path, labels=False)
    assert [Path(source.name(i)).relative_to(tmp_path).as_posix() for i in range(len(source))] == [
        "ant/00.png", "ant/01.png", "cat/00.png", "cat/01.png", "cat/dangling.png",
    ]  # fmt: skip
    with pytest.raises(BadSampleError, match="no such file"):
        source.read(4)
    assert [path.as_posix() for path, _ in source.left_out] == [
        ".thumbs", "__MACOSX", "cat/._00.png", "cat/Thumbs.db", "cat/folder.png", "cat/loop",
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_counted_named_and_replaced_in_training(kit: Any, tmp_path: Path, workers: int) -> None:
    for i in range(120):
        kit.picture(tmp_path / "data" / f"{i:03}.png")
    whole = (tmp_path / "data" / "007.png").read_bytes()
    (tmp_path / "data" / "007.png").write_bytes(whole[:-40])
    data = folder(tmp_path / "data", size=[4, 4], batch_size=20, val_share=0, mean=[0.5] * 3, std=[0.5] * 3, workers=workers)
    data.attach(kit.views())
    with pytest.warns(UserWarning, match=r"007\.png cannot be read"):
        kit.trainer(tmp_path, 7).fit(kit.recorder(), data)
    rows = (tmp_path / "bad_samples.csv").read_text().splitlines()
    assert len(rows) == 2
    assert "007.png," in rows[1]
