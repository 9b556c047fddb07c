"""The catalogue's rows as a page with a picture: nothing on it is written by hand but the notes of `NOTES`."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catalogue_cases import CASES, FLOORS, NOTES, Case, card
from matplotlib.lines import Line2D

from ssl_framework.metrics import Interval, interval
from ssl_framework.report import style

Row = dict[str, Any]

MEASURES = {"linear": "linear probe", "finetuned": "fine-tuned on 100 labels", "knn": "nearest neighbours"}
_FAMILIES = ("generative", "contrastive", "predictive")
_TITLES = {"fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "digits": "Digits"}


def line(row: Row) -> str:
    """A row in one line of a terminal."""
    said = f"{row['task']}, seed {row['seed']}: " + ", ".join(f"{MEASURES[m]} {_mean(row, m):.1%}" for m in MEASURES if row[m])
    took = f" ({row['pretraining_s']:.0f} s and {row['evaluation_s']:.0f} s)" if row["samples"] else ""
    return said + took + (f" [{', '.join(row['collapse'])}]" if row["collapse"] else "")


def write(cases: Mapping[str, Sequence[Row]], page: Path) -> None:
    """Write the page, and a picture for each case beside it.

    Args:
        cases: rows by the name of their case; those without rows are left out.
        page: a Markdown file.
    """
    text = [_INTRODUCTION]
    for name, rows in cases.items():
        if rows:
            picture = page.with_name(f"{page.stem}-{name}.svg")
            draw(rows, picture)
            text += [f"## {_TITLES[name]}", _budget(CASES[name], rows), f"![Accuracy of every task]({picture.name})"]
            text += [table(rows), *_below(rows)]
    page.write_text("\n\n".join(text) + "\n")


_INTRODUCTION = """# Does every task learn?

Pretext tasks of the catalogue, each pretrained with the same small budget, then judged three ways: a linear
probe and nearest neighbours (k = 20) on all labels of the pool, and the whole encoder fine-tuned on 10 labels a class. The
floors have learnt nothing: chance, the raw pixels, 64 principal components, and encoders with random weights, which
fine-tuned are encoders trained from scratch.

Read it for what it is: a few hundred steps tell whether a task works and whether its recipe suits a small budget. They do not
rank methods, whose papers train a thousand times as long, and generative tasks are judged by fine-tuning (MAE, section 4).

`benchmarks/catalogue.py` makes the rows and this page. Recipes: each task's YAML with smaller heads, decoders and queues,
faster teachers, and crops that suit small images; the words of each row stand in its line of `benchmarks/catalogue/`."""


def _budget(case: Case, rows: Sequence[Row]) -> str:
    seeds = sorted({row["seed"] for row in rows})
    pool = f"drawn from {case.pool:,} images" if case.pool else "drawn from the training split"
    spread = "Where a row has one seed of pretraining, ± is the 95 % interval of the test sample alone, and of the label "
    spread += "draws for fine-tuning; what another seed of pretraining would give, it does not say."
    if len(seeds) > 1:
        spread += " Where it has several, as the column of seeds says, ± is the 95 % t interval over them."
    return (
        f"{case.samples:,} samples {pool}, {case.steps} steps of {case.batch}; a sample counts once, however many crops it "
        f"has. AdamW, one learning rate for all. {spread} In bold what is above the random encoder of the same kind by more "
        f"than both intervals. {_machines(rows)}"
    )


def _machines(rows: Sequence[Row]) -> str:
    """Where the rows were measured, and in which precision: "A processor, 32-true, torch 2 (30 rows); ..."."""
    found = Counter(
        f"{m['processor']}, {str(m.get('precision', '?')).partition(':')[0]}, torch {m['torch']}"
        for m in (r["machine"] for r in rows)
    )
    if len(found) == 1:
        return f"Measured on {next(iter(found))}."
    told = "; ".join(f"{where} ({count} rows)" for where, count in found.most_common())
    return f"Rows come from several machines, whose precision is the fastest that each has: {told}."


def table(rows: Sequence[Row]) -> str:
    """Floors, then tasks by family and sub-group, in Markdown."""
    by_task = _grouped(rows)
    lines = [
        "| task | family | encoder | seeds | linear probe | fine-tuned | kNN | note |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for task in _order(by_task):
        kind = "floor" if task in FLOORS else f"{card(task).family}: {card(task).group}"
        label = task if task in FLOORS else f"[{task}](../reference/tasks/{task}.md)"
        cells = [_cell(by_task, task, measure) for measure in MEASURES]
        encoder = by_task[task][0]["encoder"] or ""
        lines.append(
            f"| {label} | {kind} | {encoder} | {len(by_task[task])} | {' | '.join(cells)} | {_note(task, by_task[task])} |"
        )
    return "\n".join(lines)


def _below(rows: Sequence[Row]) -> list[str]:
    """Which tasks stand below the random encoder of their kind, and in what; their own judge is named first."""
    by_task = _grouped(rows)
    names = [task for task in _order(by_task) if task not in FLOORS]
    found = {task: below_random(by_task, task) for task in names}
    own = {task: measures for task, measures in found.items() if _judge(task) in measures}
    other = {task: measures for task, measures in found.items() if measures and task not in own}
    if not own and not other:
        return ["No task stands below the random encoder of its kind in any measure."]
    text = "No task stands below the random encoder of its kind in what it is judged by."
    if own:
        text = f"Below the random encoder of its kind in what the task is judged by: {_listed(own)}."
    return [text, *([f"Below it in another measure only: {_listed(other)}."] if other else [])]


def _listed(found: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{task} ({', '.join(MEASURES[m] for m in measures)})" for task, measures in found.items())


def _judge(task: str) -> str:
    """The measure that the task's card asks for, or the nearest to it: an attentive probe is a probe."""
    return "finetuned" if card(task).judged_by == "fine-tuning" else "linear"


