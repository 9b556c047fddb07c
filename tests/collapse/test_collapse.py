"""A task whose collapse preventer is taken out collapses, and the monitor says so; with it, the monitor says nothing.

``pytest tests/collapse --record`` writes ``rows.json`` anew, by one process.
"""

import json
import re
import warnings
from pathlib import Path

import pytest
from pytorch_lightning.utilities.seed import isolate_rng

from collapse.trials import TRIALS, Trial, build
from ssl_framework.monitors import Collapse, CollapseWarning
from support import TASKS, digits_data, fit, task_class

ROWS = Path(__file__).with_name("rows.json")
QUICK = {"dino", "simclr", "simsiam", "vicreg"}  # centring, negatives, stop-gradient, a term of the loss
EVERY = 10  # steps between two looks; two in a row are needed
NOTHING = "nothing to prevent"

prevented = {task for task in TASKS if not task_class(task).card.prevents_collapse.startswith(NOTHING)}
tasks = pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task in QUICK else pytest.mark.slow) for task in sorted(TRIALS)]
)


def named(task: str, trial: Trial, folder: Path, *, broken: bool) -> tuple[int, str] | None:
    """Train until the monitor warns, at most `limit` steps: the step, and what it named."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), isolate_rng():
        warnings.simplefilter("error", CollapseWarning)
        module = build(task, trial)
        if broken:
            trial.removal(module, patch)
        data = digits_data(task, batch_size=trial.batch_size)
        try:
            trainer = fit(module, data, trial.limit, folder, callbacks=[Collapse(EVERY)])
        except CollapseWarning as warning:
            return module.trainer.global_step, str(warning).split(":")[0]
    assert trainer.global_step == trial.limit
    return None


@tasks
def test_a_collapse_is_named_within_the_steps_of_its_row(task: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    trial, rows = TRIALS[task], json.loads(ROWS.read_text()) if ROWS.exists() else {}
    found = named(task, trial, tmp_path, broken=True)
    assert found is not None, f"no collapse of {task} without {trial.removed} in {trial.limit} steps"
    steps, kind = found
    assert re.fullmatch("(complete|dimensional) collapse of the (embedding|projection)", kind)
    if request.config.getoption("--record"):
        assert steps <= 0.8 * trial.limit, "a margin for other processors"
        rows[task] = {"removed": trial.removed, "named": kind, "steps": steps, "limit": trial.limit}
        ROWS.write_text(json.dumps(dict(sorted(rows.items())), indent=2) + "\n")
        return
    assert task in rows, f"no row yet: .venv/bin/pytest tests/collapse -k {task} --record"
    assert kind == rows[task]["named"]


@tasks
def test_a_healthy_run_is_silent(task: str, tmp_path: Path) -> None:
    assert named(task, TRIALS[task], tmp_path, broken=False) is None


def test_a_task_has_a_trial_if_its_card_names_what_prevents_collapse() -> None:
    assert set(TRIALS) == prevented, "tests/collapse/trials.py has a Trial for each of these tasks, and for no other"
    assert all(trial.limit <= 500 for trial in TRIALS.values())


def test_nothing_needs_preventing_where_the_target_is_fixed_and_nowhere_else() -> None:
    cards = {task: task_class(task).card for task in TASKS}
    fixed = {task for task, card in cards.items() if card.family == "generative" or card.group == "pretext label"}
    assert set(TASKS) - prevented == fixed


def test_the_rows_are_those_of_the_trials() -> None:
    rows = json.loads(ROWS.read_text())
    assert {task: (row["removed"], row["limit"]) for task, row in rows.items()} == {
        task: (trial.removed, trial.limit) for task, trial in TRIALS.items()
    }
    assert all(row["steps"] <= 0.8 * row["limit"] for row in rows.values())
