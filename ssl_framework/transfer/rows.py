"""The rows of a study on disk: one JSON line each, appended when it is measured, so that a kill loses what was under way."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str, int, float]

FILE = "rows.jsonl"


def key(row: Row) -> Key:
    """What there is one row of: method, budget, seed, and the share of wrong labels that were learnt from."""
    return row["method"], str(row["budget"]), row["seed"], row.get("label_noise", 0.0)


def name(row: Row) -> str:
    """What a person calls a row: ``full/10/0``."""
    method, budget, seed, noise = key(row)
    return f"{method}/{budget}/{seed}" + (f"/noise-{noise:g}" if noise else "")


def read(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file. What a kill left of the last line is dropped.

    Raises:
        ValueError: another line is damaged.
    """
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.extend([json.loads(line)] if line else [])
        except json.JSONDecodeError as error:
            if number < len(lines):  # a whole line ends with a newline, so that something follows it
                raise ValueError(
                    f"{path}, line {number} is no row: {error}. Take the line out, and it is measured again."
                ) from error
    return rows


def repair(path: Path) -> None:
    """Take the rest of a line away that a kill left at the end of a file."""
    if path.is_file():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows, on the disk when this returns."""
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def gathered(paths: Sequence[Path]) -> list[Row]:
    """The rows of several files of one study.

    Raises:
        ValueError: two of them have the same row.
    """
    found: dict[Key, Path] = {}
    rows: list[Row] = []
    for path in paths:
        for row in read(path):
            if key(row) in found:
                raise ValueError(
                    f"{name(row)} stands in {found[key(row)]} and in {path}: give the parts of one study, each once."
                )
            found[key(row)] = path
            rows.append(row)
    return rows
