"""No label enters pretraining, nothing is learnt from or chosen on what judges: leaks that are refused, and their controls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_framework.commands import compose, pretrain
from ssl_framework.data import ArraySource, DataModule, FolderSource, Labelled, copies, digits, folder, overlap
from ssl_framework.data.split import Part
from ssl_framework.downstream import AuditError, Classification, DownstreamModule, Frozen, Full, KeepBest, LabelledData
from ssl_framework.encoders import resnet_micro
from ssl_framework.evaluation import Splits, study
from ssl_framework.optim import adamw
from support import bits, digits_data, fit, small

PREPROCESSING = {"mean": [0.3], "std": [0.37], "size": [8, 8], "channels": 1}


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)


def module_of(train: np.ndarray, test: np.ndarray, val: np.ndarray | None = None) -> DataModule:
    def source(pixels: np.ndarray) -> ArraySource:
        return ArraySource(pixels, np.arange(len(pixels)) % 3)

    return DataModule(source(train), None if val is None else source(val), source(test), name="planted", batch_size=16)


@pytest.fixture
def leak(record_property: Any) -> None:
    record_property("promise", "R15")
    record_property("kind", "planted leak")


@pytest.fixture
def control(record_property: Any) -> None:
    record_property("promise", "R15")
    record_property("kind", "control")


# A folder that holds more than what is to be trained on


def photographs(root: Path, splits: list[str], count: int = 4) -> Path:
    for number, split in enumerate(splits):
        for i in range(count):
            path = root / split / ("cat" if i % 2 else "dog") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images(1, 100 * number + i)[0]).save(path)
    return root


@pytest.mark.parametrize("name", ["test", "val", "validation", "Test"])
@pytest.mark.usefixtures("leak")
def test_a_folder_with_the_splits_inside_is_refused(name: str, tmp_path: Path) -> None:
    root = photographs(tmp_path / "all", ["photos/train", f"photos/{name}", "more/2020"])
    with pytest.raises(ValueError, match=rf"photos/{name} lies below .* data\.within=train"):
        folder(root, size=8)


@pytest.mark.usefixtures("control")
def test_a_folder_whose_splits_stand_at_its_top_trains_on_train(tmp_path: Path) -> None:
    root = photographs(tmp_path / "all", ["train", "val", "test"])
    data = folder(root, size=8)
    assert {data.train.name(i).split("/")[-3] for i in range(data.num_samples)} == {"train"}
    inside = photographs(tmp_path / "deep", ["photos/train", "photos/test"])
    assert len(folder(inside, size=8, within="train").train) == 4
    assert len(folder(photographs(tmp_path / "own", ["a/tests", "a/train"]), size=8, labels=False, val_share=0).train) == 8


@pytest.mark.filterwarnings("ignore:.*on images that were seen")
@pytest.mark.usefixtures("leak")
def test_labelled_test_images_inside_the_folder_of_photographs_are_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path / "all", ["2020", "2021"], 10)
    photographs(root / "labelled", ["train", "test", "val"], 10)
    (root / "labelled" / "train").rename(root / "labelled" / "learn")  # not told by its name
    others = photographs(tmp_path / "labelled", ["train"], 10)
    for split in ("test", "val"):
        (root / "labelled" / split).rename(tmp_path / "labelled" / split)
        photographs(root / "copies", [f"of_{split}"], 10)
        for copy in (root / "copies" / f"of_{split}").glob("*/*"):
            copy.write_bytes((others / split / copy.parent.name / copy.name).read_bytes())
    words = ["data=folder", f"data.path={root}", "data.labels=false", "data.size=[8,8]", "data.channels=1", "data.val_share=0"]
    words += [
        "data@labelled_data=folder",
        f"labelled_data.path={others}",
        "labelled_data.size=[8,8]",
        "labelled_data.channels=1",
    ]
    with pytest.raises(ValueError, match=r"10 of 10 test images of .* are among the"):
        pretrain.run(compose.compose("pretrain", words, folder=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


# Test images among those of training


@pytest.mark.parametrize("among", ["all", "some"])
@pytest.mark.usefixtures("leak")
def test_test_images_among_those_to_train_on_are_refused(among: str, tmp_path: Path) -> None:
    train, test = images(200, 1), images(40, 2)
    train[20 : 60 if among == "all" else 23] = test[: 40 if among == "all" else 3]
    data = module_of(train, test, images(20, 3))
    with pytest.raises(
        ValueError, match=f"{40 if among == 'all' else 3} of 40 test images of planted are among the 200 to train on"
    ):
        fit(small("simclr"), data, 1, tmp_path)


@pytest.mark.usefixtures("control")
def test_splits_that_are_apart_are_trained_on(tmp_path: Path) -> None:
    data = module_of(images(200, 1), images(40, 2), images(20, 3))
    data.require_apart()
    assert {split: len(source) for split, source in data.sources().items()} == {"train": 200, "val": 20, "test": 40}
    assert fit(small("simclr"), data, 1, tmp_path).global_step == 1


@pytest.mark.usefixtures("control")
def test_images_of_one_colour_and_few_copies_are_no_leak() -> None:
    train, test = images(300, 1), images(300, 2)
    train[:50], test[:50] = 0, 0
    train[100] = test[100]
    data = module_of(train, test, images(9, 3))
    data.require_apart()
    assert len(data.sources()["test"]) == 300, "a split that was given stays as it is"


def test_the_built_in_digits_are_apart() -> None:
    assert {name: len(rows) for name, rows in digits().left_out().items()} == {"val": 0, "test": 0}


def test_copies_are_told_by_pixels_and_shapes() -> None:
    pixels = images(4, 0)
    known = ArraySource(pixels[:3])
    assert copies(known, ArraySource(pixels[::-1])).tolist() == [1, 2, 3]
    assert copies(known, ArraySource(pixels.reshape(4, 4, 16))).tolist() == []


def test_an_image_of_one_colour_may_have_channels_that_differ() -> None:
    red = np.zeros((3, 8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert copies(ArraySource(red), ArraySource(red)).tolist() == []
    red[0, 3, 3, 1] = 1
    assert copies(ArraySource(red), ArraySource(red)).tolist() == [0]


@pytest.mark.usefixtures("leak")
@pytest.mark.parametrize("why", ["another kind", "too many"])
def test_splits_are_compared_by_pairs(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test split that cannot be compared hides no copies of train in val."""
    train, val = scans(tmp_path / "train", range(20)), scans(tmp_path / "val", range(10, 20))
    test = ArraySource(np.zeros((30, 256, 256, 3), np.uint8)) if why == "another kind" else scans(tmp_path / "t", range(30, 60))
    monkeypatch.setattr(overlap, "LIMIT", 35)
    with pytest.raises(ValueError, match="10 of 10 val images of scans are among the 20 to train on: what"):
        DataModule(train, val, test, name="scans", batch_size=4, size=8).require_apart()


