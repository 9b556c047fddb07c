"""The answer: the sentence, three numbers, accuracy against labels, the verdicts, every number, speed, and depth."""

from collections.abc import Sequence

from ssl_framework.metrics import budget_in_words, budget_order
from ssl_framework.report.page import charts, parts
from ssl_framework.report.page.markup import Content, Html, join, tag
from ssl_framework.report.page.parts import Section
from ssl_framework.report.page.study import Ratio, Row, Study, scratch
from ssl_framework.report.table import Budget


def headline(study: Study) -> Html:
    """Title, the sentence, the answer at each budget, and the three numbers."""
    answers = [
        tag("li", tag("b", budget_in_words(verdict["budget"])), " ", parts.badge(verdict)) for verdict in _by_labels(study)
    ]
    answer, stop, more = study["sentence"].partition(". ")
    return tag(
        "header",
        tag("p", f"Does transfer pay? {study['title']}", class_="title"),
        tag("h1", f"{answer}{stop.strip()}"),
        tag("p", more, class_="lead") if more else None,
        tag("p", _question(study), class_="question"),
        tag("ul", *answers, class_="answers", aria_label="Verdict at each number of labels") if answers else None,
        _key_numbers(study),
    )


def label_efficiency(study: Study) -> Section:
    """Accuracy against labels, one line a method."""
    lines = parts.efficiency_lines(study)
    base = scratch(study)
    title = "Accuracy against the number of labelled images"
    seen = "; ".join(f"{line.name}: {line.points[0].y:.1f} % to {line.points[-1].y:.1f} %" for line in lines if line.points)
    chart = charts.lines(
        "labels",
        title,
        f"From the fewest labels to the most. {seen}.",
        lines,
        parts.label_axis(lines),
        parts.accuracy_axis(lines),
    )
    said = (
        f"Higher is better. The thick line is {base}: the same network without pretraining. A line above it learned more "
        "from the same labels. Shaded: 95 % interval over repeats."
    )
    caption = join([said, tag("span", " Point at a mark for its numbers; press a name to hide its line.", class_="screen")])
    found = sorted(study.get("label_efficiency", []), key=lambda worth: worth["labels"])
    worth = [worth.get("sentence") or _worth(worth["labels"], worth["ratio"]) for worth in found]
    listed = [tag("h3", "What a label is worth"), parts.bullets(worth)] if worth else []
    return Section("labels", "Accuracy with few labels", [parts.figure(caption, charts.legend(lines), chart), *listed])


def verdicts(study: Study) -> Section | None:
    """The verdict at each budget: a picture of the gains, and the table."""
    ordered = _by_labels(study)
    if not ordered:
        return None
    rows: list[tuple[str, str, charts.Point]] = []
    for verdict in ordered:
        mean, low, high = verdict["gain"]
        kind, answer = parts.answer(verdict)
        tip = f"{parts.count(verdict['labels'], 'label')}: {parts.gain_text(verdict)} points: {answer}"
        ends = (None if end is None else 100 * end for end in (low, high))
        rows.append((parts.budget_text(verdict["budget"], None), kind, charts.Point(100 * mean, 0, tip, *ends)))
    values = [0.0, *(v for *_, p in rows for v in (p.x, p.low, p.high) if v is not None)]
    axis = charts.linear(
        "gain over scratch, in points of accuracy", values, lambda v: f"{v:+.4g}".replace("-", "−") if v else "0"
    )
    chart = charts.intervals("gains", "Gain over training from scratch", "; ".join(point.tip for *_, point in rows), rows, axis)
    caption = (
        "Right of the line at 0, pretraining was better than scratch. A bar that crosses 0 is no evidence: it may be chance. "
        "A grey bar to the right of it does not count either: the table says why."
    )
    body: list[list[Content]] = [
        [
            parts.budget_text(verdict["budget"], verdict["labels"]),
            parts.badge(verdict),
            verdict["method"],
            tag("td", parts.gain_text(verdict), class_="number"),
            tag("td", parts.p_text(verdict["p_holm"]), class_="number"),
            tag("td", verdict["sentence"], class_="prose"),
        ]
        for verdict in ordered
    ]
    head = ("Labels", "Verdict", "Chosen method", "Gain in points (95 % interval)", "p of the verdict", "In words")
    words = f"Verdict at each number of labels, against {scratch(study)} with the same labels"
    return Section("verdicts", "Verdict by number of labels", [parts.figure(caption, chart), parts.table(words, head, body)])


def grid(study: Study) -> Section:
    """Every method at every budget."""
    return Section("grid", "Every method, every number of labels", [grid_table(study)])


