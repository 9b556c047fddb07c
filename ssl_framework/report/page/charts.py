"""Charts as inline SVG: lines with bands, and intervals beside a zero line.

A chart is drawn twice, wide and for a phone, and style.css shows one of them: letters stay as large as the text around them.
Colours are classes (``s0``, ``s1``, ... and ``strong``), so that a theme can change them; dashes and markers tell lines apart
where colours do not.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssl_framework.report import style
from ssl_framework.report.page.markup import Html, join, number, tag

# Shapes that fit a circle of radius 4, in the order of style.MARKERS.
MARKER_PATHS = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "s": "M-3.5-3.5h7v7h-7z",
    "^": "M0-4.6L4.4 3.4H-4.4z",
    "D": "M0-4.8L4.8 0L0 4.8L-4.8 0z",
    "v": "M0 4.6L4.4-3.4H-4.4z",
    "P": "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "X": "M0-1.9L2.4-4.4L4.4-2.4L1.9 0L4.4 2.4L2.4 4.4L0 1.9L-2.4 4.4L-4.4 2.4L-1.9 0L-4.4-2.4L-2.4-4.4z",
}
_DASHES = (None, "7 3", "2 3", "9 3 2 3")
_NAMES_MOST = 23  # letters of a name beside its line


class Look(NamedTuple):
    """How a line is told apart: class of its colour, number of its marker, dash."""

    colour: str
    marker: int
    dash: str | None


class Point(NamedTuple):
    """One value with its interval (None where there is none), and what hovering it says."""

    x: float
    y: float
    tip: str
    low: float | None = None
    high: float | None = None


class Line(NamedTuple):
    """A named line; its points are in the order of x."""

    name: str
    points: Sequence[Point]
    look: Look
    bars: bool = False


class Axis(NamedTuple):
    """What an axis says and spans; `ticks` are (value, text)."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high end."""
        a, b, v = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return 0.5 if a == b else (v - a) / (b - a)


def looks(names: Sequence[str], strong: str | None = None) -> dict[str, Look]:
    """A look for each name: `strong` is drawn in the colour of the text, the others follow the palette."""
    others = [name for name in names if name != strong]
    found = {name: Look(f"s{n % len(style.PALETTE)}", 1 + n, _DASHES[n % len(_DASHES)]) for n, name in enumerate(others)}
    return found if strong is None else {strong: Look("strong", 0, None), **found}


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many round numbers (1, 2 or 5 times a power of ten, apart by the same) from `low` to `high`."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) < most)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def linear(title: str, values: Sequence[float], write: Callable[[float], str] = "{:.4g}".format, most: int = 6) -> Axis:
    """An axis a little wider than `values`, with round numbers on it."""
    low, high = min(values), max(values)
    edge = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - edge, high + edge
    return Axis(title, low, high, [(mark, write(mark)) for mark in ticks(low, high, most)])


def markers() -> Html:
    """The shapes that all charts of a page share; it belongs into the page once."""
    shapes = [tag("path", id=f"m{n}", d=MARKER_PATHS[name]) for n, name in enumerate(style.MARKERS)]
    return tag("svg", tag("defs", *shapes), class_="defs", aria_hidden="true", width=0, height=0)


def lines(
    name: str,
    title: str,
    description: str,
    drawn: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    rule: float | None = None,
    notes: Sequence[tuple[float, float, str]] = (),
    names: bool = True,
) -> Html:
    """Lines over one another, with their intervals.

    Args:
        name: short, of letters: makes ids.
        title: read aloud.
        description: read aloud after it: what is to be seen.
        drawn: at least one line; the strong one is drawn last, on top.
        x: across.
        y: upwards.
        rule: height of a dashed line across.
        notes: words in the chart: x, y, text.
        names: whether each line's name stands at its end, where there is room.
    """
    words, axes = (title, description), (x, y)
    wide = _lines(f"{name}-wide", words, drawn, axes, size=(760, 400), names=names, rule=rule, notes=notes)
    narrow = _lines(f"{name}-narrow", words, drawn, axes, size=(350, 300), rule=rule, notes=notes)
    return join([_shown(wide, "wide"), _shown(narrow, "narrow")])


