"""Images a second of two-view SimCLR, whole step: ours, the bare loop, and other libraries, in one race on one machine.

    python benchmarks/throughput.py --case resnet18-32 --out rows.json

Every contestant trains in a process of its own. In each round each has one window of some seconds, while the others stand
still, and each round begins with another contestant; ratios are taken round by round. lightly comes from PyPI; solo-learn and
stable-pretraining take part where their checkouts are given, in an environment that has what they need.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine_record
import throughput_data
import throughput_report
import throughput_stats as stats
import torch
from throughput_cases import CASES, CONTESTANTS, DEFAULT, Case, Contestant
from throughput_race import Racer, race, steps_of

from ssl_framework import machine as this_machine

Row = dict[str, Any]
_CHECKOUTS = "solo-learn", "stable-pretraining"
_TRIES = 2  # windows for each number of workers, of which the faster counts


@dataclass(frozen=True)
class Plan:
    """What is raced and where.

    Attributes:
        case: with the batch that was asked for.
        data: the images.
        folder: where contestants write.
        seconds: of a window.
        rounds: windows of each.
        workers: loader workers that peers are tried with; the fastest number is kept.
        checkouts: of peers, by name.
        pythons: interpreters of peers, by name.
    """

    case: Case
    data: Path
    folder: Path
    seconds: float
    rounds: int
    workers: tuple[int, ...]
    checkouts: dict[str, str | None]
    pythons: dict[str, str | None]


def run(plan: Plan, names: Sequence[str]) -> list[Row]:
    """Race.

    Args:
        plan: what and where.
        names: of the contestants.

    Returns:
        A row for each.
    """
    racers: list[Racer] = []
    notes: dict[str, dict[str, Any]] = {}
    try:
        for name in names:
            racer, notes[name] = _ready(plan, CONTESTANTS[name])
            racers.append(racer)
            print(f"{name}: ready, {notes[name]}", file=sys.stderr)
        answers = race(racers, {name: notes[name]["steps"] for name in names}, plan.rounds)
    finally:
        for racer in racers:
            racer.close()
    load = os.getloadavg()[0]
    machine = {**machine_record.record(), "load": round(load, 2)}
    if load > (os.cpu_count() or 1) + 1:
        print(f"load average {load:.1f}: others used this machine, too, and the numbers say little.", file=sys.stderr)
    return [_row(plan, racer, notes[racer.name], [round_[racer.name] for round_ in answers], machine) for racer in racers]


def _ready(plan: Plan, contestant: Contestant) -> tuple[Racer, dict[str, Any]]:
    """A contestant after its warm-up; a peer with the number of workers that it is fastest with."""
    if not contestant.peer:
        racer = _start(plan, contestant, None)
        return racer, _warm(racer, plan.seconds)
    tried: dict[int, float] = {}
    best: tuple[Racer, int] | None = None
    for workers in plan.workers:
        racer = _start(plan, contestant, workers)
        steps = _warm(racer, plan.seconds)["steps"]
        seconds = min(racer.window(steps)["seconds"] for _ in range(_TRIES))
        tried[workers] = plan.case.batch * steps / seconds
        if best is None or tried[workers] > max(rate for other, rate in tried.items() if other != workers):
            if best is not None:
                best[0].close()
            best = racer, steps
        else:
            racer.close()
    assert best is not None
    return best[0], {"steps": best[1], "workers_tried": {str(n): round(rate, 1) for n, rate in tried.items()}}


def _warm(racer: Racer, seconds: float) -> dict[str, Any]:
    try:
        return {"steps": steps_of(racer, seconds)}
    except BaseException:
        racer.close()
        raise


def _start(plan: Plan, contestant: Contestant, workers: int | None) -> Racer:
    library = contestant.kind
    spec = {
        "kind": contestant.kind,
        "case": plan.case._asdict(),
        "data": str(plan.data),
        "precision": contestant.precision,
        "words": contestant.words,
        "workers": workers,
        "checkout": plan.checkouts.get(library),
    }
    folder = plan.folder / (contestant.name if workers is None else f"{contestant.name}-{workers}")
    return Racer(contestant.name, plan.pythons.get(library) or sys.executable, contestant.script, spec, folder)


def _row(plan: Plan, racer: Racer, notes: dict[str, Any], answers: Sequence[dict[str, Any]], machine: Any) -> Row:
    case, contestant = plan.case, CONTESTANTS[racer.name]
    rates = [case.batch * notes["steps"] / answer["seconds"] for answer in answers]
    return {
        "case": case.name,
        "contestant": racer.name,
        "what": contestant.what,
        "settings": {"batch": case.batch, "window_s": plan.seconds, **racer.facts, **notes, "words": list(contestant.words)},
        "data": plan.data.parent.name if plan.data.is_file() else plan.data.name,
        "images_per_s": [round(rate, 3) for rate in rates],
        "median": statistics.median(rates),
        "quartiles": stats.quartiles(rates),
        "peak_anonymous_bytes": racer.peak,
        "loss": answers[-1]["loss"],
        "machine": machine,
    }


def taking_part(case: str, asked: Sequence[str] | None, checkouts: dict[str, str | None]) -> list[str]:
    """Names of the contestants: those that were asked for, or all of the case whose library is at hand.

    Raises:
        ValueError: no contestant of that name, or one whose checkout is not given.
    """
    names = list(asked or DEFAULT[case])
    if not asked and this_machine.precision("cuda" if torch.cuda.is_available() else "cpu").name != "bf16-mixed":
        names = [name for name in names if not name.endswith("-bf16")]  # peers in another precision than ours
    for name in names:
        if name not in CONTESTANTS:
            raise ValueError(f"--contestants {name}: there is none of that name. There are {', '.join(CONTESTANTS)}.")
    away = [name for name in names if CONTESTANTS[name].kind in checkouts and checkouts[CONTESTANTS[name].kind] is None]
    if asked and away:
        raise ValueError(f"{away[0]} needs its checkout: give --{CONTESTANTS[away[0]].kind} PATH.")
    return [name for name in names if name not in away]


def main(arguments: Sequence[str] | None = None) -> None:
    """Race, or make the page of rows that are there."""
    given = _parser().parse_args(arguments)
    if given.report:
        rows = [row for file in given.report for row in json.loads(Path(file).read_text())]
        throughput_report.write(rows, Path(given.page))
        return
    with tempfile.TemporaryDirectory(prefix="throughput-") as temporary:
        plan = _plan(given, Path(temporary))
        rows = run(plan, taking_part(plan.case.name, given.contestants, plan.checkouts))
    if given.out:
        Path(given.out).write_text(json.dumps(rows, indent=1) + "\n")
    print(throughput_report.text(rows))


def _plan(given: argparse.Namespace, temporary: Path) -> Plan:
    """What the command line asks for, with its images made."""
    asked = {key: value for key in ("batch", "images") if (value := getattr(given, key)) is not None}
    case = CASES["overhead" if given.overhead else "paths" if given.paths else given.case]._replace(**asked)
    folder = Path(given.folder or temporary)
    synthetic = given.data == "synthetic"
    if not synthetic and (case.files or case.stored != 32):
        raise ValueError(f"--data {given.data}: CIFAR-10 is for cases of 32 px arrays, not for {case.name}; leave --data out.")
    data = throughput_data.make(case, folder) if synthetic else throughput_data.cifar10(Path(given.data), folder)
    return Plan(
        case=case,
        data=data.absolute(),
        folder=temporary / "runs",
        seconds=given.seconds,
        rounds=given.rounds,
        workers=tuple(given.workers),
        checkouts={name: getattr(given, name.replace("-", "_")) for name in _CHECKOUTS},
        pythons={name: getattr(given, f"{name.replace('-', '_')}_python") for name in _CHECKOUTS},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--case", choices=sorted(CASES), default="resnet18-32", help="what is trained")
    what.add_argument("--overhead", action="store_true", help="ms a step of Lightning's loop and our logging: --case overhead")
    what.add_argument("--paths", action="store_true", help="files, cache and resident data: --case paths")
    what.add_argument("--report", nargs="+", metavar="ROWS", help="race nothing: make the page of these files of rows")
    parser.add_argument("--page", default="throughput.md", help="where --report writes; a picture goes beside it")
    parser.add_argument("--contestants", nargs="+", metavar="NAME", help=", ".join(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=20, help="windows of each contestant")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a window; it has at least one step")
    parser.add_argument("--batch", type=int, help="images of a step, instead of the case's")
    parser.add_argument("--images", type=int, help="synthetic images, instead of the case's number")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader workers that peers are tried with")
    parser.add_argument("--data", default="synthetic", help="or the folder that holds cifar10 (32 px cases)")
    parser.add_argument("--folder", help="keeps synthetic images for the next race; default: a temporary one")
    parser.add_argument("--out", help="file of rows (JSON)")
    for name in _CHECKOUTS:
        parser.add_argument(f"--{name}", metavar="PATH", help=f"checkout of {name}")
        parser.add_argument(f"--{name}-python", metavar="EXE", help="interpreter that has what it needs; default: this one")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that contestants are closed
    main()