def scans(root: Path, numbers: range, names: str = "{}") -> FolderSource:
    """Uncompressed images of one size, whose first half is black, as scans have it."""
    root.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.zeros((256, 256), np.uint8)
        pixels[200, number] = 1  # in no piece that is looked at first
        Image.fromarray(pixels).save(root / f"{names.format(number)}.bmp")
    return FolderSource(root)


@pytest.mark.usefixtures("control")
def test_files_that_begin_alike_are_no_copies(tmp_path: Path) -> None:
    train, test = scans(tmp_path / "train", range(20)), scans(tmp_path / "test", range(20, 40))
    assert copies(train, test).tolist() == []
    DataModule(train, None, test, name="scans", batch_size=4, size=8).require_apart()


@pytest.mark.usefixtures("control")
@pytest.mark.parametrize("content", [b"", b"\x89PNG half", None], ids=["empty", "broken", "black"])
def test_files_that_show_nothing_are_no_copies(content: bytes | None, tmp_path: Path) -> None:
    """They are alike in many folders: a black frame, a download that failed."""
    sources = []
    for split, numbers in (("train", range(20)), ("test", range(20, 30))):
        scans(tmp_path / split, numbers)
        if content is None:
            Image.fromarray(np.zeros((256, 256), np.uint8)).save(tmp_path / split / "nothing.bmp")
        else:
            (tmp_path / split / "nothing.png").write_bytes(content)
        sources.append(FolderSource(tmp_path / split))
    assert copies(*sources).tolist() == []


