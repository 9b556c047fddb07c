"""The rows of a study as claims need them: checked once, found by method and budget, paired by seed."""

import base64
import binascii
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ssl_framework.metrics import budget_order

SCRATCH = "scratch"
TRANSFER = ("frozen", "last_n", "lora", "lp_ft", "full")
"""Methods that start from the pretrained encoder, the simplest first."""

FLOORS = ("raw_pixels", "pca", "random_frozen")
"""What needs no pretraining, and hardly any training."""

Row = Mapping[str, Any]
Budget = int | str
Bits: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


class Point(NamedTuple):
    """One look at validation while a cell trained.

    Attributes:
        steps: optimiser steps until then; None: nothing was trained in steps.
        seconds: of training until then.
        score: accuracy on validation.
    """

    steps: float | None
    seconds: float
    score: float


class Outcome(NamedTuple):
    """What one seed of a method reached at a budget.

    Attributes:
        accuracy: on test.
        val_accuracy: on validation.
        labels: learnt from, in all.
        curve: what validation saw on the way; where the row has none but its seconds and ``val_accuracy``, the end alone.
        correct: ``(N,)``, whether each test sample was predicted right.
    """

    accuracy: float
    val_accuracy: float | None = None
    labels: int | None = None
    curve: tuple[Point, ...] = ()
    correct: Bits | None = None


Cells = dict[tuple[str, Budget], dict[int, Outcome]]


