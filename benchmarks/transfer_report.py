"""The page of policies and cuts, made from the rows."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_cases import BUDGETS, CELLS, POLICIES, Budget

from ssl_framework.metrics import Interval, interval
from ssl_framework.report import style

Row = dict[str, Any]

HEAD = """# Which policy, and which cut?

One encoder (`resnet_micro`, SimCLR's recipe of the [catalogue](catalogue.md) on Fashion-MNIST's images) and every
[freezing policy](../transfer.md), with 10, 100 and all labels a class. The learning rate of each policy is chosen among three
on validation with seed 0, for each number of labels; test is read once a row. ± is the 95 % t interval over seeds, which draw
labels, head and order. Seconds are of training on one core, and megabytes the most that the process held: compare them within a
table only. Made by `python benchmarks/transfer.py --report` from `benchmarks/transfer/`.
"""

CUTS = """## How many layers to cut

A frozen encoder without its last layers, and a linear head that is trained until it has converged; encoders of three pretext
tasks, transferred to the images they were pretrained on and to handwritten digits. `auto` is what `cut=auto` takes, from
cross-validation on the training labels. It is as good as the oracle where its mean is within the oracle's interval, the oracle
being the cut that is best on test.
"""


def write(policies: Sequence[Row], cuts: Sequence[Row], page: Path) -> None:
    """The page and its picture beside it."""
    parts = [HEAD, *(_table(policies, budget) for budget in BUDGETS if any(row["budget"] == budget for row in policies))]
    if cuts:
        draw(cuts, page.with_name("cuts.svg"))
        parts += [CUTS, "![Accuracy of every cut](cuts.svg)", "", *_cuts(cuts)]
    parts += ["", f"Rows come from: {'; '.join(_machines([*policies, *cuts]))}.", ""]
    page.write_text("\n".join(parts))


def _table(rows: Sequence[Row], budget: Budget) -> str:
    name = "All labels" if budget == "all" else f"{budget} labels a class"
    lines = [
        f"## {name}",
        "",
        "| policy | accuracy | parameters that learn | seconds | megabytes | rate |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for policy in POLICIES:
        own = [row for row in rows if row["policy"] == policy and row["budget"] == budget]
        if own:
            middle = {key: statistics.median(row[key] for row in own) for key in ("seconds", "megabytes")}
            lines.append(
                f"| {policy} | {said(row['accuracy'] for row in own)} | {own[0]['trainable_parameters']:,} | "
                f"{middle['seconds']:.1f} | {middle['megabytes']:.0f} | {own[0]['rate']:g} |"
            )
    lines.append("| lora | n/a: no linear layers | | | | |")
    return "\n".join([*lines, ""])


def _cuts(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| encoder, task | labels a class | best cut | its accuracy | `auto` took | its accuracy | as good? |",
        "|---|---:|---:|---:|---|---:|---|",
    ]
    good = total = 0
    for (number, budget), own in grouped(rows).items():
        best, oracle, auto = judged(own)
        fine = auto >= oracle.mean - oracle.half_width
        good, total = good + fine, total + 1
        taken = ", ".join(map(str, sorted({row["auto"] for row in own})))
        cells = [f"{CELLS[number].pretext}, {CELLS[number].data}", budget, best, _percent(oracle), taken, f"{100 * auto:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {'yes' if fine else 'no'} |")
    return [*lines, "", f"`auto` is as good as the oracle in {good} of {total}."]


def grouped(rows: Sequence[Row]) -> dict[tuple[int, int], list[Row]]:
    """Rows of each cell and number of labels."""
    found: dict[tuple[int, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["cell"], row["budget"], row["seed"])):
        found.setdefault((row["cell"], row["budget"]), []).append(row)
    return found


def judged(rows: Sequence[Row]) -> tuple[int, Interval, float]:
    """The best cut by its mean over seeds, its interval, and the mean of what ``auto`` took."""
    cuts = range(len(rows[0]["accuracy"]))
    best = max(cuts, key=lambda cut: statistics.fmean(row["accuracy"][cut] for row in rows))
    return (
        best,
        _interval([row["accuracy"][best] for row in rows]),
        statistics.fmean(row["accuracy"][row["auto"]] for row in rows),
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy against the layers that were cut, a panel for each number of labels."""
    budgets = sorted({row["budget"] for row in rows})
    picture = style.figure(5.2 * len(budgets), 3.8)
    for axes, budget in zip(picture.subplots(1, len(budgets), squeeze=False)[0], budgets, strict=True):
        style.dress(axes, f"{budget} labels a class", "layers cut", "accuracy on test (%)")
        for (number, own_budget), own in grouped(rows).items():
            if own_budget != budget:
                continue
            cuts = range(len(own[0]["accuracy"]))
            found = [_interval([row["accuracy"][cut] for row in own]) for cut in cuts]
            look: Mapping[str, Any] = {"color": style.PALETTE[number // 2], "linestyle": "-" if number % 2 == 0 else "--"}
            name = f"{CELLS[number].pretext}, {CELLS[number].data}"
            means, spread = [100 * one.mean for one in found], [100 * one.half_width for one in found]
            axes.errorbar(
                list(cuts), means, yerr=spread, marker="o", markersize=4, capsize=2, linewidth=1.6, label=name, **look
            )
        axes.set_xticks(range(max(len(row["accuracy"]) for row in rows)))
    handles, labels = picture.axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    style.save(picture, path)


def said(values: Iterable[float]) -> str:
    """Mean and interval in per cent."""
    return _percent(_interval(list(values)))


def _interval(values: Sequence[float]) -> Interval:
    return interval(values) if len(values) > 1 else Interval(values[0], float("nan"))


def _percent(found: Interval) -> str:
    spread = "" if found.half_width != found.half_width else f" ± {100 * found.half_width:.1f}"
    return f"{100 * found.mean:.1f}{spread}"


def _machines(rows: Sequence[Row]) -> list[str]:
    seen = (
        f"{row['machine']['processor']}, {row['machine']['precision'].split(':')[0]}, torch {row['machine']['torch']}"
        for row in rows
    )
    return list(dict.fromkeys(seen))
