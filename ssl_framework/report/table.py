"""Rows of a study as one readable table: methods down, label budgets across, an interval in every cell.

A row is a plain mapping with at least ``method`` (str), ``budget`` (labels per class: int, or "all"), ``seed`` (int) and the
value to show (a share in [0, 1]). Rows whose ``classifier`` is "knn" stand apart from the method's others.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_framework.metrics import budget_in_words, budget_order, interval, paired_interval

Row = Mapping[str, Any]
Budget = int | str


class Cell(NamedTuple):
    """One method at one budget.

    Attributes:
        mean: over seeds.
        half_width: of the 95 % t interval of the mean, or None with a single seed.
        seeds: how many there are.
    """

    mean: float
    half_width: float | None
    seeds: int

    def __str__(self) -> str:
        """In per cent, for people: ``77.1 ± 2.3``."""
        middle = f"{100 * self.mean:.1f}"
        return middle if self.half_width is None else f"{middle} ± {100 * self.half_width:.1f}"


class Summary(NamedTuple):
    """The rows of a study, condensed over seeds.

    Attributes:
        methods: in the order in which the rows name them first.
        budgets: ascending, "all" last.
        cells: by (method, budget); a pair that was not measured is missing.
    """

    methods: tuple[str, ...]
    budgets: tuple[Budget, ...]
    cells: dict[tuple[str, Budget], Cell]


def summarise(rows: Iterable[Row], value: str = "accuracy") -> Summary:
    """Mean and interval over seeds for each method and budget.

    Args:
        rows: of a study, in any order.
        value: the key to average.

    Raises:
        ValueError: there are no rows, or one (method, budget, seed) occurs twice.
    """
    values: dict[tuple[str, Budget], dict[int, float]] = {}
    for row in rows:
        seeds = values.setdefault((_method(row), row["budget"]), {})
        if row["seed"] in seeds:
            raise ValueError(
                f"two rows for {_method(row)!r}, budget {row['budget']!r}, seed {row['seed']}: "
                "an interval over them would be too narrow. Keep the rows of one study only."
            )
        seeds[row["seed"]] = float(row[value])
    if not values:
        raise ValueError("a table needs at least one row, got none: run the study first.")
    cells = {key: _cell(list(seeds.values())) for key, seeds in values.items()}
    methods = tuple(dict.fromkeys(method for method, _ in cells))
    return Summary(methods, tuple(sorted({budget for _, budget in cells}, key=budget_order)), cells)


def gain(rows: Iterable[Row], method: str, over: str, value: str = "accuracy") -> str:
    """What one method gains over another with the same labels, seed by seed, in one sentence.

    Args:
        rows: of a study, in any order.
        method: the one that gains.
        over: the other.
        value: the key to compare.

    Returns:
        For each budget that both have, the mean difference and its paired 95 % t interval, in points.

    Raises:
        ValueError: they share no budget, or have different seeds.
    """
    found: dict[Budget, dict[str, dict[int, float]]] = {}
    for row in rows:
        if _method(row) in (method, over):
            found.setdefault(row["budget"], {}).setdefault(_method(row), {})[row["seed"]] = float(row[value])
    parts: list[str] = []
    for budget in sorted(found, key=budget_order):
        if len(found[budget]) == 2:
            a, b = found[budget][method], found[budget][over]
            if a.keys() != b.keys():
                raise ValueError(f"{method} and {over} have different seeds at budget {budget}: run both with the same ones.")
            difference = paired_interval([a[seed] for seed in sorted(a)], [b[seed] for seed in sorted(a)])
            width = f" ± {100 * difference.half_width:.1f}" if len(a) > 1 else ""
            parts.append(f"{100 * difference.mean:+.1f}{width} at {budget}")
    if not parts:
        raise ValueError(f"{method} and {over} share no budget: there is nothing to compare.")
    return f"{method} over {over}, same labels, in points: {', '.join(parts)}"


def text(rows: Iterable[Row], value: str = "accuracy") -> str:
    """The table for a terminal, with a line below that says what the numbers are."""
    summary = summarise(rows, value)
    grid = _grid(summary, value)
    widths = [max(len(line[column]) for line in grid) for column in range(len(grid[0]))]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in grid]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([lines[0], rule, *lines[1:], rule, _note(summary)])


def markdown(rows: Iterable[Row], value: str = "accuracy") -> str:
    """The table for a README, with a line below that says what the numbers are."""
    summary = summarise(rows, value)
    head, *body = (f"| {' | '.join(line)} |" for line in _grid(summary, value))
    rule = "|---|" + "---:|" * len(summary.budgets)
    return "\n".join([head, rule, *body, "", _note(summary)])


def budget_label(budget: Budget) -> str:
    """``10`` becomes ``10 labels/class``, ``"10%"`` ``10% of the labels``, ``"all"`` ``all labels``."""
    if isinstance(budget, str):
        return budget_in_words(budget)
    return f"{budget} label{'s' if budget != 1 else ''}/class"


def _method(row: Row) -> str:
    return f"{row['method']}, kNN" if row.get("classifier") == "knn" else row["method"]


def _cell(values: Sequence[float]) -> Cell:
    if len(values) == 1:
        return Cell(values[0], None, 1)
    mean, half_width = interval(values)
    return Cell(mean, half_width, len(values))


def _grid(summary: Summary, value: str) -> list[list[str]]:
    head = [f"{value} (%)", *(budget_label(budget) for budget in summary.budgets)]
    cells = summary.cells
    body = [[m, *(str(cells[m, b]) if (m, b) in cells else "n/a" for b in summary.budgets)] for m in summary.methods]
    return [head, *body]


def _note(summary: Summary) -> str:
    counts = sorted({cell.seeds for cell in summary.cells.values()})
    if counts == [1]:
        return "One seed: no interval."
    several = [str(count) for count in counts if count > 1]
    note = f"Mean ± half-width of the 95 % t interval over {' or '.join(several)} seeds"
    return f"{note}; without ±: one measurement." if counts[0] == 1 else f"{note}."
