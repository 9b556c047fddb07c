"""Does a study ever claim what is not there? Null studies, an encoder that could learn nothing, and one that has learnt.

    python benchmarks/honesty.py null       # 40 real studies of scratch against scratch, which are the pool of 2,000 more
    python benchmarks/honesty.py shuffled   # an encoder pretrained on digits whose pixels were shuffled, image by image
    python benchmarks/honesty.py good       # one pretrained on the digits themselves
    python benchmarks/honesty.py --report   # docs/explanation/honesty.md

On handwritten digits, so it needs no files. Rows are in ``benchmarks/honesty/``; null studies that were stopped go on.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import machine_record
import numpy as np
import torch

from ssl_framework import keyed, machine
from ssl_framework.commands import compose, pretrain, transfer
from ssl_framework.commands.quiet import quiet
from ssl_framework.commands.story import named
from ssl_framework.data import digits
from ssl_framework.encoders import random_like, resnet_micro
from ssl_framework.transfer import Bench, Cell, Judge, Plan, claims, rows
from ssl_framework.transfer.cells import trained

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
ROWS = HERE / "honesty"
PAGE = HERE.parent / "docs" / "explanation" / "honesty.md"
STUDIES, SEEDS, RESAMPLED = 40, 5, 2000
BUDGETS = (1, 10, 50)
STEPS = 100
GRID = [
    "data=digits", f"budgets=[{','.join(map(str, BUDGETS))}]", f"seeds={SEEDS}", f"steps={STEPS}", "label_noise=[]",
    "robustness=0", "methods=[scratch,random_frozen,raw_pixels,pca,frozen,last_n,lp_ft,full]", "accelerator=cpu",
]  # fmt: skip
_OTHER_WEIGHTS = 10_000  # added to the seed of an encoder that stands for a pretrained one
_KEPT = (
    "method", "budget", "labels", "seed", "pilot", "accuracy", "correct", "val_accuracy", "seconds", "steps", "rate", "penalty",
    "na",
)  # fmt: skip


def null(path: Path, studies: int, jobs: int) -> None:
    """Studies in which "full" starts from other random weights; labels, head, order and choice of rates as in a real one."""
    known = {(row["study"], row["method"], row["budget"]) for row in rows.read(path)}
    arms = [arm for arm in itertools.product(range(studies), ("scratch", "full"), BUDGETS) if arm not in known]
    with ProcessPoolExecutor(jobs, get_context("spawn"), _alone, (max(1, machine.cores() // jobs),)) as pool:
        for done, found in enumerate(pool.map(_arm, *zip(*arms, strict=True)), start=1) if arms else ():
            rows.append(path, found)
            print(f"{done} of {len(arms)}: study {found[0]['study']}, {found[0]['method']}, {found[0]['budget']}", flush=True)


def _alone(threads: int) -> None:
    torch.set_num_threads(threads)
    quiet()


def _arm(study: int, method: str, budget: int) -> list[Row]:
    """One method at one budget: the first seed chooses the rate for the others."""
    bench, plan = _bench(), Plan(budgets=BUDGETS, steps=STEPS, seeds=_seeds(study), test_images=0)
    found: list[Row] = []
    for seed in _seeds(study):
        own = bench._replace(encoder=random_like(bench.encoder, _OTHER_WEIGHTS + seed))
        row, _ = trained(own, plan, Cell(method, budget, seed), found[0]["rate"] if found else None)
        found.append({"study": study, **{key: row[key] for key in _KEPT if key in row}})
    return found


def _seeds(study: int) -> range:
    return range((SEEDS + 1) * study, (SEEDS + 1) * (study + 1))


@cache
def _bench() -> Bench:
    data = digits(workers=0)
    splits = {"train": data.split("train"), "val": data.split("val"), "test": data.test_split()}
    assert data.facts.classes is not None
    facts = {"mean": data.facts.mean, "std": data.facts.std, "size": data.facts.size}
    return Bench(
        resnet_micro(1, 8), facts, splits["train"], splits["val"], Judge(splits["test"]), "none", "digits",
        len(data.facts.classes),
    )  # fmt: skip


def encoder(name: str, home: Path) -> Path:
    """Pretrained as in the demo, on digits as they are or on digits without any shape."""
    words = ["experiment=digits_simclr", "trainer.progress_bar=false", "monitors.knn=null", "monitors.probe=null"]
    if name == "shuffled":
        file = home / "shuffled.npz"
        np.savez(file, images=shuffled())
        words += ["data=arrays", f"data.path={file}", "data.size=[8,8]"]
    return Path(pretrain.run(compose.compose("pretrain", words, folder=str(home / name)))["run"])


def shuffled() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Every image of the digits with its pixels in an order of its own."""
    split = digits(workers=0).split("train")
    images = split.images(range(len(split)))
    pixels = images.flatten(1)
    orders = [keyed.permutation(pixels.shape[1], 0, place) for place in range(len(pixels))]
    return pixels.gather(1, torch.tensor(np.array(orders))).view_as(images).numpy()


def studied(name: str, path: Path) -> None:
    """The rows of a study of an encoder, in the place of those that were there."""
    path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = encoder(name, Path(folder))
        words = [f"encoder_file={home}", *GRID]
        found = transfer.run(compose.compose("transfer", words, folder=str(Path(folder) / "study")))["rows"]
    rows.append(path, [{key: row[key] for key in _KEPT if key in row} for row in found])


def read() -> dict[str, list[Row]]:
    """All rows, by what was asked."""
    return {name: rows.read(ROWS / f"{name}.jsonl") for name in ("null", "shuffled", "good")}


