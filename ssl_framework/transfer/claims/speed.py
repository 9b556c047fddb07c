"""Is the pretrained encoder faster? Its time until it is as good as scratch becomes, and what pretraining cost."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ssl_framework.metrics import budget_in_words
from ssl_framework.transfer.claims.measured import SCRATCH, Budget, Outcome, Point, Rows, measured
from ssl_framework.transfer.claims.ranges import Middle, Range, exactly, middle


class Speed(NamedTuple):
    """How much sooner a method is as good as the reference becomes.

    Attributes:
        method: whose time is asked for.
        reference: whose last validation score has to be reached.
        budget: of labels.
        reached: seeds that reach it.
        steps: that the method needs; None where one of the two is not trained in steps.
        seconds: that it needs.
        steps_ratio: the reference's steps to the same score, divided by the method's; None likewise.
        ratio: of seconds, likewise.
        ratio_with_pretraining: the same with pretraining counted to the method; None where its cost is not known.
        saved: seconds a task.
        tasks: after how many of them pretraining has paid for itself; None where it is not shown to, or its cost is not known.
        sentence: the same in words.
    """

    method: str
    reference: str
    budget: Budget
    reached: int
    steps: Middle | None
    seconds: Middle
    steps_ratio: Middle | None
    ratio: Middle
    ratio_with_pretraining: Middle | None
    saved: Middle
    tasks: int | None
    sentence: str


class _Race(NamedTuple):
    """One seed: what each needs until the score, in one unit."""

    mine: Range
    theirs: float

    def ratio(self, more: float = 0.0) -> Range:
        high = self.theirs / (self.mine.low + more)
        return Range(0.0 if math.isinf(self.mine.high) else high, high)

    def saved(self) -> Range:
        return Range(self.theirs - self.mine.high, self.theirs - self.mine.low)


def speed(
    rows: Rows,
    method: str,
    budget: Budget,
    *,
    reference: str = SCRATCH,
    pretrain_seconds: float | None = None,
    confidence: float = 0.95,
) -> Speed:
    """Race a method against the reference, to the validation score with which the reference ends.

    Both are timed alike: when the curve, straight between looks, first reaches the score; no sooner than the first look. The
    reference is not charged for steps that it took after that. A cell without a curve is a single look at its end.

    Args:
        rows: of a study, with a ``curve``, or ``seconds`` and ``val_accuracy``.
        method: that starts from the pretrained encoder.
        budget: of labels.
        reference: that starts from nothing.
        pretrain_seconds: that pretraining took, on the same machine.
        confidence: wanted of the intervals.

    Raises:
        ValueError: a cell is missing or has no time, or the cost of pretraining is no time.
    """
    if pretrain_seconds is not None and not 0 <= pretrain_seconds < math.inf:
        raise ValueError(f"pretrain_seconds={pretrain_seconds}: give the seconds that pretraining took, or None.")
    mine, theirs = measured(rows).pairs(method, reference, budget)
    curves = [(_timed(a, method, budget), _timed(b, reference, budget)) for a, b in zip(mine, theirs, strict=True)]
    races = [_race(a, b) for a, b in curves]
    seconds = [race for _, race in races]
    in_steps = [race for race, _ in races if race is not None]
    steps = in_steps if len(in_steps) == len(races) else None
    saved = middle([race.saved() for race in seconds], confidence)
    cost = pretrain_seconds
    found = Speed(
        method=method,
        reference=reference,
        budget=budget,
        reached=sum(race.mine.exact for race in seconds),
        steps=None if steps is None else middle([race.mine for race in steps], confidence),
        seconds=middle([race.mine for race in seconds], confidence),
        steps_ratio=None if steps is None else middle([race.ratio() for race in steps], confidence),
        ratio=middle([race.ratio() for race in seconds], confidence),
        ratio_with_pretraining=None if cost is None else middle([race.ratio(cost) for race in seconds], confidence),
        saved=saved,
        tasks=None if cost is None or saved.median.low <= 0 else math.ceil(cost / saved.median.low),
        sentence="",
    )
    said = _sentence(found)
    return found._replace(sentence=said if cost is None else f"{said} {_payback(found, cost)}")


def first_reach(curve: Sequence[Point], score: float) -> Point | None:
    """Where a curve first reaches a score, straight between its points; None: nowhere.

    A time of 0 is no measurement: the first point that took any time is the answer then.
    """
    place = next((k for k, point in enumerate(curve) if point.score >= score), None)
    if place is None:
        return None
    found = curve[place] if place == 0 else _between(curve[place - 1], curve[place], score)
    return found if found.seconds > 0 else next(point for point in curve if point.seconds > 0)


def _between(a: Point, b: Point, score: float) -> Point:
    share = (score - a.score) / (b.score - a.score)
    steps = None if a.steps is None or b.steps is None else a.steps + share * (b.steps - a.steps)
    return Point(steps, a.seconds + share * (b.seconds - a.seconds), score)


def _race(mine: Sequence[Point], theirs: Sequence[Point]) -> tuple[_Race | None, _Race]:
    """In steps, where both have them, and in seconds."""
    score = theirs[-1].score
    goal, reached = first_reach(theirs, score), first_reach(mine, score)
    assert goal is not None  # its last point
    at = mine[-1] if reached is None else reached
    steps = None if at.steps is None or goal.steps is None else _Race(_time(at.steps, reached), goal.steps)
    return steps, _Race(_time(at.seconds, reached), goal.seconds)


def _time(value: float, reached: Point | None) -> Range:
    return Range(value, math.inf) if reached is None else exactly(value)


def _timed(one: Outcome, method: str, budget: Budget) -> tuple[Point, ...]:
    if not one.curve or one.curve[-1].seconds <= 0:
        raise ValueError(
            f"{method}, budget {budget!r} has no time: give its rows a 'curve' of (step, seconds, val_accuracy), or 'seconds' "
            "above 0 and 'val_accuracy'."
        )
    return one.curve


def _sentence(found: Speed) -> str:
    seeds, missed = found.ratio.seeds, found.ratio.seeds - found.reached
    at, goal = f"With {budget_in_words(found.budget)}", f"the final score of {found.reference}"
    if not found.seconds.median.exact:
        spent = f"{found.seconds.median.low:.3g} seconds" if found.steps is None else f"{found.steps.median.low:.0f} steps"
        return f"{at}, {goal} is not reached by {found.method} in {spent} ({missed} of {seeds} seeds miss it)."
    but = f" ({missed} of {seeds} seeds miss it)" if missed else ""
    return f"{at}, {found.method} takes 1 second where {found.reference} takes {found.ratio} to reach {goal}{but}."


def _payback(found: Speed, pretrain_seconds: float) -> str:
    if found.tasks is None:
        return "Pretraining is not shown to pay for itself in time, however many tasks use it."
    times = f"{found.tasks} task{'s' if found.tasks != 1 else ''}"
    took = f"{pretrain_seconds / 60:.0f} minutes" if pretrain_seconds >= 120 else f"{pretrain_seconds:.3g} seconds"
    return f"Pretraining ({took}) has paid for itself in time after {times} like this one."
