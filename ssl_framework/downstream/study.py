"""One trained cell of a study: fit on a few labels, measure once on test, return a row."""

import logging
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl

from ssl_framework import run
from ssl_framework.data import Labelled
from ssl_framework.downstream.data import LabelledData
from ssl_framework.downstream.freezing import Policy
from ssl_framework.downstream.module import DownstreamModule
from ssl_framework.downstream.tasks import Task
from ssl_framework.guards import NonFiniteError, Preempted
from ssl_framework.optim import OptimizerSpec
from ssl_framework.types import Encoder, ViewMaker


def fit_and_measure(
    encoder: Encoder,
    train: Labelled,
    test: Labelled,
    *,
    task: Task,
    freezing: Policy,
    optimizer: OptimizerSpec,
    preprocessing: Mapping[str, Any],
    method: str,
    budget: int | str,
    seed: int = 0,
    steps: int = 100,
    batch_size: int = 64,
    cut: int = 0,
    views: ViewMaker | None = None,
    accelerator: str = "cpu",
    precision: Any = 32,
) -> dict[str, Any]:
    """Train a `DownstreamModule` for a number of steps, quietly and without files, and measure it.

    No choice is made on the way, so no validation is needed: the numbers given are the recipe.

    Args:
        encoder: pretrained, or fresh (scratch); it stays as it is.
        train: the labels to learn from, for example ``data.split("train").subset(10, seed)``.
        test: read once, at the end.
        task: what is learnt.
        freezing: which part of the encoder learns.
        optimizer: how.
        preprocessing: of the images that the encoder saw, see `DownstreamModule`.
        method: goes into the row.
        budget: goes into the row: labels per class, or "all".
        seed: of the head, the order and dropout.
        steps: optimiser steps.
        batch_size: samples of a step; all of `train` where it has fewer.
        cut: layers taken off the encoder.
        views: augmentation for training, or None.
        accelerator: Lightning's; trains and measures.
        precision: Lightning's.

    Returns:
        A plain row: method, classifier ("trained"), budget, seed, penalty (None), seconds (of training), and the metrics of the
        task on test ("accuracy", "loss").
    """
    module = DownstreamModule(
        encoder,
        task.prepared(task.targets(train)),
        freezing=freezing,
        optimizer=optimizer,
        preprocessing=preprocessing,
        cut=cut,
        views=views,
        seed=seed,
    )
    data = LabelledData(train, batch_size=batch_size, seed=seed)
    seconds = fit_quietly(module, data, steps=steps, accelerator=accelerator, precision=precision)
    row = {"method": method, "classifier": "trained", "budget": budget, "seed": seed, "penalty": None, "seconds": seconds}
    return {**row, **module.measure(test)}


def fit_quietly(
    module: DownstreamModule,
    data: LabelledData,
    *,
    steps: int,
    accelerator: str,
    precision: Any,
    callbacks: Sequence[pl.Callback] = (),
) -> float:
    """Train in this process alone; the seconds that it took. The module stays where it was trained.

    A training whose steps were not finite ends early, with the weights that it had: a rate that is too high is a bad one.

    Raises:
        KeyboardInterrupt: a signal; what is around this training knows what to keep.
    """
    started = time.perf_counter()
    with _quiet():
        trainer = run.trainer(
            steps=steps,
            val_every=0,
            accelerator=accelerator,
            devices=1,
            precision=precision,
            logger=False,
            enable_progress_bar=False,
            callbacks=list(callbacks),
        )
        try:
            trainer.fit(module, datamodule=data)
        except NonFiniteError:
            pass
        except Preempted:
            raise KeyboardInterrupt from None
    seconds = time.perf_counter() - started
    module.to(trainer.strategy.root_device)  # Lightning brings it back to the CPU
    return seconds


@contextmanager
def _quiet() -> Generator[None]:
    """Without Lightning's greetings: a study trains dozens of times."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # advice that does not apply: frozen parts are meant to evaluate, images lie in memory, there is nothing to log to
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*no logger configured.*")
            warnings.filterwarnings("ignore", message="step .* is not finite")
            yield
    finally:
        log.setLevel(level)
