"""The benchmark of policies and cuts: what it asks for, what it concludes, and the page that it writes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ssl_framework import metrics

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"

MACHINE = {"processor": "any", "precision": "32-true: no unit", "torch": "2"}


@pytest.fixture(scope="module")
def transfer() -> Iterator[ModuleType]:
    """The script, imported as its folder has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import transfer

        yield transfer
    for name in ("transfer", "transfer_cases", "transfer_report", "catalogue_cases", "machine_record"):
        sys.modules.pop(name, None)


def policy_row(policy: str, budget: int | str, seed: int, **changes: Any) -> dict[str, Any]:
    plain = {"rate": 0.001, "accuracy": 0.7, "seconds": 2.0, "trainable_parameters": 1290, "megabytes": 900, "machine": MACHINE}
    return {"policy": policy, "budget": budget, "seed": seed, **plain, **changes}


def cut_row(cell: int, budget: int, seed: int, accuracy: list[float], auto: int) -> dict[str, Any]:
    return {"cell": cell, "budget": budget, "seed": seed, "accuracy": accuracy, "auto": auto, "machine": MACHINE}


def test_seed_0_chooses_the_rate_and_the_others_take_it(transfer: ModuleType):
    asked = next(transfer.missing_policies([]))
    assert asked == [
        "--one",
        next(iter(transfer.POLICIES)),
        "--budget",
        "10",
        "--seed",
        "0",
        "--rates",
        *map(str, transfer.RATES),
    ]
    after = next(transfer.missing_policies([policy_row("frozen", 10, 0, rate=0.003)]))
    assert after == ["--one", "frozen", "--budget", "10", "--seed", "1", "--rates", "0.003"]


def test_every_row_is_asked_for_once(transfer: ModuleType):
    done: list[dict[str, Any]] = []
    while (asked := next(transfer.missing_policies(done), None)) is not None:
        budget = asked[3] if asked[3] == "all" else int(asked[3])
        done.append(policy_row(asked[1], budget, int(asked[5])))
    assert len(done) == len(transfer.POLICIES) * sum(transfer.BUDGETS.values())
    done = []
    while (asked := next(transfer.missing_cuts(done), None)) is not None:
        done.append(cut_row(int(asked[1]), int(asked[3]), int(asked[5]), [0.0], 0))
    assert len(done) == len(transfer.CELLS) * 2 * 5


def test_auto_is_judged_by_the_interval_of_the_best_cut(transfer: ModuleType):
    accuracies = [[0.60, 0.70 + shift, 0.5] for shift in (-0.02, 0.0, 0.02)]
    rows = [cut_row(0, 10, seed, values, 1) for seed, values in enumerate(accuracies)]
    best, oracle, auto = transfer.transfer_report.judged(rows)
    assert (best, auto) == (1, pytest.approx(0.7))
    assert oracle == pytest.approx(metrics.interval([0.68, 0.70, 0.72]))
    page = "\n".join(transfer.transfer_report._cuts(rows))
    assert "| 1 | 70.0 ± 5.0 | 1 | 70.0 | yes |" in page
    page = "\n".join(transfer.transfer_report._cuts([{**row, "auto": 0} for row in rows]))
    assert "| 0 | 60.0 | no |" in page
    assert "as good as the oracle in 0 of 1" in page


def test_the_page_and_its_picture(transfer: ModuleType, tmp_path: Path):
    policies = [policy_row(name, budget, seed) for budget in (10, "all") for name in transfer.POLICIES for seed in range(2)]
    cuts = [cut_row(cell, budget, seed, [0.6, 0.5, 0.4, 0.3], 0) for cell in (0, 1) for budget in (10, 100) for seed in (0, 1)]
    transfer.transfer_report.write(policies, cuts, tmp_path / "policies.md")
    page = (tmp_path / "policies.md").read_text()
    assert "## 10 labels a class" in page
    assert "## All labels" in page
    assert "## 100 labels a class" not in page  # not measured
    assert page.count("| full | 70.0 ± 0.0 | 1,290 | 2.0 | 900 | 0.001 |") == 2
    assert "`auto` is as good as the oracle in 4 of 4." in page
    assert (tmp_path / "cuts.svg").read_text().startswith("<?xml")


def test_rows_are_read_where_there_are_some(transfer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "ROWS", tmp_path)
    assert transfer.read("cuts") == []
    (tmp_path / "cuts.jsonl").write_text('{"cell": 1}\n{"cell": 2}\n')
    assert transfer.read("cuts") == [{"cell": 1}, {"cell": 2}]
