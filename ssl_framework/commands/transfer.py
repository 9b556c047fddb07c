"""``ssl-framework transfer``: whether pretraining paid, for several numbers of labels, beside scratch and floors."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ssl_framework import machine, report
from ssl_framework.checkpoint import load_encoder
from ssl_framework.commands import build, compose, early, folder, story
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.commands.errors import StoppedError
from ssl_framework.commands.quiet import quiet
from ssl_framework.data import DataModule, digits, fit
from ssl_framework.transfer import Bench, Cell, Judge, Plan, claims, recipe, require_disjoint, rows, study
from ssl_framework.transfer.cells import labels

Row = dict[str, Any]

_OF_DIGITS = ("digits", "MNIST", "QMNIST", "EMNIST", "SVHN", "USPS")
_PICTURES = ("map", "neighbours", "attention", "views")
_USUAL = (1, 10, 50, 250)


def run(settings: Settings) -> dict[str, Any]:
    """Measure what is missing of a study.

    Args:
        settings: of `compose("transfer", ...)`.

    Returns:
        ``run``, the folder, and ``rows``.

    Raises:
        ValueError: what the user asked for does not fit together; nothing was measured.
        StoppedError: Ctrl-C.
    """
    settings, made = _settled(settings)  # what does not fit together leaves no folder behind
    plan = plan_of(settings)
    home = Path(settings["run"]["dir"]) if settings["resume"] is not None else folder.begin(settings)
    with folder.claimed(home):
        found = _measured(settings, plan, home)
    say(f"rows: {home / rows.FILE}")
    if settings["parts"] > 1:
        say(f"part {settings['part']} of {settings['parts']}: the page is made of all parts, by ssl-framework report.")
        return {"run": str(home), "rows": found}
    study_told = story.told(found, made, plan, home, settings, pretraining(settings, found))
    page = written(study_told, found, home)
    say("", study_told["sentence"], "", report.text([row for row in found if "accuracy" in row and not row.get("label_noise")]))
    say("", f"page: {page}")
    return {"run": str(home), "rows": found, "page": str(page)}


def _settled(settings: Settings) -> tuple[Settings, Bench]:
    """Settings with what depends on the machine and the data, and what is measured with."""
    if settings["resume"] is not None:
        settings = early.go_on(settings)
    settings = build.on_this_machine(settings, settings["accelerator"])
    made = bench(settings)
    if settings["budgets"] is None:
        settings = {**settings, "budgets": _usual(made)}
    plan = plan_of(settings)
    pretraining(settings, [])  # what the page will say of it can be read
    for budget in plan.budgets:
        labels(made, Cell("full", budget, plan.pilot))
    if not 0 <= settings["part"] < settings["parts"]:
        raise ValueError(f"part={settings['part']} of parts={settings['parts']}: parts are numbered from 0.")
    _jobs(settings)
    return settings, made


def _measured(settings: Settings, plan: Plan, home: Path) -> list[Row]:
    """All rows of the part, those that were missing measured under a progress bar."""
    file = home / rows.FILE
    with tqdm(desc="cells", unit="cell") as bar:

        def show(row: Row, there: int, total: int) -> None:
            bar.total, bar.n = total, there
            reached = row.get("accuracy", row.get("val_accuracy"))
            bar.set_postfix_str(f"{rows.name(row)}: {'n/a' if reached is None else f'{100 * reached:.1f} %'}")

        try:
            share = {"jobs": _jobs(settings), "part": settings["part"], "parts": settings["parts"]}
            return study(partial(bench, settings), plan, file, **share, on_row=show)
        except KeyboardInterrupt:
            kept = len(rows.read(file))
            raise StoppedError(
                f"stopped by Ctrl-C; {kept} rows are kept. Go on with: ssl-framework transfer resume={home}"
            ) from None


def written(study_told: dict[str, Any], found: Sequence[Row], home: Path) -> Path:
    """``report.html``, and ``results.json`` with the same, but for pictures, and with every claim."""
    results = {key: study_told[key] for key in study_told if key not in _PICTURES}
    claimed = claims.summary(found, pretrain_seconds=results.get("pretrain_seconds"))
    folder.write_results(home, {**results, "claims": claimed})
    return report.write_page(study_told, home / "report.html")


def pretraining(settings: Settings, found: Sequence[Row]) -> dict[str, Any]:
    """The run that made the encoder, and how many seconds it took, as far as they are known and comparable with those of cells.

    Seconds of its log are those of as many threads as it had, and become those of as many as the cells had, as if threads
    shared work without loss: then ``threads`` says how many each had. Those of a GPU are not those of a CPU.
    """
    given, path = settings["pretrain_seconds"], Path(settings["encoder_file"])
    home = path if path.is_dir() else path.parent
    allowed = settings.get("allow_target") or ()
    _check_pretraining(home, allowed)
    if given is not None:
        return {"seconds": float(given), "folder": home}
    seconds, file = _seconds(home, allowed), home / "environment.json"
    cells = {(row["recipe"]["device"], row["recipe"]["threads"]) for row in found}
    if seconds is None or not file.is_file() or len(cells) != 1:
        return {"seconds": None, "folder": home}
    known, (device, threads) = folder.environment_of(home), cells.pop()
    trainer = compose.saved_settings(home, allowed=allowed).get("trainer") or {}
    on_gpu = bool(known.get("devices")) and trainer.get("accelerator") != "cpu"
    if on_gpu != (device == "gpu"):
        return {"seconds": None, "folder": home}
    had = known.get("threads", threads)
    if on_gpu or had == threads:
        return {"seconds": seconds, "folder": home}
    return {"seconds": seconds * had / threads, "folder": home, "threads": (had, threads)}


def _seconds(home: Path, allowed: Sequence[str] = ()) -> float | None:
    """From the log of a pretraining: samples, by how many of them were seen in a second."""
    log, config = home / "metrics.csv", home / "config.yaml"
    if not log.is_file() or not config.is_file():
        return None
    speed = report.read_metrics(home).get("throughput/samples_per_s")
    saved = compose.saved_settings(home, allowed=allowed)
    data, trainer = (saved.get(key) or {} for key in ("data", "trainer"))
    steps, batches = load_encoder(home).history.get("steps"), trainer.get("accumulate_grad_batches")
    if speed is None or not isinstance(steps, int) or batches is None or "batch_size" not in data:
        return None
    return steps * data["batch_size"] * batches * float((1 / speed.value).mean())


def _check_pretraining(home: Path, allowed: Sequence[str]) -> None:
    """What is read of the run that made the encoder is as a run would have it.

    Raises:
        ValueError: it is not, and the message names the file.
    """
    if not (home / "config.yaml").is_file():
        return
    saved = compose.saved_settings(home, "encoder_file", allowed)
    read = {"data": ("batch_size",), "trainer": ("accumulate_grad_batches",)}  # the rest may be of an older version
    numbers = {
        name: {key: node[key] for key in keys if key in node} if isinstance(node := saved.get(name), dict) else node
        for name, keys in read.items()
    }
    early.check_saved({**numbers, "views": saved.get("views")}, home)


def plan_of(settings: Settings) -> Plan:
    """The grid that the words ask for.

    Raises:
        ValueError: there is no such method, or a number is none.
    """
    if not isinstance(settings["seeds"], int) or settings["seeds"] < 1:
        raise ValueError(f"seeds={settings['seeds']}: give how many, at least 1.")
    on_cpu = build.device(settings["accelerator"]).type == "cpu"
    plan = Plan(
        methods=_listed(settings["methods"]),
        budgets=[_budget(one) for one in _listed(settings["budgets"])],
        seeds=range(settings["seed"], settings["seed"] + settings["seeds"] + 1),
        steps=settings["steps"],
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        rates=_listed(settings["rates"]),
        val_images=settings["val_images"],
        label_noise=_listed(settings["label_noise"]),
        test_images=settings["robustness"],
        attacks=_listed(settings["attacks"]),
        precision=build.encoding_precision(settings),
        accelerator="cpu" if on_cpu else "gpu",
    )
    if claims.SCRATCH not in plan.methods or not set(claims.TRANSFER) & set(plan.methods):
        raise ValueError(
            f"methods={plan.methods}: a verdict needs {claims.SCRATCH}, and one at least of {', '.join(claims.TRANSFER)}."
        )
    return plan


def bench(settings: Settings) -> Bench:
    """Encoder and splits.

    Raises:
        ValueError: they do not suit each other, or have no labels.
    """
    quiet()  # in each process
    data = build.data(settings)
    loaded = build.load(settings["encoder_file"], data.facts)
    if data.facts.classes is None:
        raise ValueError("these data have no labels, and a study needs them: choose labelled data with data=.")
    data.require_apart()
    splits = {"train": data.split("train"), "val": data.split("val"), "test": data.test_split()}
    require_disjoint(*splits.values())
    if len(data.facts.classes) < 2:
        raise ValueError(f"these data have a single class, {', '.join(data.facts.classes)}: there is nothing to tell apart.")
    if len(splits["val"]) == 0:
        raise ValueError("there are no validation samples to choose rates on: set data.val_share above 0.")
    return Bench(
        loaded.encoder,
        loaded.preprocessing,
        splits["train"],
        splits["val"],
        Judge(splits["test"]),
        loaded.facts["sha256"],
        recipe.data_digest(splits),
        len(data.facts.classes),
        _others(data),
    )


def _others(data: DataModule) -> Tensor | None:
    """Handwritten digits in the form of the study's images, to be told from them; None where it is of digits itself."""
    source = digits()
    if data.name in _OF_DIGITS:
        return None
    images, like = source.test_split().images(range(len(source.test_split()))), data.test_split().images([0])
    return fit(images.repeat(1, like.shape[1], 1, 1), (like.shape[2], like.shape[3]))


def _usual(made: Bench) -> list[int]:
    """The usual numbers of labels, as far as each class has them."""
    fewest = int(torch.bincount(made.train.targets, minlength=made.classes).min())
    return [budget for budget in _USUAL if budget <= fewest]


def _budget(asked: Any) -> Any:
    """0.1 is a tenth of the labels."""
    return f"{100 * asked:g}%" if isinstance(asked, float) and 0 < asked < 1 else asked


def _jobs(settings: Settings) -> int:
    asked = settings["jobs"]
    if asked is not None and (not isinstance(asked, int) or asked < 1):
        raise ValueError(f"jobs={asked}: give a whole number of processes from 1, or null.")
    return asked or (machine.cores() if build.device(settings["accelerator"]).type == "cpu" else 1)


def _listed(asked: Any) -> list[Any]:
    return list(asked) if isinstance(asked, list) else [] if asked is None else [asked]
