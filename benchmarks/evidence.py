"""Does transfer pay? Four encoders that were pretrained and studied by two commands each, and their pages in the docs.

    export SSL_FRAMEWORK_DATA=FOLDER                     # that holds fashion_mnist/ and cifar10/
    python benchmarks/evidence.py fashion_mnist_simclr   # pretrain and study; several names, or none for all
    python benchmarks/evidence.py --report               # docs/evidence/*.html, docs/explanation/evidence.md, README's table

The commands are those of the command line, run in ``--home``, where run folders stay: a study that was stopped goes on. Rows
and results are kept in ``benchmarks/evidence/``, compressed, so that the sentence of a page can be checked, and studies of
several machines are compared.
"""

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import marked

from ssl_framework import report
from ssl_framework.commands.story import NAMES
from ssl_framework.metrics import budget_order
from ssl_framework.report.page.parts import budget_text
from ssl_framework.transfer import claims, rows

HERE = Path(__file__).resolve().parent
ROWS = HERE / "evidence"
DOCS = HERE.parent / "docs"
README = HERE.parent / "README.md"
HOME = Path.home() / ".cache" / "ssl_framework" / "benchmarks" / "evidence"


class Case(NamedTuple):
    """An encoder and what it is studied on.

    Attributes:
        pretext: as people call it.
        data: likewise.
        pretrain: words of the command.
        study: likewise, after ``encoder_file`` and ``run.dir``.
    """

    pretext: str
    data: str
    pretrain: Sequence[str]
    study: Sequence[str]


CASES = {
    "fashion_mnist_simclr": Case(
        "SimCLR", "Fashion-MNIST", ("experiment=fashion_mnist_simclr", "trainer.max_steps=1200"), ("data=fashion_mnist",)
    ),
    "fashion_mnist_mae": Case("MAE", "Fashion-MNIST", ("experiment=fashion_mnist_mae",), ("data=fashion_mnist",)),
    "cifar10_simclr": Case("SimCLR", "CIFAR-10", ("experiment=cifar10_simclr_micro",), ("data=cifar10",)),
    "cifar10_mae": Case("MAE", "CIFAR-10", ("experiment=cifar10_mae_micro",), ("data=cifar10",)),
}


def study_of(name: str) -> Path:
    """Its run folder, below the home."""
    return Path("runs") / f"study_{name}"


def measure(name: str, home: Path, jobs: int | None) -> None:
    """Pretrain where it is not done, and study, or go on with it."""
    case, encoder, study = CASES[name], Path("runs") / name, study_of(name)
    if not (home / encoder / "encoder.yaml").is_file():
        _command(home, "pretrain", *case.pretrain, f"run.dir={encoder}")
    begun = (home / study / "config.yaml").is_file()
    words = [f"resume={study}"] if begun else [f"encoder_file={encoder}", *case.study, f"run.dir={study}"]
    _command(home, "transfer", *words, *(() if jobs is None else (f"jobs={jobs}",)))


def _command(home: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "ssl_framework", *words], cwd=home, check=True)


def keep(home: Path) -> None:
    """Copy rows and pages of all that is done into the repository."""
    ROWS.mkdir(exist_ok=True)
    (DOCS / "evidence").mkdir(exist_ok=True)
    there = [name for name in CASES if (home / study_of(name) / "report.html").is_file()]
    for name in there:
        source = home / study_of(name)
        packed = gzip.compress((source / rows.FILE).read_bytes(), mtime=0)
        (ROWS / f"{name}.jsonl.gz").write_bytes(packed)
        shutil.copyfile(source / "report.html", DOCS / "evidence" / f"{name}.html")
        (ROWS / f"{name}.json.gz").write_bytes(gzip.compress((source / "results.json").read_bytes(), mtime=0))
    told = [results(name) for name in _measured()]
    if len(told) > 1:
        studies = [{part: value for part, value in one.items() if part != "claims"} for one in told]
        report.write_comparison(studies, DOCS / "evidence" / "comparison.html")


def results(name: str) -> dict[str, Any]:
    """What the page of a case says, without pictures, as it is in the repository."""
    return json.loads(gzip.decompress((ROWS / f"{name}.json.gz").read_bytes()))


