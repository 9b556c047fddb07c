"""All that a study allows to say, as plain numbers and sentences, and its cells as a data frame."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ssl_framework.metrics import budget_in_words
from ssl_framework.transfer.claims.efficiency import label_efficiency
from ssl_framework.transfer.claims.familywise import Adjusted
from ssl_framework.transfer.claims.gains import Comparison, gain
from ssl_framework.transfer.claims.measured import SCRATCH, TRANSFER, Measured, Rows, measured
from ssl_framework.transfer.claims.ranges import Middle, Range
from ssl_framework.transfer.claims.speed import speed
from ssl_framework.transfer.claims.verdicts import FEWEST, Verdict, adjusted, comparisons, flip, headline, verdicts

if TYPE_CHECKING:
    import pandas as pd

Plain = dict[str, Any]


def summary(
    rows: Rows,
    *,
    pretrain_seconds: float | None = None,
    confidence: float = 0.95,
    method: str | None = None,
    reference: str = SCRATCH,
    fewest: int = FEWEST,
    key: int = 0,
) -> Plain:
    """Every claim of a study.

    Args:
        rows: of a study.
        pretrain_seconds: that pretraining took, or None.
        confidence: of intervals, and of the family of verdicts.
        method: fixed in advance; None: validation chooses at each budget, see `verdicts`.
        reference: to compare with.
        fewest: seeds, below which nothing is judged.
        key: of the crossed bootstrap.

    Returns:
        What JSON can hold. ``headline``: one sentence. ``pays_until_before``: see `flip`. ``verdicts``: one a budget.
        ``gains``: one a method and budget, over the reference alone, with p-values corrected in two families, transfer methods
        and others. For the method of each verdict, ``label_efficiency`` and ``speed``, or ``na`` where the rows do not tell. A
        number that is infinite or unknown is None.
    """
    study = measured(rows)
    found = verdicts(study, method=method, reference=reference, confidence=confidence, fewest=fewest)
    judged = [(one.method, one) for one in found if one.method is not None and one.test is not None]
    return {
        "headline": headline(found),
        "pays_until_before": flip(found),
        "reference": reference,
        "confidence": confidence,
        "pretrain_seconds": pretrain_seconds,
        "method": "chosen on validation" if method is None else method,
        "verdicts": [_verdict(one) for one in found],
        "gains": _gains(study, TRANSFER if method is None else (method,), reference, confidence, fewest, key),
        "label_efficiency": [_efficiency(study, name, one, reference, confidence) for name, one in judged],
        "speed": [_speed(study, name, one, reference, confidence, pretrain_seconds) for name, one in judged],
        "not_measured": [
            {"method": name, "budget": budget, "na": reason} for (name, budget), reason in sorted(study.absent.items(), key=str)
        ],
    }


def frame(rows: Rows, reference: str = SCRATCH) -> "pd.DataFrame":
    """One line a cell: method, budget, labels, seed, accuracy, val_accuracy, seconds, steps, and gain over the reference.

    Cells that learnt from wrong labels follow, with ``label_noise``; robustness has columns such as ``robustness/pgd/8/255``.

    Args:
        rows: of a study. Of a `Measured` there is neither.
        reference: of the same budget and seed; where it has none, the gain is missing.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    try:
        import pandas as pd  # noqa: PLC0415  (slow to import, and nothing else needs it)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a data frame needs pandas: pip install pandas.", name="pandas") from error
    given = [] if isinstance(rows, Measured) else list(rows)
    study = rows if isinstance(rows, Measured) else Measured(given)
    more = {(row["method"], row["budget"], row["seed"]): _hard(row) for row in given if not row.get("label_noise")}
    lines: list[Plain] = []
    for budget in study.budgets:
        floor = study.cells.get((reference, budget), {})
        for method in study.methods:
            for seed, one in sorted(study.cells.get((method, budget), {}).items()):
                end = one.curve[-1] if one.curve else None
                lines.append(
                    {
                        "method": method,
                        "budget": budget,
                        "labels": one.labels,
                        "seed": seed,
                        "accuracy": one.accuracy,
                        "val_accuracy": one.val_accuracy,
                        "seconds": None if end is None else end.seconds,
                        "steps": None if end is None else end.steps,
                        "gain": one.accuracy - floor[seed].accuracy if seed in floor else None,
                        **more.get((method, budget, seed), {}),
                    }
                )
    noisy = ("method", "budget", "labels", "seed", "accuracy", "val_accuracy", "seconds", "steps", "label_noise")
    lines += [{key: row.get(key) for key in noisy} for row in given if row.get("label_noise") and row.get("na") is None]
    return pd.DataFrame(lines)


