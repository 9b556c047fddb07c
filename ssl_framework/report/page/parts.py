"""What several sections share: tables, figures, images, and numbers as people read them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_framework.report.page import charts
from ssl_framework.report.page.check import png_size
from ssl_framework.report.page.markup import Content, Html, tag
from ssl_framework.report.page.study import Answer, Budget, Image, Study, Verdict, scratch
from ssl_framework.report.table import Summary, budget_label, summarise

ANSWERS: Mapping[Answer, tuple[str, str]] = {
    "pays": ("yes", "✓ pays"),
    "no evidence": ("open", "? no evidence"),
    "hurts": ("no", "✗ hurts"),
    "not judged": ("open", "– not judged"),
}


class Section(NamedTuple):
    """A part of the page: `name` is its anchor, `heading` stands in the table of contents too."""

    name: str
    heading: str
    content: Sequence[Content]


def percent(share: float) -> str:
    """0.771 becomes ``77.1 %``."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """0.123 becomes ``+12.3``, with a real minus sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def count(number: float, thing: str) -> str:
    """``1 label``, ``1,437 labels``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def factor(value: float | None) -> str:
    """2.34 becomes ``2.3×``; ``n/a`` where there is none."""
    if value is None:
        return "n/a"
    return f"{value:.0f}×" if value >= 20 else f"{value:.1f}×" if value >= 0.95 else f"{value:.2f}×"


def duration(seconds: float) -> str:
    """Seconds as people say them, to two units."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def gain_text(verdict: Verdict) -> str:
    """``+12.3 (+9.0 to +15.6)``, in points."""
    mean, low, high = verdict["gain"]
    ends = "" if low is None or high is None else f" ({points(low)} to {points(high)})"
    return f"{points(mean)}{ends}"


def p_text(p: float | None) -> str:
    """A p-value to two digits, without pretending to know tiny ones."""
    return "n/a" if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def badge(verdict: Verdict) -> Html:
    """The answer in a coloured box, with a sign and a word for those who do not see the colour."""
    kind, text = answer(verdict)
    return tag("span", text, class_=f"badge {kind}")


def answer(verdict: Verdict) -> tuple[str, str]:
    """Its colour, and what the box says."""
    kind, text = ANSWERS[verdict["verdict"]]
    if verdict.get("rival"):
        text = "? beats scratch, not every simpler way"
    return kind, text


def condensed(study: Study) -> Summary:
    """Means and intervals over the runs that were made."""
    return summarise(row for row in study["rows"] if not row.get("na"))


def label_counts(study: Study) -> dict[Budget, int]:
    """How many labels each budget is, in all."""
    measured = {row["budget"]: row["labels"] for row in study["rows"] if "labels" in row and not row.get("na")}
    return {**measured, **{verdict["budget"]: verdict["labels"] for verdict in study["verdicts"]}}


def budget_text(budget: Budget, labels: int | None) -> str:
    """``10 labels/class, 100 in all``."""
    return budget_label(budget) if labels is None else f"{budget_label(budget)}, {labels:,} in all"


def chosen(study: Study) -> str | None:
    """The method of the verdict with the fewest labels."""
    return min(study["verdicts"], key=lambda verdict: verdict["labels"])["method"] if study["verdicts"] else None


def efficiency_lines(study: Study, methods: Iterable[str] | None = None) -> list[charts.Line]:
    """Accuracy in per cent against labels, one line a method, the 95 % t interval as its band."""
    summary, labels = condensed(study), label_counts(study)
    names = list(summary.methods if methods is None else methods)
    styles = charts.looks(names, scratch(study) if scratch(study) in names else None)
    found: list[charts.Line] = []
    for name in names:
        cells = [(labels[b], summary.cells[name, b]) for b in summary.budgets if (name, b) in summary.cells]
        drawn = [
            charts.Point(
                x,
                100 * cell.mean,
                f"{name}, {count(x, 'label')}: {cell} % right ({count(cell.seeds, 'seed')})",
                None if cell.half_width is None else 100 * max(0.0, cell.mean - cell.half_width),
                None if cell.half_width is None else 100 * min(1.0, cell.mean + cell.half_width),
            )
            for x, cell in sorted(cells)
        ]
        found.append(charts.Line(name, drawn, styles[name]))
    return found


