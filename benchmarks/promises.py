"""Which promises of reliability are kept: runs their tests, the slow ones as well, and writes how many trials passed.

    make test-reliability        # an hour and a half at most; benchmarks/promises.json

A test says by its mark ``promise`` what it proves, or records "promise" and "kind" where that is known only then. It is one
trial, or as many as it records under "times"; it may record how many "seconds" it took, of which the most are kept. If any test
fails, this ends with 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import machine_record

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("promises.json")
WITH_PROPERTIES = ("-o", "junit_family=xunit1")
"""The one kind of report that holds what tests record."""


class Trial(NamedTuple):
    """What a test proves, as ``R1: kind``, in how many trials, whether it passed, and the seconds that it recorded."""

    what: str
    times: int
    passed: bool
    seconds: float | None = None


def run(workers: int, words: Sequence[str]) -> tuple[list[Trial], int]:
    """Run all tests that are marked; what each proves, in how many trials, and whether it passed; and pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist", "worksteal"]
        command += ["-m", "promise", *WITH_PROPERTIES, f"--junitxml={report}", *words]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code not in (0, 1):  # passed, and some failed
            raise RuntimeError(f"pytest ended with {code}: the tests were not run, and what was known of them stays.")
        return list(results(report)), code


def results(report: Path) -> Iterator[Trial]:
    """What the tests of a pytest report prove, in how many trials, and whether they passed; what was skipped proves nothing."""
    for case in ElementTree.parse(report).iter("testcase"):
        found = {child.tag for child in case}
        properties = [(node.attrib["name"], node.attrib["value"]) for node in case.iter("property")]
        told = {
            wanted: [value for name, value in properties if name == wanted]
            for wanted in ("promise", "kind", "times", "seconds")
        }
        times = sum(map(int, told["times"])) or 1
        if "skipped" in found:
            continue
        passed = not found & {"failure", "error"}
        if len(told["promise"]) != len(told["kind"]) and passed:
            raise ValueError(f"{case.attrib['name']} records {told}: each promise has its kind.")
        for number, kind in zip_longest(told["promise"], told["kind"], fillvalue="what failed before it was said"):
            yield Trial(f"{number}: {kind}", times, passed, max(map(float, told["seconds"]), default=None))


def counted(outcomes: Sequence[Trial]) -> dict[str, dict[str, dict[str, Any]]]:
    """Trials of each kind, of each promise, how many of them passed, and the most seconds that one of them took."""
    told: dict[str, dict[str, dict[str, Any]]] = {}
    for trial in outcomes:
        number, _, kind = trial.what.partition(": ")
        row = told.setdefault(number, {}).setdefault(kind, {"trials": 0, "passed": 0})
        row["trials"] += trial.times
        row["passed"] += trial.times * trial.passed
        if trial.seconds is not None:
            row["seconds"] = max(trial.seconds, row.get("seconds", 0.0))
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("words", nargs="*", help="for pytest: less than all tests")
    given = parser.parse_args(arguments)
    started, machine = time.monotonic(), machine_record.record()
    outcomes, code = run(given.workers, given.words)
    found: dict[str, Any] = {"promises": counted(outcomes), "minutes": round((time.monotonic() - started) / 60, 1)}
    given.out.write_text(json.dumps({**found, "machine": machine}, indent=1, sort_keys=True) + "\n")
    for number, kinds in sorted(found["promises"].items(), key=lambda item: int(item[0][1:])):
        for kind, row in kinds.items():
            print(f"{number}: {kind}: {row['passed']} of {row['trials']}")
    return code


if __name__ == "__main__":
    sys.exit(main())
