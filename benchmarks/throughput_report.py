"""Rows of races as text, and as a page with a picture: nothing on it is written by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import throughput_stats as stats
from throughput_cases import CASES, MEMORY_TARGET, OVERHEAD_TARGET, Target, targets

from ssl_framework.report import style

Row = dict[str, Any]
Table = list[tuple[str, ...]]

_HEAD = ("who", "images/s", "quartiles", "ours / it (95 %)", "asked for", "peak memory", "how")


def text(rows: Sequence[Row]) -> str:
    """The tables of all cases, in Markdown.

    Raises:
        ValueError: a contestant stands twice in a case.
    """
    return "\n\n".join(f"{_title(case)}\n\n{_markdown(table(rows, case))}\n\n{_below(rows, case)}" for case in _cases(rows))


def write(rows: Sequence[Row], page: Path) -> None:
    """Write the page, and the picture beside it, an SVG of the same name.

    Args:
        rows: of any number of cases, each of one race.
        page: a Markdown file.

    Raises:
        ValueError: a contestant stands twice in a case.
    """
    picture = page.with_suffix(".svg")
    tables = text(rows)
    _draw(rows, picture)
    page.write_text(
        "# Throughput beside other libraries\n\n"
        "Images a second of two-view SimCLR, whole step: reading, two views, forward, backward, optimiser. Each contestant "
        "trains in its own process; windows alternate, and ratios are taken round by round, with the interval of the sign "
        "test. The page is made from rows by `benchmarks/throughput.py --report`.\n\n"
        f"![Images a second of each contestant]({picture.name})\n\n{tables}\n"
    )


def table(rows: Sequence[Row], case: str) -> Table:
    """A line for each contestant of a case, the fastest first, below a head."""
    found = _of(rows, case)
    if case == "overhead":
        return _overhead(found)
    asked = {(target.of, target.to): target for target in targets(case)}
    lines: Table = [_HEAD]
    for row in sorted(found.values(), key=lambda row: -row["median"]):
        name = row["contestant"]
        low, high = row["quartiles"]
        beside, wanted = "", ""
        if name != "ours" and "ours" in found:
            beside = _interval(stats.ratio(found["ours"]["images_per_s"], row["images_per_s"]))
            wanted = _wanted(asked.get(("ours", name)))
        memory = f"{row['peak_anonymous_bytes'] / 1e9:.2f} GB" if row["peak_anonymous_bytes"] else ""
        lines.append((name, f"{row['median']:.1f}", f"{low:.1f} to {high:.1f}", beside, wanted, memory, _how(row)))
    return lines


def _overhead(found: dict[str, Row]) -> Table:
    """Milliseconds a step of both loops, and of their difference."""
    lines: Table = [("who", "ms a step", "asked for", "how")]
    taken = {name: [1e3 * row["settings"]["batch"] / rate for rate in row["images_per_s"]] for name, row in found.items()}
    for name, row in found.items():
        lines.append((name, f"{1e3 * row['settings']['batch'] / row['median']:.3f}", "", _how(row)))
    if {"loop", "loop-bare"} <= taken.keys():
        paired = stats.difference(taken["loop"], taken["loop-bare"])
        lines.append(("difference", _interval(paired, 3), f"under {OVERHEAD_TARGET:g}", "Lightning's loop and our logging"))
    return lines


def _below(rows: Sequence[Row], case: str) -> str:
    """What the table has no place for: ratios of others than ours, memory, and what all was measured on."""
    found = _of(rows, case)
    rates = {name: row["images_per_s"] for name, row in found.items()}
    said = [
        f"{t.of} / {t.to}: {_interval(stats.ratio(rates[t.of], rates[t.to]))}; asked for: {_wanted(t)}."
        for t in targets(case)
        if t.of != "ours" and {t.of, t.to} <= found.keys()
    ]
    if {"ours", "bare"} <= found.keys():
        more = found["ours"]["peak_anonymous_bytes"] - found["bare"]["peak_anonymous_bytes"]
        said.append(
            f"Peak anonymous memory, ours less the bare loop's: {more / 1e9:+.2f} GB; asked for: at most "
            f"{MEMORY_TARGET / 1e9:g} GB, and the data set's bytes where it is resident."
        )
    row = next(iter(found.values()))
    machine, rounds = row["machine"], len(row["images_per_s"])
    said.append(
        f"{rounds} windows of about {row['settings']['window_s']:g} s each, batch {row['settings']['batch']}, {row['data']}, "
        f"on {machine['processor']}, {machine['cores']} cores, {machine['gpu'] or 'no GPU'}, {machine['precision']}; "
        f"torch {machine['torch']}, commit {machine['commit']}; load average at the end {machine['load']:.1f}."
    )
    return "\n".join(f"- {line}" for line in said)


def _how(row: Row) -> str:
    settings = row["settings"]
    known = [row["what"], settings.get("library"), settings.get("precision")]
    if settings.get("workers") is not None:
        known.append(f"{settings['workers']} workers")
    return ", ".join(str(part) for part in known if part)


def _wanted(target: Target | None) -> str:
    if target is None:
        return ""
    return f"{target.least:g}" + (f" (stretch {target.stretch:g})" if target.stretch is not None else "")


def _interval(paired: stats.Paired, digits: int = 2) -> str:
    if paired.low is None or paired.high is None:
        return f"{paired.median:.{digits}f} ({paired.rounds} rounds: no interval)"
    return f"{paired.median:.{digits}f} ({paired.low:.{digits}f} to {paired.high:.{digits}f})"


def _cases(rows: Sequence[Row]) -> list[str]:
    present = {row["case"] for row in rows}
    return [case for case in CASES if case in present]


def _of(rows: Sequence[Row], case: str) -> dict[str, Row]:
    chosen = [row for row in rows if row["case"] == case]
    found = {row["contestant"]: row for row in chosen}
    if len(found) != len(chosen):
        raise ValueError(
            f"{case} was raced more than once in these files: windows of two races are no pairs. Give one of them."
        )
    return found


def _title(case: str) -> str:
    return f"## {CASES[case].title}"


def _markdown(lines: Table) -> str:
    head, *body = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *body))


def _draw(rows: Sequence[Row], path: Path) -> None:
    """A group of bars for each case: medians, with quartiles as whiskers."""
    cases = [case for case in _cases(rows) if case != "overhead"] or _cases(rows)
    groups = [sorted(_of(rows, case).values(), key=lambda row: row["median"]) for case in cases]
    picture = style.figure(8.0, 0.9 * len(cases) + 0.32 * sum(map(len, groups)))
    axes = picture.subplots(len(cases), squeeze=False, height_ratios=[len(group) + 1.5 for group in groups])
    for (plot,), case, group in zip(axes, cases, groups, strict=True):
        style.dress(plot, CASES[case].title, "images/s")
        middle = [row["median"] for row in group]
        spread = [
            [row["median"] - row["quartiles"][0] for row in group],
            [row["quartiles"][1] - row["median"] for row in group],
        ]
        own = [row["contestant"].startswith("ours") for row in group]
        colours = [style.PALETTE[0] if mine else style.PALETTE[-1] for mine in own]
        bars = plot.barh([row["contestant"] for row in group], middle, xerr=spread, color=colours, ecolor=style.INK, height=0.7)
        plot.bar_label(bars, [f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" for rate in middle], padding=6, fontsize=8.5)
        plot.margins(x=0.12)
    style.save(picture, path)
