"""A study from beginning to end on tiny images, stopped, spread over processes and over machines."""

import pytest
import torch

from ssl_framework.transfer import Cell, cells_of, claims, rows, study
from ssl_framework.transfer import grid as module
from ssl_framework.transfer.cells import labels, trained
from ssl_framework.transfer.grid import measured_again, parted
from ssl_framework.transfer.probes import Vectors, probed

from .conftest import bench, plan


def told(found: list[dict]) -> dict:
    """Rows without what differs from run to run, and with other numbers of processes."""
    kept = [{key: value for key, value in row.items() if key not in ("seconds", "curve", "recipe")} for row in found]
    bound = [{key: value for key, value in row["recipe"].items() if key != "threads"} for row in found]
    return {rows.name(row): {**row, "recipe": recipe} for row, recipe in zip(kept, bound, strict=True)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return study(bench, plan(), tmp_path_factory.mktemp("study") / rows.FILE)


def test_every_cell_has_a_row_with_what_it_depends_on(whole, tmp_path):
    assert sorted(map(rows.name, whole)) == sorted(
        f"{method}/{budget}/{seed}" for method in plan().methods for budget in (1, 4) for seed in (0, 1)
    )
    for row in whole:
        assert set(row["recipe"]) == {"config_hash", "code", "data_fingerprint", "torch", "device", "threads"}
        if row["method"] == "lora":
            assert "no linear layer" in row["na"]
            assert "accuracy" not in row
        else:
            assert row["labels"] == 3 * row["budget"]
            assert 0 <= row["val_accuracy"] <= 1
            assert ("accuracy" in row, "correct" in row, row.get("pilot", False)) == (bool(row["seed"]),) * 2 + (
                not row["seed"],
            )
    hashes = {(row["method"], row["budget"]): row["recipe"]["config_hash"] for row in whole}
    assert len(set(hashes.values())) == len(hashes)
    assert all(row["recipe"]["config_hash"] == hashes[row["method"], row["budget"]] for row in whole)


def test_the_first_seed_chooses_on_validation_for_all(whole):
    found = {rows.name(row): row for row in whole}
    for method, budget in (("scratch", 1), ("last_n", 4)):
        first, second = found[f"{method}/{budget}/0"], found[f"{method}/{budget}/1"]
        assert first["tried"][f"{first['rate']:g}"] == max(first["tried"].values()) == first["val_accuracy"]
        assert (second["rate"], second["tried"]) == (first["rate"], None)
        assert [step for step, _, _ in first["curve"]] == [2, 4]
    assert found["frozen/1/0"]["penalty"] == found["frozen/1/1"]["penalty"]


def test_a_study_that_was_killed_goes_on_to_the_same_rows(whole, tmp_path):
    path = tmp_path / rows.FILE

    def stop(row, there, total):
        assert total == len(whole)
        if there == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study(bench, plan(), path, on_row=stop)
    assert len(rows.read(path)) == 7
    path.write_bytes(path.read_bytes()[:-9])  # killed while it wrote
    counts: list[int] = []
    found = study(bench, plan(), path, on_row=lambda row, there, total: counts.append(there))
    assert counts == list(range(7, len(whole) + 1))
    assert told(found) == told(whole) == told(rows.read(path))
    assert study(lambda: pytest.fail("nothing is missing"), plan(), path) == rows.read(path)


@pytest.mark.parametrize("change", [{"steps": 5}, {"precision": "bf16-mixed"}, {"rates": (0.5,)}])
def test_rows_of_another_recipe_are_not_mixed(whole, tmp_path, change):
    rows.append(tmp_path / rows.FILE, whole[:3])
    with pytest.raises(ValueError, match="has raw_pixels/1/0 with another config_hash"):
        study(bench, plan(**change), tmp_path / rows.FILE)
    other = [{**row, "recipe": {**row["recipe"], "data_fingerprint": "x"}} for row in whole[:3]]
    rows.append(tmp_path / "other.jsonl", other)
    with pytest.raises(ValueError, match="with another data_fingerprint"):
        study(bench, plan(), tmp_path / "other.jsonl")


def test_a_study_may_grow(whole, tmp_path):
    rows.append(tmp_path / rows.FILE, [row for row in whole if row["budget"] == 1 and row["method"] != "lora"])
    assert told(study(bench, plan(), tmp_path / rows.FILE)) == told(whole)


def test_processes_and_machines_find_the_same_rows(whole, tmp_path):
    assert told(study(bench, plan(), tmp_path / "a.jsonl", jobs=2)) == told(whole)
    parts = [tmp_path / f"{part}.jsonl" for part in range(3)]
    for part, path in enumerate(parts):
        study(bench, plan(), path, part=part, parts=3)
    assert told(rows.gathered(parts)) == told(whole)
    assert min(len(rows.read(path)) for path in parts) > 0


def test_wrong_labels_are_learnt_from_and_are_the_same_for_every_method():
    made = bench()
    clean, some, more = (labels(made, Cell("full", 10, 1, share)) for share in (0.0, 0.2, 0.4))
    assert torch.equal(clean.index, some.index)
    assert [int((clean.targets != wrong.targets).sum()) for wrong in (some, more)] == [6, 12]  # of 30
    assert torch.equal(labels(made, Cell("scratch", 10, 1, 0.2)).targets, some.targets)
    assert torch.equal(made.train.targets, bench().train.targets)  # nobody else learns them


def test_a_share_takes_as_much_of_each_class_and_all_takes_everything(tmp_path):
    made = bench()
    tenth, half = (labels(made, Cell("full", budget, 1)) for budget in ("10%", "50%"))
    assert [int((tenth.targets == kind).sum()) for kind in range(3)] == [2, 2, 2]  # of 20
    assert set(tenth.index.tolist()) < set(half.index.tolist())
    assert torch.equal(labels(made, Cell("full", 2, 1)).index, tenth.index)  # budgets of one seed are nested
    found = study(bench, plan(methods=("scratch", "frozen"), budgets=("10%", 4, "all"), epochs=3), tmp_path / rows.FILE)
    assert {row["budget"]: row["labels"] for row in found} == {"10%": 6, 4: 12, "all": 60}
    steps = {row["budget"]: row["steps"] for row in found if row["method"] == "scratch"}
    assert steps == {"10%": 4, 4: 4, "all": 3}  # three passes of one batch
    assert [one.budget for one in claims.verdicts(found)] == ["10%", 4, "all"]  # by how many labels they are


def test_parts_share_no_cell_and_lose_none():
    cells = cells_of(plan(label_noise=(0.2,)))
    shared = [parted(cells, part, 4) for part in range(4)]
    assert sorted(cell for part in shared for cell in part) == sorted(cells)
    assert Cell("full", 4, 0, 0.2) not in cells  # full is not among the methods
    assert Cell("scratch", 4, 1, 0.2) in cells
    assert Cell("scratch", 4, 0, 0.2) not in cells  # the pilot's


def test_an_error_in_a_process_reaches_the_user_and_stops_the_others(tmp_path):
    with pytest.raises(ValueError, match="fewer than the 50"):
        study(bench, plan(budgets=(1, 50)), tmp_path / rows.FILE, jobs=2)
    assert module._Here.desk is None


def test_probe_then_fine_tuning_takes_the_pilots_penalty_and_rate(tmp_path):
    asked, file = plan(methods=("scratch", "lp_ft"), budgets=(4,), seeds=(0, 1, 2)), tmp_path / rows.FILE
    found = [row for row in study(bench, asked, file) if row["method"] == "lp_ft"]
    assert [row.get("pilot", False) for row in found] == [True, False, False]
    assert len({(row["penalty"], row["rate"]) for row in found}) == 1
    assert found[0]["tried"]
    assert not found[1]["tried"]
    other = dict(found[0], penalty=min(asked.penalties) + 0.5, rate=2e-3)  # what nothing would choose
    file.unlink()
    rows.append(file, [other])
    again = [row for row in study(bench, asked, file) if row["method"] == "lp_ft" and not row.get("pilot")]
    assert {(row["penalty"], row["rate"]) for row in again} == {(other["penalty"], other["rate"])}
    once = measured_again(bench(), asked, again[0])
    assert all(once[key] == again[0][key] for key in ("penalty", "rate", "correct"))


def test_a_probe_is_never_forgotten():
    with pytest.raises(ValueError, match="lp_ft begins with a probe"):
        trained(bench(), plan(), Cell("lp_ft", 4, 1), 1e-2)


def test_the_pilot_never_reads_test():
    made, asked = bench(), plan()
    made.judge.score = lambda *_: pytest.fail("test was read")
    assert trained(made, asked, Cell("scratch", 4, 0), None)[0]["pilot"]
    assert probed(Vectors(made, asked), Cell("frozen", 4, 0), None)[0]["pilot"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"methods": ("scratched",)}, "there is no scratched"),
        ({"rates": ()}, "rates="),
        ({"steps": 0}, "steps=0"),
        ({"label_noise": (1.5,)}, "label_noise=1.5"),
        ({"seeds": (0,)}, "two at least"),
        ({"seeds": (0, 1, 1)}, "1 once"),
        ({"rates": (0.1, -1)}, "rates=-1"),
        ({"attacks": (2,)}, "attacks=2"),
        ({"budgets": (0,)}, "budgets=0"),
        ({"budgets": ("few",)}, "budgets=few"),
        ({"budgets": ("100%",)}, "budgets=100%"),
        ({"budgets": (True,)}, "budgets=True"),
    ],
)
def test_what_a_plan_cannot_be(words, said):
    with pytest.raises(ValueError, match=said):
        plan(**words)