class Measured:
    """The cells of a study.

    Args:
        rows: in any order. Rows with ``label_noise`` belong to another question and are left out. Rows with ``pilot`` are of a
            seed that chose, and say what validation saw of it.

    Attributes:
        cells: by (method, budget), then by seed; without the pilot's.
        pilot: validation accuracy of the pilot's seed by (method, budget); empty where no row is of a pilot.
        absent: why a (method, budget) could not be measured.
        methods: in alphabetical order.
        budgets: by how many labels they are, where rows tell; else numbers, then shares, then "all".

    Raises:
        ValueError: a row lacks something or says what cannot be, a cell occurs twice, or seeds of a cell failed.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        every = [row for row in rows if not row.get("label_noise")]
        for row in every:
            _require_name(row)
        clean = [row for row in every if not row.get("pilot")]
        chose = [row for row in every if row.get("pilot") and row.get("na") is None]
        pilot = {(row["method"], row["budget"]): _share(row, "val_accuracy") for row in chose}
        if len(pilot) < len(chose):
            raise ValueError("two seeds are called pilot: one seed chooses for all, so keep the rows of one study only.")
        samples = _test_samples(clean)
        cells: Cells = {}
        failed: dict[tuple[str, Budget], dict[int, str]] = {}
        for row in clean:
            key, seed = (row["method"], row["budget"]), row["seed"]
            if seed in cells.get(key, {}) or seed in failed.get(key, {}):
                raise ValueError(f"two rows for {where(row)}: keep the rows of one study only.")
            if row.get("na") is not None:
                failed.setdefault(key, {})[seed] = str(row["na"])
            else:
                cells.setdefault(key, {})[seed] = outcome(row, samples)
        for key in cells.keys() & failed.keys():
            raise ValueError(
                f"{key[0]}, budget {key[1]!r} has results for some seeds, and none for {sorted(failed[key])}: to leave out "
                "what failed would be a choice by result. Measure them, or take the method out."
            )
        self._fill(cells, {key: next(iter(reasons.values())) for key, reasons in failed.items()}, pilot)

    @classmethod
    def of_cells(cls, cells: Cells, pilot: dict[tuple[str, Budget], float]) -> "Measured":
        """A study whose outcomes are checked already."""
        made = cls.__new__(cls)
        made._fill(cells, {}, pilot)
        return made

    def _fill(self, cells: Cells, absent: dict[tuple[str, Budget], str], pilot: dict[tuple[str, Budget], float]) -> None:
        if not cells:
            raise ValueError("claims need rows with results, and there is none: run the study first.")
        self.cells, self.absent, self.pilot = cells, absent, pilot
        self.methods = tuple(sorted({method for method, _ in cells}))
        budgets = {budget for _, budget in (*cells, *absent)}
        labels = {budget: one.labels for (_, budget), group in cells.items() for one in group.values()}
        known = {budget: count for budget, count in labels.items() if count is not None}
        self.budgets = tuple(sorted(budgets, key=known.__getitem__ if known.keys() == budgets else budget_order))

    def pairs(self, method: str, reference: str, budget: Budget) -> tuple[list[Outcome], list[Outcome]]:
        """Outcomes of both, seed by seed in ascending order.

        Raises:
            ValueError: one was not measured, or they have different seeds.
        """
        found = [self._cell(name, budget) for name in (method, reference)]
        if found[0].keys() != found[1].keys():
            alone = sorted(found[0].keys() ^ found[1].keys())
            raise ValueError(
                f"{method} and {reference} have different seeds at budget {budget!r}, and only one of them has {alone}: "
                "differences are paired, so run both with the same seeds."
            )
        seeds = sorted(found[0])
        return [found[0][seed] for seed in seeds], [found[1][seed] for seed in seeds]

    def _cell(self, method: str, budget: Budget) -> dict[int, Outcome]:
        if (method, budget) not in self.cells:
            known = ", ".join(str(b) for m, b in sorted(self.cells, key=lambda key: budget_order(key[1])) if m == method)
            reason = self.absent.get((method, budget), f"it has {f'the budgets {known}' if known else 'no row at all'}")
            raise ValueError(f"{method} was not measured at budget {budget!r} ({reason}): measure it, or leave it out.")
        return self.cells[method, budget]


Rows = Iterable[Row] | Measured


def measured(rows: Rows) -> Measured:
    """Rows checked, unless they are already."""
    return rows if isinstance(rows, Measured) else Measured(rows)


def where(row: Row) -> str:
    """What a person calls a row."""
    return f"{row.get('method', 'no method')}, budget {row.get('budget')!r}, seed {row.get('seed')}"


def outcome(row: Row, samples: int | None) -> Outcome:
    """The result that a row holds.

    Args:
        row: with an accuracy at least.
        samples: of test, where it has ``correct``.

    Raises:
        ValueError: a number is missing, not finite, or outside its range.
    """
    if row.get("accuracy") is None:
        raise ValueError(f"{where(row)} has neither an accuracy nor a reason 'na': measure it again.")
    accuracy, val = _share(row, "accuracy"), None if row.get("val_accuracy") is None else _share(row, "val_accuracy")
    labels = row.get("labels")
    if labels is not None and labels < 1:
        raise ValueError(f"{where(row)} has labels={labels}: a cell with a result learnt from at least one.")
    correct = None if row.get("correct") is None else _unpacked(row)[:samples].astype(bool)
    return Outcome(accuracy, val, labels, _curve(row, val), correct)


def _require_name(row: Row) -> None:
    if not isinstance(row.get("method"), str) or not isinstance(row.get("seed"), int):
        raise ValueError(f"a row needs a method (text) and a seed (a whole number); this one is {where(row)}.")
    budget = row.get("budget")
    share = isinstance(budget, str) and (budget == "all" or re.fullmatch(r"\d+(\.\d+)?%", budget) is not None)
    if isinstance(budget, bool) or not (share or (isinstance(budget, int) and budget > 0)):
        raise ValueError(f"{where(row)}: a budget is a whole number of labels of each class, a share such as '10%', or 'all'.")


def _share(row: Row, name: str) -> float:
    value = float(row[name])
    if not 0 <= value <= 1:  # NaN is neither
        raise ValueError(f"{where(row)} has {name}={value}: give a share between 0 and 1; what has diverged is an 'na'.")
    return value


def _curve(row: Row, val: float | None) -> tuple[Point, ...]:
    points = tuple(Point(float(a), float(b), float(c)) for a, b, c in row.get("curve") or ())
    if not points and val is not None and row.get("seconds") is not None:
        steps = row.get("steps")  # 0 where a solver found the answer
        points = (Point(float(steps) if steps else None, float(row["seconds"]), val),)
    numbers = [number for point in points for number in point if number is not None]
    if not all(map(math.isfinite, numbers)) or any(number < 0 for number in numbers):
        raise ValueError(f"{where(row)} has a curve with {numbers}: steps, seconds and scores are finite and not negative.")
    for before, after in itertools.pairwise(points):
        if before.steps is None or after.steps is None or before.steps >= after.steps or before.seconds > after.seconds:
            raise ValueError(f"{where(row)} has a curve that goes from {before} to {after}: steps and seconds only grow.")
    return points


def _unpacked(row: Row) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bits of ``correct``, with up to seven zeros behind them that belong to no sample."""
    try:
        return np.unpackbits(np.frombuffer(base64.b64decode(row["correct"], validate=True), np.uint8))
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"{where(row)} has a 'correct' that is no base64 of packed bits: measure it again.") from error


def _test_samples(rows: Sequence[Row]) -> int | None:
    """How many test samples ``correct`` speaks of: whole bytes do not say, the accuracy does."""
    found: dict[int, Row] = {}
    blank: dict[int, Row] = {}
    for row in rows:
        if row.get("correct") is None or row.get("accuracy") is None:
            continue
        bits, right = len(_unpacked(row)), int(_unpacked(row).sum())
        fits = [n for n in range(max(1, bits - 7), bits + 1) if abs(right / n - _share(row, "accuracy")) < 1e-9]
        if not fits:
            raise ValueError(
                f"{where(row)} has accuracy={row['accuracy']}, and 'correct' with {right} right of {bits - 7} to {bits}: "
                "they are not of the same predictions. Measure it again."
            )
        (found if right else blank).setdefault(fits[-1], row)
    if len(found) > 1:
        raise ValueError(f"rows speak of test sets of {sorted(found)} samples: differences are paired, so use one test set.")
    samples = next(iter(found or blank), None)
    odd = [row for bits, row in blank.items() if samples is not None and bits - samples not in range(8)]
    if odd:
        raise ValueError(f"{where(odd[0])} speaks of another test set than the rest, which has {samples} samples.")
    return samples
