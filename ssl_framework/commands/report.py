"""``ssl-framework report RUN...``: the page of each study, and of several one that compares them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_framework import report
from ssl_framework.commands import compose, early, folder, story, strangers, transfer
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.transfer import cells_of, rows

Row = dict[str, Any]


def run(settings: Settings) -> dict[str, Any]:
    """Write ``report.html`` into the folder of each study, and ``comparison.html`` into the run folder if there are several.

    Args:
        settings: of `compose("report", ...)`.

    Returns:
        ``pages``: paths.

    Raises:
        ValueError: a folder holds no study.
    """
    runs = [Path(each) for each in (settings["runs"] if isinstance(settings["runs"], list) else [settings["runs"]])]
    studies = [told(each, settings["accelerator"], settings["allow_target"]) for each in runs]
    pages = [
        transfer.written(study, study_of(each, settings["accelerator"], settings["allow_target"])[1], each)
        for each, study in zip(runs, studies, strict=True)
    ]
    titles = [study["title"] for study in studies]
    for each, study in zip(runs, studies, strict=True):
        if titles.count(study["title"]) > 1:
            study["title"] += f" ({each.resolve().name})"
    if len(studies) > 1:
        home = folder.begin(settings)
        pages.append(report.write_comparison(studies, home / "comparison.html"))
    say(*[f"page: {page}" for page in pages])
    return {"pages": list(map(str, pages))}


def told(home: Path, accelerator: str, allowed: Sequence[str] = ()) -> dict[str, Any]:
    """A study as its page takes it.

    Raises:
        ValueError: there is none, or not all of it was measured.
    """
    saved, found = study_of(home, accelerator, allowed)
    plan = transfer.plan_of(saved)
    total = len(cells_of(plan))
    if len(found) < total:
        parts = "" if saved["parts"] == 1 else f" of {saved['parts']} parts"
        raise ValueError(
            f"{home} has {len(found)} of {total} rows{parts}: measure the rest by ssl-framework transfer resume=RUN."
        )
    return story.told(found, transfer.bench(saved), plan, home, saved, transfer.pretraining(saved, found))


def study_of(home: Path, accelerator: str, allowed: Sequence[str] = ()) -> tuple[Settings, list[Row]]:
    """The settings of a study and its rows, from one folder, or from those of its parts.

    Args:
        home: of the study, or of its parts.
        accelerator: of this machine, which need not be that of the study.
        allowed: see `compose.saved_settings`.

    Raises:
        ValueError: there is none, or the parts do not belong together.
    """
    files = [home / rows.FILE] if (home / rows.FILE).is_file() else sorted(home.glob(f"*/{rows.FILE}"))
    if not files:
        raise ValueError(f"{home} holds no {rows.FILE}: give the folder of a run of transfer, or the one that holds its parts.")
    saved = [{**compose.saved_settings(file.parent, "report", allowed), "accelerator": accelerator} for file in files]
    strangers.refuse_links(home)
    for settings, file in zip(saved, files, strict=True):
        early.check_saved(settings, file.parent)
    plans = [transfer.plan_of(each) for each in saved]
    if any(plan != plans[0] for plan in plans):
        raise ValueError(f"the folders in {home} are of studies with other plans: give them one by one, and they are compared.")
    found = rows.gathered(files)
    for what in ("data_fingerprint", "config_hash"):
        groups = {(row["recipe"][what], *(_group(row) if what == "config_hash" else ())) for row in found}
        if len(groups) > len({group[1:] for group in groups}):
            raise ValueError(f"the rows in {home} are of studies with other {what}s: give their folders one by one.")
    return saved[0], found


def _group(row: Row) -> tuple[str, str, float]:
    method, budget, _, noise = rows.key(row)
    return method, budget, noise
