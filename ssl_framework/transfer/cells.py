"""One cell of a study: a method, so many labels, a seed. Trained or probed, chosen on validation, judged once."""

import copy
import time
from functools import partial
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from ssl_framework.data import Labelled
from ssl_framework.downstream import Classification, DownstreamModule, Frozen, LabelledData
from ssl_framework.downstream.heads import LinearHead
from ssl_framework.downstream.study import fit_quietly
from ssl_framework.encoders import random_like
from ssl_framework.evaluation import noisy
from ssl_framework.optim import adamw
from ssl_framework.transfer.bench import Bench
from ssl_framework.transfer.methods import METHODS
from ssl_framework.transfer.plan import Budget, Plan, share_of
from ssl_framework.transfer.recipe import code_digest, digest

Row = dict[str, Any]


class Cell(NamedTuple):
    """What one row says.

    Attributes:
        method: of `METHODS`.
        budget: labels of each class, a share of them, or all.
        seed: of labels, head and order.
        label_noise: share of the labels to learn from that are wrong.
    """

    method: str
    budget: Budget
    seed: int
    label_noise: float = 0.0


class FromProbe(NamedTuple):
    """A probe that a head begins as.

    Attributes:
        weights: ``(D + 1, C)``, the last row those of the constant.
        penalty: that it was fitted with.
        seconds: of encoding and fitting.
    """

    weights: Tensor
    penalty: float
    seconds: float


class Fitted(NamedTuple):
    """A trained candidate.

    Attributes:
        module: as training left it.
        curve: of (step, seconds of training until then, accuracy on validation).
        seconds: of training.
        rate: that it learnt at.
    """

    module: DownstreamModule
    curve: list[tuple[int, float, float]]
    seconds: float
    rate: float


class _Curve(Callback):
    """Validation accuracy while a cell trains; the time that it takes is not counted."""

    def __init__(self, val: Labelled, looks: int, steps: int) -> None:
        self.val = val
        self.at = {round(steps * (k + 1) / looks) for k in range(looks)}
        self.points: list[tuple[int, float, float]] = []
        self.looking, self.started = 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step not in self.at:
            return
        now = time.perf_counter()
        with trainer.precision_plugin.forward_context():
            reached = cast(DownstreamModule, pl_module).measure(self.val)["accuracy"]
        self.points.append((trainer.global_step, round(now - self.started - self.looking, 3), reached))
        self.looking += time.perf_counter() - now


def module(bench: Bench, plan: Plan, cell: Cell, rate: float, start: FromProbe | None = None) -> DownstreamModule:
    """What a trained cell trains.

    Raises:
        ValueError: the encoder does not allow the method.
    """
    method = METHODS[cell.method]
    made = DownstreamModule(
        random_like(bench.encoder, cell.seed) if method.start == "fresh" else bench.encoder,
        Classification(bench.classes),
        freezing=method.policy or Frozen(),
        optimizer=adamw(lr=rate, scale_lr="none", weight_decay=plan.weight_decay),
        preprocessing=bench.preprocessing,
        seed=cell.seed,
    )
    if start is not None:
        cast(LinearHead, made.head.task).begin_as(start.weights)
    return made


def labels(bench: Bench, cell: Cell) -> Labelled:
    """What a cell learns from: the same samples, with the same wrong labels, for every method."""
    train = _budgeted(bench.train, cell.budget, cell.seed)
    if cell.label_noise:
        train = copy.copy(train)
        train.targets = noisy(train.targets, cell.label_noise, bench.classes, cell.seed)
    return train


def _budgeted(train: Labelled, budget: Budget, seed: int) -> Labelled:
    share = share_of(budget)
    if share is not None:
        return train.share(share, seed)
    return train.subset(budget, seed) if isinstance(budget, int) else train


