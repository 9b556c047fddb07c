"""``ssl-framework check``: what it says, writes and returns."""

import csv
import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bad_inputs as bad
from browser import FOUND, Browser
from ssl_framework import cli
from ssl_framework.commands import build, check, compose
from ssl_framework.commands.errors import FoundError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits with something of every kind in them."""
    root = tmp_path_factory.mktemp("check") / "photos"
    bad.good(root / "train")
    for number, place in enumerate(("val/cat", "val/dog", "test/cat", "test/dog")):
        (root / place).mkdir(parents=True)
        (root / place / "own.png").write_bytes(bad.encoded(255 - bad.PIXELS[number]))
    for number, name in enumerate(("truncated jpeg", "zero byte png", "a name that is not UTF-8")):
        file, content = bad.BYTES[name]
        (root / "train" / "cat" / f"{number}{file}").write_bytes(content())
    for number, (_, file, content) in enumerate(bad.ODD.values()):
        (root / "train" / "cat" / f"odd{number}{file}").write_bytes(content())
    shutil.copy(root / "train" / "cat" / "000.png", root / "test" / "cat" / "again.png")
    for name in ("Thumbs.db", "._001.jpg"):
        bad.left_out(root / "train" / "dog", name)
    return root


def words(photos: Path, run: Path) -> list[str]:
    return ["data=folder", f"data.path={photos}", "data.size=[12,14]", "data.batch_size=8", f"run.dir={run}"]


@pytest.mark.filterwarnings("ignore:not read")
def test_what_must_be_mended_is_told_listed_shown_and_ends_with_code_1(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli.run(["check", *words(photos, run)]) == 1
    said = capsys.readouterr()
    assert re.search(r"before training must be mended: 3 unreadable, 1 in two splits\. .*check\.csv names them\.", said.err)
    assert "Traceback" not in said.err
    assert re.search(r"mend +in two splits +1 ", said.out)
    report = json.loads((run / "check.json").read_text())
    assert not report["fine"]
    assert report["splits"]["train"]["samples"] == 139
    assert report["splits"]["train"]["unreadable"] == 3
    with (run / "check.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sorts = {row["finding"] for row in rows}
    assert (
        sorts
        == set(report["findings"])
        >= {sort for sort, _, _ in bad.ODD.values()} | {"in two splits", "not read", "unreadable"}
    )
    again = next(row for row in rows if row["finding"] == "in two splits")
    assert again["name"] == str(photos / "test" / "cat" / "again.png")
    assert str(photos / "train" / "cat" / "000.png") in again["detail"]
    page = (run / "check.html").read_text()
    assert page.count("<img ") > 30
    assert "train/cat/2caf\\udce9.jpg" in page


@pytest.mark.skipif(FOUND is None, reason="no Chromium here")
@pytest.mark.filterwarnings("ignore:not read")
def test_the_page_loads_nothing_and_fits_a_phone(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FoundError):
        check.run(compose.compose("check", words(photos, tmp_path / "run")))
    with Browser(tmp_path / "profile") as browser:
        for width in (1280, 360):
            page = tmp_path / "run" / "check.html"
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600)
            browser.call("Page.navigate", url=page.as_uri())
            browser.evaluate(
                "new Promise(done => document.readyState == 'complete' ? done(1) : addEventListener('load', done))"
            )
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
        assert browser.complaints() == []
        assert all(url.startswith(("file:", "data:", "about:")) for url in browser.requests())


def test_data_without_fault_end_with_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check", f"run.dir={tmp_path / 'run'}"]) == 0
    said = capsys.readouterr().out
    assert "digits: 1,797 samples in train, val, test were read, and nothing must be mended." in said
    assert re.search(r"train +1,295 +0 .*10 classes, 125 \(8\) to 131 \(6\)", said)
    assert json.loads((tmp_path / "run" / "check.json").read_text())["fine"]


def test_other_sources_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    stored = bad.arrays_file(tmp_path, images=bad.PIXELS, targets=bad.LABELS)
    shards = bad.shard(tmp_path / "shards", img=[*map(bad.encoded, bad.PIXELS)], label=bad.LABELS)
    for name, path in (("arrays", stored), ("parquet", shards)):
        given = [
            f"data={name}",
            f"data.path={path}",
            "data.batch_size=8",
            *(["data.size=[12,14]"] if name == "parquet" else []),
        ]
        found = check.run(compose.compose("check", [*given, "pictures=2"], folder=str(tmp_path / name)))
        assert found["findings"] == {}


@pytest.mark.filterwarnings("ignore:not read")
def test_below_the_limit_unreadable_files_are_a_note_and_with_error_they_must_be_mended(tmp_path: Path) -> None:
    photos = bad.good(tmp_path / "photos")
    (photos / "cat" / "zero.png").write_bytes(b"")
    shares = ["data.val_share=0", "data.test_share=0.0"]
    found = check.run(compose.compose("check", [*words(photos, tmp_path / "run"), *shares]))
    assert found["findings"] == {"unreadable": 1}
    strict = [*words(photos, tmp_path / "strict"), *shares, "data.on_bad_sample=error"]
    with pytest.raises(FoundError, match="1 unreadable"):
        check.run(compose.compose("check", strict))


@pytest.mark.parametrize(("word", "named"), [("pictures=-1", "pictures=-1"), ("threads=0", "threads=0")])
def test_numbers_out_of_range(word: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check", word, f"run.dir={tmp_path / 'run'}"]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Images and masks of three splits: half of every mask has the label 0, a third 2, and a sixth 255."""
    labels = np.repeat(np.array([0, 0, 0, 2, 2, 255], np.uint8), 2)[:, None].repeat(14, 1)
    for split, start in (("train", 0), ("val", 12), ("test", 15)):
        for kind in ("images", "masks"):
            (tmp_path / "streets" / split / kind).mkdir(parents=True)
        for number in range(start, start + 3):
            (tmp_path / "streets" / split / "images" / f"{number}.png").write_bytes(bad.encoded(bad.PIXELS[number]))
            (tmp_path / "streets" / split / "masks" / f"{number}.png").write_bytes(bad.encoded(labels))
    return tmp_path / "streets"


