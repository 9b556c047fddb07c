"""Cells in which nothing but a logistic regression learns: validation and test are encoded once for each encoder."""

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

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


class _Said(NamedTuple):
    encoder: Encoder
    vectors: dict[str, Embeddings]


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
        self._held: dict[tuple[str, int], _Said] = {}  # in the order in which they were asked for

    def encoder(self, method: str, seed: int) -> Encoder:
        """That of a method."""
        return self._of(method, seed).encoder

    def val(self, method: str, seed: int) -> Embeddings:
        """Of the validation images that choose."""
        return self._said(method, seed, "val", chooser(self.bench, self.plan))

    def test(self, method: str, seed: int) -> Embeddings:
        """Of the images that judge."""
        return self._said(method, seed, "test", self.bench.judge.images)

    def _of(self, method: str, seed: int) -> "_Said":
        start = METHODS[method].start
        asked = start, seed if start == "fresh" else 0
        if asked not in self._held:
            self._held[asked] = _Said(self._encoder(method, seed), {})
        self._held[asked] = self._held.pop(asked)  # now the last that was asked for
        self._forget(start)
        return self._held[asked]

    def _said(self, method: str, seed: int, name: str, split: Labelled) -> Embeddings:
        encoder, vectors = self._of(method, seed)
        if name not in vectors:
            vectors[name] = self.embed(encoder, split)
            self._forget(METHODS[method].start)
        return vectors[name]

    def _forget(self, start: str) -> None:
        """Others of a start, and whatever was there before the last gibibyte."""
        last = list(self._held)[-1]
        for asked in list(self._held):
            bytes_held = sum(x.x.nbytes for said in self._held.values() for x in said.vectors.values())
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
    found, seconds = _probe(vectors, cell, split, penalty, vectors.test(cell.method, cell.seed).x)
    row = {
        **head(bench, plan, cell, len(split)),
        **({} if cell.seed == plan.pilot else bench.judge.score(cell, found.prediction)),
        "val_accuracy": found.val_accuracy,
        "seconds": round(seconds, 3),
        "steps": 0,
        "penalty": found.penalty,
        "trainable_parameters": found.weights.numel(),
    }
    return row, vectors.encoder(cell.method, cell.seed), found.weights


def start_of(vectors: Vectors, cell: Cell, penalty: float | None) -> FromProbe:
    """What the head of a trained cell begins as; its penalty is chosen on validation if it is not known."""
    seen = vectors.val(cell.method, cell.seed).x  # in the place of test, which nobody asks about here
    found, seconds = _probe(vectors, cell, labels(vectors.bench, cell), penalty, seen)
    return FromProbe(found.weights, found.penalty, seconds)


def _probe(vectors: Vectors, cell: Cell, split: Labelled, penalty: float | None, test: Tensor) -> tuple[ProbeResult, float]:
    """A logistic regression on labels of a cell, and the seconds of encoding and fitting."""
    encoder, val = vectors.encoder(cell.method, cell.seed), vectors.val(cell.method, cell.seed)
    started = time.perf_counter()
    train = vectors.embed(encoder, split)
    encoded = time.perf_counter() - started

    def fit(penalties: Sequence[float]) -> ProbeResult:
        unknown = test.new_zeros(len(test), dtype=torch.long)  # its labels are the judge's
        data = (train.x, split.targets), (val.x, val.y), (test, unknown)
        return fit_probe(*data, penalties=penalties, scaling="common")

    chosen = fit(vectors.plan.penalties).penalty if penalty is None else penalty
    started = time.perf_counter()  # as for trained cells, the choice is not counted
    found = fit([chosen])
    return found, encoded + time.perf_counter() - started
