"""``ssl-framework reproduce RUN:METHOD/LABELS/SEED``: a row of a study measured again, beside what was written down."""

from pathlib import Path
from typing import Any

from ssl_framework.commands import report, transfer
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.metrics import interval
from ssl_framework.transfer import cell_of, measured_again, rows

Row = dict[str, Any]


def run(settings: Settings) -> dict[str, Any]:
    """Measure a row again with the rate or penalty that was chosen for it.

    Args:
        settings: of `compose("reproduce", ...)`.

    Returns:
        ``row``, the new one; ``before``, the old one; ``same``: whether the accuracies are equal; ``within``: whether the new
        one is where a row of another seed could be.

    Raises:
        ValueError: there is no such row, or it says why it was not measured.
    """
    home, _, name = str(settings["row"]).rpartition(":")
    if not home:
        raise ValueError(f"row={name}: say of which study, as RUN:{name or 'METHOD/LABELS/SEED'}.")
    saved, found = report.study_of(Path(home))
    known = {rows.name(row): row for row in found}
    if name not in known:
        raise ValueError(f"{home} has no row {name}. It has {', '.join(list(known)[:8])} and so on.")
    before = known[name]
    if "na" in before:
        raise ValueError(f"{name} was not measured: {before['na']}")
    bench = transfer.bench(saved)
    row = measured_again(bench, transfer.plan_of(saved), cell_of(before), before)
    changed = [what for what in row["recipe"] if row["recipe"][what] != before["recipe"].get(what)]
    group = before["method"], before["budget"], before.get("label_noise", 0.0)
    alike = [one["accuracy"] for one in found if (one["method"], one["budget"], one.get("label_noise", 0.0)) == group]
    middle = interval(alike)
    spread = middle.half_width * len(alike) ** 0.5  # of one row, and not of their mean
    same, within = row["accuracy"] == before["accuracy"], abs(row["accuracy"] - middle.mean) <= spread
    say(
        f"{name}: {100 * before['accuracy']:.2f} % then, {100 * row['accuracy']:.2f} % now: "
        + ("the same." if same else "within what seeds differ by." if within else "further apart than seeds differ.")
    )
    if changed:
        say(f"what it depends on has changed since: {', '.join(changed)}.")
    return {"row": row, "before": before, "same": same, "within": within}