def small(name: str, title: str, description: str, drawn: Sequence[Line], x: Axis, y: Axis) -> Html:
    """A chart among many others: small, the same everywhere."""
    return _lines(name, (title, description), drawn, (x, y), size=(240, 170))


def legend(drawn: Sequence[Line]) -> Html:
    """A button for each line, which hides and shows it."""
    keys = [
        tag(
            "button",
            tag("svg", _stroke(line.look, "M0 7H28"), _marker(line.look, 14, 7), width=28, height=14, aria_hidden="true"),
            tag("span", line.name),
            type="button",
            class_="key",
            aria_pressed="true",
            data_line=line.name,
        )
        for line in drawn
    ]
    return tag("div", *keys, class_="legend", role="group", aria_label="Lines shown")


def intervals(name: str, title: str, description: str, rows: Sequence[tuple[str, str, Point]], x: Axis) -> Html:
    """One interval a line beside zero: (name, class, point), the point's x being the value, low and high its ends."""
    wide = _intervals(f"{name}-wide", (title, description), rows, x, width=760, left=150)
    narrow = _intervals(f"{name}-narrow", (title, description), rows, x, width=350, left=118)
    return join([_shown(wide, "wide"), _shown(narrow, "narrow")])


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved apart until neighbours are `gap` away, as little as it takes, within [low, high] where that has room."""
    gap = min(gap, (high - low) / max(1, len(places) - 1))
    blocks: list[list[int]] = []  # places that touch, and move as one

    def first(block: Sequence[int]) -> float:
        middle = sum(places[member] - gap * n for n, member in enumerate(block)) / len(block)
        return max(low, min(middle, high - gap * (len(block) - 1)))

    for one in sorted(range(len(places)), key=places.__getitem__):
        blocks.append([one])
        while len(blocks) > 1 and first(blocks[-1]) < first(blocks[-2]) + gap * len(blocks[-2]):
            later = blocks.pop()
            blocks[-1] += later
    moved = {member: first(block) + gap * n for block in blocks for n, member in enumerate(block)}
    return [moved[n] for n in range(len(places))]


def _shown(chart: Html, where: str) -> Html:
    return tag("div", chart, class_=f"chart {where}")


def svg(name: str, words: tuple[str, str], size: tuple[float, float], content: Sequence[Html]) -> Html:
    """A drawing whose marks can be pointed at; `words` are its title and description, which are read aloud."""
    title, description = words
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        *content,
        viewBox=f"0 0 {number(size[0])} {number(size[1])}",
        role="group",
        aria_labelledby=f"{name}-title",
        aria_describedby=f"{name}-desc",
        data_hover=True,
    )


def _stroke(look: Look, path: str) -> Html:
    return tag("path", d=path, class_=f"line {look.colour}", stroke_dasharray=look.dash)


def _marker(look: Look, x: float, y: float, tip: str | None = None) -> Html:
    shape = f"#m{look.marker % len(style.MARKERS)}"
    spoken = {"role": "img", "aria_label": tip, "data_tip": tip} if tip else {}
    return tag("use", href=shape, x=x, y=y, class_=f"dot {look.colour}", **spoken)


def _lines(
    name: str,
    words: tuple[str, str],
    drawn: Sequence[Line],
    axes: tuple[Axis, Axis],
    *,
    size: tuple[int, int],
    names: bool = False,
    rule: float | None = None,
    notes: Sequence[tuple[float, float, str]] = (),
) -> Html:
    (x, y), (width, height) = axes, size
    left, top, right, bottom = 52, 26 if y.title else 10, width - (178 if names else 16), height - (48 if x.title else 26)

    def at(across: float, up: float) -> tuple[float, float]:
        return left + x.place(across) * (right - left), bottom - y.place(up) * (bottom - top)

    parts = [_frame(x, y, (left, top, right, bottom))]
    if rule is not None:
        parts.append(tag("path", d=f"M{left} {number(at(x.low, rule)[1])}H{right}", class_="rule"))
    ordered = sorted(drawn, key=lambda line: line.look.colour == "strong")
    parts += [tag("g", *_line(line, at), class_="series", data_line=line.name) for line in ordered if line.points]
    if names:
        ended = [line for line in drawn if line.points]
        ends = [at(line.points[-1].x, line.points[-1].y) for line in ended]
        for line, end, level in zip(ended, ends, spread([e[1] for e in ends], 15, top, bottom), strict=True):
            leader = f"M{number(end[0] + 7)} {number(end[1])}L{right + 16} {number(level)}"
            label = tag("text", cut(line.name), x=right + 20, y=level + 4, class_=f"end {line.look.colour}")
            parts.append(tag("g", tag("path", d=leader, class_="leader"), label, data_line=line.name))
    for across, up, text in notes:
        place = at(across, up)
        parts.append(tag("text", text, x=place[0], y=place[1] - 12, class_="note middle"))
    return svg(name, words, size, parts)


def _line(line: Line, at: Callable[[float, float], tuple[float, float]]) -> list[Html]:
    parts: list[Html] = []
    known = [(p, p.low, p.high) for p in line.points if p.low is not None and p.high is not None]
    if line.bars:
        for point, low, high in known:
            (px, bottom), (_, top) = at(point.x, low), at(point.x, high)
            parts.append(tag("path", d=f"M{number(px)} {number(bottom)}V{number(top)}", class_=f"bar {line.look.colour}"))
    elif len(known) > 1:
        around = [at(p.x, high) for p, _, high in known] + [at(p.x, low) for p, low, _ in reversed(known)]
        parts.append(tag("path", d=f"{_path(around)}Z", class_=f"band {line.look.colour}"))
    parts.append(_stroke(line.look, _path([at(p.x, p.y) for p in line.points])))
    if any(point.tip for point in line.points):
        parts += [_marker(line.look, *at(p.x, p.y), tip=p.tip) for p in line.points]
    return parts


def _frame(x: Axis, y: Axis, box: tuple[int, int, int, int]) -> Html:
    left, top, right, bottom = box
    parts: list[Html] = []
    for value, text in y.ticks:
        level = bottom - y.place(value) * (bottom - top)
        parts.append(tag("path", d=f"M{left} {number(level)}H{right}", class_="grid"))
        parts.append(tag("text", text, x=left - 7, y=level + 4, class_="tick right"))
    taken = -math.inf
    for value, text in x.ticks:
        place, half = left + x.place(value) * (right - left), 3.6 * len(text)
        if place - half > taken + 6:
            parts.append(tag("text", text, x=place, y=bottom + 18, class_="tick middle"))
            taken = place + half
    if x.title:
        parts.append(tag("text", x.title, x=(left + right) / 2, y=bottom + 38, class_="tick middle"))
    if y.title:
        parts.append(tag("text", y.title, x=left - 40, y=12, class_="tick"))
    return tag("g", *parts, aria_hidden="true")


def _intervals(
    name: str, words: tuple[str, str], rows: Sequence[tuple[str, str, Point]], x: Axis, *, width: int, left: int
) -> Html:
    step, top, right = 34, 8, width - 16
    bottom = top + step * len(rows)

    def at(value: float) -> str:
        return number(left + min(1.0, max(0.0, x.place(value))) * (right - left))

    parts = [tag("path", d=f"M{at(value)} {top}V{bottom}", class_="grid") for value, _ in x.ticks]
    parts.append(tag("path", d=f"M{at(0)} {top}V{bottom}", class_="zero"))
    parts += [tag("text", text, x=at(value), y=bottom + 18, class_="tick middle") for value, text in x.ticks]
    parts.append(tag("text", x.title, x=(left + right) / 2, y=bottom + 40, class_="tick middle"))
    for n, (label, colour, point) in enumerate(rows):
        level = top + step * n + step / 2
        parts.append(tag("text", label, x=left - 12, y=level + 5, class_="name right"))
        if point.low is not None and point.high is not None:
            ends = f"M{at(point.low)} {number(level)}H{at(point.high)}"
            parts.append(tag("path", d=ends, class_=f"span {colour}"))
        dot = tag(
            "use",
            href="#m0",
            x=at(point.x),
            y=level,
            class_=f"dot {colour}",
            role="img",
            aria_label=point.tip,
            data_tip=point.tip,
        )
        parts.append(dot)
    return svg(name, words, (width, bottom + 48), parts)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in places)


def cut(text: str) -> str:
    """A name short enough to stand in a chart."""
    return text if len(text) <= _NAMES_MOST else f"{text[: _NAMES_MOST - 1]}…"