@pytest.mark.usefixtures("leak")
def test_copies_are_told_by_all_bytes_of_a_file(tmp_path: Path) -> None:
    train, test = scans(tmp_path / "train", range(20)), scans(tmp_path / "test", range(15, 35), "again{}")
    assert copies(train, test).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5 of 20 test images of scans are among the 20 to train on"):
        DataModule(train, None, test, name="scans", batch_size=4, size=8, val_share=0).require_apart()


@pytest.mark.filterwarnings("ignore:.*are left out")
@pytest.mark.parametrize("cache", [False, True])
def test_copies_leave_a_split_that_was_carved(cache: bool, tmp_path: Path) -> None:
    """Nobody chose them: a tenth of the photographs lies there twice."""
    scans(tmp_path / "all", range(100))
    scans(tmp_path / "all", range(10), "{} (1)")
    kept = {"cache": cache, "cache_dir": str(tmp_path / "c")}
    data = folder(tmp_path / "all", labels=False, size=256, channels=1, val_share=0.3, batch_size=16, **kept)
    before = len(data.sources()["val"])
    found = len(data.left_out()["val"])
    for _ in range(2):  # once
        data.require_apart()
        assert 0 < found < 10
        assert len(data.sources()["val"]) == before - found
    assert data.record()["left_out"] == {"val": found}
    pixels = {split: {source.read(i).numpy().tobytes() for i in range(len(source))} for split, source in data.sources().items()}
    assert not pixels["train"] & pixels["val"]
    assert fit(small("simclr"), data, 1, tmp_path / "run").global_step == 1


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_what_chooses_is_not_what_judges() -> None:
    train, val, test = images(200, 1), images(40, 2), images(40, 3)
    val[:3] = test[:3]
    with pytest.raises(
        ValueError, match=r"3 of 40 val images of planted are among the 40 to test on: .* Give other val images"
    ):
        module_of(train, test, val).require_apart()
    pool = np.concatenate([train, test[:20]])
    data = DataModule(ArraySource(pool), None, ArraySource(test), name="pool", val_share=0.5)
    with pytest.raises(ValueError, match="test images of pool are among"):
        data.require_apart()


def test_data_of_copies_alone_are_refused() -> None:
    data = DataModule(ArraySource(np.repeat(images(50, 1), 4, axis=0)), name="twice", val_share=0.2)
    with pytest.raises(ValueError, match="too little is left to judge by"):
        data.require_apart()


@pytest.mark.usefixtures("control")
def test_some_labels_of_the_images_to_pretrain_on_are_told_of(tmp_path: Path) -> None:
    """All images unlabelled, and some of them labelled for the monitors, is no leak of labels."""
    pool = images(260, 1)
    data = DataModule(ArraySource(pool), name="pool")
    labelled = DataModule(ArraySource(pool[:60], np.arange(60) % 3), name="lab", val_share=0.2)
    with pytest.warns(UserWarning, match=r"\d+ of 12 val images of lab are among the 234 to pretrain on, without their labels"):
        data.require_unseen(labelled)
    both = DataModule(
        ArraySource(pool), labelled=Part(ArraySource(pool, np.zeros(260, dtype=int)), np.arange(60)), name="both", val_share=0.2
    )
    both.require_apart()  # whose own splits share nothing
    with pytest.warns(UserWarning, match="12 of 12 val images of both are among the 260 to pretrain on, without their labels"):
        fit(small("simclr"), both, 1, tmp_path)


