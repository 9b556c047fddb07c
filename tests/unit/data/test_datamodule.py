import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ssl_framework.data import ArraySource, DataModule, digits
from ssl_framework.types import Source


def labelled_source(per_class: int = 20, classes: int = 3) -> ArraySource:
    images = np.arange(per_class * classes, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    return ArraySource(images, np.arange(per_class * classes) % classes, ("ant", "bee", "cat")[:classes], name="a")


# Position


@pytest.mark.parametrize("workers", [0, 2])
def test_position_counts_batches_that_were_used_not_those_that_were_read_ahead(kit: Any, tmp_path: Path, workers: int) -> None:
    data = DataModule(kit.numbers(50), kit.numbers(20), batch_size=8, name="n", workers=workers)
    module = kit.recorder()
    kit.trainer(tmp_path, 7, accumulate_grad_batches=1).fit(module, data)
    assert module.positions == list(range(1, 8))
    assert data.position == 7
    assert module.validated == 3 * 16  # three validations of two whole batches move nothing


def test_accumulated_batches_count_one_by_one(kit: Any, tmp_path: Path) -> None:
    data = DataModule(kit.numbers(50), batch_size=8, name="n", val_share=0)
    kit.trainer(tmp_path, 3, accumulate_grad_batches=2).fit(kit.recorder(), data)
    assert data.position == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_goes_on_with_the_next_batch(kit: Any, tmp_path: Path, workers: int) -> None:
    def run(steps: int, resume: Path | None = None) -> Any:
        data = DataModule(kit.numbers(50), kit.numbers(8), batch_size=8, name="n", workers=workers)
        module, trainer = kit.recorder(), kit.trainer(tmp_path, steps, limit_val_batches=0)
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return module

    whole = run(12)
    first = run(6)  # the 50 samples end inside the seventh batch
    second = run(12, tmp_path / "6.ckpt")
    assert first.seen + second.seen == whole.seen
    assert second.positions[-1] == 12


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"batch_size": 10}, "batch_size is 10 and was 8"),
        ({"seed": 1}, "seed is 1 and was 0"),
        ({"val_share": 0.3}, "num_samples is 35 and was 45"),
        ({"split_seed": 5}, "split_seed is 5 and was 0"),
    ],
)
def test_going_on_with_other_data_is_refused_and_named(kit: Any, other: dict[str, Any], named: str) -> None:
    state = DataModule(kit.numbers(50), batch_size=8, name="n").state_dict()
    changed = DataModule(kit.numbers(50), name="n", **({"batch_size": 8} | other))
    with pytest.raises(ValueError, match=named):
        changed.load_state_dict(state)


def test_the_state_is_plain(kit: Any) -> None:
    data = DataModule(kit.numbers(500, bad=(3,)), batch_size=8, name="n")
    with pytest.warns(UserWarning, match="cannot be read"):
        data.bad_samples.report("train", data.train, 3, "planted")
    torch.save(data.state_dict(), file := io.BytesIO())
    file.seek(0)
    assert torch.load(file, weights_only=True) == data.state_dict()


# Batch


def test_a_batch_larger_than_the_data_is_refused(kit: Any) -> None:
    data = DataModule(kit.numbers(50), batch_size=64, name="n", val_share=0)
    for ask in (data.train_dataloader, lambda: data.batches_per_epoch):
        with pytest.raises(ValueError, match=r"larger than the data.*data\.batch_size=50 or less"):
            ask()


def test_a_batch_that_processes_cannot_share_is_refused(kit: Any) -> None:
    class Three:
        world_size, global_rank = 3, 0

    data = DataModule(kit.numbers(50), batch_size=8, name="n")
    data.trainer = Three()
    with pytest.raises(ValueError, match="8 samples cannot be shared equally by 3 processes"):
        data.train_dataloader()


@pytest.mark.parametrize(
    "numbers", [{"batch_size": 0}, {"workers": -1}, {"val_share": 1.0}, {"mean": [0.5]}, {"mean": [1, 1], "std": [1, 1]}]
)
def test_numbers_out_of_range_are_refused(kit: Any, numbers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(numbers)).replace("val_share", "share")):
        DataModule(kit.numbers(50), name="n", **numbers)


@pytest.mark.parametrize(
    ("facts", "message"), [({"channels": 3}, "1 channels, not"), ({"classes": 4}, "3 classes, not"), ({"size": 5}, "not size=")]
)
def test_facts_that_do_not_fit_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataModule(labelled_source(), name="n", **facts)


# Splits


