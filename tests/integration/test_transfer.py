"""Does transfer pay? The verb, its page, what compares pages, and what measures a row again, for real on the digits."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from browser import FOUND, Browser
from ssl_framework import cli
from ssl_framework.commands import compose, pictures, pretrain, report, reproduce, story, transfer
from ssl_framework.commands.quiet import quiet
from ssl_framework.transfer import Plan, claims, rows
from support import light

SHORT = [
    "debug=short",
    "trainer.progress_bar=false",
    "data.batch_size=32",
    "trainer=cpu",
    "monitors.knn=null",
    "monitors.probe=null",
]
GRID = [
    "data=digits", "methods=[scratch,raw_pixels,frozen,full,lora]", "budgets=[1,4]", "seeds=2", "steps=3", "rates=[0.001,0.01]",
    "val_images=50", "label_noise=[0.4]", "jobs=1", "accelerator=cpu",
]  # fmt: skip
SMALL = [
    "encoder=timm", "encoder.name=vit_tiny_patch16_224", "encoder.pool=mean",
    "encoder.model_args={patch_size: 2, embed_dim: 24, depth: 2, num_heads: 2}",
]  # fmt: skip
MOST_BYTES = 1_000_000

pytestmark = [
    pytest.mark.filterwarnings("ignore:You have overridden `on_before_batch_transfer`"),
    pytest.mark.filterwarnings("ignore:The '.*' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
]


def words(encoder: Path, *more: str) -> list[str]:
    """Of a study, with robustness where nothing else is said."""
    said = [f"encoder_file={encoder}", *GRID, "robustness=16"]
    given = {word.split("=")[0] for word in more}
    return [*(word for word in said if word.split("=")[0] not in given), *more]


def study(folder: Path, *said: str) -> dict[str, Any]:
    return transfer.run(compose.compose("transfer", list(said), folder=str(folder)))


def told(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows without what differs from run to run, and with other numbers of processes."""
    left = ("seconds", "curve", "robustness", "recipe")
    kept = {rows.name(row): {key: value for key, value in row.items() if key not in left} for row in found}
    return {
        name: {**row, "config_hash": given["recipe"]["config_hash"]}
        for (name, row), given in zip(kept.items(), found, strict=True)
    }


FEW = ("robustness=0", "label_noise=[]", "methods=[scratch,raw_pixels,frozen]", "seeds=1")


def some(whole: Path) -> dict[str, Any]:
    """The rows of the whole study that a study of `FEW` has as well."""
    kept = [row for row in rows.read(whole / rows.FILE) if row["seed"] < 2 and not row.get("label_noise")]
    return told([row for row in kept if row["method"] in ("scratch", "raw_pixels", "frozen")])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MAE's vision transformer, so that there is attention and LoRA has linear layers."""
    folder = tmp_path_factory.mktemp("transfer") / "mae"
    with warnings.catch_warnings():  # marks do not reach fixtures of a module
        quiet()
        pretrain.run(
            compose.compose("pretrain", [*SHORT, "logger=csv", "pretext=mae", *light("mae"), *SMALL], folder=str(folder))
        )
    return folder


@pytest.fixture(scope="module")
def whole(encoder: Path) -> Path:
    folder = encoder.parent / "study"
    with warnings.catch_warnings():
        quiet()
        study(folder, *words(encoder))
    return folder


def test_a_study_leaves_its_rows_its_claims_and_one_page(whole: Path) -> None:
    assert {file.name for file in whole.iterdir()} == {
        ".lock", "config.yaml", "environment.json", "report.html", "results.json", rows.FILE,
    }  # fmt: skip
    found = rows.read(whole / rows.FILE)
    assert len(found) == 5 * 2 * 3 + 3 * 2  # scratch, frozen and full learn from wrong labels too
    assert not any("na" in row for row in found)
    page, results = (whole / "report.html").read_text(), json.loads((whole / "results.json").read_text())
    assert len(page.encode()) < MOST_BYTES
    assert results["sentence"] in page
    assert results["sentence"] == claims.headline(claims.verdicts(found))
    assert results["pretrain_seconds"] > 0
    assert set(results["robustness"]) == {"scratch", "frozen", "fine-tuned"}
    assert {"label_noise", "pgd", "corruptions", "ece"} <= set(results["robustness"]["fine-tuned"])
    for heading in ("Where the network looks", "what pretraining saw of it", "Nearest neighbours", "How pretraining went"):
        assert heading in page
    assert len(results["rows"]) + len(results["more_rows"]) + 5 * 2 == len(found)  # the pilot's are not judged
    for row in (*results["rows"], *results["more_rows"]):
        assert not row["stale"]
        assert row["command"] in page.replace("&#x2F;", "/")


