"""Several tests at once: p-values that stay honest together, and the interval of a share."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from scipy import special

from ssl_framework.transfer.claims.measured import Budget

Adjusted: TypeAlias = Mapping[tuple[str, Budget], float]
"""The p-value of each (method, budget), corrected for all that were asked."""


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979).

    Whatever the dependence between the tests, to reject where the corrected value is at most alpha makes one false rejection or
    more in at most a share alpha of studies.

    Args:
        p: one a test, in any order.

    Returns:
        In the same order, each at least as large as it was.

    Raises:
        ValueError: a value is outside [0, 1] or not a number.
    """
    odd = [value for value in p if not 0 <= value <= 1]
    if odd:
        raise ValueError(f"{odd[0]} is no p-value: give numbers between 0 and 1.")
    corrected, reached = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        reached = max(reached, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = reached
    return corrected


def clopper_pearson(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson, Biometrika 26, 1934).

    Args:
        hits: how often it happened.
        of: how often it could have.
        confidence: covered at least so often.

    Raises:
        ValueError: more hits than chances, or no chance.
    """
    if not 0 <= hits <= of or of < 1:
        raise ValueError(f"{hits} of {of} is no share: give 0 <= hits <= of, and of >= 1.")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(special.betaincinv(hits, of - hits + 1, tail))
    high = 1.0 if hits == of else float(special.betaincinv(hits + 1, of - hits, 1 - tail))
    return low, high
