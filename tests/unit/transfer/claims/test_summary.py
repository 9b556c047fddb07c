import base64
import json
import sys

import numpy as np
import pytest

from ssl_framework.transfer.claims import frame, gain, summary, verdicts

BUDGETS = {1: 10, 50: 500, "all": 5000}


def rows(generator, method, level, **more):
    found = []
    for budget, labels in BUDGETS.items():
        for seed in range(5):
            bits = generator.random(400) < level[budget]
            found.append(
                {
                    "method": method,
                    "budget": budget,
                    "labels": labels,
                    "seed": seed,
                    "accuracy": float(bits.mean()),
                    "val_accuracy": level[budget],
                    "seconds": 4.0,
                    "steps": 200,
                    "rate": 0.001,
                    "correct": base64.b64encode(np.packbits(bits).tobytes()).decode(),
                    "curve": [[100, 2.0, level[budget] / 2], [200, 4.0, level[budget]]],
                    **more,
                }
            )
    return found


@pytest.fixture(scope="module")
def study():
    generator = np.random.default_rng(0)
    return [
        *rows(generator, "scratch", {1: 0.2, 50: 0.5, "all": 0.8}),
        *rows(generator, "frozen", {1: 0.6, 50: 0.7, "all": 0.75}),
        *rows(generator, "full", {1: 0.5, 50: 0.65, "all": 0.8}),
        *rows(generator, "pca", {1: 0.3, 50: 0.4, "all": 0.45}),
        {"method": "lora", "budget": 1, "labels": 0, "seed": 0, "na": "no linear layer"},
    ]


def test_it_holds_every_claim_and_json_can_hold_it(study):
    found = summary(study, pretrain_seconds=30)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["headline"].startswith(
        "Transfer pays from 1 up to 50 labels a class; there is no evidence either way with all labels"
    )
    assert found["pays_until_before"] == "all"
    assert [(one["budget"], one["verdict"], one["method"]) for one in found["verdicts"]] == [
        (1, "pays", "frozen"),
        (50, "pays", "frozen"),
        ("all", "no evidence", "full"),
    ]
    assert found["verdicts"][0]["sentence"].startswith("1 label a class: pays; frozen gains +")
    assert found["not_measured"] == [{"method": "lora", "budget": 1, "na": "no linear layer"}]
    assert found["label_efficiency"][0]["factor"]["median"]["low"] > 50  # scratch reaches 0.6 beyond 500 labels, frozen with 10
    assert found["speed"][0]["tasks"] > 0
    assert summary(study[::-1], pretrain_seconds=30) == found


def test_its_numbers_are_those_of_the_functions(study):
    found = summary(study)
    for one, verdict in zip(found["verdicts"], verdicts(study), strict=True):
        assert (one["gain"], one["p"], one["p_adjusted"]) == (verdict.test.mean, verdict.test.p, verdict.p_adjusted)
    for one in found["gains"]:
        expected = gain(study, one["method"], "scratch", one["budget"])
        assert (one["gain"], one["p"], one["crossed"]) == (expected.test.mean, expected.test.p, list(expected.crossed))
        assert one["high"] - one["low"] == pytest.approx(2 * expected.test.half_width)
        assert one["p"] <= one["p_adjusted"]
    assert len(found["gains"]) == 9
    table = {(one["method"], one["budget"]): one["p_adjusted"] for one in found["gains"]}
    bare = {one.budget: one.p_adjusted for one in verdicts(study, floors=())}  # gains are over scratch alone
    assert {one["budget"]: table[one["method"], one["budget"]] for one in found["verdicts"]} == bare
    assert all(bare[one["budget"]] <= one["p_adjusted"] for one in found["verdicts"])
    assert {one["family"] for one in found["gains"] if one["method"] == "pca"} == {"others"}
    assert found["speed"][0]["ratio_with_pretraining"] is None


def test_floors_that_are_far_below_change_no_verdict(study):
    without = [row for row in study if row["method"] != "pca"]
    for one, other in zip(summary(without)["verdicts"], summary(study)["verdicts"], strict=True):
        assert (one["verdict"], one["rival"]) == (other["verdict"], other["rival"])


def test_a_floor_that_is_as_good_is_named(study):
    as_good = [{**row, "method": "raw_pixels"} for row in study if row["method"] == "frozen" and row["budget"] == 1]
    first = summary(study + as_good)["verdicts"][0]
    assert (first["verdict"], first["rival"]) == ("no evidence", "raw_pixels")


def test_a_method_fixed_in_advance(study):
    found = summary(study, method="full")
    assert {one["method"] for one in found["verdicts"]} == {"full"}
    assert {one["method"]: one["family"] for one in found["gains"]} == {"full": "transfer", "frozen": "others", "pca": "others"}
    assert found["method"] == "full"


def test_thin_rows_give_thin_claims():
    thin = [
        {"method": method, "budget": 1, "seed": seed, "accuracy": level + 0.01 * seed * (seed - 2)}
        for method, level in (("frozen", 0.7), ("scratch", 0.4))
        for seed in range(5)
    ]
    thin[0]["accuracy"] += 0.02
    found = summary(thin)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["headline"] == "Transfer pays at 1 label a class."
    assert "labels" in found["label_efficiency"][0]["na"]
    assert "how long" in found["speed"][0]["na"]
    assert found["gains"][0]["crossed"] is None
    single = summary([row for row in thin if row["seed"] == 0])
    assert json.dumps(single, allow_nan=False)
    assert single["headline"] == "Whether transfer pays cannot be said at 1 label a class: 1 seed is too few."
    assert single["verdicts"][0]["low"] is None


def test_the_frame_has_a_line_a_cell_and_gains_of_pairs(study):
    data = frame(study)
    assert len(data) == 60
    assert list(data.budget.unique()) == [1, 50, "all"]
    means = data.groupby("method").gain.mean()
    assert means["scratch"] == 0
    expected = [gain(study, "frozen", "scratch", budget).test.mean for budget in BUDGETS]
    assert means["frozen"] == pytest.approx(np.mean(expected))
    assert set(data.columns) >= {"labels", "seed", "accuracy", "val_accuracy", "seconds", "steps"}
    assert frame(study[5:6], reference="full").gain.isna().all()


def test_a_frame_says_that_it_needs_pandas(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        frame(study)
