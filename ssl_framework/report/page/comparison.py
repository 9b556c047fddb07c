"""Several studies side by side."""

from collections.abc import Sequence

from ssl_framework.metrics import budget_order
from ssl_framework.report.page import answer, charts, parts
from ssl_framework.report.page.markup import Content, Html, tag
from ssl_framework.report.page.parts import Section
from ssl_framework.report.page.study import Study, scratch


def headline(studies: Sequence[Study]) -> Html:
    """How often pretraining paid, and each study's own sentence."""
    verdicts = [verdict["verdict"] for study in studies for verdict in study["verdicts"]]
    judged, left = [one for one in verdicts if one != "not judged"], verdicts.count("not judged")
    paid = f"Pretraining paid in {judged.count('pays')} of {parts.count(len(judged), 'comparison')}"
    hurt = f" and hurt in {judged.count('hurts')}" if "hurts" in judged else ""
    hurt += f"; {left} could not be judged" if left else ""
    sentences = [tag("li", tag("b", study["title"]), ": ", study["sentence"]) for study in studies]
    return tag(
        "header",
        tag("p", parts.count(len(studies), "study").replace("studys", "studies"), class_="title"),
        tag("h1", f"{paid}{hurt}."),
        tag("ul", *sentences),
    )


def verdicts(studies: Sequence[Study]) -> Section:
    """Studies down, budgets across."""
    budgets = sorted({v["budget"] for s in studies for v in s["verdicts"]}, key=budget_order)
    body: list[list[Content]] = []
    for study in studies:
        found = {verdict["budget"]: verdict for verdict in study["verdicts"]}
        line: list[Content] = [study["title"]]
        for budget in budgets:
            if budget in found:
                one = found[budget]
                words = tag("span", parts.gain_text(one), class_="under"), tag("span", one["method"], class_="under")
                line.append(tag("td", parts.badge(one), *words))
            else:
                line.append(tag("td", "–", class_="none", title="not measured"))
        body.append(line)
    head = ("Study", *(parts.budget_text(budget, None) for budget in budgets))
    caption = "Verdict, gain over scratch in points of accuracy (95 % interval), and the method that was chosen on validation"
    return Section("labels", "Verdicts", [parts.table(caption, head, body)])


def label_efficiency(studies: Sequence[Study]) -> Section:
    """One chart a study: what was chosen, and scratch; the same height in all."""
    drawn = [_lines(study) for study in studies]
    y = parts.accuracy_axis([line for lines in drawn for line in lines])._replace(title="")
    x = parts.label_axis([line for lines in drawn for line in lines])._replace(title="labelled images")
    small: list[Html] = []
    for order, (study, lines) in enumerate(zip(studies, drawn, strict=True)):
        own = parts.label_axis(lines)
        chart = charts.small(f"study-{order}", study["title"], "Accuracy by labels.", lines, x._replace(ticks=own.ticks), y)
        small.append(tag("div", tag("h3", study["title"]), chart))
    caption = (
        "Accuracy on test images in per cent, on the same axes in all: the method chosen on validation, and scratch (thick)."
    )
    keys = charts.legend([line._replace(points=()) for line in drawn[0]])
    return Section(
        "curves", "Accuracy with few labels", [parts.figure(caption, keys, tag("div", *small, class_="multiples large"))]
    )


def grids(studies: Sequence[Study]) -> Section:
    """The table of each study."""
    content: list[Content] = []
    for study in studies:
        content += [tag("h3", study["title"]), answer.grid_table(study)]
    return Section("grid", "Every method, every number of labels", content)


def _lines(study: Study) -> list[charts.Line]:
    """Scratch, and at each budget the method that was chosen there."""
    base, picked = scratch(study), {verdict["labels"]: verdict["method"] for verdict in study["verdicts"]}
    lines = {line.name: line for line in parts.efficiency_lines(study)}
    chosen = [
        point
        for labels, method in sorted(picked.items())
        if method in lines
        for point in lines[method].points
        if point.x == labels
    ]
    found = [charts.Line("chosen", chosen, charts.Look("s0", 1, None))]
    return [lines[base]._replace(name="scratch"), *found] if base in lines else found
