"""What the page of a transfer study shows, gathered from its rows, its encoder and its folder."""

import csv
import re
import shlex
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ssl_framework import report
from ssl_framework.commands import compose, pictures
from ssl_framework.commands import folder as folder_of_run
from ssl_framework.evaluation import CORRUPTIONS, depth_curve
from ssl_framework.metrics import budget_in_words
from ssl_framework.transfer import Bench, Plan, cell_of, claims, rows
from ssl_framework.transfer.cells import head
from ssl_framework.transfer.methods import METHODS
from ssl_framework.views.preprocessing import plain

Row = dict[str, Any]
Plain = dict[str, Any]

_POINTS = 300  # of a curve

NAMES = {
    "scratch": "scratch",
    "random_frozen": "random network, frozen",
    "raw_pixels": "raw pixels",
    "pca": "principal components",
    "frozen": "frozen",
    "last_n": "last layer fine-tuned",
    "lp_ft": "fine-tuned in two steps",
    "full": "fine-tuned",
    "lora": "LoRA",
}
"""What people who know nothing of the field read for a method."""

_LIMITS = (
    "One data set and one pretrained encoder: the luck of this pretraining run is not part of the intervals.",
    "Scratch and every trained method had the same steps, the same learning rates to choose from, and no augmentation.",
    "Rates, penalties and the method of each number of labels were chosen on labelled validation images, more of them than the "
    "smallest budgets have to learn from, by one draw of labels that is not judged.",
)


def told(
    found: Sequence[Row], bench: Bench, plan: Plan, home: Path, settings: Mapping[str, Any], pretraining: Mapping[str, Any]
) -> Plain:
    """A study as `ssl_framework.report.write_page` takes it.

    Args:
        found: all rows.
        bench: of the study.
        plan: likewise.
        home: its run folder.
        settings: of the verb.
        pretraining: ``seconds`` or None, and ``folder`` of the run that made the encoder or None; ``threads`` of it and of the
            rows, where seconds were converted from one to the other.
    """
    claimed = claims.summary(found, pretrain_seconds=pretraining["seconds"])
    labels = {row["budget"]: row["labels"] for row in found if "accuracy" in row}
    clean = [row for row in found if not row.get("label_noise") and not row.get("pilot")]
    study: Plain = {
        "title": f"{_encoder(settings)} on {settings['run']['choices']['data']}",
        "sentence": named(claimed["headline"]),
        "verdicts": [_verdict(one, labels) for one in claimed["verdicts"] if "gain" in one],
        "rows": [_row(row, home, bench, plan) for row in clean],
        "more_rows": [_row(row, home, bench, plan) for row in found if row.get("label_noise")],
        "label_efficiency": [_worth(one, labels) for one in claimed["label_efficiency"] if "factor" in one],
        "speed": [_speed(one) for one in claimed["speed"] if "ratio" in one],
        "depth": _depth(bench, [row for row in clean if row["method"] == "frozen"]),
        "robustness": _robustness(found),
        "robustness_note": _measured_on(found, bench, plan, labels),
        "training": _training(pretraining["folder"]),
        "environment": _environment(home) | _pretrained_on(pretraining["folder"]),
        "commands": _commands(pretraining["folder"], home, settings),
        "limits": [
            *_LIMITS,
            *_at_the_edge(found, plan),
            *_seen_before(settings, pretraining["folder"]),
            *_unreadable(pretraining["folder"]),
            *_converted(pretraining.get("threads")),
        ],
        **pictures.seen(bench),
        "attention": pictures.attention(bench),
        "views": pictures.views(bench, pretraining["folder"], _allowed(settings)),
    }
    timed = [one for one in claimed["speed"] if "tasks" in one]
    if pretraining["seconds"] is not None and timed:
        study |= {"pretrain_seconds": pretraining["seconds"], "pays_after_tasks": _paid_after(timed, claimed["verdicts"])}
    return {
        key: value for key, value in study.items() if value not in (None, [], {}) or key in ("pays_after_tasks", "verdicts")
    }


