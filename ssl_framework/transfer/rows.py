"""The rows of a study on disk: one JSON line each, appended when it is measured, so that a kill loses what was under way."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssl_framework import reading

Row = dict[str, Any]
Key = tuple[str, str, int, float]

FILE = "rows.jsonl"

_NUMBER = (int, float)
_MUST = {"method": (str,), "budget": (int, str), "seed": (int,)}
_MAY = {
    "labels": (int,),
    "label_noise": _NUMBER,
    "pilot": (bool,),
    "recipe": (dict,),
    "accuracy": _NUMBER,
    "val_accuracy": _NUMBER,
    "correct": (str,),
    "seconds": _NUMBER,
    "steps": (int,),
    "rate": _NUMBER,
    "penalty": _NUMBER,
    "tried": (dict, type(None)),
    "curve": (list,),
    "trainable_parameters": (int,),
    "robustness": (dict,),
    "na": (str,),
}
_RECIPE = {"config_hash": str, "code": str, "data_fingerprint": str, "torch": str, "device": str, "threads": int}


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
        ValueError: another line is damaged, or says what no row of ours does.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text ({error.reason}): copy it again.") from error
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.extend([_checked(reading.parsed_json(line, "it", dict[str, Any]))] if line else [])
        except ValueError as error:
            if number < len(lines):  # a whole line ends with a newline, so that something follows it
                raise ValueError(
                    f"{path}, line {number} is no row: {error} Take the line out, and it is measured again."
                ) from error
    return rows


def _checked(row: Row) -> Row:
    """A row that may be a stranger's, if all that it says is of the kind that ours is.

    Raises:
        ValueError: it is not; the message says what.
    """
    for name, kinds in (*_MUST.items(), *((name, kinds) for name, kinds in _MAY.items() if name in row)):
        if type(row.get(name)) not in kinds:
            raise ValueError(f"{name} is {str(row.get(name))[:80]!r}.")
    for name in ("accuracy", "val_accuracy", "label_noise"):
        if not 0 <= row.get(name, 0) <= 1:
            raise ValueError(f"{name} is {row[name]!r}, and a share is expected.")
    recipe, points = row.get("recipe", {}), [point for point in row.get("curve", ()) if not _is_point(point)]
    wrong = [name for name, kind in _RECIPE.items() if name in recipe and type(recipe[name]) is not kind]
    wrong += [
        name for name in ("robustness", "tried") if not all(type(one) in _NUMBER for one in (row.get(name) or {}).values())
    ]
    if wrong or points:
        raise ValueError(f"{', '.join(wrong) or 'curve'} is not what ours is.")
    return row


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 3 and all(type(one) in _NUMBER for one in point)


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
