import copy
from collections import Counter

import pytest
import torch

from ssl_framework.encoders import RawPixels, resnet_micro
from ssl_framework.evaluation import Splits, linear, study

from .conftest import make_split, prepare


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return resnet_micro(1, 8)


def _splits() -> Splits:
    return Splits(make_split(60), make_split(12, name="val", seed=1), make_split(30, name="test", seed=2))


def test_one_row_for_each_contestant_budget_seed_and_classifier(encoder):
    shown = []
    rows = study(encoder, _splits(), prepare, budgets=(1, 5, "all"), seeds=(3, 4), on_row=shown.append)
    assert rows == shown
    assert {type(value) for row in rows for value in row.values()} <= {str, int, float, type(None)}
    counts = Counter((row["method"], row["budget"]) for row in rows)
    for method in ("frozen encoder", "random encoder", "raw pixels", "PCA"):
        assert (counts[method, 1], counts[method, 5], counts[method, "all"]) == (4, 4, 2)
    assert {row["classifier"] for row in rows} == {"linear", "knn"}
    assert all((row["penalty"] is None) == (row["classifier"] == "knn") for row in rows)
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    # a bar at another row is plain to see for pixels
    assert all(row["accuracy"] == 1 for row in rows if row["method"] == "raw pixels" and row["budget"] == "all")


def test_seeds_draw_labels_and_random_weights(encoder):
    def accuracies(seeds):
        rows = study(encoder, _splits(), prepare, budgets=(1,), seeds=seeds, floors=("random",))
        return {(row["method"], row["classifier"], row["seed"]): row["accuracy"] for row in rows}

    both, second = accuracies((0, 1)), accuracies((1,))
    assert second == {key: value for key, value in both.items() if key[2] == 1}
    assert len({both["random encoder", "linear", seed] for seed in (0, 1)} | {both["random encoder", "knn", 0]}) > 1


def test_the_test_split_chooses_nothing(encoder):
    splits = _splits()
    shuffled = copy.copy(splits.test)
    shuffled.targets = splits.test.targets.roll(1)
    options = {"budgets": (2, "all"), "seeds": (0, 1), "floors": ("pixels",)}
    first = study(encoder, splits, prepare, **options)
    second = study(encoder, splits._replace(test=shuffled), prepare, **options)
    assert [row["penalty"] for row in first] == [row["penalty"] for row in second]
    assert [row["accuracy"] for row in first] != [row["accuracy"] for row in second]


def test_each_image_is_encoded_once(encoder, monkeypatch):
    read = Counter()

    def counted(encoder, split, *args, **options):
        read[type(encoder).__name__, split.split, len(split)] += 1
        return embed(encoder, split, *args, **options)

    embed = linear.embed
    monkeypatch.setattr(linear, "embed", counted)
    study(encoder, _splits(), prepare, budgets=(1, 5, "all"), seeds=(0, 1), floors=("pixels",))
    name = type(encoder).__name__
    assert read[name, "test", 30] == read[name, "val", 12] == read[name, "train", 60] == 1
    assert read[name, "train", 15] == 2  # five of three classes, for each seed; those of one are among them
    assert read[name, "train", 3] == 0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_precision_reaches_the_encoder(encoder, precision):
    asked = []
    encoder.register_forward_pre_hook(lambda *_: asked.append(torch.is_autocast_enabled("cpu")))
    study(encoder, _splits(), prepare, budgets=(1,), seeds=(0,), floors=(), precision=precision)
    assert asked == [precision == "bf16-mixed"] * 3  # validation, test, train


def test_accuracies_do_not_depend_on_the_precision_but_for_noise(encoder):
    exact, rounded = (
        study(encoder, _splits(), prepare, budgets=("all",), seeds=(0,), floors=("pixels",), precision=precision)
        for precision in ("32-true", "bf16-mixed")
    )
    for a, b in zip(exact, rounded, strict=True):
        assert abs(a["accuracy"] - b["accuracy"]) <= 2 / 30 * (a["method"] == "frozen encoder")


def test_budgets_are_looked_up_in_the_right_rows(encoder):
    splits = _splits()
    alone = study(RawPixels(1, 8), splits, prepare, budgets=(2,), seeds=(5,), floors=())
    among = study(RawPixels(1, 8), splits, prepare, budgets=(2, 7), seeds=(5,), floors=())
    keys = ("budget", "classifier", "accuracy", "penalty")
    assert [[row[k] for k in keys] for row in alone] == [[row[k] for k in keys] for row in among if row["budget"] == 2]
    pool = linear.embed(RawPixels(1, 8), splits.train.subset(7, 5), prepare)
    few = splits.train.subset(2, 5)
    picked = linear._rows_of(pool, few.index)
    assert torch.equal(picked.x, linear.embed(RawPixels(1, 8), few, prepare).x)
    assert torch.equal(picked.y, few.targets)


def test_what_cannot_be_measured_is_refused(encoder):
    splits = _splits()
    with pytest.raises(ValueError, match="fewer than the 21"):
        study(encoder, splits, prepare, budgets=(21,), floors=())
    with pytest.raises(ValueError, match="no floor 'ceiling'"):
        study(encoder, splits, prepare, budgets=(1,), seeds=(0,), floors=("ceiling",))