def _converted(threads: tuple[int, int] | None) -> list[str]:
    """A limit of the time of pretraining, where it had other threads than the rows."""
    if threads is None:
        return []
    had, rows = (f"{number} thread{'' if number == 1 else 's'}" for number in threads)
    return [
        f"Pretraining had {had}, a row {rows}: its time counts as if {rows} took {threads[0] / threads[1]:g} times as long."
    ]


def _encoder(settings: Mapping[str, Any]) -> str:
    """The name of its folder."""
    path = Path(settings["encoder_file"])
    return (path if path.is_dir() else path.parent).resolve().name


def named(sentence: str) -> str:
    """A sentence with methods called as people read them."""
    return _METHOD.sub(lambda found: NAMES[found.group()], sentence)


_METHOD = re.compile(rf"\b({'|'.join(NAMES)})\b")


def _verdict(one: Plain, labels: Mapping[Any, int]) -> Plain:
    gain = (one["gain"], one["low"], one["high"])
    kept = {key: one[key] for key in ("budget", "verdict")}
    said = {"method": NAMES[one["method"]], "sentence": named(one["sentence"]), "rival": one["rival"]}
    return {**kept, **said, "labels": labels[one["budget"]], "gain": gain, "p_holm": one["p_adjusted"]}


def _at_the_edge(found: Sequence[Row], plan: Plan) -> list[str]:
    """A limit for each end of the rates, where the best one may lie beyond."""
    said = []
    ends = ((max(plan.rates), "largest", "larger"), (min(plan.rates), "smallest", "smaller"))
    for rate, which, beyond in ends if len(plan.rates) > 1 else ():
        at: dict[Any, list[str]] = {}
        for row in found:
            if row.get("pilot") and row.get("rate") == rate and _is_best_alone(row):
                at.setdefault(row["budget"], []).append(NAMES[row["method"]])
        if at:
            where = "; ".join(f"with {budget_in_words(budget)}: {', '.join(names)}" for budget, names in at.items())
            said.append(
                f"Some chose the {which} learning rate of all, {rate:g}; a {beyond} one may suit them better ({where})."
            )
    return said


def _is_best_alone(row: Row) -> bool:
    """Whether validation tells the chosen rate from all others."""
    found = list(row["tried"].values())
    return found.count(max(found)) == 1


def _seen_before(settings: Mapping[str, Any], folder: Path | None) -> list[str]:
    """A limit, where the pretraining split the same data in another way."""
    if folder is None or not (folder / "config.yaml").is_file():
        return []
    before, now = compose.saved_settings(folder, "report", _allowed(settings)).get("data"), settings["data"]
    if before is None:  # converted, not pretrained here
        return []
    same = all(before.get(key) == now.get(key) for key in ("_target_", "name", "path"))
    split = any(before.get(key) != now.get(key) for key in ("split_seed", "test_share"))
    return ["Pretraining split these data in another way: it may have seen images of test, without their labels."] * (
        same and split
    )


def _unreadable(folder: Path | None) -> list[str]:
    """A limit, where the pretraining met samples that it could not read."""
    file = None if folder is None else folder / "bad_samples.csv"
    if file is None or not file.is_file():
        return []
    with file.open(newline="") as rows:
        count = sum(1 for _ in csv.DictReader(rows))
    return [f"{count} samples of the pretraining could not be read, and others took their places: bad_samples.csv names them."]


def _paid_after(timed: Sequence[Plain], verdicts: Sequence[Plain]) -> int | None:
    """Tasks after which the time of pretraining is won back, wherever it pays; None where that is not shown."""
    paying = {one["budget"] for one in verdicts if one["verdict"] == "pays"}
    tasks = [one["tasks"] for one in timed if one["budget"] in paying]
    return max(tasks) if tasks and None not in tasks else None