def test_validation_is_carved_by_class_without_overlap_and_by_its_own_seed() -> None:
    def rows(**options: Any) -> tuple[list[int], list[int]]:
        data = DataModule(labelled_source(), name="n", val_share=0.25, **options)
        return data.split("train").index.tolist(), data.split("val").index.tolist()

    train, val = rows()
    assert sorted(train + val) == list(range(60))
    assert np.bincount(np.array(val) % 3).tolist() == [5, 5, 5]
    assert rows(seed=9) == (train, val)
    assert rows(split_seed=1) != (train, val)


def test_labels_stay_with_their_images() -> None:
    data = DataModule(labelled_source(), name="n")
    for name in ("train", "val"):
        split = data.split(name)
        images = split.images(range(len(split)))
        assert images[:, 0, 0, 0].tolist() == split.index.tolist()
        assert (split.index % 3).tolist() == split.targets.tolist()
        batches = list(split.batches(7))
        assert torch.equal(torch.cat([x for x, _ in batches]), images)
        assert torch.equal(torch.cat([y for _, y in batches]), split.targets)


def test_budgets_are_nested_balanced_and_seeded() -> None:
    split = DataModule(labelled_source(), name="n").split("train")
    one, ten = split.subset(1, seed=4), split.subset(10, seed=4)
    assert sorted(one.targets.tolist()) == [0, 1, 2]
    assert torch.bincount(ten.targets).tolist() == [10, 10, 10]
    assert set(one.index.tolist()) <= set(ten.index.tolist())
    assert set(one.index.tolist()) != set(split.subset(1, seed=5).index.tolist())
    assert ten.images([0])[0, 0, 0, 0] == ten.index[0]


def test_a_share_takes_of_each_class_and_one_at_least() -> None:
    split = DataModule(labelled_source(), name="n").split("train")
    whole = torch.bincount(split.targets)
    half = split.share(0.5, seed=4)
    assert torch.bincount(half.targets).tolist() == [round(0.5 * int(count)) for count in whole]
    assert torch.bincount(split.share(0.001, seed=4).targets).tolist() == [1, 1, 1]
    assert set(split.share(0.2, seed=4).index.tolist()) < set(half.index.tolist())
    assert set(split.share(0.5, seed=5).index.tolist()) != set(half.index.tolist())
    assert torch.equal(split.share(1.0, seed=4).index, split.index)
    with pytest.raises(ValueError, match="0 is no share of the train split"):
        split.share(0, seed=4)


def test_a_budget_that_a_class_lacks_names_the_class() -> None:
    split = DataModule(labelled_source(), name="n").split("train")
    with pytest.raises(ValueError, match="Class 'ant' has 18 train samples, fewer than the 19 per class"):
        split.subset(19, seed=0)


def test_no_labels_where_labels_are_needed(kit: Any) -> None:
    with pytest.raises(ValueError, match=r"train split has no labels.*folders by class"):
        DataModule(kit.numbers(50), name="n").split("train")


def test_a_share_that_takes_nothing_from_small_classes_is_named(kit: Any) -> None:
    with pytest.raises(ValueError, match=r"no val split: too few images per class for data\.val_share=0\.1: give a larger"):
        DataModule(labelled_source(per_class=4), name="n", val_share=0.1).split("val")
    with pytest.raises(ValueError, match=r"too few images for data\.val_share=0\.1: give a larger share"):
        DataModule(kit.numbers(4), name="n", val_share=0.1).split("val")


@pytest.mark.parametrize(
    ("name", "remedy"), [("test", "give test data"), ("val", "val_share above 0"), ("tset", "train, val and test")]
)
def test_a_split_that_is_not_there(name: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"no {name} split.*{remedy}"):
        DataModule(labelled_source(), name="n", val_share=0).split(name)


def test_without_validation_the_loader_is_empty(kit: Any) -> None:
    assert list(DataModule(kit.numbers(50), name="n", val_share=0).val_dataloader()) == []


def test_labelled_training_images_may_be_others_than_those_of_pretraining(kit: Any) -> None:
    data = DataModule(kit.numbers(500), None, None, labelled=labelled_source(), name="stl", val_share=0.1)
    assert data.num_samples == 500
    assert len(data.split("train")) == 54
    assert len(data.split("val")) == 6
    assert data.facts.classes == ("ant", "bee", "cat")


# Facts


