"""Does every pretext task learn? Each with the same small budget, then kNN, linear probe and fine-tuning on 100 labels.

    export SSL_FRAMEWORK_DATA=FOLDER                      # that holds fashion_mnist/ and cifar10/
    python benchmarks/catalogue.py                        # what is missing of seed 0 on Fashion-MNIST, row by row
    python benchmarks/catalogue.py --seeds 0 1 2 --minutes 55
    python benchmarks/catalogue.py --case cifar10
    python benchmarks/catalogue.py --folder FOLDER        # that holds fashion_mnist.npz, or will: see `pool_file`
    python benchmarks/catalogue.py --report               # docs/explanation/catalogue.md and its picture

A row is appended to ``benchmarks/catalogue/CASE.jsonl`` as soon as it is there, so a run that was stopped goes on where it
was. Accuracies are in [0, 1], on the whole test split.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, cast

import catalogue_report
import machine_record
import numpy as np
import torch
from catalogue_cases import CASES, FLOORS, Case, encoder_of, encoder_words, tasks_of, words_of

from ssl_framework import keyed, machine
from ssl_framework.checkpoint import load_encoder
from ssl_framework.commands import build, compose, pretrain
from ssl_framework.data import DataModule
from ssl_framework.downstream import Classification, Full, fit_and_measure
from ssl_framework.encoders import PCA, EncoderModule, RawPixels, random_like
from ssl_framework.evaluation import Embeddings, embed
from ssl_framework.metrics import accuracy
from ssl_framework.monitors import CollapseWarning
from ssl_framework.optim import adamw
from ssl_framework.probes import fit_probe, knn
from ssl_framework.types import Encoder
from ssl_framework.views.preprocessing import plain

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
ROWS = HERE / "catalogue"
PAGE = HERE.parent / "docs" / "explanation" / "catalogue.md"

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
ENCODER_RATES = (0.1, 1.0)  # of the head's, in fine-tuning; validation chooses
_POOL = 0xCA7A  # names this use of the draw


def pool_file(name: str, case: Case, folder: Path) -> Path:
    """The case's images as one ``.npz`` that ``data=arrays`` reads: pool and validation together, and the test split.

    The same samples for every seed.
    """
    path = folder / f"{name}.npz"
    if not path.is_file():
        data = build.data(compose.compose("pretrain", [f"data={case.data}", "data.val_share=0"]))
        train, test = data.split("train"), data.test_split()
        assert case.pool is not None
        chosen = np.sort(keyed.permutation(len(train), _POOL)[: case.pool + case.val])
        np.savez(
            path,
            images=train.images(chosen).numpy(),
            targets=train.targets[torch.from_numpy(chosen)].numpy(),
            test_images=test.images(range(len(test))).numpy(),
            test_targets=test.targets.numpy(),
        )
    return path


def data_words(name: str, case: Case, folder: Path) -> list[str]:
    """What the command line is told of the data."""
    if case.pool is None:
        return [f"data={case.data}"]
    facts = compose.compose("pretrain", [f"data={case.data}"])["data"]
    share = case.val / (case.pool + case.val)
    said = ["data=arrays", f"data.path={pool_file(name, case, folder)}", f"data.val_share={share:.6f}"]
    return [*said, f"data.mean={list(facts['mean'])}", f"data.std={list(facts['std'])}"]


def measure_task(name: str, task: str, seed: int, folder: Path) -> Row:
    """Pretrain one task and measure its encoder.

    Args:
        name: of the case.
        task: of the catalogue.
        seed: of weights, order and augmentation; the labels of the fine-tuning follow from it.
        folder: for the pool and the run, whose files are not kept.
    """
    case = CASES[name]
    words = [*words_of(task, case), f"seed={seed}"]
    with tempfile.TemporaryDirectory(dir=folder) as home, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings = compose.compose("pretrain", [*words, *data_words(name, case, folder)], folder=f"{home}/run")
        started = time.perf_counter()
        logged = pretrain.run(settings)
        seconds = time.perf_counter() - started
        loaded = load_encoder(f"{home}/run")
        named = sorted({str(w.message).split(":")[0] for w in caught if issubclass(w.category, CollapseWarning)})
    row: Row = {
        "task": task,
        "seed": seed,
        "encoder": encoder_of(task),
        "samples": case.samples,
        "words": words,
        "loss": logged.get("train/loss"),
        "collapse": named,
        "pretraining_s": round(seconds, 1),
    }
    data = build.data(settings)
    return {**row, **judge(loaded.encoder, data, loaded.preprocessing, case, seed), "machine": machine_record.record()}


def measure_floor(name: str, floor: str, seed: int, folder: Path) -> Row:
    """Measure what has learned nothing: "chance", "raw pixels", "PCA", or the random encoder of a name."""
    case = CASES[name]
    row: Row = {"task": floor, "seed": seed, "encoder": FLOORS[floor], "samples": 0, "words": [], "collapse": []}
    chosen = FLOORS[floor] or "resnet_micro"
    words = [*encoder_words(chosen, case), f"seed={seed}", "views=affine_one", *data_words(name, case, folder)]
    settings = compose.compose("pretrain", words)
    data = build.data(settings)
    views = build.views(settings["views"], data.facts)
    encoder = build.encoder(settings, data.facts, views)
    facts = data.facts
    preprocessing: dict[str, Any] = {"mean": facts.mean, "std": facts.std, "size": list(views.size), "channels": facts.channels}
    if floor == "chance":
        share = float(data.test_split().targets.bincount().max()) / len(data.test_split())
        return {**row, "knn": share, "linear": share, "finetuned": [share], "machine": machine_record.record()}
    if floor == "raw pixels":
        encoder = RawPixels(facts.channels, list(views.size))
    if floor == "PCA":
        train = data.split("train")
        width = min(64, len(train) - 1, facts.channels * views.size[0] * views.size[1])
        encoder = PCA(width, facts.channels, list(views.size)).fit(
            plain(**preprocessing).center(train.images(range(len(train))))
        )
    if FLOORS[floor] is not None:
        encoder = random_like(cast(EncoderModule, encoder), seed)
    measured = judge(encoder, data, preprocessing, case, seed, trainable=FLOORS[floor] is not None)
    return {**row, **measured, "machine": machine_record.record()}


def judge(
    encoder: Encoder, data: DataModule, preprocessing: dict[str, Any], case: Case, seed: int, *, trainable: bool = True
) -> Row:
    """Neighbours (k = 20) and linear probe on all labels of the pool, fine-tuning on 10 labels a class.

    Returns:
        ``knn``, ``linear`` (with its ``penalty``), and ``finetuned``, an accuracy for each draw of the labels (empty for what
        cannot be trained) with its ``encoder_rate``.
    """
    started = time.perf_counter()
    splits = data.split("train"), data.split("val"), data.test_split()
    center = plain(**preprocessing).center
    train, val, test = (embed(encoder, split, center, device=build.device("auto")) for split in splits)
    linear = fit_probe(_pair(train), _pair(val), _pair(test), penalties=PENALTIES)
    predicted = knn(train.x, train.y, test.x, num_classes=1 + int(train.y.max()), k=20)
    row: Row = {"knn": accuracy(predicted, test.y), "linear": linear.accuracy, "penalty": linear.penalty}
    row |= _finetuned(encoder, data, preprocessing, case, seed) if trainable else {"finetuned": []}
    return {**row, "evaluation_s": round(time.perf_counter() - started, 1)}


def _finetuned(encoder: Encoder, data: DataModule, preprocessing: dict[str, Any], case: Case, seed: int) -> Row:
    train, facts, device = data.split("train"), data.facts, build.device("auto")
    assert facts.classes is not None

    def fit(draw: int, rate: float, judge: Any) -> float:
        row = fit_and_measure(
            encoder,
            train.subset(10, 100 * seed + draw),
            judge,
            task=Classification(len(facts.classes or ())),
            freezing=Full(encoder_lr=rate),
            optimizer=adamw(lr=3e-3, scale_lr="none"),
            preprocessing=preprocessing,
            method="fine-tuned",
            budget=10,
            seed=100 * seed + draw,
            steps=case.finetune_steps,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            precision=machine.precision(device).name,
        )
        return row["accuracy"]

    rate = max(ENCODER_RATES, key=lambda each: fit(0, each, data.split("val")))
    return {"finetuned": [fit(draw, rate, data.test_split()) for draw in range(case.draws)], "encoder_rate": rate}


def _pair(embeddings: Embeddings) -> tuple[torch.Tensor, torch.Tensor]:
    return embeddings.x, embeddings.y


# Rows on disk


def read(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def missing(name: str, seeds: Sequence[int], only: Sequence[str] | None, rows: Sequence[Row]) -> Iterator[tuple[str, int]]:
    """Floors and tasks that have no row yet, seed by seed."""
    known = {(row["task"], row["seed"]) for row in rows}
    for seed in seeds:
        for task in (*FLOORS, *tasks_of(name)):
            fixed = task in ("chance", "raw pixels", "PCA")  # nothing in them is drawn: once is enough
            done = any(task == other for other, _ in known) if fixed else (task, seed) in known
            if not done and (only is None or task in only):
                known.add((task, seed))
                yield task, seed


def run(
    name: str, seeds: Sequence[int], only: Sequence[str] | None, minutes: float, workers: int, rows: Path, folder: Path
) -> None:
    """Measure what is missing, a process of one thread for each row, until the time is over; what has begun is finished.

    Args:
        name: of the case.
        seeds: of pretraining.
        only: tasks and floors; None: all.
        minutes: after which nothing new begins.
        workers: rows at a time.
        rows: the file they are appended to.
        folder: for the pool, which is taken from there if it is there, and the runs.
    """
    end = time.monotonic() + 60 * minutes
    left = list(missing(name, seeds, only, read(rows)))
    rows.parent.mkdir(exist_ok=True)
    if CASES[name].pool is not None:
        pool_file(name, CASES[name], folder)
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(_in_a_process, name, task, seed, folder, end): (task, seed) for task, seed in left}
        for future in as_completed(futures):
            task, seed = futures[future]
            row = future.result()
            if row is None:
                continue
            if "error" in row:
                print(f"{task}, seed {seed}: FAILED\n{row['error']}", flush=True)
                continue
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(catalogue_report.line(row), flush=True)


def _in_a_process(name: str, task: str, seed: int, folder: Path, end: float) -> Row | None:
    """One row by a fresh interpreter; None if the time is over, ``error`` if it failed."""
    if time.monotonic() > end:
        return None
    command = [sys.executable, __file__, "--case", name, "--one", task, "--seeds", str(seed), "--folder", str(folder)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {"error": done.stderr[-3000:]}
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="fashion_mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", nargs="+", help="some of the tasks and floors, instead of all")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin nothing after these")
    parser.add_argument("--workers", type=int, default=machine.cores(), help="rows at a time, one thread each")
    parser.add_argument("--rows", type=Path, help="file of the rows; default benchmarks/catalogue/CASE.jsonl")
    parser.add_argument("--report", action="store_true", help="write the page from the rows")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keeps the pool, CASE.npz; default: a temporary one")
    given = parser.parse_args(arguments)
    if given.report:
        catalogue_report.write({name: read(ROWS / f"{name}.jsonl") for name in CASES}, PAGE)
    elif given.one is not None:
        measure = measure_floor if given.one in FLOORS else measure_task
        print(json.dumps(measure(given.case, given.one, given.seeds[0], given.folder)))
    else:
        rows = given.rows or ROWS / f"{given.case}.jsonl"
        with tempfile.TemporaryDirectory() as temporary:
            folder = given.folder or Path(temporary)
            run(given.case, given.seeds, given.tasks, given.minutes, given.workers, rows, folder)


if __name__ == "__main__":
    main()
