"""``ssl-framework evaluate``: what a frozen encoder is worth with few labels, beside its floors."""

from typing import Any

from ssl_framework import report
from ssl_framework.commands import build, folder
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.commands.explain import did_you_mean
from ssl_framework.data import DataModule
from ssl_framework.evaluation import Splits, study
from ssl_framework.views.preprocessing import plain

_FLOORS = ["random", "pixels", "pca"]


def run(settings: Settings) -> dict[str, Any]:
    """Measure an encoder; write ``results.json``, ``results.md`` and ``labels.png``.

    Args:
        settings: of `compose("evaluate", ...)`.

    Returns:
        ``run``, the folder; ``rows``: see `ssl_framework.evaluation.study`; ``unreadable``, names of samples
        that were replaced.

    Raises:
        ValueError: what the user asked for does not fit together; nothing was measured.
    """
    budgets, floors = budgets_of(settings["labels_per_class"]), _floors(settings["floors"])
    device = build.device(settings["accelerator"])
    precision = build.encoding_precision(settings)
    settings = build.on_this_machine(settings, settings["accelerator"])
    data = build.data(settings)
    loaded = build.load(settings["encoder_file"], data.facts)
    encoder = loaded.encoder.cut(settings["cut"])
    splits = splits_of(data)
    home = data.bad_samples.folder = folder.begin(settings)
    rows = study(
        encoder,
        splits,
        plain(**loaded.preprocessing).center,
        budgets=budgets,
        seeds=range(settings["seed"], settings["seed"] + settings["seeds"]),
        floors=floors,
        batch_size=settings["batch_size"],
        device=device,
        precision=precision,
        on_row=_progress,
    )
    linear, neighbours = ([row for row in rows if row["classifier"] == kind] for kind in ("linear", "knn"))
    folder.write_results(home, {"encoder_file": settings["encoder_file"], "cut": settings["cut"], "rows": rows})
    (home / "results.md").write_text(
        f"## Linear probe\n\n{report.markdown(linear)}\n\n## Nearest neighbours\n\n{report.markdown(neighbours)}\n"
    )
    picture = report.save(report.label_efficiency(linear), home / "labels.png")
    ours = linear[0]["method"]
    gains = [report.gain(linear, ours, floor) for floor in dict.fromkeys(row["method"] for row in linear) if floor != ours]
    say("linear probe", report.text(linear), *gains, "", "nearest neighbours", report.text(neighbours))
    say("", *data.bad_samples.lines(), f"rows: {home / 'results.json'}", f"picture: {picture}")
    return {"run": str(home), "rows": rows, "unreadable": data.bad_samples.names()}


def splits_of(data: DataModule) -> Splits:
    """Train, which the labels come from, validation, which chooses, and test, which judges: apart, or it is an error."""
    data.require_apart()
    return Splits(data.split("train"), data.split("val"), data.test_split())


def budgets_of(asked: Any) -> list[Any]:
    """Label budgets as a list.

    Raises:
        ValueError: one is neither a whole number from 1 nor "all".
    """
    budgets = asked if isinstance(asked, list) else [asked]
    for budget in budgets:
        if budget != "all" and (not isinstance(budget, int) or budget < 1):
            raise ValueError(f"labels_per_class={asked}: give whole numbers from 1, or all, such as [1,10,all].")
    return budgets


def _floors(asked: Any) -> list[Any]:
    floors = asked if isinstance(asked, list) else [] if asked is None else [asked]
    for floor in floors:
        if floor not in _FLOORS:
            raise ValueError(f"floors={asked}: no floor {floor}. {did_you_mean(str(floor), _FLOORS)}")
    return floors


def _progress(row: dict[str, Any]) -> None:
    if row["classifier"] == "linear":
        say(f"  {row['method']}, {row['budget']} labels, seed {row['seed']}: {100 * row['accuracy']:.1f} %")