def _row(row: Row, home: Path, bench: Bench, plan: Plan) -> Plain:
    kept = ("budget", "labels", "seed", "accuracy", "seconds", "steps", "rate", "penalty", "na")
    shown = {key: row[key] for key in kept if row.get(key) is not None}
    wrong = f", {row['label_noise']:.0%} wrong labels" if row.get("label_noise") else ""
    bound = ("config_hash", "code", "data_fingerprint")
    recipe, now = {key: row["recipe"][key] for key in bound}, head(bench, plan, cell_of(row), 0)["recipe"]
    return {
        **shown,
        "method": f"{NAMES[row['method']]}{wrong}",
        "recipe": recipe,
        "stale": any(recipe[key] != now[key] for key in bound),
        "command": shlex.join(["ssl-framework", "reproduce", f"{home}:{rows.name(row)}"]),
    }


def _worth(one: Plain, labels: Mapping[Any, int]) -> Plain:
    middle = one["factor"]
    value, censored = _known(middle["median"])
    ends = {name: _exactly(middle[name]) for name in ("low", "high")}
    return {
        "labels": labels[one["budget"]],
        "ratio": {"value": value, **ends, "censored": censored},
        "sentence": named(one["sentence"]),
    }


def _known(end: Plain) -> tuple[float, str | None]:
    """A number, or the end that it lies beyond."""
    if end["high"] is None:
        return end["low"], "above"
    if end["low"] in (None, 0.0) and end["high"] != end["low"]:
        return end["high"], "below"
    return (end["low"] * end["high"]) ** 0.5, None


def _exactly(end: Plain | None) -> float | None:
    """A number; None where it is not known, or only that it lies beyond another."""
    return end["low"] if end is not None and end["low"] == end["high"] else None


def _speed(one: Plain) -> Plain:
    steps, seconds = (None if one[name] is None else _exactly(one[name]["median"]) for name in ("steps_ratio", "ratio"))
    return {
        "budget": one["budget"],
        "steps_ratio": steps,
        "seconds_ratio": seconds,
        "sentence": named(one["sentence"]),
    }


def _depth(bench: Bench, frozen: Sequence[Row]) -> Plain | None:
    """Every layer probed by cross-validation, with the labels of the largest budget that has two of each class."""
    budgets = [row["budget"] for row in frozen if isinstance(row["budget"], int) and row["budget"] > 1]
    if not budgets:
        return None
    train = bench.train.subset(max(budgets), frozen[0]["seed"])
    curve = depth_curve(bench.encoder, train, plain(**bench.preprocessing).center, train.targets, seed=frozen[0]["seed"])
    return {
        "mean": curve.mean.tolist(),
        "standard_error": curve.standard_error.tolist(),
        "bar": curve.bar,
        "chosen": curve.chosen,
        "measure": curve.measure,
    }


def _robustness(found: Sequence[Row]) -> dict[str, Plain]:
    """Of the methods that were measured on harder images, or learnt from wrong labels; means over seeds."""
    shown: dict[str, Plain] = {}
    for name in METHODS:
        own = [row for row in found if row["method"] == name and "accuracy" in row]
        harder = [row["robustness"] for row in own if "robustness" in row]
        wrong = [row for row in own if row.get("label_noise")]
        if not harder and not wrong:
            continue
        part: Plain = {}
        if harder:
            mean = {key: sum(one[key] for one in harder) / len(harder) for key in harder[0]}
            part = _harder(mean)
        if wrong:
            seeds, budget = {row["seed"] for row in wrong}, wrong[0]["budget"]
            clean = [row for row in own if row["seed"] in seeds and row["budget"] == budget and not row.get("label_noise")]
            shares = sorted({row["label_noise"] for row in wrong})
            each = {0.0: clean, **{share: [row for row in wrong if row["label_noise"] == share] for share in shares}}
            part["label_noise"] = {str(share): _mean(group) for share, group in each.items() if group}
        shown[NAMES[name]] = part
    return shown


