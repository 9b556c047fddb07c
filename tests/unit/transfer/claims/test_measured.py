import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_framework.transfer.claims import Measured


def row(**more):
    return {"method": "frozen", "budget": 1, "seed": 0, "accuracy": 0.5, **more}


def packed(bits):
    return base64.b64encode(np.packbits(np.asarray(bits, dtype=bool)).tobytes()).decode()


def test_cells_are_found_by_method_budget_and_seed():
    study = Measured([row(seed=1, accuracy=0.25), row(), row(method="scratch", budget="all"), row(budget=10)])
    assert study.budgets == (1, 10, "all")
    assert study.methods == ("frozen", "scratch")
    assert {seed: one.accuracy for seed, one in study.cells["frozen", 1].items()} == {0: 0.5, 1: 0.25}


@given(st.permutations(range(12)))
def test_the_order_of_rows_does_not_matter(order):
    rows = [row(method=m, budget=b, seed=s) for m in ("frozen", "scratch") for b in (1, 10, "all") for s in (0, 1)]
    study = Measured([rows[place] for place in order])
    pairs = study.pairs("frozen", "scratch", "all")
    assert study.budgets == (1, 10, "all")
    assert [len(side) for side in pairs] == [2, 2]


@given(st.integers(1, 70), st.data())
def test_bits_are_unpacked_to_as_many_as_the_accuracy_says(samples, data):
    """Whole bytes do not say where the test set ends. One row that is not all wrong tells it for all."""
    several = [data.draw(st.lists(st.booleans(), min_size=samples, max_size=samples)) for _ in range(2)]
    several.append([True] * samples)
    rows = [row(seed=k, accuracy=float(np.mean(bits)), correct=packed(bits)) for k, bits in enumerate(several)]
    found = Measured(rows).cells["frozen", 1]
    assert [found[k].correct.tolist() for k in range(3)] == several


def test_bits_of_other_predictions_are_refused():
    with pytest.raises(ValueError, match="not of the same predictions"):
        Measured([row(accuracy=0.75, correct=packed([1, 0]))])
    with pytest.raises(ValueError, match=r"test sets of \[2, 4\] samples"):
        Measured([row(accuracy=0.5, correct=packed([1, 0])), row(seed=1, accuracy=0.25, correct=packed([1, 0, 0, 0]))])
    with pytest.raises(ValueError, match="another test set"):
        Measured([row(accuracy=0.5, correct=packed([1, 0])), row(seed=1, accuracy=0.0, correct=packed([0] * 30))])
    with pytest.raises(ValueError, match="no base64"):
        Measured([row(correct="?!")])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "none: run the study"),
        ([{"accuracy": 0.5}], "needs a method"),
        ([row(seed="0")], "needs a method"),
        ([row(budget="some")], "or 'all'"),
        ([row(budget=0)], "or 'all'"),
        ([row(budget=True)], "or 'all'"),
        ([row(), row()], "two rows for frozen, budget 1, seed 0"),
        ([row(), row(accuracy=None, na="it cannot")], "two rows"),
        ([row(accuracy=float("nan"))], "accuracy=nan"),
        ([row(accuracy=72.0)], "share between 0 and 1"),
        ([row(val_accuracy=float("nan"))], "val_accuracy=nan"),
        ([row(accuracy=None)], "neither an accuracy nor a reason"),
        ([row(labels=0)], "labels=0"),
        ([row(), row(seed=1, accuracy=None, na="diverged")], "choice by result"),
        ([row(accuracy=None, na="it cannot")], "none: run the study"),
        ([row(curve=[[1, 1.0, float("nan")]])], "finite"),
        ([row(curve=[[2, 1.0, 0.5], [1, 2.0, 0.5]])], "only grow"),
        ([row(curve=[[1, 2.0, 0.5], [2, 1.0, 0.5]])], "only grow"),
    ],
)
def test_what_cannot_be_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        Measured(rows)


def test_a_missing_pair_is_named():
    study = Measured([row(), row(seed=1), row(method="scratch"), row(method="lora", accuracy=None, na="no linear layer")])
    with pytest.raises(ValueError, match=r"different seeds at budget 1, and only one of them has \[1\]"):
        study.pairs("frozen", "scratch", 1)
    with pytest.raises(ValueError, match=r"lora was not measured at budget 1 \(no linear layer\)"):
        study.pairs("lora", "scratch", 1)
    with pytest.raises(ValueError, match="it has the budgets 1"):
        study.pairs("frozen", "scratch", "all")
    with pytest.raises(ValueError, match="no row at all"):
        study.pairs("full", "scratch", 1)


def test_wrong_labels_are_another_question():
    study = Measured([row(), row(label_noise=0.2, accuracy=0.1), row(label_noise=0.0, seed=1)])
    assert {seed: one.accuracy for seed, one in study.cells["frozen", 1].items()} == {0: 0.5, 1: 0.5}


def test_a_cell_without_a_curve_is_one_look_at_its_end():
    study = Measured([row(seconds=2.0, steps=30, val_accuracy=0.75), row(seed=1, seconds=2.0, val_accuracy=0.5), row(seed=2)])
    assert [one.curve for one in study.cells["frozen", 1].values()] == [((30, 2.0, 0.75),), ((None, 2.0, 0.5),), ()]
