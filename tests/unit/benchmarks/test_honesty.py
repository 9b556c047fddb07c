"""What the rows of benchmarks/honesty.py say is what the promise asks for, and the page says what the rows say."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ssl_framework.data import digits
from support import script

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def honesty() -> ModuleType:
    return script("benchmarks/honesty.py")


@pytest.fixture(scope="module")
def found(honesty: ModuleType) -> dict:
    return honesty.summary(honesty.read())


def test_null_studies_rarely_claim_that_transfer_pays(found: dict) -> None:
    assert found["real"]["studies"] == 40
    assert found["real"]["false_pays"] <= 2  # 5 % of 40
    assert found["resampled"]["studies"] == 2000
    assert min(found["resampled"]["pool"].values()) >= 40
    assert found["resampled"]["false_pays"] <= 100


def test_every_null_cell_was_trained_from_weights_of_its_own(honesty: ModuleType) -> None:
    rows = honesty.read()["null"]
    cells = {(row["method"], row["budget"], row["seed"]) for row in rows}
    assert len(cells) == len(rows) == 40 * (honesty.SEEDS + 1) * 2 * len(honesty.BUDGETS)
    assert all(row["steps"] == honesty.STEPS for row in rows)
    both = {arm: [row["accuracy"] for row in rows if row["method"] == arm and "accuracy" in row] for arm in ("scratch", "full")}
    assert np.mean([a != b for a, b in zip(*both.values(), strict=True)]) > 0.9
    for budget, cells in honesty.pool(rows).items():
        accuracies = [row["accuracy"] for row in cells]
        assert np.mean(accuracies) > 0.2, f"{budget}: nothing was learnt"
        assert np.std(accuracies) > 0


def test_an_encoder_of_shuffled_pixels_does_not_pay_and_a_good_one_does(found: dict) -> None:
    assert "pays" not in found["words"]["shuffled"]
    assert found["words"]["good"][0] == "pays"


def test_shuffled_digits_keep_their_pixels_and_nothing_else(honesty: ModuleType) -> None:
    split = digits(workers=0).split("train")
    clean, mixed = split.images(range(len(split))).numpy(), honesty.shuffled()
    assert mixed.shape == clean.shape
    assert np.array_equal(np.sort(mixed.reshape(len(mixed), -1)), np.sort(clean.reshape(len(clean), -1)))
    assert np.mean(np.all(mixed == clean, axis=(1, 2, 3))) < 0.01
    # each image has its own order: means over images are flat, where those of digits have dark borders
    assert mixed.mean(axis=0).std() < 0.1 * clean.mean(axis=0).std()


@pytest.mark.parametrize("name", ["null", "shuffled", "good"])
def test_of_each_row_it_is_known_what_measured_it(name: str, honesty: ModuleType) -> None:
    told = json.loads((honesty.ROWS / f"{name}.json").read_text())
    assert sum(one["rows"] for one in told) == len(honesty.read()[name])


def test_rows_measured_elsewhere_keep_what_measured_them(
    honesty: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(honesty, "ROWS", tmp_path)
    for kept, processor in ((0, "first"), (2, "second"), (3, "nothing was missing")):
        monkeypatch.setattr(
            honesty.machine_record, "record", lambda processor=processor: {"processor": processor, "torch": "2"}
        )
        more = {0: 2, 2: 1, 3: 0}[kept]
        honesty.rows.append(tmp_path / "null.jsonl", [{"method": "full", "budget": 1, "seed": kept + n} for n in range(more)])
        honesty.note("null", kept)
    assert honesty.measured_on("null") == "with torch 2 on first (2 rows) and with torch 2 on second (1 rows)"


def test_the_page_says_what_the_rows_say(honesty: ModuleType) -> None:
    assert honesty.PAGE.read_text() == honesty.page()
