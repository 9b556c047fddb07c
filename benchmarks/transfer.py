"""What freezing policies and cuts are worth: accuracy, parameters, seconds and memory, on one pretrained encoder.

    export SSL_FRAMEWORK_DATA=FOLDER                       # that holds fashion_mnist/
    python benchmarks/transfer.py policies --minutes 55    # each policy with 10, 100 and all labels a class
    python benchmarks/transfer.py cuts --minutes 55        # each cut, and what cut=auto says, of six encoders and tasks
    python benchmarks/transfer.py --report                 # docs/explanation/policies.md and its pictures

``--budgets 10 100`` takes these numbers of labels only: one process for each core. Rows are appended to
``benchmarks/transfer/``, so a run that was stopped goes on where it was. A row is a process of its own, with one thread. The
learning rate of every policy alike is chosen among three on validation with seed 0, for each number of labels; with all labels
after 300 steps.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import machine_record
import transfer_report
from transfer_cases import BUDGETS, CELLS, CHOICE, CUTS, POLICIES, RATES, STEPS, Budget, Cell, encoder_folder, pretrain_words

from ssl_framework import machine
from ssl_framework.checkpoint import load_encoder
from ssl_framework.commands import build, compose, pretrain
from ssl_framework.data import DataModule, Labelled
from ssl_framework.downstream import Classification, DownstreamModule, Frozen, LabelledData, Policy
from ssl_framework.downstream.study import fit_quietly
from ssl_framework.evaluation import depth_curve
from ssl_framework.optim import adamw
from ssl_framework.views.preprocessing import plain

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
ROWS = HERE / "transfer"
ALL = [str(budget) for budget in BUDGETS]
PAGE = HERE.parent / "docs" / "explanation" / "policies.md"


def encoder(pretext: str) -> Path:
    """The folder of an encoder that was pretrained on Fashion-MNIST's images, made when it is first asked for."""
    home = encoder_folder(pretext)
    if not (home / "encoder.yaml").is_file():
        pretrain.run(compose.compose("pretrain", pretrain_words(pretext), folder=str(home)))
    return home


def data_of(cell: Cell) -> DataModule:
    """The labelled data of a cell."""
    return build.data(compose.compose("pretrain", [f"data={cell.data}", "data.val_share=0.1"]))


def budgeted(train: Labelled, budget: Budget, seed: int) -> Labelled:
    """So many labels a class, or all."""
    return train if budget == "all" else train.subset(budget, seed)