def real(found: Sequence[Row]) -> Iterator[list[claims.Verdict]]:
    """The verdicts of each null study that was really run."""
    for study in sorted({row["study"] for row in found}):
        yield claims.verdicts([row for row in found if row["study"] == study])


def pool(found: Sequence[Row]) -> dict[int | str, list[Row]]:
    """The judged cells of null studies, by budget: each was trained from other random weights."""
    return {budget: [row for row in found if row["budget"] == budget and not row.get("pilot")] for budget in BUDGETS}


def summary(found: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Every number of the page."""
    words = [{one.word for one in verdicts} for verdicts in real(found["null"])]
    pays = sum("pays" in each for each in words)
    resampled = claims.null_studies(pool(found["null"]), seeds=SEEDS, studies=RESAMPLED, key=0)
    return {
        "real": {
            "studies": len(words),
            "false_pays": pays,
            "false_hurts": sum("hurts" in each for each in words),
            "interval": list(claims.clopper_pearson(pays, len(words))),
        },
        "resampled": {**resampled._asdict(), "pool": {budget: len(cells) for budget, cells in pool(found["null"]).items()}},
        **{name: [one.reason for one in claims.verdicts(found[name])] for name in ("shuffled", "good")},
        "words": {name: [one.word for one in claims.verdicts(found[name])] for name in ("shuffled", "good")},
    }


def page() -> str:
    """The Markdown of docs/explanation/honesty.md."""
    found = read()
    told = summary(found)
    one, many = told["real"], told["resampled"]
    cells = {budget: [row["accuracy"] for row in group] for budget, group in pool(found["null"]).items()}
    spread = ", ".join(f"{100 * np.mean(a):.1f} ± {100 * np.std(a):.1f} % at {b}" for b, a in cells.items())
    false = _share(one["false_pays"], one["studies"], one["interval"])
    more = _share(many["false_pays"], many["studies"], (many["low"], many["high"]))
    cells_in_all = sum(many["pool"].values())
    lines = [
        "# Does a study claim what is not there?",
        "",
        "Made by `python benchmarks/honesty.py --report` from `benchmarks/honesty/`, on handwritten digits, `resnet_micro`,",
        f"{STEPS} steps; rates are chosen on validation, as in every study.",
        "",
        "| | studies | claim falsely that transfer pays | that it hurts |",
        "|---|---:|---:|---:|",
        f"| scratch against scratch, really run | {one['studies']} | {false} | {one['false_hurts']} |",
        f"| resampled from their {cells_in_all:,} cells, with five methods to choose among | {many['studies']:,} | {more} | "
        f"{many['false_hurts']} |",
        "",
        f"At most 5 % may. Intervals are binomial (Clopper and Pearson). The cells reach {spread} labels a class",
        "(mean ± deviation over seeds). A null study is a study in every respect, but that `full` starts from other random",
        "weights for each seed: same labels, head and order as scratch, and three learning rates to choose from.",
        f"Measured {measured_on('null')}.",
        "",
        "## Encoders",
        "",
        f"| labels a class | {' | '.join(map(str, BUDGETS))} |",
        f"|---|{'---|' * len(BUDGETS)}",
        _line("pretrained on digits whose pixels were shuffled, each image in its own order", "shuffled", told),
        _line("pretrained on the digits (`experiment=digits_simclr`)", "good", told),
        "",
        f"Measured {measured_on('shuffled')} (shuffled) and {measured_on('good')} (digits).",
        "",
    ]
    return "\n".join(lines)


def measured_on(name: str) -> str:
    """``with torch 2.14.1 on AMD EPYC at 06ed9bdf5b7c``, and how many rows where several machines did."""
    told = json.loads((ROWS / f"{name}.json").read_text())
    parts: list[str] = []
    for one in told:
        rows_of_it = f" ({one['rows']} rows)" if len(told) > 1 else ""
        commit = f" at commit {one['commit']}" if one.get("commit") else ""
        parts.append(f"with torch {one['torch'].partition('+')[0]} on {one['processor']}{commit}{rows_of_it}")
    return " and ".join(parts)


def note(name: str, kept: int) -> None:
    """Write beside rows what measured those behind the first `kept`, of which it is known."""
    file, count = ROWS / f"{name}.json", len(rows.read(ROWS / f"{name}.jsonl")) - kept
    known = json.loads(file.read_text()) if kept else []
    if count:
        file.write_text(json.dumps([*known, {"rows": count, **machine_record.record()}], indent=1) + "\n")


def _line(label: str, name: str, told: Mapping[str, Any]) -> str:
    said = [f"**{word}**: {named(reason)}" for word, reason in zip(told["words"][name], told[name], strict=True)]
    return f"| {label} | {' | '.join(said)} |"


def _share(count: int, studies: int, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{count} ({100 * count / studies:.1f} %; {100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("null", "shuffled", "good"))
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--jobs", type=int, default=machine.cores())
    asked = parser.parse_args()
    if asked.what is None and not asked.report:
        parser.error("say null, shuffled, good or --report")
    ROWS.mkdir(exist_ok=True)
    if asked.what == "null":
        kept = len(rows.read(ROWS / "null.jsonl"))
        try:
            null(ROWS / "null.jsonl", STUDIES, asked.jobs)
        finally:  # a measurement that was stopped goes on, perhaps elsewhere
            note("null", kept)
    elif asked.what is not None:
        studied(asked.what, ROWS / f"{asked.what}.jsonl")
        note(asked.what, 0)
    if asked.report:
        PAGE.write_text(page())
        print(PAGE)


if __name__ == "__main__":
    sys.exit(main())
