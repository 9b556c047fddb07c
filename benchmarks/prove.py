"""Which proofs hold for which task: runs their tests, and writes what passed for the table in the documentation.

    make proofs        # half an hour; benchmarks/proofs.json

A test belongs to the task that its name or its parameter names: ``test_simclr_of_equal_embeddings``, or
``test_processes_train_as_one[simclr-...]``; in a file that is named after a task, ``test_simmim.py``, all others belong to that
one. What belongs to none is counted under "parts". If any test fails, this ends with 1.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import machine_record

from ssl_framework.paths import conf_dir

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("proofs.json")

PROOFS = {
    "parity": ("tests/parity",),
    "distributed": ("tests/distributed/test_equality.py",),
    "collapse": ("tests/collapse",),
    "contract": ("tests/contract",),
}
"""Each proof, and the tests that make it."""

PARTS = "parts"
"""In place of a task: tests of what several of them are made of."""

Counts = dict[str, int]


def run(proof: str, workers: int) -> list[tuple[str, bool]]:
    """Run a proof's tests, the slow ones as well: the name of each that was not skipped, and whether it passed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-m", "slow or not slow", f"--junitxml={report}"]
        code = subprocess.run([*command, *PROOFS[proof]], cwd=ROOT, check=False).returncode
        if code not in (0, 1):  # passed, and some failed
            raise RuntimeError(
                f"pytest ended with {code}: the tests of {proof} were not run, and what was known of them stays."
            )
        return list(results(report))


def results(report: Path) -> Iterator[tuple[str, bool]]:
    """Names, ``file::test``, and outcomes in a report of pytest; what was skipped has none."""
    for case in ElementTree.parse(report).iter("testcase"):
        found = {child.tag for child in case}
        if "skipped" not in found:
            file = case.attrib.get("classname", "").rpartition(".")[2]
            yield f"{file}::{case.attrib['name']}", not found & {"failure", "error"}


def by_task(outcomes: Sequence[tuple[str, bool]], tasks: Sequence[str]) -> dict[str, Counts]:
    """How many tests of each task there are, and how many passed; of none: "parts"."""
    counted: dict[str, Counts] = {}
    for name, passed in outcomes:
        counts = counted.setdefault(task_of(name, tasks) or PARTS, {"passed": 0, "tests": 0})
        counts["tests"] += 1
        counts["passed"] += passed
    return counted


def task_of(name: str, tasks: Sequence[str]) -> str | None:
    """The task in a test's parameters, else the longest that its name begins with, else that of its file."""
    file, _, test = name.rpartition("::")
    function, _, parameters = test.removesuffix("]").partition("[")
    named = [task for task in tasks if re.search(rf"(^|-){task}($|-)", parameters)]
    begun = [task for task in tasks if re.match(rf"test_{task}(_|$)", function)]
    own = [task for task in tasks if file == f"test_{task}"]
    return max(named or begun or own, key=len, default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--proofs", nargs="+", choices=PROOFS, default=list(PROOFS), help="the others stay as they were")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    tasks = sorted(path.stem for path in (conf_dir() / "pretext").glob("*.yaml"))
    known: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {"proofs": {}, "machines": {}}
    failed = False
    for proof in given.proofs:
        counted = known["proofs"][proof] = by_task(run(proof, given.workers), tasks)
        known["machines"][proof] = machine_record.record()
        given.out.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        red = sorted(task for task, counts in counted.items() if counts["passed"] < counts["tests"])
        failed |= bool(red)
        covered = len(counted.keys() & set(tasks))
        print(f"{proof}: {covered} of {len(tasks)} tasks have tests of their own, red: {', '.join(red) or 'none'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
