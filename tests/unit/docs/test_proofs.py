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


@pytest.mark.parametrize(("file", "column"), [("COSTS", 7), ("GPU_COSTS", 8)])
def test_costs_are_those_that_were_measured(
    file: str, column: int, hooks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    rows = tmp_path / "cost.json"
    rows.write_text(json.dumps({"rows": [{"task": "simclr", "ratio": 1.049, "batch": 128}]}))
    monkeypatch.setattr(hooks.proofs, file, rows)
    page = hooks.proofs.page({task: task_class(task).card for task in ("simclr", "byol")})
    assert (row(page, "simclr")[column], row(page, "byol")[column]) == ("1.05 (batch 128)", "not yet measured")


@pytest.mark.parametrize(("file", "column"), [("COSTS", 7), ("GPU_COSTS", 8)])
def test_costs_that_stand_on_the_page(file: str, column: int, page: str, hooks: ModuleType):
    rows = hooks.proofs.costs(getattr(hooks.proofs, file))
    costs = {one["task"]: f"{one['ratio']:.2f} (batch {one['batch']})" for one in rows}
    assert costs
    assert {task: row(page, task)[column] for task in TASKS} == {task: costs.get(task, "not yet measured") for task in TASKS}


def test_what_failed_and_what_was_not_run_is_seen(hooks: ModuleType):
    assert hooks.proofs.counted({"passed": 3, "tests": 3}) == "✓ 3"
    assert hooks.proofs.counted({"passed": 2, "tests": 3}) == "✗ 2 of 3"
    assert hooks.proofs.counted(None) == "not yet run"
