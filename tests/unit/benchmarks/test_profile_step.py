"""The profile of a step: operations against counts done by hand, gradients under the clock against those without, the page."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script, imported as its folder has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import profile_step

        yield profile_step
    for name in ("profile_step", "machine_record"):
        sys.modules.pop(name, None)


def _gradients(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(F.conv2d(x, weight, bias, stride=2, padding=1).square().sum(), (x, weight, bias))


def test_the_two_gradients_of_a_convolution_are_timed_apart_and_stay_what_they_are(script: ModuleType):
    x, weight = torch.randn(2, 3, 9, 9, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    bias = torch.randn(4, requires_grad=True)
    with script.Clock() as clock:
        seen = _gradients(x, weight, bias)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, _gradients(x, weight, bias), strict=True))
    work = {group: spent.flops for (group, _), spent in clock.spent.items() if group.startswith("convolution")}
    once = 2 * (2 * 4 * 5 * 5) * (3 * 3 * 3)  # a multiplication and an addition for each output and tap
    assert work == dict.fromkeys((f"convolution, {what}" for what in ("forward", "input gradient", "weight gradient")), once)


def test_a_gradient_that_nobody_asks_for_is_not_computed(script: ModuleType):
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    with script.Clock() as clock:
        F.conv2d(torch.randn(2, 3, 9, 9), weight).sum().backward()
    assert {group for group, _ in clock.spent if "gradient" in group} == {"convolution, weight gradient"}


def test_seconds_are_medians_over_steps_and_rates_follow(script: ModuleType):
    """A clock that is wrong by 100 seconds once does not move the medians; a product takes 2 of its seconds."""
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    readings = iter(range(0, 10_000, 2))
    late = [0]

    def now() -> float:
        late[0] += 100 * (next(read) == 9)
        return next(readings) + late[0]

    read = iter(range(10_000))
    found = script.profile(lambda: (a @ b, a.relu()), steps=3, now=now)
    rows = {row["group"]: row for row in found["groups"]}
    assert rows["matrix products"]["ms"] == 2000
    assert rows["matrix products"]["tflops"] == pytest.approx(2 * 3 * 5 * 7 / 2 / 1e12)
    assert rows["activations and softmax"]["tflops"] is None
    assert found["step_ms"] == 2000
    assert sum(row["share"] for row in found["groups"]) == pytest.approx(1)
    assert [row["shape"] for row in found["shapes"] if row["group"] == "matrix products"] == ["3x5 5x7"]


@pytest.mark.parametrize(("case", "group"), [("micro-32", "convolution, weight gradient"), ("vit-tiny-32", "matrix products")])
def test_a_case_runs_and_prints(
    script: ModuleType, case: str, group: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(script.machine, "keep_freed_memory", lambda: True)  # the test's process is not changed
    monkeypatch.setattr(script, "PRODUCT", 64)  # of 2048 rows, minutes where bfloat16 is emulated
    script.main(["--case", case, "--batch", "2", "--steps", "1", "--precision", "bf16-mixed", "--json"])
    found = json.loads(capsys.readouterr().out)
    rows = {row["group"]: row for row in found["groups"]}
    assert rows[group]["tflops"] > 0
    assert {"optimiser", "BatchNorm and LayerNorm", "copies and casts"} <= rows.keys()
    assert found["batch"] == 2
    assert found["product_tflops"] > 0
    assert found["machine"]["torch"] == torch.__version__
    page = script.table(found)
    assert f"{rows[group]['ms']:9.1f}" in next(line for line in page.splitlines() if line.startswith(group))
    assert "64 rows" in page
