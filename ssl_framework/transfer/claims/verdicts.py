"""Does transfer pay, and up to how many labels? One verdict a budget, all of them right together in 95 of 100 studies."""

from collections.abc import Sequence
from itertools import groupby
from typing import Literal, NamedTuple

from ssl_framework.metrics import budget_in_words
from ssl_framework.transfer.claims.familywise import Adjusted, holm
from ssl_framework.transfer.claims.gains import Comparison, chosen, compare
from ssl_framework.transfer.claims.measured import FLOORS, SCRATCH, TRANSFER, Budget, Measured, Rows, measured

FEWEST = 5
"""Seeds below which nothing is judged.

Where training succeeds or fails by the toss of a coin, three seeds that fall the same way look like a steady gain: more than
a quarter of such null studies then claim that transfer pays, and about 2 % of those with five seeds.
"""

Word = Literal["pays", "hurts", "no evidence", "not judged"]


class Verdict(NamedTuple):
    """What may be said of one budget.

    Attributes:
        budget: of labels.
        word: "pays" and "hurts" are the two directions of one two-sided test; "not judged" says that there was none.
        method: that it is said of; None where no transfer method was measured.
        seeds: pairs.
        test: the comparison with the reference; None where there was nothing to compare.
        p_adjusted: its two-sided p-value, corrected for the family; None where nothing was judged.
        reason: in one sentence.
        rival: a floor that the method is not shown to beat, though it beats the reference, both corrected for the family; None
            where there is no such.
    """

    budget: Budget
    word: Word
    method: str | None
    seeds: int
    test: Comparison | None
    p_adjusted: float | None
    reason: str
    rival: str | None = None


def verdicts(
    rows: Rows,
    *,
    method: str | None = None,
    reference: str = SCRATCH,
    floors: Sequence[str] = FLOORS,
    confidence: float = 0.95,
    fewest: int = FEWEST,
) -> list[Verdict]:
    """Judge each budget, so that at most a share ``1 - confidence`` of studies has any false verdict.

    "Pays" is said of a method that beats the reference and each floor that was measured. With one label of each class a
    network trained from scratch is worse than a logistic regression on pixels, and an encoder that has learnt nothing beats it
    too: whoever did not pretrain would not train from scratch there. All of these tests have to reject, so that the largest of
    their p-values needs no correction (Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24,
    1982). "Hurts" is said of a method that the reference beats.

    A method that is named was fixed in advance: the family is its budgets. So it is where a pilot, a seed that is not judged,
    chooses the method of each budget. Without a pilot validation chooses by the very seeds that are judged, and the family is
    every transfer method at every budget. For what validation likes by luck, test likes too: the chosen method's p-value is too
    small, and must hold whichever method is chosen. Corrected for budgets alone, 5 to 8 % of such null studies with five
    methods and budgets claim that transfer pays.

    Args:
        rows: of a study.
        method: to judge; None: what `chosen` says at each budget.
        reference: to compare with.
        floors: to beat as well, where they were measured.
        confidence: of the family, and of each interval.
        fewest: seeds, below which nothing is judged.

    Returns:
        One a budget, ascending.

    Raises:
        ValueError: the method was measured nowhere, or seeds are not paired.
    """
    study = measured(rows)
    if method is not None and method not in study.methods:
        raise ValueError(f"{method} was measured at no budget. There are {', '.join(study.methods)}.")
    candidates = TRANSFER if method is None else (method,)
    tests = comparisons(study, candidates, reference, confidence)
    if study.pilot:
        picked = {(chosen(study, budget, candidates), budget) for budget in study.budgets}
        tests = {key: test for key, test in tests.items() if key in picked}
    low = lowest(study, tests, floors, confidence)
    corrected = adjusted(study, tests, fewest, low)
    alone = adjusted(study, tests, fewest) if low else corrected
    rivals = {key: low[key] for key, p in corrected.items() if key in low and alone[key] <= 1 - confidence < p}
    return [_verdict(study, budget, candidates, reference, tests, corrected, rivals, confidence) for budget in study.budgets]


