"""The page of promises: what of a run and of a file is promised, and how often it was tried."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COUNTS = ROOT / "benchmarks" / "promises.json"
PROOFS = ROOT / "benchmarks" / "proofs.json"

PROMISES = {
    "R1": "A run that is killed anywhere goes on to the bits of the one that was not: weights, teachers, queues, optimiser, "
    "schedules, counters. On the same machine type, threads, and number of processes.",
    "R2": "The result does not depend on the number of loader workers.",
    "R3": "On another number of processes, at the same global batch, a run sees the same samples and follows the same "
    "trajectory within rounding, without dropout and with BatchNorm over all processes or none.",
    "R4": "SIGTERM, SIGUSR1, SIGHUP or Ctrl-C to any of the processes: the step under way ends, all is saved, and all leave "
    "with code 75.",
    "R5": "A checkpoint is whole or not there.",
    "R6": "A damaged newest checkpoint is named, set aside, and the one before it is used.",
    "R7": "No run whose loss, gradient or weights are not finite reports success, or overwrites a good checkpoint.",
    "R8": "Nothing stands still in silence: it ends within its limit and says which process, at which step, in what.",
    "R9": "Opening an untrusted checkpoint, configuration or exported model runs no code, through any public function.",
    "R10": "Bad input is a clear error before training, or a counted skip with the file's name.",
    "R11": "A bad configuration fails before data or a GPU are touched, with its key, its value and what is allowed.",
    "R12": "So many processes train as one does with all their samples.",
    "R13": "Each loss has its known values and invariants.",
    "R14": "Collapse, dead queues, frozen teachers and numbers that drift are shown by default, and planted faults raise an "
    "alarm.",
    "R15": "No label of the test split enters pretraining, and nothing is chosen on it.",
    "R16": "No connection is opened unless it is asked for: nothing is reported to anybody.",
}

ABOUT = """# What is promised, and how often it was tried

Made by `make test-reliability`, which runs every trial of this table and its controls. A control is the same fault without the
defence, and has to go wrong: a trial that passes either way proves nothing. R12 and R13 are counted by `make proofs`, task by
task, in [the table of proofs](proofs.md). {when}

| | promise | trials that passed | controls |
|---|---|---|---:|
"""

LIMITS = """
What is not promised: other numbers of threads, other versions of torch and other processors change the bits (each repeats its
own; going on elsewhere says "not bit-exact, because ..." and goes on). Nothing here was run on several GPUs: the processes are
gloo's, on a CPU. A file whose pixels were changed before it was ever read cannot be told from one that is as it should be.
"""


def page() -> str:
    """The page."""
    known: dict[str, Any] = json.loads(COUNTS.read_text()) if COUNTS.is_file() else {"promises": {}}
    lines = [ABOUT.format(when=_when(known)).rstrip("\n")]
    for number, promise in PROMISES.items():
        kinds = known["promises"].get(number, {}) | _proven(number)
        trials = {kind: row for kind, row in kinds.items() if kind != "control"}
        told = "<br>".join(map(_told, trials, trials.values())) or "not yet run"
        controls = kinds.get("control", {"passed": 0})["passed"]
        none = "none" if number in known["promises"] else ""
        lines.append(f"| {number} | {promise} | {told} | {controls or none} |")
    return "\n".join(lines) + "\n" + LIMITS


def _when(known: dict[str, Any]) -> str:
    if "machine" not in known:
        return "The others have not been run yet."
    machine = known["machine"]
    where = f"on {machine['processor']}, {machine['cores']} cores"
    return f"The last run took {known['minutes']:.0f} minutes {where}, at commit {machine['commit']}."


def _told(kind: str, row: dict[str, Any]) -> str:
    longest = f" (at most {row['seconds']:.1f} s of the processor)" if "seconds" in row else ""
    return f"**{row['passed']:,} of {row['trials']:,}** {kind}{longest}"


def _proven(number: str) -> dict[str, dict[str, int]]:
    """Of what `make proofs` counts."""
    proof, kind = {"R12": ("distributed", "test of a task on 2 or 3 processes"), "R13": ("contract", "test of a task")}.get(
        number, ("", "")
    )
    rows = json.loads(PROOFS.read_text())["proofs"].get(proof, {}).values()
    return {kind: {"trials": sum(row["tests"] for row in rows), "passed": sum(row["passed"] for row in rows)}} if rows else {}
