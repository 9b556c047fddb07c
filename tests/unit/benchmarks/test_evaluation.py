"""The benchmark of evaluation: its features, its rows, and the accuracies it puts side by side."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    """The script, imported as it finds its neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield __import__("evaluation")
    for name in ("evaluation", "machine_record"):
        del sys.modules[name]


def test_features_are_drawn_from_the_seed_and_split_by_ten(script: ModuleType):
    first, second, other = (script.make_features(100, 30, 8, 3, seed=seed) for seed in (0, 0, 1))
    assert [len(split[1]) for split in (first.train, first.val, first.test, first.keys)] == [90, 10, 30, 100]
    assert torch.equal(first.keys[0], second.keys[0])
    assert not torch.equal(first.keys[0], other.keys[0])
    assert first.train[0].dtype == torch.float32


def test_rows_say_what_was_measured_and_where(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--keys", "600", "--queries", "300", "--width", "24", "--classes", "3", "--rounds", "2", "--epochs", "40"]
    rows = script.main([*words, "--out", str(tmp_path / "rows.json")])
    assert rows == json.loads((tmp_path / "rows.json").read_text())
    found = {row["what"]: row for row in rows}
    assert list(found) == ["knn", "probe", "both", "scikit-learn", "SGD, 40 epochs"]
    assert all(row["seconds"] > 0 and row["keys"] == 600 and row["machine"]["torch"] for row in rows)
    assert found["both"]["fastest"] >= found["knn"]["fastest"] + found["probe"]["fastest"]
    assert found["probe"]["penalty"] == found["scikit-learn"]["penalty"]
    assert abs(found["probe"]["accuracy"] - found["scikit-learn"]["accuracy"]) <= 0.002
    assert abs(found["SGD, 40 epochs"]["accuracy"] - found["probe"]["accuracy"]) < 0.05
    shown = capsys.readouterr().out
    assert all(name in shown for name in found)


def test_the_learning_rate_of_sgd_is_chosen(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    features = script.make_features(600, 300, 24, 3)
    monkeypatch.setattr(script, "LEARNING_RATES", (1e-9, 0.1, 1e-8))
    found = script.sgd(features.train, features.val, features.test, epochs=5)
    assert found["lr"] == 0.1
    assert found["accuracy"] > 0.5