Comparisons = dict[tuple[str, Budget], Comparison]


def comparisons(rows: Rows, methods: Sequence[str], reference: str, confidence: float) -> Comparisons:
    """Each method against the reference, wherever both were measured."""
    study = measured(rows)
    return {
        (method, budget): compare(*study.pairs(method, reference, budget), confidence)
        for budget in study.budgets
        for method in methods
        if method != reference and (method, budget) in study.cells and (reference, budget) in study.cells
    }


class Lowest(NamedTuple):
    """The comparison of a method with the floor that it is least surely better than.

    Attributes:
        floor: its name.
        test: the method against it.
    """

    floor: str
    test: Comparison


Lows = dict[tuple[str, Budget], Lowest]


def lowest(rows: Rows, tests: Comparisons, floors: Sequence[str], confidence: float) -> Lows:
    """Of each comparison's method, where a floor was measured at its budget.

    Raises:
        ValueError: seeds are not paired.
    """
    study, found = measured(rows), Lows()
    for method, budget in tests:
        there = [floor for floor in floors if floor != method and (floor, budget) in study.cells]
        against = [Lowest(floor, compare(*study.pairs(method, floor, budget), confidence)) for floor in there]
        if against:
            found[method, budget] = max(against, key=lambda one: _one_sided(one.test, 1))
    return found


def adjusted(rows: Rows, tests: Comparisons, fewest: int = FEWEST, floors: Lows | None = None) -> Adjusted:
    """Two-sided p-values, corrected together: twice the smaller of the two directions, each by Holm's procedure.

    The directions are corrected apart. In one procedure "hurts" at one budget would make "pays" easier at another, so that a
    better encoder could lose a verdict, and a true effect in the wrong direction would be no false verdict.

    Args:
        rows: that the tests are of.
        tests: a family: whatever was asked, judged or not.
        fewest: seeds, below which a comparison is not of the family.
        floors: that have to be beaten as well, of `lowest`.

    Returns:
        Of each comparison with enough seeds. Differences that are all the same, of unknown error, count as p = 1.
    """
    study = measured(rows)
    family = [key for key in tests if len(study.cells[key]) >= max(2, fewest)]
    worse = [_one_sided(tests[key], -1) for key in family]
    better = [_one_sided(tests[key], 1) for key in family]
    if floors:
        better = [
            max(p, _one_sided(floors[key].test, 1)) if key in floors else p for key, p in zip(family, better, strict=True)
        ]
    corrected = zip(holm(better), holm(worse), strict=True)
    return {key: min(1.0, 2 * min(pair)) for key, pair in zip(family, corrected, strict=True)}


def flip(found: Sequence[Verdict]) -> Budget | None:
    """The smallest budget from which on transfer is not said to pay, if it pays at all smaller ones; None: there is no such."""
    paying = [one.word == "pays" for one in found]
    count = sum(paying)
    return found[count].budget if 0 < count < len(found) and all(paying[:count]) else None


def headline(found: Sequence[Verdict]) -> str:
    """All verdicts, for people who know no statistics: where it pays first, what may do as well last. Ends were measured."""
    groups: list[tuple[Word, list[Verdict]]] = [
        (word, list(group)) for (word, has_rival), group in groupby(found, key=_answer) if not has_rival
    ]
    if len(groups) == 1 and len(groups[0][1]) == len(found):
        return _uniform(found)
    said = [f"{_SAID[word]} {_span(group)}" for word, group in sorted(groups, key=lambda run: list(_SAID).index(run[0]))]
    never = [] if any(one.word == "pays" for one in found) else ["transfer is nowhere shown to pay"]
    sentence = ": ".join([*never, *(["; ".join(said)] if said else [])])
    return f"{sentence[0].upper()}{sentence[1:]}.{_rivals(found)}"


_SAID: dict[Word, str] = {
    "pays": "transfer pays",
    "no evidence": "there is no evidence either way",
    "hurts": "transfer hurts",
    "not judged": "nothing can be said",
}