def kept(name: str) -> list[dict[str, Any]]:
    """The rows of a case, as they are in the repository."""
    lines = gzip.decompress((ROWS / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines]


def page() -> str:
    """The Markdown of docs/explanation/evidence.md."""
    lines = [HEAD, *overview(), "", *([TOGETHER] if (DOCS / "evidence" / "comparison.html").is_file() else []), COMMANDS]
    for name, found in _measured().items():
        case = CASES[name]
        lines += [
            f"## {case.pretext} on {case.data}",
            "",
            f"**{claims.headline(claims.verdicts(found))}** [The page](../evidence/{name}.html).",
            "",
            *_table(found),
            "",
            _cost(results(name), found),
            "",
            "```bash",
            f"ssl-framework pretrain {' '.join(case.pretrain)} run.dir=runs/{name}",
            f"ssl-framework transfer encoder_file=runs/{name} {' '.join(case.study)} run.dir={study_of(name)}",
            "```",
            "",
        ]
    return "\n".join(lines)


def _measured() -> dict[str, list[dict[str, Any]]]:
    """The rows of every case that has some."""
    return {name: kept(name) for name in CASES if (ROWS / f"{name}.jsonl.gz").is_file()}


def overview() -> list[str]:
    """A table of all cases: accuracy from scratch, of the best floor, and of the method that the pilot chose."""
    lines: dict[str, dict[Any, str]] = {}
    for name, found in _measured().items():
        cells = claims.Measured(found).cells
        lines[f"{CASES[name].pretext} on {CASES[name].data}"] = {
            one.budget: _reached(cells, one) for one in claims.verdicts(found) if one.method is not None
        }
    budgets = sorted({budget for line in lines.values() for budget in line}, key=budget_order)
    heads = [budget_text(budget, None) for budget in budgets]
    table = [f"| {name} | {' | '.join(line.get(budget, '') for budget in budgets)} |" for name, line in lines.items()]
    return [
        f"| scratch / best floor → pretrained (%) | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(budgets)}",
        *table,
        "",
        BOLD,
    ]


def _reached(cells: Mapping[tuple[str, claims.Budget], Mapping[int, claims.Outcome]], verdict: claims.Verdict) -> str:
    """``24.1 / 29.8 → **37.7**``, means over the seeds that are judged."""
    means = {
        method: statistics.mean(one.accuracy for one in outcomes.values())
        for (method, budget), outcomes in cells.items()
        if budget == verdict.budget
    }
    assert verdict.method is not None
    floor = max(means[method] for method in claims.FLOORS if method in means)
    before, best, ours = (f"{100 * mean:.1f}" for mean in (means[claims.SCRATCH], floor, means[verdict.method]))
    return f"{before} / {best} → {f'**{ours}**' if verdict.word == 'pays' else ours}"


def readme(text: str) -> str:
    """The README with the table of today between its marks."""
    return marked.replaced(text, "evidence", "\n".join(overview()) + "\n")


BOLD = """Test accuracy, mean of five seeds. A floor needs no pretraining: a logistic regression on raw pixels, on principal
components, or on what a random network says. **Bold**: transfer pays, which is to be better than scratch and than every floor,
corrected for the numbers of labels. What is done with the pretrained encoder was chosen on validation, by a seed of its own."""

HEAD = """# Encoders, and whether they paid

Each was pretrained by one command and studied by another, with the default grid of [`transfer`](../does-transfer-pay.md), on
two CPU cores. A page opens offline. Gains are over training from scratch with the same labels, with 95 % t intervals over five
seeds. Made by `python benchmarks/evidence.py --report` from `benchmarks/evidence/`.
"""
COMMANDS = """The commands below find the data sets where this says that they are:

```bash
export SSL_FRAMEWORK_DATA=DATA  # the folder that holds fashion_mnist and cifar10
```
"""
TOGETHER = "[One page compares all](../evidence/comparison.html).\n"


def _table(found: Sequence[dict[str, Any]]) -> list[str]:
    told = claims.summary(found)
    worth = {one["budget"]: one["factor"]["median"]["text"] for one in told["label_efficiency"] if "factor" in one}
    lines = ["| labels a class | verdict | method | gain (points) | as many labels from scratch |", "|---:|---|---|---:|---:|"]
    for one in told["verdicts"]:
        low, high = ("n/a" if one[key] is None else f"{100 * one[key]:+.1f}" for key in ("low", "high"))
        rival = "" if one["rival"] is None else f" ({NAMES[one['rival']]}: not beaten)"
        lines.append(
            f"| {one['budget']} | {one['verdict']}{rival} | {NAMES[one['method']]} | "
            f"{100 * one['gain']:+.1f} ({low} to {high}) | {_worth(worth.get(one['budget']))} |"
        )
    return lines


def _worth(factor: str | None) -> str:
    """``3.2 times``, or that the largest number of labels was not enough."""
    return {None: "", "more than 1": "more than were measured"}.get(factor, f"{factor} times")


def _cost(told: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    """Minutes, on a CPU those of a thread."""
    pretrain, where = told.get("pretrain_seconds"), told["environment"]
    learnt = [row for row in found if not row.get("na")]
    device, threads = ({row["recipe"][key] for row in learnt} for key in ("device", "threads"))
    each, unit = (max(threads), "thread-minutes") if device == {"cpu"} else (1, "minutes")
    took = "" if pretrain is None else f", in {pretrain * each / 60:.0f} {unit}"
    seconds = sum(row.get("seconds") or 0.0 for row in learnt)
    return (
        f"It was pretrained on {where['pretrained on']}{took}. The {len(learnt)} rows that were measured learnt for "
        f"{seconds * each / 60:.0f} {unit} ({where.get('processor', 'unknown processor')}); rates that were tried and not "
        "chosen are not counted."
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--home", type=Path, default=HOME)
    parser.add_argument("--jobs", type=int, help="processes of a study; default: one for each core, or one on a GPU")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in CASES]
    if unknown:
        parser.error(f"there is no {unknown[0]}: give {', '.join(CASES)}")
    asked.home.mkdir(parents=True, exist_ok=True)
    if asked.report:
        keep(asked.home)
        (DOCS / "explanation" / "evidence.md").write_text(page())
        README.write_text(readme(README.read_text()))
        return
    for name in asked.names or CASES:
        measure(name, asked.home, asked.jobs)


if __name__ == "__main__":
    sys.exit(main())