def label_axis(lines: Sequence[charts.Line]) -> charts.Axis:
    """Labels on a logarithmic axis, marked where something was measured."""
    values = sorted({point.x for line in lines for point in line.points})
    return charts.Axis(
        "labelled images (logarithmic)",
        values[0] / 1.2,
        values[-1] * 1.2,
        [(v, f"{v:,.0f}") for v in values],
        log=True,
    )


def accuracy_axis(lines: Sequence[charts.Line]) -> charts.Axis:
    """Per cent, around all lines and bands, and never far beyond 100."""
    values = [v for line in lines for p in line.points for v in (p.y, p.low, p.high) if v is not None]
    write = "{:.0f}".format if max(values) - min(values) > 4 else "{:.4g}".format
    axis = charts.linear("right answers on test images (%)", values, write)
    return axis._replace(high=min(axis.high, max(101.0, *values)), low=max(axis.low, 0.0))


def figure(caption: Content, *content: Content, **attributes: Content) -> Html:
    """Something to look at, and below it what it shows."""
    return tag("figure", *content, tag("figcaption", caption), **attributes)


def table(caption: Content, head: Sequence[Content], body: Sequence[Sequence[Content]], **attributes: Content) -> Html:
    """A table that scrolls by itself where the page is narrow; the first cell of a line names the line."""
    columns = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    rows = [tag("tr", tag("th", line[0], scope="row"), *(_cell(cell) for cell in line[1:])) for line in body]
    whole = tag("table", tag("caption", caption), tag("thead", columns), tag("tbody", *rows), **attributes)
    return tag(
        "div", whole, class_="scroll", tabindex=0, role="group", aria_label="Table; scrolls sideways where it is too wide"
    )


def bullets(items: Iterable[Content], **attributes: Content) -> Html:
    """A list."""
    return tag("ul", *(tag("li", item) for item in items), **attributes)


def copyable(text: str) -> Html:
    """A command with a button that copies it."""
    button = tag("button", "Copy", type="button", class_="copy", hidden=True, aria_label=f"Copy the command {text[:80]}")
    return tag("div", tag("pre", tag("code", text), tabindex=0), button, class_="command")


def painter(study: Study) -> Callable[..., Html]:
    """A function that shows an image, from the sprite of thumbnails or a data URI: ``show(image, words, class_)``."""
    thumbnails = study.get("map", {}).get("thumbnails")

    def show(image: Image, words: str, class_: str = "") -> Html:
        if isinstance(image, str):
            return tag("img", src=image, alt=words, class_=f"image {class_}".strip())
        assert thumbnails is not None, "study.check counts thumbnails"
        line, column = divmod(image, thumbnails["columns"])
        size = thumbnails["size"]
        box = f"{column * size} {line * size} {size} {size}"
        drawn = tag("use", href="#sprite")
        return tag("svg", tag("title", words), drawn, viewBox=box, role="img", class_=f"image {class_}".strip())

    return show


def sprite(study: Study) -> Html:
    """The thumbnails, once; everything that shows one refers to it."""
    thumbnails = study.get("map", {}).get("thumbnails")
    if thumbnails is None:
        return Html("")
    width, height = png_size(thumbnails["data"])
    image = tag("image", id="sprite", href=thumbnails["data"], width=width, height=height)
    extra: dict[str, Any] = {"data_columns": thumbnails["columns"], "data_size": thumbnails["size"]}
    return tag("svg", tag("defs", image), id="thumbnails", class_="defs", aria_hidden="true", width=0, height=0, **extra)


def notes(reasons: Sequence[str]) -> Html:
    """Numbered reasons below a table."""
    return tag("ol", *(tag("li", reason) for reason in reasons), class_="notes") if reasons else Html("")


def _cell(content: Content) -> Html:
    return content if isinstance(content, Html) and content.startswith("<td") else tag("td", content)
