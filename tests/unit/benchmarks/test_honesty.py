"""What the rows of benchmarks/honesty.py say is what the promise asks for, and the page says what the rows say."""

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


def test_the_page_says_what_the_rows_say(honesty: ModuleType) -> None:
    assert honesty.PAGE.read_text() == honesty.page()
