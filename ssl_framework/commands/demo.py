"""``ssl-framework demo``: both phases on handwritten digits, one table, three pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssl_framework import report
from ssl_framework.checkpoint import Loaded, load_encoder
from ssl_framework.commands import build, compose, evaluate, folder, pretrain
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.data import DataModule
from ssl_framework.downstream import Classification, Full, fit_and_measure
from ssl_framework.encoders import random_like
from ssl_framework.evaluation import embed, study
from ssl_framework.optim import adamw
from ssl_framework.views.preprocessing import plain

Row = dict[str, Any]

_ORDER = ("scratch", "random encoder", "raw pixels", "frozen", "fine-tuned")


def run(settings: Settings) -> dict[str, Any]:
    """Pretrain, transfer, and say what it was worth.

    Args:
        settings: of `compose("demo", ...)`.

    Returns:
        ``run``, the folder, which is that of the pretraining; ``rows`` of the table; ``pictures``.
    """
    budgets = evaluate.budgets_of(settings["labels_per_class"])
    seeds = range(settings["seed"], settings["seed"] + settings["seeds"])
    say("Phase 1: pretrain on 1,797 handwritten digits of 8 x 8 pixels, without their labels.")
    phase_1 = _pretraining(settings)
    home = Path(pretrain.run(phase_1)["run"])
    say("", f"Phase 2: learn from {' and '.join(map(str, budgets))} labels of each digit, {len(seeds)} times.")
    data, loaded = build.data(phase_1), load_encoder(home)
    rows = _ordered(
        [*_measured(loaded, data, budgets, seeds), *_trained(loaded, data, budgets, seeds, settings["finetune_steps"])]
    )
    folder.write_results(home, {"rows": rows})
    (home / "results.md").write_text(report.markdown(rows) + "\n")
    pictures = _pictures(home, loaded, data, rows)
    gains = [report.gain(rows, "frozen", floor) for floor in ("random encoder", "raw pixels")]
    say("", report.text(rows), *gains, "")
    say(f"run folder: {home}", *[f"picture:    {picture}" for picture in pictures])
    return {"run": str(home), "rows": rows, "pictures": list(map(str, pictures))}


def _pretraining(settings: Settings) -> Settings:
    words = ["experiment=digits_simclr", f"seed={settings['seed']}", f"precision={settings['precision']}"]
    words += ["monitors.knn.every_n_steps=50", "monitors.probe.every_n_steps=50"]  # a curve, not three points
    if settings["max_steps"] is not None:
        words.append(f"trainer.max_steps={settings['max_steps']}")
    return compose.compose("pretrain", words, folder=settings["run"]["dir"])


def _measured(loaded: Loaded, data: DataModule, budgets: Sequence[Any], seeds: range) -> list[Row]:
    """Linear probes on what stays as it is: the pretrained encoder, a random one, the pixels."""
    splits, prepare = evaluate.splits_of(data), plain(**loaded.preprocessing).center
    rows = study(loaded.encoder, splits, prepare, budgets=budgets, seeds=seeds, floors=("random", "pixels"), name="frozen")
    return [row for row in rows if row["classifier"] == "linear"]


def _trained(loaded: Loaded, data: DataModule, budgets: Sequence[Any], seeds: range, steps: int) -> list[Row]:
    """Whole encoders trained on the labels: from fresh weights, and from pretrained ones."""
    train, test = data.split("train"), data.test_split()
    facts = data.facts
    assert facts.classes is not None, "the digits have labels"
    rows: list[Row] = []
    cells = [(budget, seed, scratch) for budget in budgets for seed in seeds for scratch in (True, False)]
    for budget, seed, scratch in tqdm(cells, desc="training on few labels", leave=False):
        row = fit_and_measure(
            random_like(loaded.encoder, seed) if scratch else loaded.encoder,
            train if budget == "all" else train.subset(budget, seed),
            test,
            task=Classification(len(facts.classes)),
            freezing=Full() if scratch else Full(encoder_lr=0.1),
            optimizer=adamw(lr=3e-3, scale_lr="none"),
            preprocessing=loaded.preprocessing,
            method="scratch" if scratch else "fine-tuned",
            budget=budget,
            seed=seed,
            steps=steps,
        )
        rows.append(row)
    return rows


def _ordered(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: _ORDER.index(row["method"]))


def _pictures(home: Path, loaded: Loaded, data: DataModule, rows: list[Row]) -> list[Path]:
    test = data.test_split()
    seen = embed(loaded.encoder, test, plain(**loaded.preprocessing).center)
    return [
        report.save(report.training_curves(home), home / "curves.png"),
        report.save(report.embedding_map(seen.x, seen.y, test.classes), home / "embeddings.png"),
        report.save(report.label_efficiency(rows), home / "labels.png"),
    ]
