"""How a study measures, as plain values: they are written down with every row."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

from ssl_framework.metrics import budget_order
from ssl_framework.probes import PENALTIES
from ssl_framework.transfer.methods import METHODS

Budget = int | str  # labels of each class; "all"; or a share such as "10%"


_SHARE = re.compile(r"\d+(\.\d+)?%")


def share_of(budget: Budget) -> float | None:
    """The share that a budget is; None where it is none."""
    return float(budget[:-1]) / 100 if isinstance(budget, str) and _SHARE.fullmatch(budget) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The grid, and what each of its cells may cost.

    Args:
        methods: names of `METHODS`.
        budgets: labels of each class; "all"; shares of each class, such as "10%".
        seeds: draws of labels, heads and order. The first one chooses rates, penalties and the method of each budget, on
            validation, and never sees test; the others are judged.
        steps: optimiser steps of a trained cell, at most.
        epochs: passes over all labels, for the budget "all".
        batch_size: of a step, or all labels where they are fewer.
        rates: learning rates, of which validation chooses one for each method and budget, from the first seed.
        penalties: of logistic regressions, likewise.
        val_images: that choose, at most.
        looks: how often validation is read while a cell trains, for the curve.
        label_noise: shares of wrong labels to learn from, in extra cells of the `largest` budget.
        noisy: methods of those cells.
        noisy_seeds: how many of the judged seeds they have.
        hardened: methods that robustness is measured of, at the `largest` budget.
        hardened_seeds: how many of the judged seeds.
        test_images: that robustness is measured on, at most; 0: it is not.
        attacks: budgets of attacks, of pixels in [0, 1].
        weight_decay: of AdamW.
        precision: of Lightning.
        accelerator: "cpu" or "gpu".
    """

    methods: Sequence[str] = tuple(METHODS)
    budgets: Sequence[Budget] = (1, 10, 50, 250)
    seeds: Sequence[int] = (0, 1, 2, 3, 4, 5)
    steps: int = 300
    epochs: int = 2
    batch_size: int = 64
    rates: Sequence[float] = (3e-4, 1e-3, 3e-3)
    penalties: Sequence[float] = PENALTIES
    val_images: int = 1000
    looks: int = 6
    label_noise: Sequence[float] = (0.2, 0.4)
    noisy: Sequence[str] = ("scratch", "frozen", "full")
    noisy_seeds: int = 2
    hardened: Sequence[str] = ("scratch", "frozen", "full")
    hardened_seeds: int = 1
    test_images: int = 1000
    attacks: Sequence[float] = (2 / 255, 8 / 255)
    weight_decay: float = 0.01
    precision: str = "32-true"
    accelerator: str = "cpu"

    def __post_init__(self) -> None:
        unknown = [name for name in (*self.methods, *self.noisy, *self.hardened) if name not in METHODS]
        if unknown:
            raise ValueError(f"methods: there is no {unknown[0]}. Choose among {', '.join(METHODS)}.")
        for name in ("steps", "epochs", "batch_size", "val_images", "looks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1.")
        for name in ("methods", "budgets", "seeds", "rates", "penalties"):
            given = list(getattr(self, name))
            twice = [one for one in given if given.count(one) > 1]
            if not given or twice:
                raise ValueError(f"{name}={given}: give at least one, and {twice[0] if twice else 'each'} once.")
        if len(self.seeds) < 2:
            raise ValueError(f"seeds={list(self.seeds)}: give two at least. The first one chooses, and the others are judged.")
        for name in ("rates", "penalties"):
            odd = [one for one in getattr(self, name) if not _between(one, math.inf)]
            if odd:
                raise ValueError(f"{name}={odd[0]}: give numbers above 0.")
        odd = [eps for eps in self.attacks if not _between(eps, 1)]
        if odd:
            raise ValueError(f"attacks={odd[0]}: give how far a pixel may move, above 0 and at most 1.")
        for budget in self.budgets:
            share = share_of(budget)
            whole = isinstance(budget, int) and not isinstance(budget, bool) and budget > 0
            if not (whole or budget == "all" or (share is not None and 0 < share < 1)):
                raise ValueError(f"budgets={budget}: give labels of each class from 1, a share such as 10%, or all.")
        odd = [share for share in self.label_noise if share == 1 or not _between(share, 1)]
        if odd:
            raise ValueError(f"label_noise={odd[0]}: give shares between 0 and 1.")

    def state(self) -> dict[str, Any]:
        """Plain values, without what says which cells there are, and where."""
        which = (
            "methods",
            "budgets",
            "seeds",
            "label_noise",
            "noisy",
            "noisy_seeds",
            "hardened",
            "hardened_seeds",
            "test_images",
            "attacks",
            "accelerator",  # rows say it beside their recipe
        )
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items() if key not in which}

    @property
    def pilot(self) -> int:
        """The seed that chooses."""
        return self.seeds[0]

    @property
    def judged(self) -> list[int]:
        """The seeds whose rows say something."""
        return list(self.seeds[1:])

    @property
    def largest(self) -> Budget:
        """All labels, else the largest share, else the largest number of labels a class."""
        return max(self.budgets, key=budget_order)


def _between(value: object, most: float) -> bool:
    """Whether it is a number above 0 and at most `most`."""
    return isinstance(value, int | float) and 0 < value <= most


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
