"""Assembles a page: one HTML file that loads nothing, runs one script of its own, and reads well on paper."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ssl_framework.report.page import answer, charts, comparison, gallery, parts, robustness, words
from ssl_framework.report.page.check import check
from ssl_framework.report.page.markup import Html, join, tag
from ssl_framework.report.page.parts import Section
from ssl_framework.report.page.study import Study

# style.PALETTE where the page is light: darker where a line would not be seen, 3:1 at least (WCAG 2.2, 1.4.11).
LIGHT = ("#2f7fc9", "#c07800", "#bd1f01", "#832db6", "#4a4f57", "#d65a00", "#1c939d", "#a96b59", "#8f8240", "#7c8d8b")
# style.PALETTE where the page is dark: lighter where the light one would sink into the background.
DARK = ("#5aa5ea", "#ffa90e", "#f2705a", "#b98ae0", "#c3c8d0", "#ff8a3c", "#92dadd", "#cf9a8b", "#cbbf86", "#9fb0ae")


def write_page(study: Mapping[str, Any], path: Path | str) -> Path:
    """Write the report of a study as one HTML file.

    The file is a pure function of `study`: the same study gives the same bytes. It loads nothing from elsewhere.

    Args:
        study: plain data; `ssl_framework.report.page.study.Study` says what belongs where. All parts but title, sentence,
            verdicts and rows are optional; without a part its section is left out.
        path: of the file; it is written whole or not at all.

    Returns:
        The path.

    Raises:
        ValueError: something in the study is missing, of another type or not finite; the message names the place.
    """
    known = check(study)
    sections = [
        answer.label_efficiency(known),
        answer.verdicts(known),
        answer.grid(known),
        answer.speed(known),
        answer.depth(known),
        robustness.robustness(known),
        gallery.embedding_map(known),
        gallery.neighbours(known),
        gallery.attention(known),
        gallery.training(known),
        gallery.views(known),
        words.environment(known),
        words.glossary(),
        words.limits(known),
    ]
    shown = [section for section in sections if section is not None]
    return write(_document(f"Does transfer pay? {known['title']}", answer.headline(known), shown, parts.sprite(known)), path)


def write_comparison(studies: Sequence[Mapping[str, Any]], path: Path | str) -> Path:
    """Write several studies side by side as one HTML file: verdicts, accuracy with few labels, every number.

    Args:
        studies: as for `write_page`, in the order in which they are shown.
        path: of the file; it is written whole or not at all.

    Returns:
        The path.

    Raises:
        ValueError: there is none, or see `write_page`.
    """
    known: list[Study] = []
    for order, study in enumerate(studies):
        try:
            known.append(check(study))
        except ValueError as error:
            raise ValueError(f"study {order + 1} of {len(studies)}: {error}") from error
    if not known:
        raise ValueError("a comparison needs at least one study, got none.")
    shown = [comparison.verdicts(known), comparison.label_efficiency(known), comparison.grids(known), words.glossary()]
    return write(_document("Does pretraining pay?", comparison.headline(known), shown, Html("")), path)


def document(title: str, body: Html, *, style: str = "", script: str | None = None) -> Html:
    """A page that loads nothing.

    Args:
        title: of the window.
        body: the element.
        style: rules of this page, behind those of all.
        script: the only one that may run; None: none may.
    """
    may = "'none'" if script is None else f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {may}"
    policy += "; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(f"{_palette()}\n{_text('style.css')}{style}")),
    )
    return Html(f"<!doctype html>\n{tag('html', head, body, lang='en')}\n")


def _document(title: str, header: Html, sections: Sequence[Section], sprite: Html) -> Html:
    script = _text("page.js")
    contents = [tag("li", tag("a", section.heading, href=f"#{section.name}")) for section in sections]
    toggle = tag("button", "Dark", type="button", id="theme", hidden=True)
    body = tag(
        "body",
        tag("a", "Skip to the report", href="#labels", class_="skip"),
        charts.markers(),
        sprite,
        tag(
            "div",
            header,
            tag("nav", tag("h2", "On this page"), tag("ol", *contents), toggle),
            tag("main", *map(_section, sections)),
            class_="page",
        ),
        tag("div", id="tip", role="status", hidden=True),
        tag("script", Html(script)),
    )
    return document(title, body, script=script)


def _section(section: Section) -> Html:
    heading = tag("h2", section.heading, id=f"{section.name}-heading")
    return tag("section", heading, *section.content, id=section.name, aria_labelledby=f"{section.name}-heading")


def _palette() -> str:
    """The colours of lines."""
    pairs = zip(LIGHT, DARK, strict=True)
    colours = "".join(f"--s{n}:light-dark({light},{dark});" for n, (light, dark) in enumerate(pairs))
    classes = join([Html(f".s{n}{{--c:var(--s{n})}}") for n in range(len(LIGHT))])
    return f":root{{{colours}}}\n{classes}"


def _text(name: str) -> str:
    return files("ssl_framework.report.page").joinpath(name).read_text(encoding="utf-8")


def write(page: Html, path: Path | str) -> Path:
    """Write a page, whole or not at all.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page, encoding="utf-8", newline="\n")
    os.replace(partial, path)  # noqa: PTH105  (Path.replace is the same call; os.replace says that it overwrites)
    return path