def below_random(by_task: Mapping[str, Sequence[Row]], task: str) -> list[str]:
    """The measures in which a task's mean is below that of the random encoder of its kind."""
    floor = f"random {by_task[task][0]['encoder']}"
    if floor not in by_task:
        return []
    return [m for m in MEASURES if summary(by_task[task], m).mean < summary(by_task[floor], m).mean]


def summary(rows: Sequence[Row], measure: str) -> Interval:
    """Mean and 95 % half width: over seeds where there are several, else of the test sample or of the label draws."""
    if len(rows) > 1:
        return interval([_mean(row, measure) for row in rows])
    value = _mean(rows[0], measure)
    if measure == "finetuned":
        return interval(rows[0][measure]) if len(rows[0][measure]) > 1 else Interval(value, float("nan"))
    return Interval(value, 1.96 * (value * (1 - value) / 10_000) ** 0.5)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Linear probe and fine-tuning of every task, with floors as lines."""
    by_task = _grouped(rows)
    names = [task for task in _order(by_task) if task not in FLOORS][::-1]
    picture, handles = style.figure(10.0, 1.4 + 0.24 * len(names)), dict[str, Any]()
    for axes, measure in zip(picture.subplots(1, 2, sharey=True), ("linear", "finetuned"), strict=True):
        style.dress(axes, MEASURES[measure], "accuracy (%)")
        for family, colour in zip(_FAMILIES, style.PALETTE[: len(_FAMILIES)], strict=True):
            for transformer, marker in ((False, "o"), (True, "D")):
                chosen = [(i, summary(by_task[t], measure)) for i, t in enumerate(names)
                          if card(t).family == family and _is_transformer(by_task[t]) == transformer]  # fmt: skip
                places, values = [i for i, _ in chosen], [100 * v.mean for _, v in chosen]
                spread = [100 * v.half_width for _, v in chosen]
                look = {"fmt": marker, "color": colour, "markersize": 5, "elinewidth": 1.2}
                axes.errorbar(values, places, xerr=spread, label=None if transformer else family, **look)
        lines = {"random resnet_micro": "--", "random vit_4x96": ":", "random vit_4x96_sincos": "-.", "raw pixels": "-"}
        for floor, dashes in lines.items():
            if floor in by_task and by_task[floor][0][measure]:
                value = 100 * summary(by_task[floor], measure).mean
                axes.axvline(value, color=style.MUTED, linestyle=dashes, linewidth=1.2, label=floor)
        axes.set_yticks(range(len(names)), names, fontsize=8.5)
        axes.set_ylim(-0.7, len(names) - 0.3)
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if any(_is_transformer(by_task[task]) for task in names):
        handles["of a vision transformer"] = Line2D([], [], marker="D", color=style.MUTED, linestyle="none", markersize=5)
    picture.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    style.save(picture, path)


def _is_transformer(rows: Sequence[Row]) -> bool:
    return str(rows[0]["encoder"]).startswith("vit")


def _grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["task"], []).append(row)
    return found


def _order(by_task: Mapping[str, Sequence[Row]]) -> list[str]:
    """Floors, then by family, sub-group and name."""
    floors = [floor for floor in FLOORS if floor in by_task]
    rest = [task for task in by_task if task not in FLOORS]
    return floors + sorted(rest, key=lambda task: (_FAMILIES.index(card(task).family), card(task).group, task))


def _mean(row: Row, measure: str) -> float:
    value = row[measure]
    return statistics.fmean(value) if isinstance(value, list) else value


def _cell(by_task: Mapping[str, Sequence[Row]], task: str, measure: str) -> str:
    rows = by_task[task]
    if not rows[0][measure]:
        return ""
    found = summary(rows, measure)
    said = f"{100 * found.mean:.1f}"
    if task != "chance" and found.half_width == found.half_width:
        said += f" ± {100 * found.half_width:.1f}"
    floor = f"random {rows[0]['encoder']}"
    if task in FLOORS or floor not in by_task:
        return said
    other = summary(by_task[floor], measure)
    return f"**{said}**" if found.mean - other.mean > found.half_width + other.half_width else said


def _note(task: str, rows: Sequence[Row]) -> str:
    said = [NOTES[task]] if task in NOTES else []
    named = sorted({kind for row in rows for kind in row["collapse"]})
    return "; ".join([*said, *(f"the monitor named a {kind}" for kind in named)])