def transferred(
    cell: Cell, policy: Policy, budget: Budget, seed: int, rate: float, judge: str, *, cut: int = 0, steps: int | None = None
) -> Row:
    """Train once and measure on a split."""
    loaded, data = load_encoder(encoder(cell.pretext)), data_of(cell)
    train = budgeted(data.split("train"), budget, seed)
    module = DownstreamModule(
        loaded.encoder,
        Classification(len(data.facts.classes or ())),
        freezing=policy,
        optimizer=adamw(lr=rate, scale_lr="none"),
        preprocessing=loaded.preprocessing,
        cut=cut,
        seed=seed,
    )
    steps = steps or STEPS[budget] or -(-3 * len(train) // 64)
    if judge == "val":
        steps = min(steps, CHOICE)
    precision = machine.precision("cpu").name
    seconds = fit_quietly(
        module, LabelledData(train, batch_size=64, seed=seed), steps=steps, accelerator="cpu", precision=precision
    )
    last = module.audit.stages[-1]
    return {
        "accuracy": module.measure(data.split("val") if judge == "val" else data.test_split())["accuracy"],
        "seconds": round(seconds, 2),
        "trainable_parameters": last["trainable_parameters"],
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "steps": steps,
    }


def measure_policy(name: str, budget: Budget, seed: int, rates: Sequence[float]) -> Row:
    """A row of the table of policies; with several rates validation chooses."""
    cell, policy = CELLS[0], POLICIES[name]
    found = [transferred(cell, policy, budget, seed, rate, "val")["accuracy"] for rate in rates] if len(rates) > 1 else [0.0]
    rate = rates[found.index(max(found))]
    row = {
        "policy": name,
        "budget": budget,
        "seed": seed,
        "rate": rate,
        "tried": dict(zip(map(str, rates), found, strict=True)),
    }
    return {**row, **transferred(cell, policy, budget, seed, rate, "test"), "machine": machine_record.record()}


def measure_cut(number: int, budget: Budget, seed: int) -> Row:
    """Every cut of one cell, and the one that the training labels choose."""
    cell = CELLS[number]
    loaded, data = load_encoder(encoder(cell.pretext)), data_of(cell)
    train = budgeted(data.split("train"), budget, seed)
    curve = depth_curve(loaded.encoder, train, plain(**loaded.preprocessing).center, train.targets, seed=seed)
    cuts = range(loaded.encoder.num_layers)
    steps, rate = CUTS
    reached = [transferred(cell, Frozen(), budget, seed, rate, "test", cut=cut, steps=steps)["accuracy"] for cut in cuts]
    row = {"cell": number, "pretext": cell.pretext, "data": cell.data, "budget": budget, "seed": seed}
    return {**row, "accuracy": reached, "auto": curve.cut, "machine": machine_record.record()}


# Rows on disk


def read(name: str) -> list[Row]:
    """The rows of a file; none where there is no file."""
    path = ROWS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def missing_policies(rows: Sequence[Row], budgets: Sequence[str] = ALL) -> Iterator[list[str]]:
    """What to ask of a process for each row that is not there; the rate of seed 0 serves the others."""
    known = {(row["policy"], str(row["budget"]), row["seed"]): row for row in rows}
    for budget, seeds in BUDGETS.items():
        for name in POLICIES:
            for seed in range(seeds):
                if (name, str(budget), seed) in known or str(budget) not in budgets:
                    continue
                first = known.get((name, str(budget), 0))
                if seed == 0 or first is not None:
                    rates = RATES if first is None else [first["rate"]]
                    yield ["--one", name, "--budget", str(budget), "--seed", str(seed), "--rates", *map(str, rates)]


def missing_cuts(rows: Sequence[Row], budgets: Sequence[str] = ALL) -> Iterator[list[str]]:
    """Likewise."""
    known = {(row["cell"], str(row["budget"]), row["seed"]) for row in rows}
    for seed in range(5):
        for budget in (10, 100):
            for number in range(len(CELLS)):
                if (number, str(budget), seed) not in known and str(budget) in budgets:
                    yield ["--one", str(number), "--budget", str(budget), "--seed", str(seed)]


def run(kind: str, minutes: float, budgets: Sequence[str]) -> None:
    """Measure what is missing, row by row, until the time is over."""
    end = time.monotonic() + 60 * minutes
    missing = {"policies": missing_policies, "cuts": missing_cuts}[kind]
    ROWS.mkdir(exist_ok=True)
    for cell in CELLS:
        encoder(cell.pretext)
    while (asked := next(missing(read(kind), budgets), None)) is not None and time.monotonic() < end:
        command = [sys.executable, __file__, kind, *asked]
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(asked)} failed:\n{done.stderr[-3000:]}")
        row = done.stdout.splitlines()[-1]
        with (ROWS / f"{kind}.jsonl").open("a") as file:
            file.write(row + "\n")
        print({key: value for key, value in json.loads(row).items() if key not in ("machine", "tried")}, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("policies", "cuts"), nargs="?")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin nothing after these")
    parser.add_argument("--budgets", nargs="+", choices=ALL, default=ALL, help="labels a class; all of these")
    parser.add_argument("--report", action="store_true", help="write the page from the rows")
    for name in ("--one", "--budget"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rates", type=float, nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    budget: Budget = "all" if given.budget == "all" else int(given.budget or 0)
    if given.report:
        transfer_report.write(read("policies"), read("cuts"), PAGE)
    elif given.kind is None:
        parser.error("say policies or cuts")
    elif given.one is None:
        run(given.kind, given.minutes, given.budgets)
    elif given.kind == "policies":
        print(json.dumps(measure_policy(given.one, budget, given.seed, given.rates)))
    else:
        print(json.dumps(measure_cut(int(given.one), budget, given.seed)))


if __name__ == "__main__":
    main()