@pytest.mark.usefixtures("leak")
def test_a_refusal_stands(tmp_path: Path) -> None:
    """A second try, as in a notebook, is refused as the first was."""
    pool = images(200, 1)
    data = DataModule(
        ArraySource(pool), None, ArraySource(pool[:40]), labelled=ArraySource(images(60, 2), np.arange(60) % 3), name="both",
        batch_size=16, val_share=0,
    )  # fmt: skip
    for _ in range(2):
        with pytest.raises(ValueError, match="40 of 40 test images of both are among the 200 to pretrain on"):
            fit(small("simclr"), data, 1, tmp_path)


@pytest.mark.usefixtures("leak")
@pytest.mark.filterwarnings("ignore:.*on images that were seen")
def test_labelled_data_for_the_monitors_are_apart_too(tmp_path: Path) -> None:
    """Else neighbours of a validation image are looked up among its copies."""
    for name in ("pool", "lab"):
        for split in ("train", "val", "test"):
            pixels = images(30, 3) if (name, split) == ("lab", "val") else images(30, len(name) + len(split))
            for i, one in enumerate(images(30, 3) if (name, split) == ("lab", "train") else pixels):
                path = tmp_path / name / split / f"class{i % 2}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(one).save(path)
    both = [f"{node}.{key}" for node in ("data", "labelled_data") for key in ("size=[8,8]", "channels=1")]
    words = ["data=folder", f"data.path={tmp_path / 'pool'}"]
    words += ["data@labelled_data=folder", f"labelled_data.path={tmp_path / 'lab'}"]
    with pytest.raises(ValueError, match=r"30 of 30 val images of .*lab are among the 30 to train on"):
        pretrain.run(compose.compose("pretrain", [*words, *both], folder=str(tmp_path / "run")))


class Own(ArraySource):
    """A source of a user's, which has a path of its own meaning."""

    path = Path("somewhere")


def test_a_source_may_have_a_path() -> None:
    train, test = Own(images(20, 1)), Own(images(20, 2))
    DataModule(train, None, test, name="own", batch_size=4).require_apart()


# Labels in pretraining


def weights_of(targets: Callable[[np.ndarray], np.ndarray], task: str, folder: Path) -> str:
    pixels = images(64, 5)
    labels = targets(np.arange(64) % 4)
    data = DataModule(ArraySource(pixels, labels), name="hidden", batch_size=16, val_share=0)
    module = small(task)
    fit(module, data, 4, folder)
    return bits(module.state_dict())


@pytest.mark.parametrize("task", ["simclr", "mae", "deepcluster_v2", "npid"])
@pytest.mark.usefixtures("leak")
def test_weights_are_the_same_to_the_bit_whatever_the_labels_say(task: str, tmp_path: Path) -> None:
    told, hidden = (weights_of(change, task, tmp_path) for change in (lambda y: y, lambda y: 0 * y + 3))
    assert told == hidden


def labels_in_batches(data: DataModule) -> None:
    """A loader as others have it: with labels."""
    whole, targets = data.train_dataloader, torch.from_numpy(data.train.targets)
    data.train_dataloader = lambda: (batch._replace(target=targets[batch.index]) for batch in whole())


