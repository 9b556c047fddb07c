"""A contact sheet: the odd images of a data set and some at random, with a table, as one HTML file that loads nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_framework.report.page.markup import Html, join, tag
from ssl_framework.report.page.page import document, write


class Shown(NamedTuple):
    """One figure of the sheet.

    Attributes:
        pictures: data URIs, as `ssl_framework.report.picture` makes them; two of images that are compared; none: it cannot be
            read.
        name: of the sample.
        detail: in a few words.
        instead: what stands in place of no picture.
    """

    pictures: Sequence[str]
    name: str
    detail: str
    instead: str = ""


class Sheet(NamedTuple):
    """What is shown.

    Attributes:
        title: of the page.
        sentence: what was found.
        fine: whether nothing must be mended.
        tables: caption, head and rows of each.
        groups: heading, a sentence, and figures of each; small ones stand beside each other.
    """

    title: str
    sentence: str
    fine: bool
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]
    groups: Sequence[tuple[str, str, Sequence[Shown]]]


_BESIDE = 4  # figures of a group that may stand beside others
_STYLE = """
.sheet { max-width: 80rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
.groups, .figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(11rem, 100%), 1fr)); gap: 1.1rem; }
.groups { margin-top: 2rem; }
.groups section { display: grid; grid-template-columns: subgrid; grid-template-rows: subgrid; grid-row: span 3; min-width: 0;
  gap: .3rem 1.1rem; padding: .8rem 0; }
.groups section > * { grid-column: 1 / -1; margin: 0; }
.groups h2 { font-size: 1.1rem; }
.groups p { font-size: .9rem; color: var(--muted); }
@media (max-width: 52rem) { .groups section { grid-column: 1 / -1 !important; } }
.figures figure { margin: 0; min-width: 0; }
.frame { display: flex; gap: .3rem; align-items: center; justify-content: center; height: 9rem; padding: .4rem;
  border-radius: 8px; background: var(--panel); color: var(--no); font-weight: 600; }
.frame img { min-width: 0; width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; }
.frame img + img { border-left: 1px solid var(--grid); }
.figures figcaption { margin-top: .35rem; line-height: 1.35; font-size: .85rem; }
.figures figcaption b { display: block; color: var(--ink); font-weight: 600; }
"""


def write_sheet(sheet: Sheet, path: Path | str) -> Path:
    """Write the sheet, whole or not at all.

    Args:
        sheet: what is shown.
        path: of the file.

    Returns:
        The path.
    """
    badge = tag("span", "fine" if sheet.fine else "must be mended", class_=f"badge {'yes' if sheet.fine else 'no'}")
    body = tag(
        "body",
        tag(
            "div",
            tag("header", tag("h1", sheet.title), tag("p", badge, " ", sheet.sentence, class_="lead")),
            tag("main", *map(_table, sheet.tables), tag("div", *map(_group, sheet.groups), class_="groups")),
            class_="sheet",
        ),
    )
    return write(document(sheet.title, body, style=_STYLE), path)


def _table(table: tuple[str, Sequence[str], Sequence[Sequence[str]]]) -> Html:
    caption, head, rows = table
    lines = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    heads = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))
    return tag("div", tag("table", tag("caption", caption), heads, tag("tbody", *lines)), class_="scroll", tabindex="0")


def _group(group: tuple[str, str, Sequence[Shown]]) -> Html:
    heading, sentence, figures = group
    columns = f"span {len(figures)}" if len(figures) <= _BESIDE else "1 / -1"
    shown = tag("div", *map(_figure, figures), class_="figures")
    return tag("section", tag("h2", heading), tag("p", sentence), shown, style=f"grid-column: {columns}")


def _figure(shown: Shown) -> Html:
    images = join(tag("img", src=uri, alt="") for uri in shown.pictures)
    frame = tag("div", images if shown.pictures else shown.instead, class_="frame")
    return tag("figure", frame, tag("figcaption", tag("b", shown.name), shown.detail))
