"""The cost of a step beside its encoder passes: which passes are counted, and that what surrounds them is seen."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

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


def test_what_a_head_costs_is_seen(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    words = ["data=digits", "encoder=resnet_micro", "pretext=simclr", "views.size=8"]
    small = script.measure("simclr", [*words, "pretext.hidden_dim=16"], 16, 1)
    assert small["passes"] >= 1
    assert small["words"][-1] == "pretext.hidden_dim=16"
    calls = iter([3.0, 2.0, 9.0, 6.0, 4.0, 2.0, 6.0, 2.0])  # step and passes by turns, the first pair to warm up
    monkeypatch.setattr(script, "taken", lambda work: next(calls))
    row = script.measure("simclr", words, 4, 3)
    assert (row["ratio"], row["quartiles"]) == (2.0, [1.75, 2.5])
    assert (row["step_s"], row["passes_s"]) == (6.0, 2.0)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_asked_for_no_more_than_the_recipes_have(script: ModuleType, task: str):
    said = dict(word.split("=", 1) for word in script.words_of(task))
    assert said["encoder"] in ("resnet18", "vit_tiny")
    assert all(int(value) <= script.LARGEST[key.removeprefix("pretext.")] for key, value in said.items() if "." in key)
