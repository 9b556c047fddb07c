"""The catalogue's benchmark: what is missing is measured, rows say how, and the page says what they hold."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ssl_framework.commands import build, compose, pretrain
from ssl_framework.types import Batch
from support import TASKS

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
MODULES = ("catalogue", "catalogue_cases", "catalogue_report", "prove", "machine_record")


@pytest.fixture(scope="module")
def scripts():
    """The scripts, imported as they find their neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield {name: __import__(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name, None)


def row(task: str, seed: int = 0, encoder: str | None = "resnet_micro", accuracy: float = 0.5, **more: Any) -> dict[str, Any]:
    known = {"samples": 100, "words": [], "collapse": [], "knn": accuracy, "linear": accuracy, "finetuned": [accuracy] * 2}
    machine = {"processor": "a processor", "torch": "2"}
    return {"task": task, "seed": seed, "encoder": encoder, "machine": machine, **known, **more}


def test_what_has_a_row_is_not_measured_again(scripts: dict[str, ModuleType]):
    missing = scripts["catalogue"].missing
    every = list(missing("digits", [0, 1], None, []))
    assert {task for task, _ in every} == {*TASKS, *scripts["catalogue_cases"].FLOORS} - {"colorization"}
    assert ("raw pixels", 1) not in every
    assert ("random resnet_micro", 1) in every
    assert set(every) - set(missing("digits", [0, 1], None, [row("simclr", 1)])) == {("simclr", 1)}
    assert list(missing("digits", [0], ["mae"], [])) == [("mae", 0)]
    assert list(missing("digits", [1, 2], ["PCA"], [row("PCA", 0)])) == []  # nothing in it is drawn
    assert list(missing("digits", [1, 2], ["PCA"], [])) == [("PCA", 1)]


def test_one_task_of_each_group_on_colour_images(scripts: dict[str, ModuleType]):
    card = scripts["catalogue_report"].card
    groups = [card(task).group for task in scripts["catalogue_cases"].CASES["cifar10"].tasks]
    assert sorted(groups) == sorted({card(task).group for task in TASKS})


@pytest.mark.slow
def test_rows_of_the_digits(scripts: dict[str, ModuleType], tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    arguments = ["--case", "digits", "--rows", str(rows), "--workers", "1", "--tasks"]
    scripts["catalogue"].main([*arguments, "random resnet_micro", "simclr"])
    first = rows.read_text()
    found = {row["task"]: row for row in map(json.loads, first.splitlines())}
    assert set(found) == {"random resnet_micro", "simclr"}
    assert found["simclr"]["linear"] > 0.7
    assert found["simclr"]["knn"] > found["random resnet_micro"]["knn"]
    assert "pretext=simclr" in found["simclr"]["words"]
    scripts["catalogue"].main([*arguments, "simclr"])
    assert rows.read_text() == first


@pytest.mark.parametrize("task", TASKS)
def test_words_of_a_task_make_a_step(scripts: dict[str, ModuleType], task: str):
    """At the batch that they are for, without training: what does not fit together is found in seconds."""
    cases = scripts["catalogue_cases"]
    if task not in cases.tasks_of("digits"):
        return
    case = cases.CASES["digits"]
    settings = compose.compose("pretrain", ["data=digits", *cases.words_of(task, case)])
    data = build.data(settings)
    module = pretrain.pretext(settings, data)
    index = torch.arange(case.batch)
    assert module.views is not None
    views = module.views.apply(Batch(data.split("train").images(index), None, index), module.views.draw(index, 0))
    assert module(views).loss.isfinite()


@pytest.mark.slow
def test_every_task_trains_on_the_digits_and_none_is_at_chance(scripts: dict[str, ModuleType], tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    scripts["catalogue"].main(["--case", "digits", "--rows", str(rows)])
    found = {row["task"]: row for row in map(json.loads, rows.read_text().splitlines())}
    assert set(found) == {*TASKS, *scripts["catalogue_cases"].FLOORS} - {"colorization"}
    assert {task for task in found if task != "chance" and found[task]["linear"] < 0.6} == set()


def test_a_task_below_the_random_encoder_is_named_and_one_above_is_bold(scripts: dict[str, ModuleType], tmp_path: Path):
    rows = [row("random resnet_micro", accuracy=0.5), row("simclr", accuracy=0.9), row("byol", accuracy=0.3)]
    rows += [row("swav", accuracy=0.6, knn=0.4), row("context_encoder", accuracy=0.6, finetuned=[0.4, 0.4])]
    rows += [row("chance", encoder=None, accuracy=0.1), row("raw pixels", encoder=None, finetuned=[])]
    rows[-1]["machine"] = {"processor": "another", "precision": "32-true: no bfloat16", "torch": "2"}
    scripts["catalogue_report"].write({"fashion_mnist": rows, "cifar10": []}, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    own = "context_encoder (fine-tuned on 100 labels); byol (linear probe, fine-tuned on 100 labels, nearest neighbours)."
    assert f"in what the task is judged by: {own}" in page
    assert "in another measure only: swav (nearest neighbours)." in page
    assert "**90.0 ± 0.6**" in page
    assert "a processor, ?, torch 2 (6 rows); another, 32-true, torch 2 (1 rows)." in page
    assert "CIFAR-10" not in page
    assert (tmp_path / "page-fashion_mnist.svg").is_file()


def test_all_above_the_random_encoder(scripts: dict[str, ModuleType]):
    rows = [row("random resnet_micro", accuracy=0.5), row("simclr", accuracy=0.9)]
    text = scripts["catalogue_report"]._below(rows)
    assert text == ["No task stands below the random encoder of its kind in any measure."]


def test_several_seeds_have_an_interval_over_seeds(scripts: dict[str, ModuleType]):
    one, three = [row("mae", accuracy=0.5)], [row("mae", seed, accuracy=a) for seed, a in enumerate((0.4, 0.5, 0.6))]
    summary = scripts["catalogue_report"].summary
    assert summary(one, "linear").half_width == pytest.approx(1.96 * 0.005)
    assert summary(three, "linear").half_width == pytest.approx(0.1 / 3**0.5 * 4.303, rel=1e-3)


def test_tests_are_counted_for_the_task_that_they_name(scripts: dict[str, ModuleType], tmp_path: Path):
    prove = scripts["prove"]
    assert prove.task_of("test_losses::test_vicregl_of_two_maps", TASKS) == "vicregl"
    assert prove.task_of("test_equality::test_processes_train_as_one[2-none-dinov2]", TASKS) == "dinov2"
    assert prove.task_of("test_losses::test_a_temperature_is_refused[0.0]", TASKS) is None
    assert prove.task_of("test_simmim::test_hidden_pixels_hold_the_mask", TASKS) == "simmim"
    report = tmp_path / "report.xml"
    cases = (
        '<testcase classname="tests.test_x" name="test_mae"/><testcase classname="tests.test_x" name="test_mae_x"><failure/>'
    )
    cases += '</testcase><testcase name="test_byol"><skipped/></testcase><testcase name="test_of_parts"/>'
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    counted = prove.by_task(list(prove.results(report)), TASKS)
    assert counted == {"mae": {"passed": 1, "tests": 2}, "parts": {"passed": 1, "tests": 1}}


def test_proofs_that_fail_are_not_lost(scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also those of parts; and each proof has the machine that it ran on."""
    prove, out = scripts["prove"], tmp_path / "proofs.json"
    outcomes = {
        "parity": [("test_a::test_mae", True), ("test_a::test_of_parts", False)],
        "collapse": [("test_b::test_mae", True)],
    }
    monkeypatch.setattr(prove, "run", lambda proof, workers: outcomes[proof])
    monkeypatch.setattr(prove.machine_record, "record", lambda: {"commit": "first"})
    assert prove.main(["--proofs", "collapse", "--out", str(out)]) == 0
    monkeypatch.setattr(prove.machine_record, "record", lambda: {"commit": "second"})
    assert prove.main(["--proofs", "parity", "--out", str(out)]) == 1
    found = json.loads(out.read_text())
    assert found["machines"] == {"collapse": {"commit": "first"}, "parity": {"commit": "second"}}
    assert found["proofs"]["collapse"] == {"mae": {"passed": 1, "tests": 1}}
    assert found["proofs"]["parity"]["parts"] == {"passed": 0, "tests": 1}


@pytest.mark.slow
def test_tests_that_cannot_be_collected_are_an_error(scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch):
    prove = scripts["prove"]
    monkeypatch.setitem(prove.PROOFS, "parity", ("tests/no_such_folder",))
    with pytest.raises(RuntimeError, match="the tests of parity were not run"):
        prove.run("parity", 1)
