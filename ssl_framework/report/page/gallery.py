"""What the network sees: a map, nearest neighbours, attention, how pretraining went, samples and their views."""

from collections.abc import Sequence

from ssl_framework.report.page import charts, parts, scatter
from ssl_framework.report.page.markup import Html, tag
from ssl_framework.report.page.parts import Section
from ssl_framework.report.page.study import Study

_CURVE_MOST = 200  # points of a curve: more than there are pixels to tell them apart


def embedding_map(study: Study) -> Section | None:
    """Images in the plane, near each other where the network finds them alike."""
    found = study.get("map")
    if found is None or not found["points"]:
        return None
    spots = [scatter.Spot(*point) for point in found["points"]]
    title = "Map of the images as the pretrained network sees them"
    description = f"{len(spots):,} images of {len(found['classes'])} classes: {', '.join(found['classes'])}."
    chart = scatter.scatter("map", title, description, spots, found["classes"])
    hover = " Point at a mark to see its image, or press Tab and then the arrow keys." if found.get("thumbnails") else ""
    caption = (
        "Each mark is an image, its colour and shape its class. Classes that form islands are easy to tell apart, for people "
        f"and for a simple classifier. Distances between far islands mean little.{hover}"
    )
    return Section("map", "What the network finds alike", [parts.figure(caption, tag("div", chart, class_="chart map"))])


def neighbours(study: Study) -> Section | None:
    """Images and those that are nearest to them."""
    found = study.get("neighbours", [])
    if not found:
        return None
    show = parts.painter(study)
    lines: list[Html] = []
    for number, one in enumerate(found, 1):
        answers: list[Html] = []
        for place, (image, right) in enumerate(zip(one["answers"], one["right"], strict=True), 1):
            word, sign = ("same class", "✓") if right else ("other class", "✗")
            kind = "yes" if right else "no"
            picture = show(image, f"Neighbour {place} of query {number}: {word}", kind)
            answers.append(tag("span", picture, tag("span", sign, class_=f"sign {kind}", aria_hidden="true"), class_="answer"))
        query = show(one["query"], f"Query {number}", "query")
        lines.append(tag("li", query, tag("span", "→", class_="arrow", aria_hidden="true"), *answers))
    rights = [right for one in found for right in one["right"]]
    caption = (
        f"Left: an image. Right: what the network finds most alike, nearest first; ✓ has the same class, "
        f"✗ has not. {sum(rights)} of these {len(rights)} are right."
    )
    return Section("neighbours", "Nearest neighbours", [parts.figure(caption, tag("ul", *lines, class_="neighbours"))])


def attention(study: Study) -> Section | None:
    """Where the network looks."""
    found = study.get("attention", [])
    if not found:
        return None
    show = parts.painter(study)
    words = "{}: the image, and beside it the same, bright where the network looks"
    pictures = [
        tag("li", show(one["image"], words.format(one["caption"])), tag("span", one["caption"], class_="small"))
        for one in found
    ]
    caption = (
        "Left the image, right the same: bright is where the network looks. It tells what it uses, not that it understands."
    )
    return Section("attention", "Where the network looks", [parts.figure(caption, tag("ul", *pictures, class_="pictures"))])


def training(study: Study) -> Section | None:
    """Curves of the pretraining, one chart each: their units differ."""
    found = {name: curve for name, curve in study.get("training", {}).items() if curve}
    if not found:
        return None
    small: list[Html] = []
    for order, (name, curve) in enumerate(found.items()):
        drawn = _thinned(curve)
        line = charts.Line(name, [charts.Point(x, y, "") for x, y in drawn], charts.Look("s0", 0, None))
        steps = [x for x, _ in drawn]
        marks = charts.ticks(min(steps), max(steps), 4) if len(steps) > 1 else steps
        x = charts.Axis("step", min(steps), max(steps), [(mark, f"{mark:,.0f}") for mark in marks])
        title = name.replace("/", " ").replace("_", " ")
        words = f"From {drawn[0][1]:.4g} to {drawn[-1][1]:.4g} in {max(x for x, _ in curve):,.0f} steps."
        y = charts.linear("", [y for _, y in drawn], most=4)
        small.append(
            tag(
                "div",
                tag("h3", title),
                charts.small(f"training-{order}", title, words, [line], x, y),
                tag("p", words, class_="small"),
            )
        )
    thinned = any(len(curve) > _CURVE_MOST for curve in found.values())
    caption = "A loss should fall and a score should rise; a curve that is still moving at its end asks for longer pretraining."
    caption += " Long curves are averaged in short stretches." if thinned else ""
    return Section("training", "How pretraining went", [parts.figure(caption, tag("div", *small, class_="multiples"))])


def views(study: Study) -> Section | None:
    """Samples, and what the network was shown of them."""
    found = study.get("views", [])
    if not found:
        return None
    show = parts.painter(study)
    lines: list[Html] = []
    for number, one in enumerate(found, 1):
        made = [show(view, f"View {place} of image {number}") for place, view in enumerate(one["views"], 1)]
        lines.append(
            tag(
                "li",
                show(one["original"], f"Image {number}", "query"),
                tag("span", "→", class_="arrow", aria_hidden="true"),
                *made,
            )
        )
    caption = "Left: an image of the data. Right: the views that pretraining made of it, by chance, anew each time."
    return Section(
        "views", "The data, and what pretraining saw of it", [parts.figure(caption, tag("ul", *lines, class_="neighbours"))]
    )


def _thinned(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over equal stretches, in the order of the steps, so that no more than `_CURVE_MOST` points are left."""
    ordered = sorted((float(step), float(value)) for step, value in curve)
    size = -(-len(ordered) // _CURVE_MOST)
    stretches = [ordered[n : n + size] for n in range(0, len(ordered), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in stretches]