class Peeks(type(small("simclr"))):
    """A task that learns what a batch should not have."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        step = super().training_step(batch, batch_idx)
        if batch.target is not None:
            step["loss"] = step["loss"] + self.projector(self.encoder(batch.input.float()).pooled)[:, batch.target].mean()
        return step


@pytest.mark.parametrize("refused", [pytest.param(True, id="leak"), pytest.param(False, id="control")])
def test_a_batch_with_labels_is_refused(refused: bool, tmp_path: Path, monkeypatch: Any, record_property: Any) -> None:
    record_property("promise", "R15")
    record_property("kind", "planted leak" if refused else "control")
    digests = []
    for seed in (0, 1):
        labels = np.random.default_rng(seed).integers(0, 4, 64)
        data = DataModule(ArraySource(images(64, 5), labels), name="peeked", batch_size=16, val_share=0)
        labels_in_batches(data)
        torch.manual_seed(0)
        module = Peeks(resnet_micro(in_chans=1, img_size=8), 32, 32, views=small("simclr").views, optimizer=adamw(lr=1e-3))
        if refused:
            with pytest.raises(ValueError, match="a batch of peeked has labels, and pretraining has none to see"):
                fit(module, data, 2, tmp_path)
            return
        monkeypatch.setattr(DataModule, "on_after_batch_transfer", lambda self, batch, dataloader_idx: batch)
        fit(module, data, 2, tmp_path)
        digests.append(torch.cat([value.flatten() for value in module.encoder.parameters()]).detach())
    assert not torch.equal(*digests), "without the refusal labels shape the encoder"


# Choices on the test set


def split(name: str, seed: int, count: int = 24) -> Labelled:
    return Labelled(ArraySource(images(count, seed), np.arange(count) % 3), (8, 8), split=name)


@pytest.mark.usefixtures("leak")
def test_early_stopping_on_the_test_set_is_refused() -> None:
    with pytest.raises(ValueError, match="would choose on the test set"):
        KeepBest("test/accuracy", "max", patience=3)


@pytest.mark.usefixtures("leak")
def test_choosing_on_the_test_split_is_refused() -> None:
    with pytest.raises(ValueError, match="the test split would be chosen on"):
        LabelledData(split("train", 0), split("test", 1), split("test", 1))
    with pytest.raises(ValueError, match="the test split would be chosen on"):
        study(resnet_micro(in_chans=1, img_size=8), Splits(split("train", 0), split("test", 1), split("test", 1)), _floats)


@pytest.mark.usefixtures("leak")
def test_a_standardisation_or_pca_fitted_on_test_is_refused() -> None:
    with pytest.raises(ValueError, match="the test split would be learnt from"):
        LabelledData(split("test", 0), split("val", 1), split("test", 0))
    with pytest.raises(ValueError, match="learnt from, and the floors' statistics with it"):
        study(resnet_micro(in_chans=1, img_size=8), Splits(split("test", 1), split("val", 2), split("test", 1)), _floats)


@pytest.mark.usefixtures("control")
def test_train_validation_and_test_are_what_they_are_called() -> None:
    LabelledData(split("train", 0), split("val", 1), split("test", 2))
    KeepBest("val/accuracy", "max", patience=3)


def _floats(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float() / 255


@pytest.mark.usefixtures("leak")
def test_statistics_of_images_are_those_of_train_whatever_test_holds() -> None:
    train, test = images(100, 1), np.zeros((50, 8, 8), np.uint8)
    test[:, 0] = 255
    assert module_of(train, test, images(9, 3)).facts.mean == module_of(train, images(50, 2), images(9, 3)).facts.mean


# A probe that moves the backbone


@pytest.mark.parametrize("refused", [pytest.param(True, id="leak"), pytest.param(False, id="control")])
def test_a_probe_whose_gradient_reaches_the_backbone_is_refused(refused: bool, tmp_path: Path, record_property: Any) -> None:
    record_property("promise", "R15")
    record_property("kind", "planted leak" if refused else "control")
    encoder = resnet_micro(in_chans=1, img_size=8)
    module = DownstreamModule(
        encoder, Classification(3), freezing=Frozen() if refused else Full(), preprocessing=PREPROCESSING,
        optimizer=adamw(lr=1e-3, scale_lr="none"),
    )  # fmt: skip
    before = {name: value.clone() for name, value in module.encoder.state_dict().items()}
    data = LabelledData(split("train", 0), batch_size=8)
    if refused:
        whole = module.configure_optimizers

        def leaky() -> Any:
            for parameter in module.encoder.parameters():
                parameter.requires_grad_(True)
            return whole()

        module.configure_optimizers = leaky
        with pytest.raises(AuditError):
            fit(module, data, 2, tmp_path)
        return
    fit(module, data, 2, tmp_path)
    assert any(not torch.equal(before[name], value) for name, value in module.encoder.state_dict().items()), "it would move"


def test_digits_of_the_suite_are_apart(tmp_path: Path) -> None:
    assert fit(small("rotation"), digits_data("rotation"), 1, tmp_path).global_step == 1