def _one_sided(test: Comparison, sign: int) -> float:
    if test.p is None:
        return 1.0
    return test.p / 2 if sign * test.mean > 0 else 1 - test.p / 2


def _rivals(found: Sequence[Verdict]) -> str:
    """What may be as good without pretraining, or better, where scratch is not."""
    rivals = list(dict.fromkeys(one.rival for one in found if one.rival is not None))
    if not rivals:
        return ""
    inputs = [_INPUTS[rival] for rival in rivals if rival in _INPUTS]
    regression = [f"a logistic regression on {' or '.join(inputs)}"] if inputs else []
    names = " or ".join([*regression, *(_CHEAP.get(rival, rival) for rival in rivals if rival not in _INPUTS)])
    runs = [list(group) for cheap, group in groupby(found, key=lambda one: one.rival is not None) if cheap]
    places = " and ".join(_span(run) for run in runs)
    but = f"but {names} may do as well or better without pretraining"
    return f" {places[0].upper()}{places[1:]}, it beats training from scratch, {but}."


_INPUTS = {"raw_pixels": "raw pixels", "pca": "principal components"}
_CHEAP = {"random_frozen": "an encoder that has learnt nothing"}


def _uniform(found: Sequence[Verdict]) -> str:
    word = found[0].word
    where = "wherever it was measured" if word in ("pays", "hurts") else "at any number of labels measured"
    scope = _span(found) if len(found) == 1 else f"{where}, {_span(found)}"
    if word == "pays":
        return f"Transfer pays {scope}."
    if word == "hurts":
        return f"Transfer hurts {scope}: training from scratch is better."
    if word == "no evidence":
        return f"There is no evidence that transfer pays or hurts {scope}."
    return f"Whether transfer pays cannot be said {scope}: {'; '.join(dict.fromkeys(one.reason for one in found))}."


def _answer(one: Verdict) -> tuple[Word, bool]:
    """Its word, and whether a floor may do as well."""
    return one.word, one.rival is not None


def _span(found: Sequence[Verdict]) -> str:
    first, last = found[0].budget, found[-1].budget
    if first == last:
        return f"{'with' if isinstance(first, str) else 'at'} {budget_in_words(first)}"
    start = str(first) if isinstance(first, int) and isinstance(last, int) else budget_in_words(first)
    return f"from {start} up to {budget_in_words(last)}"


def _verdict(
    study: Measured,
    budget: Budget,
    candidates: Sequence[str],
    reference: str,
    tests: Comparisons,
    corrected: Adjusted,
    rivals: Lows,
    confidence: float,
) -> Verdict:
    method = chosen(study, budget, candidates)
    if method is None or (method, budget) not in tests:
        missing = f"{reference} was not measured" if method is not None else f"none of {', '.join(candidates)} was measured"
        return Verdict(budget, "not judged", method, 0, None, None, missing)
    test, p, seeds = tests[method, budget], corrected.get((method, budget)), len(study.cells[method, budget])
    if p is None:
        few = f"{seeds} seed{'s are' if seeds > 1 else ' is'} too few"
        return Verdict(budget, "not judged", method, seeds, test, None, few)
    if test.p is None:
        same = "the seeds' differences are all the same, and without 'correct' nothing tells how far they may be off"
        return Verdict(budget, "not judged", method, seeds, test, None, same)
    word: Word = "no evidence" if p > 1 - confidence else "pays" if test.mean > 0 else "hurts"
    gains, rival = f"{method} gains {_points(test)} over {reference}", rivals.get((method, budget))
    if rival is None:
        return Verdict(budget, word, method, seeds, test, p, f"{gains}, corrected p = {p:.2g}")
    but = f"{gains}, but {_points(rival.test)} over {rival.floor}, which needs no pretraining: corrected p = {p:.2g}"
    return Verdict(budget, word, method, seeds, test, p, but, rival.floor)


def _points(test: Comparison) -> str:
    low, high = (100 * (test.mean + sign * test.half_width) for sign in (-1, 1))
    return f"{100 * test.mean:+.1f} points ({low:+.1f} to {high:+.1f})"