def masked(streets: Path) -> list[str]:
    return [*words(streets, streets.parent / "run"), "data.labels=false", "data.within=images", "labels.masks=masks"]


def test_masks_are_looked_at_and_their_pixels_counted(streets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = check.run(compose.compose("check", masked(streets)))
    assert found["findings"] == {}
    pixels = 3 * 14 * 2
    known = json.loads((streets.parent / "run" / "check.json").read_text())["splits"]
    assert all(
        known[split]["pixels"] == {"0": 3 * pixels, "2": 2 * pixels, "255": pixels} for split in ("train", "val", "test")
    )
    assert "of pixels, 0: 50 %, 2: 33.3 %, 255: 16.7 %" in capsys.readouterr().out


@pytest.mark.parametrize("fault", sorted(bad.MASKS))
def test_a_mask_that_cannot_be_used_must_be_mended(fault: str, streets: Path) -> None:
    spoil, said = bad.MASKS[fault]
    spoil(streets / "train" / "masks" / "0.png")
    with pytest.raises(FoundError, match=r"before training must be mended: .*1 (no mask|unreadable)"):
        check.run(compose.compose("check", masked(streets)))
    with (streets.parent / "run" / "check.csv").open(newline="", encoding="utf-8") as file:
        (row,) = [row for row in csv.DictReader(file) if row["mend"] == "True"]
    assert row["name"].endswith("train/images/0.png")
    if fault == "of a damaged image":
        assert row["finding"] == "unreadable"
    else:
        assert (row["finding"], said in row["detail"]) == ("no mask", True)


def test_masks_without_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.masks=masks: masks lie beside images of a folder"):
        check.run(compose.compose("check", ["labels.masks=masks"], folder=str(tmp_path / "run")))


@pytest.mark.filterwarnings("ignore:.*are left out")
@pytest.mark.parametrize("cache", [False, True])
def test_what_check_calls_left_out_is_what_training_leaves_out(cache: bool, tmp_path: Path) -> None:
    """Copies leave a split that is carved: those byte by byte, and with a cache those of the same pixels in another format."""
    photos = bad.good(tmp_path / "photos")
    names = sorted(photos.rglob("*.png"))
    for number, file in enumerate(names):
        if number % 4 == 0:
            shutil.copy(file, file.with_name(f"again-{file.name}"))
        elif number % 4 == 1:
            Image.open(file).save(file.with_name(f"again-{file.stem}.bmp"))
        elif number % 4 == 2:
            Image.new("RGB", (14, 12)).save(file)  # black, which is no copy
    shares = ["data.val_share=0.3", "data.test_share=0.2", f"data.cache={cache}", f"data.cache_dir={tmp_path / 'cache'}"]
    settings = compose.compose("check", [*words(photos, tmp_path / "run"), *shares])
    with nullcontext() if cache else pytest.raises(FoundError, match="in two splits"):
        check.run(settings)
    assert not (tmp_path / "cache").exists()
    with (tmp_path / "run" / "check.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["finding"] in ("left out", "in two splits")]
    data = build.data(settings)
    before = {name: len(source) for name, source in data.sources().items()}
    data.require_apart()
    gone = sum(before[name] - len(source) for name, source in data.sources().items())
    assert gone == sum(row["finding"] == "left out" for row in rows) > 0
    other = [row["finding"] for row in rows if ".bmp" in row["name"] + row["detail"]]
    assert set(other) == {"left out" if cache else "in two splits"}
    assert cache or len(other) == sum(row["finding"] == "in two splits" for row in rows)