def _hard(row: Mapping[str, Any]) -> Plain:
    return {f"robustness/{key}": value for key, value in row.get("robustness", {}).items()}


def _verdict(one: Verdict) -> Plain:
    plain = {"budget": one.budget, "verdict": one.word, "method": one.method, "seeds": one.seeds, "rival": one.rival}
    numbers = {} if one.test is None else _comparison(one.test)
    said = f"{budget_in_words(one.budget)}: {one.word}; {one.reason}."
    return {**plain, **numbers, "p_adjusted": one.p_adjusted, "sentence": f"{said[0].upper()}{said[1:]}"}


def _comparison(test: Comparison) -> Plain:
    known = math.isfinite(test.half_width)
    return {
        "gain": test.mean,
        "low": test.mean - test.half_width if known else None,
        "high": test.mean + test.half_width if known else None,
        "p": test.p,
        "p_better": test.p_better,
        "floored": test.floored,
    }


def _gains(study: Measured, family: Sequence[str], reference: str, confidence: float, fewest: int, key: int) -> list[Plain]:
    others = [name for name in study.methods if name not in family]
    corrected: Adjusted = {
        pair: p
        for names in (family, others)
        for pair, p in adjusted(study, comparisons(study, names, reference, confidence), fewest).items()
    }
    lines: list[Plain] = []
    for budget in study.budgets:
        for name in (*family, *others):
            if name == reference or (name, budget) not in study.cells or (reference, budget) not in study.cells:
                continue
            found = gain(study, name, reference, budget, confidence=confidence, key=key)
            crossed = None if found.crossed is None else list(found.crossed)
            lines.append(
                {
                    "method": name,
                    "budget": budget,
                    "seeds": found.seeds,
                    **_comparison(found.test),
                    "p_adjusted": corrected.get((name, budget)),
                    "family": "transfer" if name in family else "others",
                    "crossed": crossed,
                }
            )
    return lines


def _efficiency(study: Measured, name: str, one: Verdict, reference: str, confidence: float) -> Plain:
    plain: Plain = {"method": name, "budget": one.budget}
    if any(
        cell.labels is None
        for (method, _), cells in study.cells.items()
        if method in (name, reference)
        for cell in cells.values()
    ):
        return {**plain, "na": "rows do not say how many labels they learnt from"}
    found = label_efficiency(study, name, one.budget, reference=reference, confidence=confidence)
    return {**plain, "factor": _middle(found.factor), "sentence": found.sentence}


def _speed(
    study: Measured, name: str, one: Verdict, reference: str, confidence: float, pretrain_seconds: float | None
) -> Plain:
    plain: Plain = {"method": name, "budget": one.budget}
    both = [cell for method in (name, reference) for cell in study.cells[method, one.budget].values()]
    if any(not cell.curve or cell.curve[-1].seconds <= 0 for cell in both):
        return {**plain, "na": "rows do not say how long training took, or what validation saw of it"}
    found = speed(study, name, one.budget, reference=reference, pretrain_seconds=pretrain_seconds, confidence=confidence)
    middles = ("steps", "seconds", "steps_ratio", "ratio", "ratio_with_pretraining", "saved")
    return {
        **plain,
        "reached": found.reached,
        **{key: None if (value := getattr(found, key)) is None else _middle(value) for key in middles},
        "tasks": found.tasks,
        "sentence": found.sentence,
    }


def _middle(value: Middle) -> Plain:
    ends = {"median": value.median, "low": value.low, "high": value.high}
    return {
        **{key: None if end is None else _range(end) for key, end in ends.items()},
        "coverage": value.coverage,
        "seeds": value.seeds,
    }


def _range(value: Range) -> Plain:
    low, high = (end if math.isfinite(end) else None for end in value)
    return {"low": low, "high": high, "text": str(value)}
