"""The cost of a step beside its encoder passes: which passes are counted, and that what surrounds them is seen."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssl_framework.commands import build, compose, pretrain
from ssl_framework.types import Batch
from support import TASKS

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script, imported as its folder has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import step_cost

        yield step_cost
    for name in ("step_cost", "machine_record"):
        sys.modules.pop(name, None)


def passes(script: ModuleType, *words: str) -> list[tuple[bool, bool]]:
    """Of each pass of a step: whether the student's encoder made it, and whether it had a gradient."""
    settings = compose.compose("pretrain", ["data=digits", *words])
    data = build.data(settings)
    module = pretrain.pretext(settings, data)
    assert module.views is not None
    index = torch.arange(8)
    batch = Batch(data.split("train").images(index), None, index)
    views = module.views.apply(batch, module.views.draw(index, 0))

    def step() -> None:
        module(views).loss.backward()

    return [(call.encoder is module.encoder, call.grad) for call in script.recorded(module, step)]


def test_passes_of_student_and_teacher_are_told_apart(script: ModuleType):
    assert set(passes(script, "pretext=simclr")) == {(True, True)}
    assert set(passes(script, "pretext=byol")) == {(True, True), (False, False)}
    assert set(passes(script, "pretext=mae", "pretext.decoder_dim=16", "pretext.decoder_heads=2")) == {(True, True)}


WORDS = ["data=digits", "encoder=resnet_micro", "pretext=simclr", "views.size=8"]


def test_what_a_head_costs_is_seen(script: ModuleType):
    """Work is counted in floating-point operations here, which no busy machine changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "taken", operations)
        small, large = (script.measure("simclr", [*WORDS, f"pretext.hidden_dim={dim}"], 16, 1) for dim in (16, 4096))
    assert small["passes"] == large["passes"] >= 1
    assert small["passes_s"] == large["passes_s"] > 0
    assert 1 < small["ratio"] < 1.02
    assert large["ratio"] > 1.1 * small["ratio"]


def operations(work: Callable[[], None], device: str) -> float:
    assert device == "cpu"
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def test_ratios_are_made_round_by_round(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    calls = iter([3.0, 2.0, 9.0, 6.0, 4.0, 2.0, 6.0, 2.0])  # step and passes by turns, the first pair to warm up
    monkeypatch.setattr(script, "taken", lambda *given: next(calls))
    row = script.measure("simclr", WORDS, 4, 3)
    assert row["words"] == WORDS
    assert (row["ratio"], row["quartiles"]) == (2.0, [1.75, 2.5])
    assert (row["step_s"], row["passes_s"]) == (6.0, 2.0)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_asked_for_no_more_than_the_recipes_have(script: ModuleType, task: str):
    said = dict(word.split("=", 1) for word in script.words_of(task))
    assert said["encoder"] in ("resnet18", "vit_tiny")
    most = {**script.LARGEST, **script.OWN.get(task, {})}
    assert all(int(value) <= most[key.removeprefix("pretext.")] for key, value in said.items() if "." in key)
