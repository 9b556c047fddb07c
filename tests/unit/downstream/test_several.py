"""Several tasks at once are each task alone, on one forward pass."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_framework.downstream import (
    Classification,
    DownstreamModule,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    Several,
    several,
)
from ssl_framework.types import Encoding

from .conftest import make_module, make_split

CLASSES, INK = Classification(3), Regression(columns=("a", "b"), mean=(5.0, -1.0), std=(2.0, 0.5))
STEPS, FLAGS = Ordinal(column="step", steps=4), MultiLabel(columns=("x", "y"))
ALL = Several(tasks={"what": CLASSES, "ink": INK, "step": STEPS, "flags": FLAGS}, weights={"ink": 0.5, "step": 2.0})


def parts(count: int = 12) -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    outputs = [torch.randn(count, width) for width in (3, 2, 3, 2)]
    targets = [
        torch.arange(count) % 3,
        torch.randn(count, 2) * 2 + 3,
        torch.arange(count) % 4,
        (torch.rand(count, 2) > 0.5).float(),
    ]
    return outputs, targets


def joined(outputs: list[Tensor], targets: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat(outputs, dim=1), torch.cat([t.double().reshape(len(t), -1) for t in targets], dim=1)


def test_the_loss_is_the_weighted_sum():
    outputs, targets = parts()
    expected = sum(
        weight * task.loss(o, t)
        for weight, task, o, t in zip((1, 0.5, 2, 1), ALL.tasks.values(), outputs, targets, strict=True)
    )
    assert ALL.loss(*joined(outputs, targets)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_metrics_are_those_of_each_alone():
    outputs, targets = parts()
    found = {}
    for name, metric in ALL.metrics().items():
        whole, said = joined(outputs, targets)
        metric.update(whole[:5], said[:5])
        metric.update(whole[5:], said[5:])
        found[name] = float(metric.compute())
        metric.reset()
    expected = {}
    for (name, task), o, t in zip(ALL.tasks.items(), outputs, targets, strict=True):
        for metric_name, metric in task.metrics().items():
            metric.update(*task.readout(o, t))
            expected[f"{name}/{metric_name}"] = float(metric.compute())
    assert found == pytest.approx(expected)
    assert "what/accuracy" in found
    assert "ink/r2" in found


def test_a_metric_that_was_reset_has_forgotten():
    whole, said = joined(*parts())
    metric = ALL.metrics()["what/accuracy"]
    metric.update(whole, said)
    metric.reset()
    right = torch.zeros(2, 10)
    right[:, 0] = 9
    metric.update(right, said[:1].expand(2, -1).clone() * 0)
    assert float(metric.compute()) == 1


def test_each_looks_at_its_own_targets():
    _, said = joined(*parts())
    ALL.check(said)
    wrong = said.clone()
    wrong[0, 0] = 7
    with pytest.raises(ValueError, match="labels run from 0 to 7"):
        ALL.check(wrong)
    fresh = Several(tasks={"what": CLASSES, "ink": Regression(columns=("a", "b"))}).prepared(said[:, :3])
    assert fresh.tasks["ink"].mean == pytest.approx(said[:, 1:3].mean(0).tolist(), rel=1e-6)


def test_one_encoder_has_all_heads_and_is_run_once(encoder, tmp_path: Path):
    module = make_module(encoder, task=ALL)
    calls: list[int] = []
    module.encoder.register_forward_hook(lambda *_: calls.append(1))
    images = make_split(6).images(range(6))
    outputs = module.eval()(images)
    assert outputs.shape == (6, 10)
    assert len(calls) == 1
    module.classes = ("a", "b", "c")
    module.save(tmp_path)
    loaded = DownstreamModule.load(tmp_path)
    assert loaded.task.state() == ALL.state()
    table = loaded.task.as_table(loaded.predict(images), loaded.classes)
    assert {"what/predicted", "what/p(a)", "ink/a", "ink/b", "step/step", "flags/x"} <= set(table)
    assert {len(values) for values in table.values()} == {6}
    assert table["ink/a"] == pytest.approx((5 + 2 * outputs[:, 3]).tolist(), abs=1e-4)


def test_words_make_tasks():
    made = several(
        {"what": {"kind": "classification", "num_classes": 3}, "ink": {"kind": "regression", "columns": ["a"]}}, {"ink": 3}
    )
    assert made.tasks == {"what": CLASSES, "ink": Regression(columns=["a"])}
    assert made.weights == {"ink": 3}
    for wrong, says in (
        ({"a": {"kind": "classification", "num_classes": 3}}, "two tasks or more"),
        ({"a": {}, "b": {}}, "give a kind"),
        ({"a": {"kind": "poetry"}, "b": {"kind": "poetry"}}, "is not one of"),
        ({"a": {"kind": "regression", "rows": 1}, "b": {"kind": "ordinal", "column": "x"}}, "other numbers"),
    ):
        with pytest.raises(ValueError, match=says):
            several(wrong)
    with pytest.raises(ValueError, match="positive numbers for names among"):
        Several(tasks={"a": CLASSES, "b": STEPS}, weights={"c": 1.0})
    with pytest.raises(ValueError, match="cannot be learnt beside others"):
        Several(tasks={"a": CLASSES, "b": Segmentation(num_classes=3)})


def test_a_task_may_have_any_name():
    task = Several(tasks={"type": CLASSES, "values": INK})
    assert task.head(8)(Encoding(torch.randn(2, 8), torch.randn(2, 1, 8), (1,), (), (), ())).shape == (2, 5)