def grid_table(study: Study) -> Html:
    """Methods down, budgets across: mean and half width, what was chosen, what is stale, and why a number is missing."""
    summary, labels = parts.condensed(study), parts.label_counts(study)
    missing = [(row["method"], row["budget"]) for row in study["rows"] if row.get("na")]
    methods = list(dict.fromkeys([*summary.methods, *(method for method, _ in missing)]))
    budgets: list[Budget] = sorted({*summary.budgets, *(budget for _, budget in missing)}, key=budget_order)
    picked = {(verdict["method"], verdict["budget"]) for verdict in study["verdicts"]}
    stale = {(row["method"], row["budget"]) for row in study["rows"] if row.get("stale") and not row.get("na")}
    why = {(row["method"], row["budget"]): str(row.get("na")) for row in study["rows"] if row.get("na")}
    reasons = list(dict.fromkeys(why[key] for key in why if key not in summary.cells))
    body: list[list[Content]] = []
    for method in methods:
        line: list[Content] = [method]
        for budget in budgets:
            key = (method, budget)
            if key in summary.cells:
                star = tag("span", "★", class_="star", role="img", aria_label="chosen on validation") if key in picked else None
                old = tag("span", "stale", class_="mark") if key in stale else None
                line.append(tag("td", str(summary.cells[key]), star, old, class_="number chosen" if star else "number"))
            elif key in why:
                note = tag("sup", reasons.index(why[key]) + 1)
                line.append(
                    tag("td", "n/a", note, class_="number none", title=why[key], tabindex=0, data_tip=f"n/a: {why[key]}")
                )
            else:
                line.append(tag("td", "–", class_="number none", title="not measured"))
        body.append(line)
    head = ["Method", *(parts.budget_text(budget, labels.get(budget)) for budget in budgets)]
    seeds = sorted({cell.seeds for cell in summary.cells.values()})
    over = f"mean over {' or '.join(map(str, seeds))} seeds" if seeds != [1] else "one run each"
    caption = f"Accuracy on the test split in per cent: {over}{'' if seeds == [1] else ' ± half width of the 95 % t interval'}"
    legend: list[Content] = []
    if picked & summary.cells.keys():
        legend.append(
            tag(
                "p",
                "★ chosen on validation images and judged on the test split, where another may be higher.",
                class_="small",
            )
        )
    if stale:
        text = "code, data, encoder or configuration have changed since it was measured; run it again before you compare."
        legend.append(tag("p", tag("span", "stale", class_="mark"), " ", text, class_="small"))
    if reasons:
        legend.append(tag("p", "n/a was not measured, because:", class_="small"))
    return join([parts.table(caption, head, body, class_="grid-table"), *legend, parts.notes(reasons)])


def speed(study: Study) -> Section | None:
    """How much sooner a pretrained network learns, and when pretraining has paid for itself."""
    found = study.get("speed", [])
    if not found and "pays_after_tasks" not in study:
        return None
    content: list[Content] = []
    if "pays_after_tasks" in study:
        content.append(tag("p", _pays_after(study), class_="lead"))
    if found:
        labels = parts.label_counts(study)
        body: list[list[Content]] = [
            [
                parts.budget_text(one["budget"], labels.get(one["budget"])),
                tag("td", parts.factor(one["steps_ratio"]), class_="number"),
                tag("td", parts.factor(one.get("seconds_ratio")), class_="number"),
                tag("td", one.get("sentence", ""), class_="prose"),
            ]
            for one in found
        ]
        caption = (
            "How many times as long training from scratch takes to the accuracy that it ends with as the pretrained network "
            "takes to reach the same. Above 1× pretrained is faster; n/a: not reached, or nothing is trained in steps."
        )
        content.append(parts.table(caption, ("Labels", "Training steps", "Seconds", "In words"), body))
    return Section("speed", "Is it faster?", content)


def depth(study: Study) -> Section | None:
    """What a probe reads from each layer."""
    found = study.get("depth")
    if found is None:
        return None
    scale, unit = (100.0, "accuracy (%)") if found["measure"] == "accuracy" else (1.0, found["measure"])
    layers = [
        charts.Point(n, scale * m, f"layer {n}: {scale * m:.4g} ± {scale * e:.2g} {unit}", scale * (m - e), scale * (m + e))
        for n, (m, e) in enumerate(zip(found["mean"], found["standard_error"], strict=True), 1)
    ]
    kept = found["chosen"]
    lines = [
        charts.Line("each layer", layers, charts.Look("s0", 0, None), bars=True),
        charts.Line("kept", [layers[kept]], charts.Look("strong", 3, None), bars=True),
    ]
    spans = [v for point in layers for v in (point.low, point.high) if v is not None]
    bar = scale * found["bar"]
    x = charts.Axis("layer, counted from the image", 0.7, len(layers) + 0.3, [(n, str(n)) for n in range(1, len(layers) + 1)])
    chart = charts.lines(
        "depth",
        "What a simple classifier reads from each layer",
        f"{len(layers)} layers; layer {kept + 1} would be kept.",
        lines,
        x,
        charts.linear(unit, [*spans, bar]),
        rule=bar,
        notes=[(kept + 1, layers[kept].high or layers[kept].y, "kept")],
        names=False,
    )
    first = all(mean < found["bar"] for mean in found["mean"][:kept]) and found["mean"][kept] >= found["bar"]
    why = ", the first that reaches the dashed line" if first else "; the dashed line is what a layer has to reach"
    caption = (
        f"The last layers of a pretrained network often serve its own puzzle more than your task. "
        f"Layer {kept + 1} of {len(layers)} would be kept as the last{why} ({bar:.4g}); this study's rows use the whole "
        "network. Bars: one standard error."
    )
    return Section("depth", "Which layer to keep", [parts.figure(caption, chart)])


