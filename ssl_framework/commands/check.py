"""``ssl-framework check``: every sample of a data set is read before anything is trained on it."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from ssl_framework import keyed, report
from ssl_framework.commands import build, folder
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.commands.errors import FoundError
from ssl_framework.data import DataModule, overlap
from ssl_framework.data.findings import SORTS, Finding, facts, findings
from ssl_framework.data.folder import FolderSource
from ssl_framework.data.masks import Masks
from ssl_framework.data.overlap import Rows
from ssl_framework.data.split import rooted
from ssl_framework.data.survey import Looked, survey
from ssl_framework.paths import printable
from ssl_framework.report import Sheet, Shown
from ssl_framework.types import BadSampleError, Source

_RANDOM = 0xC4EC  # names this use of the seed
_EACH = 4  # pictures of a sort of finding
_EXAMPLES = 5  # names of a sort in check.json
_SIDE = 192  # pixels of a picture on the sheet
_LABELS = 8  # of pixels in the table
_NAME = 60  # letters of a name in the table
_COLUMNS = ("finding", "mend", "split", "index", "name", "detail")


def run(settings: Settings) -> dict[str, Any]:
    """Read everything, tell, and write ``check.json``, ``check.csv`` and ``check.html``.

    Args:
        settings: of `compose("check", ...)`.

    Returns:
        ``run``, the folder; ``findings``, how many there are of each sort; ``page``, the contact sheet.

    Raises:
        ValueError: what the user asked for does not fit together, or the data say at once what is wrong with them.
        FoundError: something must be mended; the files are written.
    """
    for key in ("pictures", "threads"):
        if settings[key] is not None and settings[key] < (key == "threads"):
            raise ValueError(f"{key}={settings[key]}: give a number from {int(key == 'threads')}.")
    strict = settings["data"]["on_bad_sample"] == "error"
    data = build.data({**settings, "data": {**settings["data"], "cache": False, "cache_size": None}})
    home = folder.begin(settings)
    looked = survey(data.sources(), settings["threads"], _masks(settings, data.sources()))
    goes = {name: frozenset(rows.tolist()) for name, rows in _left_out(data, looked, settings["data"].get("cache")).items()}
    found, known = findings(looked, data.size, strict=strict, near_ones=settings["near"], left_out=goes), facts(looked)
    must = [one for one in found if one.mend]
    name = printable(data.name)
    base = f"{name}/"
    sentence = _sentence(name, known, found, must)
    counts = {sort: sum(1 for _ in group) for sort, group in groupby(found, key=lambda one: one.sort)}
    folder.write_json(home / "check.json", {"data": name, "fine": not must, "sentence": sentence, **_plain(known, found)})
    _write_csv(found, home / "check.csv")
    tables = [_facts_table(known), _findings_table(found, base)]
    page = report.write_sheet(
        Sheet(f"Check of {name}", sentence, not must, tables, _groups(looked, found, settings, base)),
        home / "check.html",
    )
    for caption, head, rows in tables:
        if rows:
            say(f"{caption}:", *_aligned([head, *rows]), "")
    say(f"all of them: {home / 'check.csv'}", f"pictures:    {page}")
    if must:
        raise FoundError(f"{sentence} {home / 'check.csv'} names them.")
    say(sentence)
    return {"run": str(home), "findings": counts, "page": str(page)}


def _left_out(data: DataModule, looked: Mapping[str, Looked], cached: bool | None) -> dict[str, Rows]:
    """Copies that training leaves out: those of a cache are told by their pixels, as here."""
    if not cached:
        return data.left_out()
    shown = {id(one.source): one.contents.view("V16")[:, 0] for one in looked.values()}
    clear = {id(one.source): one.readable & ~one.blank for one in looked.values()}

    def tell(known: Source, split: Source) -> Rows:
        among = set(shown[id(known)][clear[id(known)]].tolist())
        return np.flatnonzero([one in among for one in shown[id(split)].tolist()] & clear[id(split)])

    splits = {name: looked[name].source if name in looked else None for name in ("train", "val", "test")}
    return overlap.left_out(splits, overlap.held_out_copies(splits, tell))


def _masks(settings: Settings, sources: Mapping[str, Source]) -> Masks | None:
    """Those of the images, if there are to be some.

    Raises:
        ValueError: the images are no files.
    """
    if settings["labels"]["masks"] is None:
        return None
    if not all(isinstance(rooted(source, np.empty(0, np.int64))[0], FolderSource) for source in sources.values()):
        raise ValueError(f"labels.masks={settings['labels']['masks']}: masks lie beside images of a folder; give data=folder.")
    return Masks(settings["labels"]["images"], settings["labels"]["masks"])


def _sentence(name: str, known: Mapping[str, Mapping[str, Any]], found: Sequence[Finding], must: Sequence[Finding]) -> str:
    total = sum(one["samples"] for one in known.values())
    said = f"{name}: {total:,} samples in {', '.join(known)} were read"
    if must:
        sorts = [f"{sum(1 for _ in group)} {sort}" for sort, group in groupby(must, key=lambda one: one.sort)]
        return f"{said}, and before training must be mended: {', '.join(sorts)}."
    return f"{said}, and nothing must be mended" + (f"; {len(found)} things are good to know." if found else ".")


def _plain(known: Mapping[str, Any], found: Sequence[Finding]) -> dict[str, Any]:
    told = {
        sort: {
            "meaning": SORTS[sort],
            "count": len(group),
            "mend": group[0].mend,
            "examples": [one.name for one in group][:_EXAMPLES],
        }
        for sort, group in _by_sort(found)
    }
    return {"splits": dict(known), "findings": told}


def _by_sort(found: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """Groups, those that must be mended first."""
    groups = [(sort, list(group)) for sort, group in groupby(found, key=lambda one: one.sort)]
    groups = [(sort, sorted(group, key=lambda one: not one.mend)) for sort, group in groups]
    return sorted(groups, key=lambda group: not group[1][0].mend)


def _write_csv(found: Sequence[Finding], file: Path) -> None:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(_COLUMNS)
    rows.writerows([one.sort, one.mend, one.split, "" if one.row < 0 else one.row, one.name, one.detail] for one in found)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text.getvalue(), encoding="utf-8", newline="")
    partial.replace(file)


def _facts_table(known: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    rows: list[list[str]] = []
    for split, one in known.items():
        classes, kinds = one.get("classes"), one["kinds"]
        shown = ", ".join(f"{name} {count:,}" for name, count in list(kinds.items())[:4]) + (", ..." if len(kinds) > 4 else "")
        labels = "none"
        if classes:
            (least, few), (most, many) = next(iter(classes.items())), list(classes.items())[-1]
            labels = f"{len(classes)} classes, {few:,} ({printable(least)}) to {many:,} ({printable(most)})"
        elif pixels := one.get("pixels"):
            shares = [f"{label}: {100 * count / sum(pixels.values()):.3g} %" for label, count in pixels.items()]
            labels = f"of pixels, {', '.join(shares[:_LABELS])}{', ...' if len(shares) > _LABELS else ''}"
        sides = ["-" if one[side] is None else " / ".join(map(str, one[side])) for side in ("height", "width")]
        rows.append([split, f"{one['samples']:,}", str(one["unreadable"]), *sides, shown or "arrays", labels])
    head = ["split", "samples", "unreadable", "height", "width", "kinds", "labels"]
    return "Splits (sides in pixels: smallest / median / largest)", head, rows


def _findings_table(found: Sequence[Finding], base: str) -> tuple[str, list[str], list[list[str]]]:
    rows = [
        ["mend" if group[0].mend else "note", sort, f"{len(group):,}", SORTS[sort], _short(group[0].name, base)]
        for sort, group in _by_sort(found)
    ]
    return "Findings", ["", "finding", "samples", "what it means", "the first"], rows


def _short(name: str, base: str) -> str:
    """A name without the folder of the data, and not longer than a table has room for."""
    name = name.removeprefix(base)
    return name if len(name) <= _NAME else f"...{name[3 - _NAME :]}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _groups(
    looked: Mapping[str, Looked], found: Sequence[Finding], settings: Settings, base: str
) -> list[tuple[str, str, list[Shown]]]:
    """Pictures of each sort of finding, and some at random."""
    groups: list[tuple[str, str, list[Shown]]] = []
    for sort, group in _by_sort(found):
        figures = [_shown(looked, one, base) for one in group[:_EACH]]
        more = f"; {len(group):,} in all" if len(group) > _EACH else ""
        groups.append((f"{sort[0].upper()}{sort[1:]}", f"{SORTS[sort][0].upper()}{SORTS[sort][1:]}{more}.", figures))
    for split, one in looked.items():
        chosen = keyed.permutation(len(one.source), _RANDOM, settings["seed"])[: settings["pictures"]]
        figures = [_random(one, index, base) for index in sorted(chosen.tolist()) if index not in one.errors]
        groups.append((f"At random: {split}", f"{len(figures)} of {len(one.source):,} images, as they are read.", figures))
    return [group for group in groups if group[2]]


def _shown(looked: Mapping[str, Looked], one: Finding, base: str) -> Shown:
    pair = [(one.split, one.row), *([one.other] if one.other else [])]
    pictures = [_picture(looked[split], index) for split, index in pair if index >= 0 and index not in looked[split].errors]
    said = ": ".join(part for part in (one.split if one.row >= 0 else "", one.detail) if part)
    instead = {"unreadable": "cannot be read", "no samples": "no image"}.get(one.sort, "not read")
    return Shown([uri for uri in pictures if uri is not None], _short(one.name, base), said.replace(base, ""), instead)


def _random(looked: Looked, index: int, base: str) -> Shown:
    source, label = looked.source, ""
    if source.targets is not None:
        number = int(source.targets[index])
        label = printable(source.classes[number] if source.classes else number)
    height, width = looked.sizes[index].tolist()
    uri = _picture(looked, index)
    return Shown([] if uri is None else [uri], label or _short(printable(source.name(index)), base), f"{height} x {width}")


def _picture(looked: Looked, index: int) -> str | None:
    """Small enough for the page; tiny images are shown with large pixels."""
    try:
        image = looked.source.read(index)
    except BadSampleError:  # it could be read before: a disk that fails
        return None
    return report.picture(_small(image))


def _small(image: Tensor) -> Tensor:
    longest = max(image.shape[1:])
    if longest <= _SIDE:
        return image
    return tv.resize(image, [max(1, round(side * _SIDE / longest)) for side in image.shape[1:]], antialias=True)