def steps_of(plan: Plan, cell: Cell, samples: int) -> int:
    """Optimiser steps of a trained cell."""
    return plan.epochs * -(-samples // plan.batch_size) if cell.budget == "all" else plan.steps


def chooser(bench: Bench, plan: Plan) -> Labelled:
    """The validation images that choose: the same for every cell."""
    return bench.val if len(bench.val) <= plan.val_images else bench.val.some(plan.val_images, 0)


def trained(
    bench: Bench, plan: Plan, cell: Cell, rate: float | None, start: FromProbe | None = None
) -> tuple[Row, DownstreamModule]:
    """Train a cell, choose its rate on validation if it is not known, and have test judge it, unless it is the pilot's.

    Args:
        bench: what it stands on.
        plan: how it is trained.
        cell: which.
        rate: that it learns at; None: the best of the plan's.
        start: what the head of a method that begins with a probe begins as.

    Returns:
        The row, and the model that it speaks of.

    Raises:
        ValueError: there is no `start` for such a method, or one for another.
    """
    if METHODS[cell.method].from_probe != (start is not None):
        raise ValueError(f"{cell.method} begins {'without' if start else 'with'} a probe: see `start_of`.")
    train, val = labels(bench, cell), chooser(bench, plan)
    steps = steps_of(plan, cell, len(train))
    fit = partial(_fit, bench, plan, cell, train, val, start)
    if rate is None:
        best, tried = None, dict[str, float]()
        for candidate in plan.rates:
            found = fit(candidate, min(steps, plan.steps))
            tried[f"{candidate:g}"] = found.curve[-1][2]
            best = found if best is None or found.curve[-1][2] > best.curve[-1][2] else best
        assert best is not None
        fitted = best if steps <= plan.steps else fit(best.rate, steps)
    else:
        tried, fitted = None, fit(rate, steps)
    row = head(bench, plan, cell, len(train))
    if cell.seed != plan.pilot:
        row |= bench.judge.score(cell, fitted.module.outputs(bench.judge.images).argmax(dim=1))
    return {
        **row,
        "val_accuracy": fitted.curve[-1][2],
        "seconds": round(fitted.seconds, 3),
        "steps": steps,
        "rate": fitted.rate,
        **({} if start is None else {"penalty": start.penalty}),
        "tried": tried,
        "curve": fitted.curve,
        "trainable_parameters": fitted.module.audit.stages[-1]["trainable_parameters"],
    }, fitted.module


def _fit(
    bench: Bench, plan: Plan, cell: Cell, train: Labelled, val: Labelled, start: FromProbe | None, rate: float, steps: int
) -> Fitted:
    made, curve = module(bench, plan, cell, rate, start), _Curve(val, plan.looks, steps)
    data = LabelledData(train, batch_size=plan.batch_size, seed=cell.seed)
    seconds = fit_quietly(made, data, steps=steps, accelerator=plan.accelerator, precision=plan.precision, callbacks=[curve])
    if not curve.points:  # it ended before the first look: its numbers were not finite
        curve.points.append((0, 0.0, made.measure(val)["accuracy"]))
    before = 0.0 if start is None else start.seconds
    points = [(step, round(took + before, 3), reached) for step, took, reached in curve.points]
    return Fitted(made, points, before + seconds - curve.looking, rate)


def head(bench: Bench, plan: Plan, cell: Cell, labels: int) -> Row:
    """What a row says of its cell and of what it depends on."""
    method = METHODS[cell.method]
    recipe = {
        "method": cell.method,
        "policy": None if method.policy is None else method.policy.state(),
        **({"from_probe": True} if method.from_probe else {}),
        "budget": cell.budget,
        **plan.state(),
    }
    return {
        "method": cell.method,
        "budget": cell.budget,
        "labels": labels,
        "seed": cell.seed,
        **({"label_noise": cell.label_noise} if cell.label_noise else {}),
        **({"pilot": True} if cell.seed == plan.pilot else {}),
        "recipe": {
            "config_hash": digest({**recipe, "label_noise": cell.label_noise, "encoder": bench.encoder_sha256}),
            "code": code_digest(),
            "data_fingerprint": bench.data_sha256,
            "torch": torch.__version__,
            "device": plan.accelerator,
            "threads": torch.get_num_threads(),
        },
    }


def unsuited(bench: Bench, plan: Plan, name: str) -> str | None:
    """Why an encoder cannot have a method; None where it can."""
    if METHODS[name].policy is None:
        return None
    try:
        module(bench, plan, Cell(name, 1, 0), plan.rates[0])
    except ValueError as error:
        return str(error)
    return None
