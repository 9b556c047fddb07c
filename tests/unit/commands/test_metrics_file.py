"""The table of curves, also of a run that was killed and resumed."""

import csv
import errno
import warnings
from pathlib import Path
from typing import Any

import pytest

from ssl_framework.commands.metrics_file import MetricsFile


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_a_step_and_a_column_whenever_a_quantity_appears(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.log_metrics({"loss": 3.0, "epoch": 0.5}, step=0)
    log.log_metrics({"loss": 2.0, "epoch": 1.5}, step=1)
    log.log_metrics({"val": 9.0, "epoch": 0.0}, step=1)  # Lightning's own epoch is 0 for ever
    log.finalize("success")
    assert rows(tmp_path) == [
        {"step": "0", "loss": "3.0", "epoch": "0.5", "val": ""},
        {"step": "1", "loss": "2.0", "epoch": "1.5", "val": "9.0"},
    ]


def test_a_killed_run_has_written_all_but_the_step_it_was_at(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    for step in range(5):
        log.log_metrics({"loss": float(step)}, step=step)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]  # without finalize


def test_a_resumed_run_goes_on_in_the_same_table(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path)
    for step in range(6):
        first.log_metrics({"loss": float(step)}, step=step)
    again = MetricsFile(tmp_path)
    again.go_on_from(4)  # the last checkpoint is that of 4 steps, 0 to 3
    again.log_metrics({"loss": 40.0}, step=4)
    again.finalize("success")
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        ("0", "0.0"),
        ("1", "1.0"),
        ("2", "2.0"),
        ("3", "3.0"),
        ("4", "40.0"),
    ]


def test_a_full_disk_ends_no_run_and_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, opened = MetricsFile(tmp_path), Path.open
    log.log_metrics({"loss": 0.0}, step=0)
    log.log_metrics({"loss": 1.0}, step=1)

    def full(path: Path, mode: str = "r", **more: Any) -> Any:
        if mode == "r":
            return opened(path, mode, **more)
        if mode == "a":
            with opened(path, mode, **more) as file:
                file.write("17,")  # the disk takes a part of a row
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        patch.setattr(Path, "open", full)
        for step in (2, 3, 4):
            log.log_metrics({"loss": float(step), **({"val": 7.0} if step == 3 else {})}, step=step)
        log.finalize("failed")
        log.finalize("failed")  # said once
    assert ["metrics.csv was not written (No space left on device)" in str(one.message) for one in said] == [True, False]
    assert "lacks its end (4 of its rows)" in str(said[1].message)
    assert [row["step"] for row in rows(tmp_path)] == ["0"]
    log.log_metrics({"loss": 5.0}, step=5)
    log.finalize("success")
    assert [(row["step"], row["loss"], row["val"]) for row in rows(tmp_path)] == [
        (str(step), f"{step}.0", "7.0" if step == 3 else "") for step in range(6)
    ]
