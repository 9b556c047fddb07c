"""Seconds that a frozen encoder's evaluation takes on cached features, and accuracies beside scikit-learn and SGD.

    python benchmarks/evaluation.py --out rows.json

Features are made up: classes of several clusters each, noise whose variance falls as a power over the directions, and a
positive non-linearity, so that they are as correlated and badly conditioned as pooled features are. A tenth of the keys
chooses the penalty.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine_record
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from ssl_framework import machine
from ssl_framework.metrics import accuracy
from ssl_framework.probes import fit_probe, knn, standardizer

Row = dict[str, Any]
Split = tuple[Tensor, Tensor]

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
_CLUSTERS = 4  # of a class
_SPREAD = 1.35  # of the classes' centres, in standard deviations of the noise: linear probes reach 85 to 95 %
_DECAY = 0.75  # the noise of the i-th direction is i^-0.75


@dataclass(frozen=True)
class Features:
    """Cached features of one evaluation.

    Attributes:
        train: nine tenths of the keys.
        val: the other tenth.
        test: queries.
    """

    train: Split
    val: Split
    test: Split

    @property
    def keys(self) -> Split:
        """Train and validation: the bank of the neighbours."""
        return torch.cat([self.train[0], self.val[0]]), torch.cat([self.train[1], self.val[1]])


def make_features(keys: int, queries: int, width: int, classes: int, seed: int = 0) -> Features:
    """Draw features ``(N, width)`` float32 and labels ``(N,)``."""
    draw = torch.Generator().manual_seed(seed)
    rank = torch.arange(1, width + 1).float()
    turn = torch.linalg.qr(torch.randn(width, width, generator=draw)).Q
    shape = (classes, _CLUSTERS, width)
    centres = torch.randn(classes, 1, width, generator=draw) + 0.7 * torch.randn(shape, generator=draw)
    centres = _SPREAD * centres * rank**-0.5
    y = torch.randint(classes, (keys + queries,), generator=draw)
    cluster = torch.randint(_CLUSTERS, y.shape, generator=draw)
    hidden = (centres[y, cluster] + torch.randn(len(y), width, generator=draw)) * rank**-_DECAY
    x = F.softplus(4 * hidden @ turn)
    train = keys - keys // 10
    return Features((x[:train], y[:train]), (x[train:keys], y[train:keys]), (x[keys:], y[keys:]))


def measure(features: Features, rounds: int) -> list[Row]:
    """Time neighbours and probe, one after the other in every round.

    Args:
        features: of the evaluation.
        rounds: of which the medians count; one more comes first, to warm up.

    Returns:
        Rows "knn", "probe" and "both": ``seconds`` (median), ``fastest``, ``processor_seconds`` of all cores together (median;
        says more than the clock where other programs run), and ``accuracy`` on test; "probe" has its ``penalty``.
    """
    bank, num_classes = features.keys, 1 + int(features.keys[1].max())
    took: dict[str, list[tuple[float, float]]] = {"knn": [], "probe": []}
    for turn in range(rounds + 1):
        predicted, knn_took = _timed(lambda: knn(*bank, features.test[0], num_classes=num_classes))
        probe, probe_took = _timed(lambda: fit_probe(features.train, features.val, features.test, penalties=PENALTIES))
        if turn > 0:
            took["knn"].append(knn_took)
            took["probe"].append(probe_took)
    took["both"] = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(took["knn"], took["probe"], strict=True)]
    reached: dict[str, Row] = {
        "knn": {"accuracy": accuracy(predicted, features.test[1])},
        "probe": {"accuracy": probe.accuracy, "val_accuracy": probe.val_accuracy, "penalty": probe.penalty},
    }
    return [{"what": what, **_summary(times), **reached.get(what, {})} for what, times in took.items()]


def references(features: Features, penalty: float, epochs: int) -> list[Row]:
    """What scikit-learn reaches at the penalty, and SGD at the learning rate that is best on validation."""
    scale = standardizer(features.train[0])
    train, val, test = ((scale(x), y) for x, y in (features.train, features.val, features.test))
    model = LogisticRegression(C=1 / (penalty * len(train[0])), max_iter=5000, tol=1e-6)
    _, (seconds, _) = _timed(lambda: model.fit(train[0].numpy(), train[1].numpy()))
    theirs = float(model.score(test[0].numpy(), test[1].numpy()))
    rows: list[Row] = [{"what": "scikit-learn", "seconds": seconds, "accuracy": theirs, "penalty": penalty}]
    found, (seconds, _) = _timed(lambda: sgd(train, val, test, epochs))
    return [*rows, {"what": f"SGD, {epochs} epochs", "seconds": seconds, **found}]


def sgd(train: Split, val: Split, test: Split, epochs: int, batch: int = 256) -> Row:
    """A linear probe by SGD with momentum 0.9 and cosine decay, for all learning rates at once on the same batches.

    Returns:
        ``lr`` (the best on validation), ``val_accuracy``, ``accuracy`` on test.
    """
    (x, y), classes, draw = (train[0].float(), train[1]), 1 + int(train[1].max()), torch.Generator().manual_seed(0)
    lr = torch.tensor(LEARNING_RATES)[:, None, None]
    weights = torch.zeros(len(lr), x.shape[1] + 1, classes)
    velocity, steps = torch.zeros_like(weights), epochs * (len(x) // batch)
    for step in range(steps):
        if step % (len(x) // batch) == 0:
            batches = torch.randperm(len(x), generator=draw).split(batch)
        rows = batches[step % (len(x) // batch)]
        inputs = F.pad(x[rows], (0, 1), value=1.0)
        excess = (inputs @ weights).softmax(dim=2) - F.one_hot(y[rows], classes)  # (L, batch, C)
        velocity = 0.9 * velocity + inputs.T @ excess / batch
        weights -= lr * torch.cos(torch.tensor(step / steps * torch.pi / 2)) ** 2 * velocity
    reached = [[accuracy(x.float() @ w[:-1] + w[-1], y) for w in weights] for x, y in (val, test)]
    best = max(range(len(lr)), key=lambda i: reached[0][i])
    return {"lr": LEARNING_RATES[best], "val_accuracy": reached[0][best], "accuracy": reached[1][best]}


def _timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What `work` returns, and its seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - clock, time.process_time() - processor)


def _summary(times: list[tuple[float, float]]) -> Row:
    clock, processor = ([time[i] for time in times] for i in (0, 1))
    return {"seconds": statistics.median(clock), "fastest": min(clock), "processor_seconds": statistics.median(processor)}


def table(rows: Sequence[Row]) -> str:
    """Rows for people."""
    lines = [f"{'':<18} {'seconds':>8} {'fastest':>8} {'core s':>8} {'accuracy':>9}  at"]
    for row in rows:
        numbers = [f"{row[key]:8.2f}" if key in row else " " * 8 for key in ("seconds", "fastest", "processor_seconds")]
        reached = f"{100 * row['accuracy']:.2f} %" if "accuracy" in row else ""
        at = ", ".join(f"{key} {row[key]:g}" for key in ("penalty", "lr") if key in row)
        lines.append(f"{row['what']:<18} {' '.join(numbers)} {reached:>9}  {at}".rstrip())
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the rows, JSON")
    for name, default in (
        ("keys", 50_000),
        ("queries", 10_000),
        ("width", 512),
        ("classes", 10),
        ("rounds", 5),
        ("epochs", 100),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--no-references", action="store_true", help="leave scikit-learn and SGD out, which take minutes")
    asked = parser.parse_args(words)
    machine.limit_threads()
    machine.keep_freed_memory()
    load = os.getloadavg()[0]  # of other programs: nothing of ours has run yet
    features = make_features(asked.keys, asked.queries, asked.width, asked.classes)
    rows = measure(features, asked.rounds)
    if not asked.no_references:
        rows += references(features, rows[1]["penalty"], asked.epochs)
    sizes = {name: getattr(asked, name) for name in ("keys", "queries", "width", "classes", "rounds")}
    print(table(rows))
    record = {**sizes, "load_before": load, "machine": machine_record.record()}
    rows = [{**row, **record} for row in rows]
    if asked.out is not None:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
