"""The race of throughputs: its statistics against sums done by hand, its page, and two races of two rounds."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_framework import encoders
from ssl_framework.commands import compose

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
NAMES = (
    "machine_record",
    *(f"throughput_{name}" for name in ("cases", "data", "ours", "peers", "race", "report", "stats", "window")),
)


@pytest.fixture(scope="module")
def modules():
    """The modules of the script, imported as it finds them, by their short names; `script` is the script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        found = {name.removeprefix("throughput_"): __import__(name) for name in NAMES}
        yield SimpleNamespace(**found, script=__import__("throughput"))
    for name in (*NAMES, "throughput"):
        del sys.modules[name]


def test_ratios_are_paired_by_round(modules: SimpleNamespace):
    """The machine halves its speed every other round: the ratio does not see it, and the ratio of medians would."""
    ours, theirs = [60.0, 30.0, 63.0, 33.0, 60.0, 30.0], [20.0, 10.0, 20.0, 10.0, 20.0, 10.0]
    paired = modules.stats.ratio(ours, theirs)
    assert paired.median == pytest.approx(3.0)
    assert (paired.low, paired.high) == pytest.approx((3.0, 3.3))
    assert paired.rounds == 6
    assert modules.stats.difference([3.0, 9.0], [1.0, 3.0]).median == 4.0
    with pytest.raises(ValueError, match="2 and 1 windows"):
        modules.stats.ratio([1.0, 2.0], [1.0])


def test_the_interval_is_the_sign_tests(modules: SimpleNamespace):
    """Tables of the sign test (Conover, table A3): of 20 sorted values the 6th and 15th, of 10 the 2nd and 9th, of 6 all."""
    for count, first in ((6, 1), (8, 1), (10, 2), (20, 6), (40, 14)):
        values = [float(n) for n in range(1, count + 1)]
        paired = modules.stats.ratio(values, [1.0] * count)
        assert (paired.low, paired.high) == (first, count + 1 - first)
    assert modules.stats.ratio([1.0] * 5, [1.0] * 5).low is None


def test_the_interval_covers_the_median(modules: SimpleNamespace):
    draws = np.random.default_rng(0).exponential(size=(2000, 20))
    ones = [1.0] * 20
    hits = [modules.stats.ratio(list(row), ones) for row in draws]
    share = np.mean([paired.low <= np.log(2) <= paired.high for paired in hits])
    assert 0.95 <= share < 0.97  # 0.9586 by the binomial


def _row(case: str, name: str, rates: list[float], **other: Any) -> dict[str, Any]:
    return {
        "case": case,
        "contestant": name,
        "what": f"what {name} does",
        "settings": {"batch": 32, "window_s": 2.0, "precision": "bf16-mixed"},
        "data": "arrays-32-20000",
        "images_per_s": rates,
        "median": float(np.median(rates)),
        "quartiles": [float(np.quantile(rates, q)) for q in (0.25, 0.75)],
        "peak_anonymous_bytes": 1_500_000_000,
        "loss": 1.0,
        "machine": {
            "processor": "P",
            "cores": 2,
            "gpu": None,
            "precision": "bf16: AMX",
            "torch": "2",
            "commit": "abc",
            "load": 2.0,
        },
        **other,
    }


