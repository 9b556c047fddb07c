"""Keep the encoder as it is, or train it as well? Measured on a validation split, decided as a careful practitioner would."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ssl_framework.data import Labelled
from ssl_framework.downstream.data import LabelledData
from ssl_framework.downstream.freezing import Frozen, LpFt, Policy
from ssl_framework.downstream.module import DownstreamModule
from ssl_framework.downstream.study import fit_quietly

_FEWEST = 10  # samples to learn from, and to judge on, below which a comparison says nothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Auto:
    """Choose between a frozen encoder and probe, then fine-tuning (`LpFt`).

    Fine-tuning wins where it is better on validation by more than one standard error of the paired difference; else the
    encoder stays frozen, which costs less and cannot distort what was pretrained (Kumar et al., 2022,
    https://arxiv.org/abs/2202.10054).

    Args:
        steps: optimiser steps of either contestant, at most as many as the training will have.
        most: validation samples that judge, at most.
    """

    steps: int = 200
    most: int = 2000

    def __post_init__(self) -> None:
        if self.steps < 1 or self.most < _FEWEST:
            raise ValueError(f"freezing.steps={self.steps}, freezing.most={self.most}: at least 1 step and {_FEWEST} samples.")


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        policy: to train with.
        reason: why, in one sentence.
        gain: by how much fine-tuning is better, in the unit of the task's `Task.badness`; None: not compared.
        error: the standard error of that.
    """

    policy: Policy
    reason: str
    gain: float | None = None
    error: float | None = None


def choose_freezing(
    auto: Auto,
    make: Callable[[Policy, Labelled], DownstreamModule],
    train: Labelled,
    val: Labelled | None,
    *,
    steps: int,
    batch_size: int = 64,
    balanced: bool = False,
    seed: int = 0,
    accelerator: str = "cpu",
    precision: Any = 32,
) -> Choice:
    """Train both for some steps and compare them sample by sample.

    Args:
        auto: how thoroughly.
        make: makes the module that will be trained, from a policy and from what it learns from.
        train: labels to learn from.
        val: labels to judge on; None: a third of `train`, of each class.
        steps: of the training that follows.
        batch_size: samples of a step.
        balanced: see `LabelledData`.
        seed: of the order, and of what is held out.
        accelerator: Lightning's.
        precision: Lightning's.
    """
    learnt, judge = train.held_out(1 / 3, seed) if val is None else (train, val)
    if min(len(learnt), len(judge)) < _FEWEST:
        few = f"{len(learnt)} labels to learn from and {len(judge)} to judge on"
        return Choice(Frozen(), f"freezing=auto: frozen, because {few} are too few to compare anything")
    if len(judge) > auto.most:
        judge = judge.some(auto.most, seed)
    short = min(steps, auto.steps)
    data = LabelledData(learnt, batch_size=min(batch_size, len(learnt)), seed=seed, balanced=balanced)
    probe, tuned = (
        _badness(_shortened(make(policy, learnt), steps), data, judge, short, accelerator, precision)
        for policy in (Frozen(), LpFt())
    )
    difference = probe - tuned
    gain, error = float(difference.mean()), float(difference.std(correction=1) / len(difference) ** 0.5)
    better = gain > error
    said = (
        f"freezing=auto: {'lp_ft' if better else 'frozen'}, because after {short} steps on {len(learnt)} labels fine-tuning "
        f"errs by {tuned.mean():.3f} and the probe by {probe.mean():.3f} on {len(judge)} validation samples "
        f"(difference {gain:+.3f}, standard error {error:.3f})"
    )
    return Choice(LpFt() if better else Frozen(), said, gain, error)


def _shortened(module: DownstreamModule, steps: int) -> DownstreamModule:
    """A warm-up of so many steps takes the share that it has of the training that follows."""
    spec = module.optimizer
    if spec is not None and spec.warmup_steps is not None:
        share = min(1.0, spec.warmup_steps / steps)
        module.optimizer = dataclasses.replace(spec, warmup_steps=None, warmup_share=share)
    return module


def _badness(
    module: DownstreamModule, data: LabelledData, judge: Labelled, steps: int, accelerator: str, precision: Any
) -> Tensor:
    """``(N,)`` float64 of each sample to judge on."""
    data.position = 0
    fit_quietly(module, data, steps=steps, accelerator=accelerator, precision=precision)
    outputs = module.outputs(judge)
    return module.task.badness(outputs, module.task.targets(judge)).double()
