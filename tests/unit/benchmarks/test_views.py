"""The race of augmentations: every contestant makes views of the recipe, and the rows say what was measured."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def views():
    """The script, imported as it finds its neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield __import__("views")
    for name in ("views", "machine_record"):
        sys.modules.pop(name, None)


@pytest.fixture
def tiny(views: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(views.CASES, "tiny", views.Case(size=24, source=32, batch=16, blur_p=0.5, kernel=3))
    return "tiny"


INSTALLED = ["ours", "ours, device kernel", "plain batched torch", "torchvision v2, tensors", "torchvision v2, PIL"]


@pytest.mark.parametrize("name", INSTALLED)
def test_every_contestant_makes_views_of_the_recipe(name: str, views: ModuleType, tiny: str):
    case = views.CASES[tiny]
    made = views.CONTESTANTS[name].build(case, views.photographs(case))(1)
    assert made.shape == (2, 16, 3, 24, 24)
    assert made.dtype == torch.bfloat16
    pixels = made.float() * torch.tensor(views.STD)[:, None, None] + torch.tensor(views.MEAN)[:, None, None]
    assert -0.01 < pixels.min() < 0.2
    assert 0.8 < pixels.max() < 1.01
    grey = ((pixels.amax(dim=2) - pixels.amin(dim=2)).amax(dim=(2, 3)) < 0.02).float().mean()
    assert 0.02 < grey < 0.6  # of 32 views a fifth
    assert not torch.equal(made[0], made[1])


def test_our_contestants_make_the_same_views(views: ModuleType, tiny: str):
    case = views.CASES[tiny]
    images = views.photographs(case)
    made = [views.CONTESTANTS[name].build(case, images)(3).float() for name in INSTALLED[:3]]
    for other in made[1:]:
        torch.testing.assert_close(made[0], other, atol=0.02, rtol=0.01)


def test_the_recipe_s_kernel_is_what_the_others_are_told(views: ModuleType):
    for case in views.CASES.values():
        if case.blur_p:
            assert views.view(case).blur_kernel_size((case.size, case.size)) == (case.kernel, case.kernel)


def test_what_is_not_installed_stays_out(views: ModuleType, monkeypatch: pytest.MonkeyPatch):
    missing = views.CONTESTANTS["kornia"]._replace(needs=("no_such_package",))
    monkeypatch.setitem(views.CONTESTANTS, "kornia", missing)
    assert views.entries_of(["kornia", "ours"], 1) == [("ours", 1)]
    assert views.entries_of(["ours", "torchvision v2, PIL"], 2) == [("ours", 1), ("ours", 2), ("torchvision v2, PIL", 1)]


def test_windows_are_interleaved_and_calls_never_repeat(views: ModuleType, tiny: str, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[str, int, int]] = []

    def build(name: str):
        return lambda _case, _images: lambda call: seen.append((name, torch.get_num_threads(), call))

    for name in ("ours", "kornia"):
        monkeypatch.setitem(views.CONTESTANTS, name, views.Contestant(build(name), (1,)))
    before = torch.get_num_threads()
    rates = views.race(views.CASES[tiny], [("ours", 1), ("kornia", 2)], rounds=2, seconds=0.0)
    assert torch.get_num_threads() == before
    assert [len(values) for values in rates] == [2, 2]
    assert seen[2:] == [("ours", 1, 1), ("kornia", 2, 1), ("kornia", 2, 2), ("ours", 1, 2)]


@pytest.mark.slow
def test_rows(
    views: ModuleType, tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "rows.json"
    asked = ["views.py", "--case", tiny, "--only", "ours", "--rounds", "3", "--seconds", "0", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", asked)
    monkeypatch.setattr(views.machine_record.machine, "cores", lambda: 2)
    views.main()
    one, two, *processes = json.loads(out.read_text())
    assert (one["contestant"], one["threads"], two["threads"]) == ("ours", 1, 2)
    assert one["quartiles"][0] <= one["median"] <= one["quartiles"][1]
    assert sorted(one["views_per_s"])[1] == one["median"] > 0
    added = sorted(b / a - 1 for a, b in zip(one["views_per_s"], two["views_per_s"], strict=True))
    assert two["second_core"] == pytest.approx(added[1])
    assert "second_core" not in one
    assert {"processor", "torch", "commit"} <= one["machine"].keys()
    assert one["settings"] == {"size": 24, "source": 32, "batch": 16, "blur_p": 0.5, "kernel": 3, "window_s": 0.0}
    assert [(row["contestant"], row["threads"]) for row in processes] == [
        ("ours, a process each", 1),
        ("ours, a process each", 2),
    ]
    assert processes[0]["median"] > 0
    assert "second_core" in processes[1]
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.slow
def test_processes_run_alone_and_together(views: ModuleType):
    pairs = views.race_processes(views.Case(24, 32, 4, 0.0, 3), rounds=2, seconds=0.3)
    assert len(pairs) == 2
    assert all(both > 0 and alone > 0 for alone, both in pairs)  # which is more depends on the machine's other work