def _measured_on(found: Sequence[Row], bench: Bench, plan: Plan, labels: Mapping[Any, int]) -> str | None:
    """What harder images were, and for whom."""
    hard = [row for row in found if "robustness" in row]
    if not hard:
        return None
    images, seeds = min(plan.test_images, len(bench.judge.images)), len({row["seed"] for row in hard})
    drawn = f"{seeds} draw{'s' if seeds > 1 else ''} of labels; with wrong labels {plan.noisy_seeds}"
    unknown = " Images of an unknown kind are handwritten digits." if bench.others is not None else ""
    return f"After learning from {labels[hard[0]['budget']]:,} labels, on {images:,} test images ({drawn}).{unknown}"


def _harder(mean: Mapping[str, float]) -> Plain:
    """The flat numbers of `ssl_framework.evaluation.robustness`, by kind."""
    groups: dict[str, dict[str, float]] = {}
    for name, value in mean.items():
        kind, slash, rest = name.partition("/")
        if slash:
            groups.setdefault(kind, {})[
                rest if kind in CORRUPTIONS or kind == "ood_auroc" else f"{float(Fraction(rest)):.4g}"
            ] = value
    attacks = {"fgsm": groups.pop("fgsm", {}), "pgd": groups.pop("pgd", {}), "noise": groups.pop("random", {})}
    unlike = groups.pop("ood_auroc", {})
    return {
        "clean": mean["accuracy"],
        "corruptions": {kind: [group[key] for key in sorted(group)] for kind, group in groups.items()},
        **{name: {"0": mean["accuracy"], **group} for name, group in attacks.items()},
        "ece": mean["calibration_error"],
        "gradient_share": mean["gradient_share"],
        **({"ood_auroc": unlike["energy"]} if unlike else {}),
    }


def _mean(group: Sequence[Row]) -> float:
    return sum(row["accuracy"] for row in group) / len(group)


def _training(folder: Path | None) -> dict[str, list[tuple[float, float]]] | None:
    if folder is None or not (folder / "metrics.csv").is_file():
        return None
    curves = report.read_metrics(folder)
    return {
        name: [
            (float(step), float(value))
            for step, value in list(zip(curve.step, curve.value, strict=True))[:: 1 + len(curve.step) // _POINTS]
        ]
        for name, curve in curves.items()
        if "loss" in name or "accuracy" in name
    }


def _commands(folder: Path | None, home: Path, settings: Mapping[str, Any]) -> list[str]:
    """What was typed: the pretraining, if it is known, and the study."""
    known = [one for one in (folder, home) if one is not None and (one / "config.yaml").is_file()]
    runs = [compose.saved_settings(one, "report", _allowed(settings))["run"] for one in known]
    if home not in known:  # of the parts of a study
        run, parts = settings["run"], settings["parts"]
        words = [word for word in run["words"] if not word.startswith("part=")]
        every = f"part={','.join(map(str, range(parts)))}"
        runs.append({**run, "words": ["--multirun", *words, every], "dir": str(home)})
    return [shlex.join(["ssl-framework", one["verb"], *one["words"], f"run.dir={one['dir']}"]) for one in runs]


def _allowed(settings: Mapping[str, Any]) -> Sequence[str]:
    """What the configuration of a pretraining may call; studies of before there was the key have none."""
    return settings.get("allow_target") or ()


def _environment(home: Path) -> dict[str, Any]:
    file = next(iter([*home.glob("environment.json"), *sorted(home.glob("*/environment.json"))]), home / "environment.json")
    known = folder_of_run.environment_of(file.parent)
    kept = ("ssl_framework", "commit", "python", "platform", "processor", "threads")
    devices = {"devices": ", ".join(known["devices"])} if known.get("devices") else {}
    return {**{key: known.get(key) for key in kept if known.get(key)}, **devices, **known.get("packages", {})}


def _pretrained_on(folder: Path | None) -> dict[str, Any]:
    """The machine that made the encoder, as far as its run says."""
    known = {} if folder is None else folder_of_run.environment_of(folder)
    if not known:
        return {}
    cpu = f"CPU ({known.get('processor')}), {known.get('threads')} {'thread' if known.get('threads') == 1 else 'threads'}"
    return {"pretrained on": ", ".join(known.get("devices", ())) or cpu}
