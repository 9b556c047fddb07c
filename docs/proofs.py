"""The page of proofs: which hold for which task, from the files that their runs wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_framework.pretext.base import Card

ROOT = Path(__file__).resolve().parent.parent
PROOFS = ROOT / "benchmarks" / "proofs.json"
COLLAPSES = ROOT / "tests" / "collapse" / "rows.json"
COSTS = ROOT / "benchmarks" / "step_cost.json"
GPU_COSTS = ROOT / "benchmarks" / "step_cost_gpu.json"

ABOUT = """# What is proven of each task

- **Parity**: the loss, and the target where there is one, equal the paper's formula written naively in float64; values that are
  known by hand; gradients that stop where the paper stops them.
- **Distributed**: two and three processes with different data on each equal one process with all of it: loss, gradients,
  teachers, queues, centres, banks, prototypes; without BatchNorm and with one over all processes.
- **Contract**: same seed, same bits; killed and resumed to the bit; invariants of order, scale, views and stopped gradients;
  finite on bad input.
- **Collapse**: with what prevents it removed, the monitor names the collapse within so many steps, and stays silent on the
  healthy run. `none`: the target is fixed, so there is nothing to prevent.

- **Cost**: seconds of a step over those of its encoder passes alone, teacher's included; no more than 1.15 is the aim.
  ResNet-18, or `vit_tiny` where tokens are hidden, on images of 32 pixels (`benchmarks/step_cost.py`): of processor time
  on a CPU, and of the clock on an H200, where such passes are so short that their launches, and those of the smallest head and
  loss, are what takes time. MAE is above by its nature: its decoder sees every token and its encoder a quarter of them, which
  with the paper's ViT-L is 1.3 in products alone. iBOT and DINOv2 put a head 2048 wide on each hidden token, beside an encoder
  192 wide.

**Whether it learns** is measured in [the catalogue](../explanation/catalogue.md).

A number counts tests. `make proofs` runs them all and writes what this table is made from."""


def page(tasks: Mapping[str, Card]) -> str:
    """The page.

    Args:
        tasks: cards by the name of their task, in the order of the table.
    """
    known: dict[str, Any] = json.loads(PROOFS.read_text())
    collapses: dict[str, Any] = json.loads(COLLAPSES.read_text())
    ratios, on_gpu = (
        {row["task"]: f"{row['ratio']:.2f} (batch {row['batch']})" for row in costs(file)} for file in (COSTS, GPU_COSTS)
    )
    columns = ("parity", "distributed", "contract")
    names = ("task", *columns, "collapse", "removed", "named, after", "cost", "cost on a GPU")
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for task, card in tasks.items():
        cells = [counted(known["proofs"].get(column, {}).get(task)) for column in columns]
        row = collapses.get(task)
        if card.prevents_collapse.startswith("nothing to prevent"):
            cells += ["none", "", ""]
        else:
            cells.append(counted(known["proofs"].get("collapse", {}).get(task)))
            cells += [row["removed"], f"{row['named']}, {row['steps']} steps"] if row else ["", ""]
        cells += [found.get(task, "not yet measured") for found in (ratios, on_gpu)]
        lines.append(f"| [{task}](tasks/{task}.md) | {' | '.join(cells)} |")
    parts = {proof: counted(found["parts"]) for proof, found in known["proofs"].items() if "parts" in found}
    below = f"Tests of what tasks are made of, in no row: {', '.join(f'{proof} {count}' for proof, count in parts.items())}."
    where = " ".join(
        f"{proof.capitalize()}: last run on {machine['processor']}, torch {machine['torch']}, commit `{machine['commit']}`."
        for proof, machine in known["machines"].items()
    )
    return "\n".join([ABOUT, "", *lines, "", below, "", where])


def costs(file: Path) -> list[dict[str, Any]]:
    """What `benchmarks/step_cost.py` wrote there; no rows before its first run."""
    return json.loads(file.read_text())["rows"] if file.is_file() else []


def counted(counts: Mapping[str, int] | None) -> str:
    """How many tests passed, and whether that is all of them."""
    if counts is None:
        return "not yet run"
    passed, tests = counts["passed"], counts["tests"]
    return f"✓ {tests}" if passed == tests else f"✗ {passed} of {tests}"
