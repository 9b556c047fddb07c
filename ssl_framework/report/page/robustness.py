"""How much harder inputs cost: corruptions, noise, attacks, wrong labels; and, in words, where pretraining does not help."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ssl_framework.report.page import charts, parts
from ssl_framework.report.page.markup import Content, Html, tag
from ssl_framework.report.page.parts import Section
from ssl_framework.report.page.study import Robustness, Study, scratch

_SAME = 0.01  # a single number moves by a point from chance alone
_SWEEPS = (
    ("noise", "Random signs", "size, where 1 is black to white"),
    ("fgsm", "One-step attack (FGSM)", "size of the change"),
    ("pgd", "Many-step attack (PGD)", "size of the change"),
    ("label_noise", "Wrong training labels", "share that is wrong"),
)


class _Measure(NamedTuple):
    name: str
    value: float
    percent: bool = True


class _Small(NamedTuple):
    title: str
    lines: Sequence[charts.Line]
    x: charts.Axis


def robustness(study: Study) -> Section | None:
    """Tables and small charts of every method, after what they say in words."""
    found = study.get("robustness", {})
    if not found:
        return None
    base = scratch(study)
    looks = charts.looks(list(found), base if base in found else None)
    note = study.get("robustness_note")
    content: list[Content] = [tag("p", note) if note else None, _words(found, base), _summary(found), _attacks(found)]
    corruptions = list(dict.fromkeys(name for measured in found.values() for name in measured.get("corruptions", {})))
    if corruptions:
        content += [tag("h3", "Corrupted images"), _heat(found, corruptions)]
        words = (
            "Accuracy in per cent, from the clean image (0) to the strongest corruption (5). A flat line is a robust method."
        )
        drawn = [_corruption(name, found, looks) for name in corruptions]
        content.append(_group("corruption", words, found, looks, drawn))
    sweeps = [_sweep(key, title, unit, found, looks) for key, title, unit in _SWEEPS if any(m.get(key) for m in found.values())]
    if sweeps:
        words = (
            "Accuracy in per cent as the disturbance grows. An attack changes each pixel by at most its size, so as to mislead."
        )
        content += [tag("h3", "Noise, attacks and wrong labels"), _group("sweep", words, found, looks, sweeps)]
    return Section("robustness", "Does it hold up on harder images?", content)


def _words(found: dict[str, Robustness], base: str) -> Html:
    if base not in found:
        return tag("p", f"Nothing was measured for {base}, so this says how methods compare with each other only.")
    floor = {measure.name: measure for measure in _measures(found[base])}
    items: list[Content] = []
    if not found.keys() - {base}:
        return tag("p", f"No pretrained method was measured on harder images, {base} alone.")
    for method, measured in found.items():
        if method == base:
            continue
        pairs = [(m, m.value - floor[m.name].value) for m in _measures(measured) if m.name in floor]
        worse = [f"{m.name} ({_difference(m, d)})" for m, d in pairs if d <= -_SAME]
        same = [m.name for m, d in pairs if abs(d) < _SAME]
        better = len(pairs) - len(worse) - len(same)
        said = f"better than {base} on {better} of {parts.count(len(pairs), 'measure')}. "
        said += f"Worse: {_listed(worse)}. " if worse else "Worse on none. "
        said += f"No difference of a point: {_listed(same)}." if same else ""
        items.append(tag("li", tag("b", method), ": ", said))
    note = "Models of few seeds: differences of a point or two may be chance."
    items += [tag("li", tag("b", method), ": ", text) for method, text in _doubts(found)]
    return tag("div", tag("h3", "Where pretraining does not help"), tag("ul", *items), tag("p", note, class_="small"))


def _measures(measured: Robustness) -> Iterator[_Measure]:
    """Every number of a method, so that higher is better."""
    if "clean" in measured:
        yield _Measure("clean images", measured["clean"])
    for name, values in measured.get("corruptions", {}).items():
        yield _Measure(name.replace("_", " "), sum(values) / len(values))
    for key, title in (("fgsm", "one-step attack"), ("pgd", "many-step attack")):
        yield from (_Measure(f"{title} of {_size(x)}", value) for x, value in _steps(measured, key) if x > 0)
    yield from (_Measure(f"{x:.0%} wrong labels", value) for x, value in _steps(measured, "label_noise") if x > 0)
    ece, auroc = measured.get("ece"), measured.get("ood_auroc")
    if ece is not None:
        yield _Measure("knowing when it is wrong (calibration)", -ece)
    if auroc is not None:
        yield _Measure("noticing unknown images", auroc, percent=False)


def _size(x: float) -> str:
    """Of a change, as attacks are named: ``8/255``."""
    return "0" if x == 0 else f"{255 * x:.0f}/255" if abs(255 * x - round(255 * x)) < 0.01 else f"{x:.3g}"


def _doubts(found: dict[str, Robustness]) -> Iterator[tuple[str, str]]:
    """Where attacks show less than they should, so that a model looks safer than it is."""
    for method, measured in found.items():
        share = measured.get("gradient_share")
        if share is not None and share < 0.9:
            yield method, f"only {share:.0%} of images had a gradient to attack by: its attacked numbers are too good."
        weaker, many = dict(_steps(measured, "fgsm")), dict(_steps(measured, "pgd"))
        odd = [_size(x) for x in many if x in weaker and many[x] > weaker[x] + _SAME]
        if odd:
            yield method, f"the many-step attack did less harm than the one-step attack at {_listed(odd)}: trust neither."


def _attacks(found: dict[str, Robustness]) -> Html | None:
    """Attacks by size, and wrong labels by share, in numbers."""
    columns = [
        (key, title.format(_size(x) if key != "label_noise" else f"{x:.0%}"), x)
        for key, title in (("fgsm", "FGSM {}"), ("pgd", "PGD {}"), ("label_noise", "{} wrong labels"))
        for x in sorted({x for measured in found.values() for x, _ in _steps(measured, key) if x > 0})
    ]
    if not columns:
        return None
    body: list[list[Content]] = []
    for method, measured in found.items():
        known = {key: dict(_steps(measured, key)) for key in ("fgsm", "pgd", "label_noise")}
        values = [known[key].get(x) for key, _, x in columns]
        body.append([method, *(tag("td", "–" if v is None else f"{100 * v:.1f}", class_="number") for v in values)])
    caption = (
        "Accuracy in per cent under attack (each pixel moved by at most so much of black to white, so as to mislead), and "
        "after learning from labels some of which were wrong"
    )
    return parts.table(caption, ("Method", *(title for _, title, _ in columns)), body)


def _difference(measure: _Measure, difference: float) -> str:
    return f"{parts.points(difference)} points" if measure.percent else f"{difference:+.2f}".replace("-", "−")


def _summary(found: dict[str, Robustness]) -> Html:
    body: list[list[Content]] = []
    for method, measured in found.items():
        clean, ece, auroc = (measured.get(key) for key in ("clean", "ece", "ood_auroc"))
        scores = [sum(values) / 5 for values in measured.get("corruptions", {}).values()]
        shown = (
            "–" if clean is None else f"{100 * clean:.1f}",
            f"{100 * sum(scores) / len(scores):.1f}" if scores else "–",
            "–" if ece is None else f"{100 * ece:.1f}",
            "–" if auroc is None else f"{auroc:.3f}",
        )
        body.append([method, *(tag("td", value, class_="number") for value in shown)])
    head = ("Method", "Clean (%)", "Corrupted, mean (%)", "Confidence off by (points)", "Known from unknown (AUROC)")
    caption = (
        "Accuracy on clean and on corrupted test images; how far the stated confidence is from the truth (calibration error, "
        "lower is better); how well it tells images of a kind that it never saw (1 is perfect, 0.5 is guessing, less means "
        "that it is surer of them than of what it knows)"
    )
    return parts.table(caption, head, body)


def _heat(found: dict[str, Robustness], corruptions: Sequence[str]) -> Html:
    body: list[list[Content]] = []
    for name in corruptions:
        line: list[Content] = [name.replace("_", " ")]
        for measured in found.values():
            values = measured.get("corruptions", {}).get(name)
            if values is None:
                line.append(tag("td", "–", class_="number none"))
                continue
            mean = sum(values) / len(values)
            lost = max(0.0, measured.get("clean", mean) - mean)
            line.append(tag("td", f"{100 * mean:.1f}", class_=f"number heat h{min(5, int(10 * lost))}"))
        body.append(line)
    caption = "Accuracy in per cent, mean of five severities; each shade is ten points lost against clean images"
    return parts.table(caption, ("Corruption", *found), body, class_="heat-table")


def _corruption(name: str, found: dict[str, Robustness], looks: dict[str, charts.Look]) -> _Small:
    lines: list[charts.Line] = []
    for method, measured in found.items():
        values = measured.get("corruptions", {}).get(name)
        if values is not None:
            numbered = [(0, measured["clean"])] if "clean" in measured else []
            numbered += list(enumerate(values, 1))
            drawn = [charts.Point(x, 100 * y, f"{method}, severity {x}: {parts.percent(y)}") for x, y in numbered]
            lines.append(charts.Line(method, drawn, looks[method]))
    return _Small(name.replace("_", " "), lines, charts.Axis("", -0.2, 5.2, [(n, str(n)) for n in range(6)]))


def _sweep(key: str, title: str, unit: str, found: dict[str, Robustness], looks: dict[str, charts.Look]) -> _Small:
    lines: list[charts.Line] = []
    write = "{:.0%}".format if key == "label_noise" else _size
    for method, measured in found.items():
        drawn = [charts.Point(x, 100 * y, f"{method}, {unit} {write(x)}: {parts.percent(y)}") for x, y in _steps(measured, key)]
        if drawn:
            lines.append(charts.Line(method, drawn, looks[method]))
    places = sorted({point.x for line in lines for point in line.points})
    edge = 0.04 * (places[-1] - places[0] or 1)
    return _Small(title, lines, charts.Axis(unit, places[0] - edge, places[-1] + edge, [(x, write(x)) for x in places]))


def _steps(measured: Robustness, key: str) -> Iterator[tuple[float, float]]:
    sweeps: dict[str, dict[float, float]] = {name: measured.get(name, {}) for name in ("noise", "fgsm", "pgd", "label_noise")}
    yield from sorted((float(size), accuracy) for size, accuracy in sweeps[key].items())


def _group(
    name: str, caption: str, found: dict[str, Robustness], looks: dict[str, charts.Look], drawn: Sequence[_Small]
) -> Html:
    """Small charts with one legend and one scale, so that they can be compared."""
    values = [point.y for small in drawn for line in small.lines for point in line.points]
    y = charts.linear("", values, "{:.0f}".format, most=5)
    charted = [
        tag("div", tag("h4", small.title), charts.small(f"{name}-{n}", small.title, caption, small.lines, small.x, y))
        for n, small in enumerate(drawn)
    ]
    keys = charts.legend([charts.Line(method, (), looks[method]) for method in found])
    return parts.figure(caption, keys, tag("div", *charted, class_="multiples"))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
