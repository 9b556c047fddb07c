"""The page of proofs says what the last run of the proofs and the rows of the collapses say."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from support import TASKS, task_class


@pytest.fixture(scope="module")
def page(generated: dict[str, str]) -> str:
    return generated["reference/proofs.md"]


def row(page: str, task: str) -> list[str]:
    (line,) = (line for line in page.splitlines() if line.startswith(f"| [{task}]("))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_row_and_no_proof_of_it_failed(task: str, page: str):
    cells = row(page, task)
    assert not any(cell.startswith("✗") or cell == "not yet run" for cell in cells)
    fixed = task_class(task).card.prevents_collapse.startswith("nothing to prevent")
    assert (cells[4] == "none") == fixed


def test_a_collapse_is_told_with_its_steps(page: str, hooks: ModuleType):
    rows = json.loads(hooks.proofs.COLLAPSES.read_text())
    for task, one in rows.items():
        assert row(page, task)[5:7] == [one["removed"], f"{one['named']}, {one['steps']} steps"]


def test_costs_are_those_that_were_measured(hooks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = tmp_path / "cost.json"
    file.write_text(json.dumps({"rows": [{"task": "simclr", "ratio": 1.049, "batch": 128}]}))
    monkeypatch.setattr(hooks.proofs, "COSTS", file)
    page = hooks.proofs.page({task: task_class(task).card for task in ("simclr", "byol")})
    assert (row(page, "simclr")[7], row(page, "byol")[7]) == ("1.05 (batch 128)", "not yet measured")


def test_costs_that_stand_on_the_page(page: str, hooks: ModuleType):
    costs = {one["task"]: f"{one['ratio']:.2f} (batch {one['batch']})" for one in hooks.proofs.costs()}
    assert {task: row(page, task)[7] for task in TASKS} == {task: costs.get(task, "not yet measured") for task in TASKS}


def test_what_failed_and_what_was_not_run_is_seen(hooks: ModuleType):
    assert hooks.proofs.counted({"passed": 3, "tests": 3}) == "✓ 3"
    assert hooks.proofs.counted({"passed": 2, "tests": 3}) == "✗ 2 of 3"
    assert hooks.proofs.counted(None) == "not yet run"
