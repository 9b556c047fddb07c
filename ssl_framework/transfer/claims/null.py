"""How often do the verdicts claim that transfer pays where nothing was transferred? Studies of scratch against scratch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ssl_framework import keyed
from ssl_framework.metrics import budget_order
from ssl_framework.transfer.claims.familywise import clopper_pearson
from ssl_framework.transfer.claims.measured import SCRATCH, TRANSFER, Budget, Cells, Measured, Outcome, Row
from ssl_framework.transfer.claims.verdicts import FEWEST, verdicts

_STREAM = 0x2017  # names this use of the key
_LEAST = 40


class NullStudies(NamedTuple):
    """How null studies ended.

    Attributes:
        studies: how many.
        false_pays: with one "pays" at least.
        false_hurts: with one "hurts" at least.
        share: that claims falsely that transfer pays.
        low: lower end of the share's exact interval.
        high: its upper end.
    """

    studies: int
    false_pays: int
    false_hurts: int
    share: float
    low: float
    high: float


def null_studies(
    pool: Mapping[Budget, Sequence[float | Row]],
    *,
    seeds: int,
    studies: int,
    key: int,
    methods: Sequence[str] = TRANSFER,
    pilot: bool = True,
    confidence: float = 0.95,
    fewest: int = FEWEST,
) -> NullStudies:
    """Resample studies in which every method is scratch, trained anew, and judge them as a real one is judged.

    Within a study no cell is used twice. Cells of one seed are paired by chance, the methods' names are chosen among by
    validation, and p-values are corrected.

    The interval is of the resampling: another pool of real cells would give another share.

    Args:
        pool: of each budget at least 40 cells that were trained from scratch with different seeds: rows, or accuracies alone. A
            cell without ``val_accuracy`` is judged by its test accuracy, the worst that a choice can do.
        seeds: of each method, that are judged.
        studies: how many.
        key: of the draws.
        methods: names of the transfer methods.
        pilot: one seed more chooses the method of each budget, as in a study; else the judged ones do.
        confidence: of the family of verdicts, and of the share's interval.
        fewest: as in `verdicts`.

    Raises:
        ValueError: the pool is too small.
    """
    if studies < 1 or seeds < 1:
        raise ValueError(f"studies={studies}, seeds={seeds}: at least one of each.")
    cells = {budget: _outcomes(budget, pool[budget]) for budget in sorted(pool, key=budget_order)}
    need = max(_LEAST, (seeds + pilot) * (len(methods) + 1))
    small = {budget: len(found) for budget, found in cells.items() if len(found) < need}
    if small or not cells:
        raise ValueError(
            f"the pool has {small or 'no budget'}, and {need} cells of each budget are needed: train more of them."
        )
    pays = hurts = 0
    for study in range(studies):
        words = {
            one.word for one in verdicts(_study(cells, methods, seeds, pilot, key, study), confidence=confidence, fewest=fewest)
        }
        pays += "pays" in words
        hurts += "hurts" in words
    return NullStudies(studies, pays, hurts, pays / studies, *clopper_pearson(pays, studies, confidence))


def _outcomes(budget: Budget, cells: Sequence[float | Row]) -> list[Outcome]:
    rows = [{"accuracy": cell} if isinstance(cell, int | float) else cell for cell in cells]
    named = [{**row, "method": SCRATCH, "budget": budget, "seed": seed} for seed, row in enumerate(rows)]
    if not named:
        return []
    found = Measured(named).cells[SCRATCH, budget].values()
    return [one if one.val_accuracy is not None else one._replace(val_accuracy=one.accuracy) for one in found]


def _study(
    cells: Mapping[Budget, list[Outcome]], methods: Sequence[str], seeds: int, pilot: bool, key: int, study: int
) -> Measured:
    made, first, count = Cells(), dict[tuple[str, Budget], float](), seeds + pilot
    for place, (budget, found) in enumerate(cells.items()):
        drawn = keyed.permutation(len(found), key, _STREAM, study, place)
        for number, method in enumerate((SCRATCH, *methods)):
            mine = [found[cell] for cell in drawn[number * count : (number + 1) * count]]
            made[method, budget] = dict(enumerate(mine[pilot:]))
            val = mine[0].val_accuracy
            assert val is not None  # see `_outcomes`
            if pilot:
                first[method, budget] = val
    return Measured.of_cells(made, first)
