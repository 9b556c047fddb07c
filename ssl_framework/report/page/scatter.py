"""A map of points as inline SVG, for one chart only: where images lie, and what class they have."""

from collections.abc import Sequence
from typing import NamedTuple

from ssl_framework.report import style
from ssl_framework.report.page.charts import cut, svg
from ssl_framework.report.page.markup import Html, tag

_WIDTH, _HEIGHT, _EDGE = 480, 400, 16
_NAMED_MOST = 30  # classes whose names stand in the map
_LINE, _LETTER = 18, 9  # pixels of a name


class Spot(NamedTuple):
    """One point: place in the plane, class, thumbnail."""

    x: float
    y: float
    kind: int
    image: int | None


def scatter(name: str, title: str, description: str, spots: Sequence[Spot], classes: Sequence[str]) -> Html:
    """Points in equal scale across and up; the name of each class stands at the most central of its points."""
    placed = _placed(spots)
    groups: list[Html] = []
    names: list[tuple[str, float, float]] = []
    for kind, label in enumerate(classes):
        own = [(place, spot.image) for place, spot in zip(placed, spots, strict=True) if spot.kind == kind]
        if own:
            dots = [tag("use", href=f"#m{kind % len(style.MARKERS)}", x=x, y=y, data_i=image) for (x, y), image in own]
            groups.append(tag("g", *dots, class_=f"dots s{kind % len(style.PALETTE)}", data_name=f"class {label}"))
            names.append(_free(cut(label), _medoid([place for place, _ in own]), names))
    words = [tag("text", text, x=x, y=y + 5, class_="halo") for text, x, y in names] if len(names) <= _NAMED_MOST else []
    return svg(name, (title, description), (_WIDTH, _HEIGHT), [*groups, *words])


def _placed(spots: Sequence[Spot]) -> list[tuple[float, float]]:
    """Places in pixels, in the middle of the drawing."""
    xs, ys = [spot.x for spot in spots], [spot.y for spot in spots]
    wide, high = max(xs) - min(xs), max(ys) - min(ys)
    scale = min((_WIDTH - 2 * _EDGE) / (wide or 1), (_HEIGHT - 2 * _EDGE) / (high or 1))
    left, top = _WIDTH / 2 - scale * (min(xs) + wide / 2), _HEIGHT / 2 + scale * (min(ys) + high / 2)
    return [(left + scale * spot.x, top - scale * spot.y) for spot in spots]


def _medoid(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The place nearest to the median of both coordinates."""
    middle_x, middle_y = (sorted(values)[len(places) // 2] for values in zip(*places, strict=True))
    return min(places, key=lambda place: abs(place[0] - middle_x) + abs(place[1] - middle_y))


def _free(text: str, place: tuple[float, float], taken: Sequence[tuple[str, float, float]]) -> tuple[str, float, float]:
    """The place, or the nearest above or below it where the name covers no other."""
    x, y = place
    for n in range(2 * len(taken) + 1):
        level = y + (_LINE * (n + 1) // 2) * (1 if n % 2 else -1)
        apart = (
            abs(x - other) >= _LETTER * (len(text) + len(name)) / 2 or abs(level - up) >= _LINE for name, other, up in taken
        )
        if all(apart):
            return text, x, level
    return text, x, y
