"""``ssl-framework reproduce RUN:METHOD/LABELS/SEED``: a row of a study measured again, beside what was written down."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_framework.commands import report, transfer
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.metrics import interval
from ssl_framework.transfer import measured_again, rows

Row = dict[str, Any]


def run(settings: Settings) -> dict[str, Any]:
    """Measure a row again with the rate or penalty that was chosen for it.

    Args:
        settings: of `compose("reproduce", ...)`.

    Returns:
        ``row``, the new one; ``before``, the old one; ``same``: whether the accuracies are equal; ``within``: whether the new
        one is where a row of another seed could be, None where too few seeds tell.

    Raises:
        ValueError: there is no such row, or it says why it was not measured.
    """
    home, _, name = str(settings["row"]).rpartition(":")
    if not home:
        raise ValueError(f"row={name}: say of which study, as RUN:{name or 'METHOD/LABELS/SEED'}.")
    saved, found = report.study_of(Path(home), settings["accelerator"], settings["allow_target"])
    known = {rows.name(row): row for row in found}
    if name not in known:
        raise ValueError(f"{home} has no row {name}. It has {', '.join(list(known)[:8])} and so on.")
    before = known[name]
    if "na" in before:
        raise ValueError(f"{name} was not measured: {before['na']}")
    if before.get("pilot"):
        raise ValueError(f"{name} chose on validation and was not judged: give a row of another seed.")
    row = measured_again(transfer.bench(saved), transfer.plan_of(saved), before)
    group = rows.key({**before, "seed": 0})
    judged = [one for one in found if "accuracy" in one]
    alike = [one["accuracy"] for one in judged if rows.key({**one, "seed": 0}) == group]
    same, within = row["accuracy"] == before["accuracy"], _within(row["accuracy"], alike)
    verdict = {None: "not the same; too few seeds say how far apart is much", True: "within what seeds differ by"}
    told = "the same" if same else verdict.get(within, "further apart than seeds differ")
    say(f"{name}: {100 * before['accuracy']:.2f} % then, {100 * row['accuracy']:.2f} % now: {told}.")
    if "robustness" in before:
        apart = max(abs(row["robustness"][key] - value) for key, value in before["robustness"].items())
        say(f"robustness: {len(before['robustness'])} numbers, at most {100 * apart:.2f} points apart.")
    changed = [what for what in row["recipe"] if row["recipe"][what] != before["recipe"].get(what)]
    if changed:
        say(f"what it depends on has changed since: {', '.join(changed)}.")
    return {"row": row, "before": before, "same": same, "within": within}


def _within(accuracy: float, alike: Sequence[float]) -> bool | None:
    """Whether a number lies where one more seed would, in 95 of 100 cases; None where fewer than three seeds tell."""
    if len(alike) < 3:
        return None
    middle = interval(alike)
    return abs(accuracy - middle.mean) <= middle.half_width * (len(alike) + 1) ** 0.5