def test_the_page_asks_for_nothing_and_has_no_error(whole: Path, tmp_path: Path) -> None:
    page = (whole / "report.html").read_text()
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    if FOUND is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    with Browser(tmp_path / "profile") as browser:
        browser.open(whole / "report.html")
        assert {url for url in browser.requests() if not url.startswith("data:")} == {(whole / "report.html").as_uri()}
        assert browser.complaints() == []


def test_pages_are_made_again_and_compared(whole: Path, encoder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    study(other, *words(encoder, "methods=[scratch,frozen]", "robustness=0", "label_noise=[]"))
    (whole / "report.html").unlink()
    made = report.run(compose.compose("report", [f"runs=[{whole},{other}]"], folder=str(tmp_path / "both")))
    assert [Path(page).name for page in made["pages"]] == ["report.html", "report.html", "comparison.html"]
    assert all(Path(page).stat().st_size > 5000 for page in made["pages"])
    comparison = Path(made["pages"][-1]).read_text()
    for folder in (whole, other):
        assert json.loads((folder / "results.json").read_text())["sentence"] in comparison


def test_bare_words_are_runs_and_rows(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", str(whole), f"run.dir={tmp_path / 'r'}"]) == 0
    assert f"page: {whole}/report.html" in capsys.readouterr().out
    assert cli.run(["reproduce", f"{whole}:frozen/4/1", f"run.dir={tmp_path / 'p'}"]) == 0
    assert "now: the same." in capsys.readouterr().out


def test_a_number_is_within_where_one_more_seed_would_be() -> None:
    alike = [0.5, 0.52, 0.54, 0.56, 0.58]
    spread = 2.776 * 0.0316 * 1.2**0.5  # t of 4 degrees, deviation, and a new number beside the mean of five
    assert reproduce._within(0.54 + spread - 0.002, alike)
    assert not reproduce._within(0.54 + spread + 0.002, alike)
    assert reproduce._within(0.54, alike[:2]) is None


@pytest.mark.parametrize("name", ["scratch/1/1", "raw_pixels/4/1", "full/4/1", "full/4/2/noise-0.4"])
def test_a_row_is_measured_again_to_the_same_number(whole: Path, name: str, tmp_path: Path) -> None:
    found = reproduce.run(compose.compose("reproduce", [f"row={whole}:{name}"], folder=str(tmp_path)))
    assert found["same"]
    assert found["within"] is None  # two seeds do not tell
    assert told([found["row"]])[name]["correct"] == found["before"]["correct"]


def test_what_has_changed_since_is_said(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "study"
    other.mkdir()
    for name in ("config.yaml", "environment.json"):
        (other / name).write_bytes((whole / name).read_bytes())
    found = rows.read(whole / rows.FILE)
    for row in found:
        if rows.name(row) == "frozen/4/1":
            row["recipe"]["code"], row["accuracy"] = "0" * 16, 0.0
            row.pop("correct")
    rows.append(other / rows.FILE, found)
    result = reproduce.run(compose.compose("reproduce", [f"row={other}:frozen/4/1"], folder=str(tmp_path / "p")))
    assert not result["same"]
    assert "what it depends on has changed since: code" in capsys.readouterr().out
    report.run(compose.compose("report", [f"runs={other}"], folder=str(tmp_path / "r")))
    stale = [row for row in report.told(other, "cpu")["rows"] if row["stale"]]
    assert [(row["method"], row["budget"], row["seed"]) for row in stale] == [("frozen", 4, 1)]
    assert "stale" in (other / "report.html").read_text()


def test_the_pilot_s_row_was_not_judged(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="full/4/0 chose on validation"):
        reproduce.run(compose.compose("reproduce", [f"row={whole}:full/4/0"], folder=str(tmp_path)))


def test_half_a_study_has_no_page(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_bytes((whole / "config.yaml").read_bytes())
    rows.append(tmp_path / "half" / rows.FILE, rows.read(whole / rows.FILE)[:9])
    with pytest.raises(ValueError, match="has 9 of 36 rows: measure the rest by ssl-framework transfer resume="):
        report.told(tmp_path / "half", "cpu")


def test_an_encoder_that_was_converted_has_no_pretraining(encoder: Path, whole: Path, tmp_path: Path) -> None:
    """Its folder has a configuration, of another verb."""
    saved = yaml.safe_load((encoder / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({key: saved[key] for key in ("seed", "run")}))
    assert story._seen_before(compose.saved_settings(whole, "report"), tmp_path) == []
    assert pictures.views(transfer.bench(compose.saved_settings(whole, "report")), tmp_path) == []


def test_another_split_of_the_pretraining_is_a_limit(encoder: Path, whole: Path, tmp_path: Path) -> None:
    saved = yaml.safe_load((encoder / "config.yaml").read_text())
    settings = compose.saved_settings(whole, "report")
    assert story._seen_before(settings, encoder) == []
    saved["data"]["split_seed"] = 7
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    (said,) = story._seen_before(settings, tmp_path)
    assert "may have seen images of test" in said


def test_a_rate_at_the_end_of_the_choice_is_a_limit() -> None:
    pilots = [
        {"pilot": True, "method": method, "budget": budget, "rate": rate, "tried": {"0.1": other, "0.3": 0.5}}
        for method, budget, rate, other in (
            ("scratch", 10, 0.3, 0.4),
            ("full", 10, 0.3, 0.4),
            ("full", "all", 0.3, 0.4),
            ("lora", 10, 0.2, 0.4),
            ("last_n", 10, 0.3, 0.5),  # another is as good
        )
    ]
    plan = Plan(rates=(0.1, 0.2, 0.3))
    (said,) = story._at_the_edge(
        [*pilots, {"method": "lora", "budget": 10, "rate": 0.3}, {"pilot": True, "method": "pca"}], plan
    )
    assert said == (
        "Some chose the largest learning rate of all, 0.3; a larger one may suit them better "
        "(with 10 labels a class: scratch, fine-tuned; with all labels: fine-tuned)."
    )
    assert "smallest learning rate of all, 0.2" in story._at_the_edge(pilots, Plan(rates=(0.2, 0.3, 0.4)))[0]
    assert story._at_the_edge(pilots, Plan(rates=(0.3,))) == []


@pytest.mark.slow  # test_grid.py stops one at once, within the process
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_study_goes_on_to_the_same_rows(whole: Path, encoder: Path, tmp_path: Path, how: signal.Signals) -> None:
    line = [sys.executable, "-m", "ssl_framework", "transfer", *words(encoder, "jobs=2", *FEW), "run.dir=stopped"]
    process = subprocess.Popen(
        line,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no thread is running here)
    )
    file = tmp_path / "stopped" / rows.FILE
    deadline = time.monotonic() + 120
    while len(rows.read(file)) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), said
    if how == signal.SIGINT:
        assert "Go on with: ssl-framework transfer resume=stopped" in said
    kept = rows.read(file)
    done = study(tmp_path / "unused", f"resume={tmp_path / 'stopped'}", "jobs=1")
    assert 3 <= len(kept) < len(done["rows"])
    assert done["rows"][: len(kept)] == kept
    assert told(done["rows"]) == some(whole)
    assert not (tmp_path / "unused").exists()
    assert (tmp_path / "stopped" / "report.html").is_file()


@pytest.mark.slow
def test_machines_share_a_study_and_the_report_gathers_it(whole: Path, encoder: Path, tmp_path: Path) -> None:
    line = ["transfer", *words(encoder, *FEW), "part=0,1", "parts=2", f"run.dir={tmp_path / 'parts'}", "--multirun"]
    done = subprocess.run(
        [sys.executable, "-m", "ssl_framework", *line], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "parts").rglob("report.html"))
    _, found = report.study_of(tmp_path / "parts", "cpu")
    assert told(found) == some(whole)
    made = report.run(compose.compose("report", [f"runs={tmp_path / 'parts'}"], folder=str(tmp_path / "r")))
    assert Path(made["pages"][0]).stat().st_size > 5000


def test_a_study_of_a_cnn_without_a_log_says_less(encoder: Path, tmp_path: Path) -> None:
    """No attention, no LoRA, no curves, no cost of pretraining: sections are missing, and n/a has its reason."""
    pretrained = tmp_path / "simclr"
    pretrain.run(compose.compose("pretrain", [*SHORT, "logger=none", "pretext=simclr"], folder=str(pretrained)))
    (pretrained / "config.yaml").unlink()
    few = words(pretrained, "methods=[scratch,frozen,lora]", "robustness=0", "label_noise=[]", "budgets=[1]")
    study(tmp_path / "study", *few)
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    assert not {"attention", "views", "training", "robustness", "depth", "pretrain_seconds"} & set(results)
    assert {row["na"] for row in results["rows"] if row["method"] == "LoRA"} == {
        next(row["na"] for row in rows.read(tmp_path / "study" / rows.FILE) if "na" in row)
    }


def test_views_are_those_of_the_pretraining(encoder: Path, whole: Path) -> None:
    saved = compose.saved_settings(whole, "report")
    shown = pictures.views(transfer.bench(saved), encoder)
    assert len(shown) == pictures._SAMPLES
    assert {len(one["views"]) for one in shown} == {1}  # MAE looks at one crop
    assert len({one["original"] for one in shown}) == pictures._SAMPLES
    assert pictures.views(transfer.bench(saved), None) == []
    assert pictures.views(transfer.bench(saved), whole) == []  # no pretraining


def test_the_seconds_of_pretraining_are_those_of_its_log(encoder: Path) -> None:
    counted = transfer._seconds(encoder)
    assert counted is not None
    assert 0 < counted < 600
    said = {"pretrain_seconds": 12, "encoder_file": str(encoder / "encoder.yaml")}
    assert transfer.pretraining(said, []) == {"seconds": 12.0, "folder": encoder}
    threads = json.loads((encoder / "environment.json").read_text())["threads"]
    cells = [{"recipe": {"device": "cpu", "threads": 2 * threads}}]  # twice as many, so half as long
    read = {**said, "pretrain_seconds": None}
    converted = transfer.pretraining(read, cells)
    assert converted["seconds"] == pytest.approx(counted / 2)
    assert converted["threads"] == (threads, 2 * threads)
    (limit,) = story._converted((2, 1))
    assert limit == "Pretraining had 2 threads, a row 1 thread: its time counts as if 1 thread took 2 times as long."
    cells[0]["recipe"]["threads"] = threads
    same = transfer.pretraining(read, cells)
    assert same == {"seconds": counted, "folder": encoder}
    assert story._converted(same.get("threads")) == []
    cells[0]["recipe"]["device"] = "gpu"  # whose seconds are others
    assert transfer.pretraining(read, cells)["seconds"] is None


@pytest.mark.parametrize("given", [None, 12])
def test_a_damaged_run_of_the_encoder_is_told_before_anything_is_measured(
    given: int | None, encoder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "encoder"
    shutil.copytree(encoder, home)
    config = yaml.safe_load((home / "config.yaml").read_text())
    said = {"pretrain_seconds": given, "encoder_file": str(home)}
    old = {**config, "data": {**config["data"], "of_an_older_version": 1}}
    (home / "config.yaml").write_text(yaml.safe_dump(old))
    assert transfer.pretraining(said, [])["folder"] == home
    for node, value in (("data", {"batch_size": "many"}), ("trainer", 5), ("views", {**config["views"], "scael": 1})):
        (home / "config.yaml").write_text(yaml.safe_dump({**config, node: value}))
        with pytest.raises(ValueError, match=rf"{node}.*So it stands in .*encoder/config.yaml\."):
            transfer.pretraining(said, [])


def test_a_page_says_that_threads_were_converted(whole: Path) -> None:
    saved, found = compose.saved_settings(whole, "report"), rows.read(whole / rows.FILE)
    for threads, said in (((2, 1), story._converted((2, 1))), (None, [])):
        made = {"seconds": 9.0, "folder": None, "threads": threads}
        limits = story.told(found, transfer.bench(saved), transfer.plan_of(saved), whole, saved, made)["limits"]
        assert [limit for limit in limits if limit.startswith("Pretraining had")] == said


def test_the_seconds_of_a_gpu_count_for_cells_on_a_gpu_whatever_the_threads(encoder: Path, tmp_path: Path) -> None:
    home = tmp_path / "on_gpu"
    shutil.copytree(encoder, home)
    where, config = home / "environment.json", yaml.safe_load((home / "config.yaml").read_text())
    where.write_text(json.dumps(json.loads(where.read_text()) | {"devices": ["a GPU"]}))
    config["trainer"]["accelerator"] = "auto"
    (home / "config.yaml").write_text(yaml.safe_dump(config))
    read = {"pretrain_seconds": None, "encoder_file": str(home)}
    for device, known in (("gpu", True), ("cpu", False)):
        seconds = transfer.pretraining(read, [{"recipe": {"device": device, "threads": 7}}])["seconds"]
        assert (seconds == transfer._seconds(home)) == known
    assert story._pretrained_on(home) == {"pretrained on": "a GPU"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pays"), [("shuffled", False), ("good", True)])
def test_an_encoder_that_could_learn_nothing_does_not_pay(
    name: str, pays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretrained on digits whose pixels were shuffled, image by image; and on the digits, so that "never" is no answer."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import honesty

    home = honesty.encoder(name, tmp_path)
    grid = [word for word in honesty.GRID if not word.startswith(("budgets", "methods"))]
    few = [f"encoder_file={home}", *grid, "budgets=[1,10]", "methods=[scratch,random_frozen,raw_pixels,pca,frozen,full]"]
    found = study(tmp_path / "study", *few)["rows"]
    assert ("pays" in [one.word for one in claims.verdicts(found)]) == pays