def test_measured_facts_are_those_of_the_training_images_and_are_recorded() -> None:
    data = DataModule(labelled_source(), name="n", val_share=0.5)
    pixels = data.split("train").images(range(30)).double() / 255
    assert data.facts.mean == pytest.approx([pixels.mean().item()])
    assert data.facts.std == pytest.approx([pixels.std(correction=0).item()])
    record = data.record()
    assert record["measured_on"] == 30
    assert record["mean"] == list(data.facts.mean)
    assert record["samples"] == {"pretrain": 30, "train": 30, "val": 30, "test": 0}
    assert yaml.safe_load(yaml.safe_dump(record)) == record


def test_given_facts_are_not_measured() -> None:
    data = DataModule(labelled_source(), name="n", mean=[0.25], std=[0.5])
    assert (data.facts.mean, data.facts.std) == ((0.25,), (0.5,))
    assert data.record()["measured_on"] == 0


def test_a_constant_channel_cannot_be_normalised() -> None:
    with pytest.raises(ValueError, match="a channel is constant"):
        _ = DataModule(ArraySource(np.zeros((9, 4, 4), np.uint8)), name="n").facts


def test_digits_are_there_without_a_download() -> None:
    data = digits()
    assert data.facts.size == (8, 8)
    assert len(data.split("train")) + len(data.split("val")) + len(data.test_split()) == 1797
    assert data.split("train").images(range(100)).max() == 255
    assert not set(data.split("train").index.tolist()) & set(data.test_split().index.tolist())


# Unreadable samples


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "bad_samples.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_counted_once_and_named_in_the_run_folder(kit: Any, tmp_path: Path, workers: int) -> None:
    data = DataModule(kit.numbers(100, bad=(42,)), kit.numbers(8), batch_size=20, name="n", workers=workers)
    module = kit.recorder()
    with pytest.warns(UserWarning, match=r"number 42 cannot be read \(planted\)"):
        kit.trainer(tmp_path, 15).fit(module, data)  # three passes
    assert read_csv(tmp_path) == [{"index": "42", "name": "number 42", "reason": "planted", "split": "train"}]
    assert all(42 not in seen for seen in module.seen)
    again = DataModule(kit.numbers(100, bad=(42,)), kit.numbers(8), batch_size=20, name="n")
    again.load_state_dict(data.state_dict())
    again.bad_samples.folder = tmp_path
    assert len(read_csv(tmp_path)) == 1


def test_more_than_one_percent_stops_the_run_and_points_to_the_list(kit: Any, tmp_path: Path) -> None:
    data = DataModule(kit.numbers(150, bad=(1, 2)), kit.numbers(8), batch_size=50, name="n")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(ValueError, match=r"2 of 150 train.*bad_samples\.csv"),
    ):
        kit.trainer(tmp_path, 15).fit(kit.recorder(), data)
    assert {row["index"] for row in read_csv(tmp_path)} == {"1", "2"}


def test_processes_share_one_list(kit: Any, tmp_path: Path) -> None:
    one, two = (DataModule(kit.numbers(150), kit.numbers(8), name="n", batch_size=2) for _ in range(2))
    for data in (one, two):
        data.bad_samples.folder = tmp_path
    with pytest.warns(UserWarning, match="cannot be read"):
        one.bad_samples.report("train", one.train, 1, "planted")
    with pytest.raises(ValueError, match="2 of 150"):
        two.bad_samples.report("train", two.train, 2, "planted")


class Labelled100(Source):
    """A hundred and one images in two classes, of which one cannot be read."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    targets = np.arange(101) % 2
    classes, size, channels = ("even", "odd"), (2, 2), 1

    def __len__(self) -> int:
        return 101

    def read(self, index: int) -> torch.Tensor:
        return self.numbers.read(index)

    def name(self, index: int) -> str:
        return self.numbers.name(index)


def test_labelled_images_that_cannot_be_read_are_replaced_within_their_class(kit: Any, tmp_path: Path) -> None:
    data = DataModule(Labelled100(kit.numbers(101, bad=(7,))), name="n", val_share=0)
    data.bad_samples.folder = tmp_path
    split = data.split("train")
    with pytest.warns(UserWarning, match="number 7 cannot be read"):
        values = split.images(range(101))[:, 0, 0, 0]
    assert values[7] == 9
    assert (values % 2).tolist() == split.targets.tolist()
    assert len(read_csv(tmp_path)) == 1


def test_labelled_images_stop_above_one_percent_too(kit: Any) -> None:
    split = DataModule(Labelled100(kit.numbers(101, bad=(7, 9))), name="n", val_share=0).split("train")
    with pytest.warns(UserWarning, match="number 7"), pytest.raises(ValueError, match="2 of 101 train samples cannot be read"):
        split.images(range(101))