def runs(rows: Sequence[Row]) -> Html:
    """Every run, with what it was made with and the command that makes it again."""
    body: list[list[Content]] = []
    for row in rows:
        recipe, command = row.get("recipe") or {}, row.get("command")
        accuracy, rate, penalty, steps, seconds = (row.get(key) for key in ("accuracy", "rate", "penalty", "steps", "seconds"))
        chosen = [*([] if rate is None else [f"{rate:.3g}"]), *([] if penalty is None else [f"penalty {penalty:.3g}"])]
        made = " ".join(str(recipe.get(key, "")) for key in ("config_hash", "code", "data_fingerprint")).strip()
        body.append(
            [
                row["method"],
                row["budget"],
                row.get("seed"),
                "n/a" if accuracy is None or row.get("na") else f"{100 * accuracy:.2f}",
                "" if steps is None else f"{steps:,}",
                "" if seconds is None else f"{seconds:.1f}",
                ", ".join(chosen),
                made,
                tag("code", command) if command else None,
            ]
        )
    head = (
        "Method",
        "Labels/class",
        "Seed",
        "Accuracy (%)",
        "Steps",
        "Seconds",
        "Rate",
        "Configuration, code, data",
        "Command",
    )
    inner = parts.table("Every run, in the order in which it was given", head, body, class_="runs")
    return tag("details", tag("summary", f"Every run ({len(rows)})"), inner)


def _by_labels(study: Study):
    return sorted(study["verdicts"], key=lambda verdict: verdict["labels"])


def _question(study: Study) -> str:
    base = scratch(study)
    return (
        "The question: a network first looks at many images without labels (pretraining), and then learns the task from a few "
        f"labelled ones. Is it better than the same network that learns from the same labels only ({base}), and than simple "
        "ways that need no pretraining?"
    )


def _key_numbers(study: Study) -> Html | None:
    found: list[tuple[str, str]] = []
    decided = [verdict for verdict in _by_labels(study) if verdict["verdict"] in ("pays", "hurts")][:1]
    for verdict in decided:
        mean, low, high = verdict["gain"]
        ends = "" if low is None or high is None else f" (95 % interval {points_between(low, high)})"
        found.append(
            (f"{parts.points(mean)} points", f"of accuracy over scratch with {budget_in_words(verdict['budget'])}{ends}")
        )
    labels = [verdict["labels"] for verdict in decided]
    for worth in (one for one in study.get("label_efficiency", []) if one["labels"] in labels):
        value = _ratio(worth["labels"], worth["ratio"])
        found.append((value, worth.get("sentence") or _worth(worth["labels"], worth["ratio"])))
    if "pays_after_tasks" in study:
        tasks = study.get("pays_after_tasks")
        found.append(("not shown" if tasks is None else parts.count(tasks, "task"), _pays_after(study)))
    budgets = [verdict["budget"] for verdict in decided]
    for one in (one for one in study.get("speed", []) if one["budget"] in budgets):
        if one["steps_ratio"] is not None:
            said = one.get("sentence") or f"as many steps from scratch to the same accuracy, at {one['budget']} labels/class"
            found.append((parts.factor(one["steps_ratio"]), said))
    tiles = [tag("li", tag("b", value), tag("span", words)) for value, words in found[:3]]
    return tag("ul", *tiles, class_="tiles", aria_label="Key numbers") if tiles else None


def points_between(low: float, high: float) -> str:
    """``+9.0 to +15.6``."""
    return f"{parts.points(low)} to {parts.points(high)}"


def _ratio(labels: int, ratio: Ratio) -> str:
    """``> 5.0×``; where nothing was measured with more labels, more than once says little: ``> 2,500 labels``."""
    sign = {"above": "> ", "below": "< ", None: ""}[ratio.get("censored")]
    if sign == "> " and ratio["value"] < 1.05:
        return f"> {parts.count(labels, 'label')}"
    return f"{sign}{parts.factor(ratio['value'])}"


def _worth(labels: int, ratio: Ratio) -> str:
    low, high = ratio.get("low"), ratio.get("high")
    ends = "" if low is None or high is None else f" (95 % interval {labels * low:,.0f} to {labels * high:,.0f})"
    about = {"above": "more than", "below": "fewer than", None: "about"}[ratio.get("censored")]
    same = f"{about} {labels * ratio['value']:,.0f}"
    return f"With pretraining, {parts.count(labels, 'label')} do the work of {same} from scratch{ends}."


def _pays_after(study: Study) -> str:
    tasks, seconds = study.get("pays_after_tasks"), study.get("pretrain_seconds")
    cost = "" if seconds is None else f" ({parts.duration(seconds)})"
    if tasks is None:
        return f"It is not shown that the time spent on pretraining{cost} is ever won back by faster training."
    after = f"after {parts.count(tasks, 'task')} like those where it pays"
    return f"The time spent on pretraining{cost} is won back by faster learning {after}."
