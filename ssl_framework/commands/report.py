"""``ssl-framework report RUN...``: the page of each study, and of several one that compares them."""

from pathlib import Path
from typing import Any

from ssl_framework import report
from ssl_framework.commands import compose, folder, story, transfer
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.transfer import rows

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
    runs = settings["runs"] if isinstance(settings["runs"], list) else [settings["runs"]]
    studies = [told(Path(each)) for each in runs]
    pages = [report.write_page(study, Path(each) / "report.html") for each, study in zip(runs, studies, strict=True)]
    if len(studies) > 1:
        home = folder.begin(settings)
        pages.append(report.write_comparison(studies, home / "comparison.html"))
    say(*[f"page: {page}" for page in pages])
    return {"pages": list(map(str, pages))}


def told(home: Path) -> dict[str, Any]:
    """A study as its page takes it."""
    saved, found = study_of(home)
    return story.told(found, transfer.bench(saved), home, saved, transfer.pretraining(saved))


def study_of(home: Path) -> tuple[Settings, list[Row]]:
    """The settings of a study and its rows, from one folder, or from those of its parts.

    Raises:
        ValueError: there is none, or the parts do not belong together.
    """
    files = [home / rows.FILE] if (home / rows.FILE).is_file() else sorted(home.glob(f"*/{rows.FILE}"))
    if not files:
        raise ValueError(f"{home} holds no {rows.FILE}: give the folder of a run of transfer, or the one that holds its parts.")
    saved = [compose.saved_settings(file.parent, "report") for file in files]
    plans = [transfer.plan_of(each) for each in saved]
    if any(plan != plans[0] for plan in plans):
        raise ValueError(f"the folders in {home} are of studies with other plans: give them one by one, and they are compared.")
    return saved[0], rows.gathered(files)