def test_the_page_is_made_of_rows(modules: SimpleNamespace, tmp_path: Path):
    rows = [
        _row("resnet18-32", "bare", [100.0] * 20),
        _row("resnet18-32", "ours", [98.0] * 20, peak_anonymous_bytes=1_750_000_000),
        _row("resnet18-32", "lightly", [24.5] * 20),
        _row("vit-tiny-32", "ours-plain", [20.0] * 3),
        _row("vit-tiny-32", "ours-compiled", [50.0] * 3),
        _row("overhead", "loop", [20_000.0] * 6),
        _row("overhead", "loop-bare", [64_000.0] * 6),
    ]
    modules.report.write(rows, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    lines = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    found = {cells[0].removeprefix("| "): cells for cells in lines}
    assert found["lightly"][3:5] == ["4.00 (4.00 to 4.00)", "3.3 (stretch 4.4)"]
    assert found["bare"][3:5] == ["0.98 (0.98 to 0.98)", "0.97"]
    assert found["ours"][5] == "1.75 GB"
    assert "ours less the bare loop's: +0.25 GB" in page
    assert "ours-compiled / ours-plain: 2.50 (3 rounds: no interval); asked for: 2.5." in page
    assert found["difference"][1] == "1.100 (1.100 to 1.100)"  # 1.6 and 0.5 ms
    assert "commit abc" in page
    assert "](page.svg)" in page
    picture = (tmp_path / "page.svg").read_text()
    assert picture.startswith("<?xml")
    assert picture.count("<!-- lightly -->") == 1
    with pytest.raises(ValueError, match="more than once"):
        modules.report.text([*rows, rows[0]])


def test_every_target_names_contestants_of_its_case(modules: SimpleNamespace):
    cases = modules.cases
    assert cases.DEFAULT.keys() == cases.CASES.keys()
    for case, names in cases.DEFAULT.items():
        assert set(names) <= cases.CONTESTANTS.keys()
        for target in cases.targets(case):
            assert {target.of, target.to} <= set(names)


def test_who_takes_part(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    away = {"solo-learn": None, "stable-pretraining": None}
    for precision, names in (
        ("bf16-mixed", ["ours", "bare", "lightly", "lightly-bf16"]),
        ("32-true", ["ours", "bare", "lightly"]),
    ):
        found = modules.script.this_machine.Precision(precision, "as this test says")
        monkeypatch.setattr(modules.script.this_machine, "precision", lambda _, found=found: found)
        assert modules.script.taking_part("micro-32", None, away) == names
        every = modules.script.taking_part("micro-32", None, {**away, "solo-learn": "/path"})
        assert ("solo-learn-bf16" in every) == (precision == "bf16-mixed")
    assert modules.script.taking_part("micro-32", ["lightly-bf16"], away) == ["lightly-bf16"]  # asked for: on any machine
    with pytest.raises(ValueError, match="--solo-learn PATH"):
        modules.script.taking_part("micro-32", ["solo-learn"], away)
    with pytest.raises(ValueError, match="there is none of that name"):
        modules.script.taking_part("micro-32", ["our"], away)


@pytest.mark.parametrize("name", ["resnet_micro", "vit_micro", "vit_tiny"])
def test_peers_train_our_small_encoders(modules: SimpleNamespace, name: str):
    """They are built a second time, without us: every tensor has the same shape."""
    plain: Any = modules.peers.PlainMicro(name, 32)
    ours: Any = getattr(encoders, name)().model
    assert {k: v.shape for k, v in plain.model.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert plain(torch.zeros(2, 3, 32, 32)).shape == (2, ours.num_features)


@pytest.mark.parametrize("case", ["resnet18-32", "resnet18-224"])
def test_peers_train_our_resnet(modules: SimpleNamespace, case: str):
    chosen = modules.cases.CASES[case]
    plain, width = modules.peers.plain_encoder(chosen)
    ours = encoders.resnet18(small_stem=not chosen.files)
    shapes = [parameter.shape for parameter in plain.parameters()]
    assert sorted(shapes) == sorted(parameter.shape for parameter in ours.parameters())
    assert width == ours.embed_dim


def test_our_command_lines_are_right(modules: SimpleNamespace):
    for name, case in modules.cases.CASES.items():
        spec = {"case": case._asdict(), "data": "some/place", "precision": "auto", "words": ()}
        settings = compose.compose("pretrain", modules.ours.words(spec))
        assert settings["data"]["batch_size"] == case.batch
        assert settings["views"]["blur_p"] == case.blur
        assert (settings["encoder"].get("small_stem") is False) == (name == "resnet18-224")


def test_synthetic_images_are_made_once_and_differ(modules: SimpleNamespace, tmp_path: Path):
    case = modules.cases.CASES["micro-32"]._replace(images=300)
    file = modules.data.make(case, tmp_path)
    images = np.load(file)
    assert images.shape == (300, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len(np.unique(images.reshape(300, -1), axis=0)) == 300
    assert 20 < images.std() < 90
    written = file.stat().st_mtime_ns
    assert modules.data.make(case, tmp_path) == file
    assert file.stat().st_mtime_ns == written
    folder = modules.data.make(case._replace(files=True, images=20, stored=64), tmp_path)
    assert len(list(folder.glob("*/*.jpg"))) == 20


@pytest.mark.slow
def test_a_race_of_ours_and_the_bare_loop(modules: SimpleNamespace, tmp_path: Path):
    out = tmp_path / "rows.json"
    size = ["--rounds", "2", "--seconds", "0.05", "--batch", "8", "--images", "64"]
    modules.script.main(["--case", "micro-32", "--contestants", "ours", "bare", *size, "--out", str(out)])
    ours, bare = json.loads(out.read_text())
    assert (ours["contestant"], bare["contestant"]) == ("ours", "bare")
    for row in (ours, bare):
        assert len(row["images_per_s"]) == 2
        assert all(rate > 1 for rate in row["images_per_s"])
        assert row["settings"]["precision"] == bare["settings"]["precision"]
        assert row["settings"]["batch"] == 8
        assert np.isfinite(row["loss"])
        assert row["machine"]["cores"] >= 1
    if sys.platform == "linux":
        assert ours["peak_anonymous_bytes"] > 50e6


def test_a_racer_stands_still_between_windows(modules: SimpleNamespace, tmp_path: Path):
    """The process is stopped, not only waiting, and it is gone when it is closed."""
    script = tmp_path / "steps.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from throughput_window import Windows, claim_pipes, specification\n"
        "import os, time\n"
        "windows = Windows(*claim_pipes())\n"
        "print('what libraries print is no answer')\n"
        "windows.begin(process=os.getpid(), told=specification()['word'])\n"
        "while True:\n    time.sleep(0.02)\n    windows.step(0.5)\n"
    )
    racer = modules.race.Racer("it", sys.executable, str(script), {"word": "hello"}, tmp_path / "run")
    process = racer.facts["process"]
    assert racer.facts["told"] == "hello"
    answer = racer.window(5)
    assert 0.1 <= answer["seconds"] < 2
    assert answer["loss"] == 0.5
    if sys.platform == "linux":
        deadline = time.monotonic() + 5
        while "T (stopped)" not in Path(f"/proc/{process}/status").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    racer.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, signal.SIG_DFL)


def test_a_racer_that_fails_says_why(modules: SimpleNamespace, tmp_path: Path):
    script = tmp_path / "fails.py"
    script.write_text("raise SystemExit('no such library')")
    with pytest.raises(ChildProcessError, match="no such library"):
        modules.race.Racer("it", sys.executable, str(script), {}, tmp_path / "run")


def test_rounds_begin_with_another_racer_each_time(modules: SimpleNamespace):
    order: list[str] = []

    def racer(name: str) -> Any:
        def window(steps: int) -> dict[str, float]:
            order.append(f"{name}{steps}")
            return {"seconds": 1.0}

        return SimpleNamespace(name=name, window=window)

    answers = modules.race.race([racer("a"), racer("b"), racer("c")], {"a": 1, "b": 2, "c": 3}, rounds=3)
    assert order == ["a1", "b2", "c3", "b2", "c3", "a1", "c3", "a1", "b2"]
    assert [sorted(answer) for answer in answers] == [["a", "b", "c"]] * 3


def test_windows_grow_until_they_are_long_enough(modules: SimpleNamespace):
    asked: list[int] = []

    def racer(second: float) -> Any:
        def window(steps: int) -> dict[str, float]:
            asked.append(steps)
            return {"seconds": second * steps}

        return SimpleNamespace(window=window)

    assert modules.race.steps_of(racer(0.01), 2.0) == 200
    assert asked == [1, 1, 8, 64, 200]
    asked.clear()
    assert modules.race.steps_of(racer(10.0), 2.0) == 1
    assert asked == [1, 1]


@pytest.mark.slow
def test_lightly_trains(modules: SimpleNamespace, tmp_path: Path):
    out = tmp_path / "rows.json"
    size = ["--rounds", "1", "--seconds", "0.05", "--batch", "8", "--images", "64", "--workers", "0", "1"]
    modules.script.main(["--case", "micro-32", "--contestants", "lightly-bf16", *size, "--out", str(out)])
    (row,) = json.loads(out.read_text())
    assert row["settings"]["workers_tried"].keys() == {"0", "1"}
    assert row["settings"]["library"].startswith("lightly 1.")
    assert row["settings"]["precision"] == "bf16-mixed"
    assert np.isfinite(row["loss"])


def test_the_page_of_the_documentation_is_that_of_the_rows(modules: SimpleNamespace, tmp_path: Path):
    root = Path(__file__).parents[3]
    rows = [row for file in sorted((root / "benchmarks" / "throughput").glob("*.json")) for row in json.loads(file.read_text())]
    modules.report.write(rows, tmp_path / "throughput.md")
    assert (tmp_path / "throughput.md").read_text() == (root / "docs" / "explanation" / "throughput.md").read_text()
