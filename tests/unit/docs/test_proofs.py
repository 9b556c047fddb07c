"""The page of proofs says what the last run of the proofs and the rows of the collapses say."""

import json
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
    assert not any(cell.startswith("✗") for cell in cells)
    fixed = task_class(task).card.prevents_collapse.startswith("nothing to prevent")
    assert (cells[4] == "none") == fixed


def test_a_collapse_is_told_with_its_steps(page: str, hooks: ModuleType):
    rows = json.loads(hooks.proofs.COLLAPSES.read_text())
    for task, one in rows.items():
        assert row(page, task)[5:] == [one["removed"], f"{one['named']}, {one['steps']} steps"]


def test_what_failed_and_what_was_not_run_is_seen(hooks: ModuleType):
    assert hooks.proofs.counted({"passed": 3, "tests": 3}) == "✓ 3"
    assert hooks.proofs.counted({"passed": 2, "tests": 3}) == "✗ 2 of 3"
    assert hooks.proofs.counted(None) == "not yet run"
