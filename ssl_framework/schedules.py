"""Schedules: pure functions of how far training is."""

import math


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine from `start` to `end`, exact at both.

    A teacher's momentum, a temperature or a weight decay follow it (BYOL, Grill et al. 2020, section 3.2).

    Args:
        progress: share of training done, in [0, 1].
        start: value at 0.
        end: value at 1.

    Raises:
        ValueError: `progress` lies outside [0, 1].
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is {progress}: give the share of training that is done, between 0 and 1")
    weight = (1 + math.cos(math.pi * progress)) / 2
    return start * weight + end * (1 - weight)


def ramp(progress: float, share: float, start: float, end: float) -> float:
    """A straight line from `start` to `end`, which stays there (a teacher's temperature: DINO, Caron et al. 2021, section 3.2).

    Args:
        progress: share of training done, in [0, 1].
        share: of training, at which `end` is reached; 0 is at once.
        start: value at 0.
        end: value from `share` on.
    """
    return end if progress >= share else start + (end - start) * progress / share


def warmup_cosine(step: int, *, total_steps: int, warmup_steps: int = 0, end: float = 0.0) -> float:
    """What the learning rate is multiplied with at a step: a linear rise to 1, then half a cosine down to `end`.

    No step is spent at zero: the first of `warmup_steps` has ``1 / warmup_steps``, and the cosine would reach `end` one step
    after the last (as in MAE's official code, ``util/lr_sched.py``).

    Args:
        step: optimiser steps done so far, from 0. From `total_steps` on the answer is `end`.
        total_steps: steps of the whole training.
        warmup_steps: steps of the rise, at most `total_steps`.
        end: factor at the end.

    Raises:
        ValueError: `total_steps` is not positive, or the warm-up does not fit into it.
    """
    if total_steps <= 0:
        raise ValueError(
            f"total_steps is {total_steps}: a schedule needs at least 1 step, set the trainer's max_steps or epochs"
        )
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"the warm-up of {warmup_steps} steps does not fit into a training of {total_steps}: "
            "train longer, set warmup_steps lower, or use warmup_share"
        )
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if step >= total_steps:
        return end
    return cosine((step - warmup_steps) / (total_steps - warmup_steps), 1.0, end)
