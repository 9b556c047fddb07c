"""Cells in which nothing but a logistic regression learns: validation and test are encoded once for each encoder."""

import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ssl_framework.data import Labelled
from ssl_framework.encoders import random_like
from ssl_framework.evaluation import Embeddings, embed, fitted_pca, raw_pixels
from ssl_framework.probes import ProbeResult, fit_probe
from ssl_framework.transfer.bench import Bench
from ssl_framework.transfer.cells import Cell, FromProbe, Row, chooser, head, labels
from ssl_framework.transfer.methods import METHODS
from ssl_framework.transfer.plan import Plan
from ssl_framework.types import Encoder
from ssl_framework.views.preprocessing import plain

_MOST_BYTES = 2**30


class Vectors:
    """What encoders say of validation and test. Those of one seed are kept until the next one is asked for, others for good.

    Args:
        bench: the splits.
        plan: how to encode.
    """

    def __init__(self, bench: Bench, plan: Plan) -> None:
        self.bench, self.plan = bench, plan
        prepare = plain(**bench.preprocessing).center
        device = "cuda" if plan.accelerator == "gpu" else "cpu"
        self.embed = partial(embed, prepare=prepare, device=device, precision=plan.precision)
        self._prepare = prepare
        self._held: dict[tuple[str, int], tuple[Encoder, Embeddings, Embeddings]] = {}  # in the order in which they came

    def of(self, method: str, seed: int) -> tuple[Encoder, Embeddings, Embeddings]:
        """The encoder, its vectors of validation, and those of test."""
        start = METHODS[method].start
        asked = start, seed if start == "fresh" else 0
        if asked not in self._held:
            encoder = self._encoder(method, seed)
            val, test = (self.embed(encoder, split) for split in (chooser(self.bench, self.plan), self.bench.judge.images))
            self._held[asked] = encoder, val, test
            self._forget(start)
        return self._held[asked]

    def _forget(self, start: str) -> None:
        """Others of a start, and whatever was there before the last gibibyte."""
        last = list(self._held)[-1]
        for asked in list(self._held):
            bytes_held = sum(x.x.nbytes for _, *both in self._held.values() for x in both)
            if asked != last and (asked[0] == start or bytes_held > _MOST_BYTES):
                del self._held[asked]

    def _encoder(self, method: str, seed: int) -> Encoder:
        start, bench = METHODS[method].start, self.bench
        if start == "fresh":
            return random_like(bench.encoder, seed)
        if start == "pretrained":
            return bench.encoder
        return (raw_pixels if start == "pixels" else fitted_pca)(bench.train, self._prepare)


def probed(vectors: Vectors, cell: Cell, penalty: float | None) -> tuple[Row, Encoder, Tensor]:
    """Fit a cell, choose its penalty on validation if it is not known, and have test judge it, unless it is the pilot's.

    Returns:
        The row, the encoder, and the weights ``(D + 1, C)`` of the probe on its vectors.
    """
    bench, plan = vectors.bench, vectors.plan
    split = labels(bench, cell)
    found, seconds = _probe(vectors, cell, split, penalty)
    row = {
        **head(bench, plan, cell, len(split)),
        **({} if cell.seed == plan.pilot else bench.judge.score(cell, found.prediction)),
        "val_accuracy": found.val_accuracy,
        "seconds": round(seconds, 3),
        "steps": 0,
        "penalty": found.penalty,
        "trainable_parameters": found.weights.numel(),
    }
    return row, vectors.of(cell.method, cell.seed)[0], found.weights


def start_of(vectors: Vectors, cell: Cell, penalty: float | None) -> FromProbe:
    """What the head of a trained cell begins as; its penalty is chosen on validation if it is not known."""
    found, seconds = _probe(vectors, cell, labels(vectors.bench, cell), penalty)
    return FromProbe(found.weights, found.penalty, seconds)


def _probe(vectors: Vectors, cell: Cell, split: Labelled, penalty: float | None) -> tuple[ProbeResult, float]:
    """A logistic regression on labels of a cell, and the seconds of encoding and fitting."""
    encoder, val, test = vectors.of(cell.method, cell.seed)
    started = time.perf_counter()
    train = vectors.embed(encoder, split)
    encoded = time.perf_counter() - started

    def fit(penalties: Sequence[float]) -> ProbeResult:
        data = (train.x, split.targets), (val.x, val.y), (test.x, torch.zeros_like(test.y))  # whose labels are the judge's
        return fit_probe(*data, penalties=penalties, scaling="common")

    chosen = fit(vectors.plan.penalties).penalty if penalty is None else penalty
    started = time.perf_counter()  # as for trained cells, the choice is not counted
    found = fit([chosen])
    return found, encoded + time.perf_counter() - started
