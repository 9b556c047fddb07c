"""Is what a frozen encoder says of images worth more than raw pixels? Probes and neighbours, with few labels and floors."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from ssl_framework.data import Labelled
from ssl_framework.encoders import PCA, EncoderModule, RawPixels, random_like
from ssl_framework.evaluation.embed import Embeddings, embed
from ssl_framework.metrics import accuracy
from ssl_framework.probes import PENALTIES, fit_probe, knn
from ssl_framework.types import Encoder

Budget = int | Literal["all"]
Floor = Literal["random", "pixels", "pca"]
Prepare = Callable[[Tensor], Tensor]

_PCA_WIDTH = 64
_PCA_IMAGES = 10_000
_PCA_NUMBERS = 50_000_000  # pixels in all: 400 MB while the directions are found


class Splits(NamedTuple):
    """Train (where the label budgets come from), validation (chooses) and test (judges)."""

    train: Labelled
    val: Labelled
    test: Labelled


class Contestant(NamedTuple):
    """A row of the study.

    Attributes:
        name: what the table calls it.
        encoder: for a seed.
        seeded: whether the encoder differs from seed to seed.
    """

    name: str
    encoder: Callable[[int], Encoder]
    seeded: bool = False


def study(
    encoder: Encoder,
    splits: Splits,
    prepare: Prepare,
    *,
    budgets: Sequence[Budget] = (1, 10, "all"),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    floors: Sequence[Floor] = ("random", "pixels", "pca"),
    name: str = "frozen encoder",
    penalties: Sequence[float] = PENALTIES,
    neighbours: int = 20,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    precision: str = "auto",
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure an encoder and its floors for every label budget and seed, by logistic regression and by nearest neighbours.

    A seed draws the labels, the same ones for every contestant, and the weights of the random encoder. The penalty is chosen on
    validation; then test is read once for the row. With "all" labels nothing is drawn, so contestants without weights to draw
    are measured once, for the first seed.

    Args:
        encoder: frozen.
        splits: of the labelled data.
        prepare: uint8 images to the normalised floats that the encoder saw, `ViewMaker.center` for one.
        budgets: labels per class.
        seeds: draws.
        floors: "random" (same architecture, fresh weights), "pixels", "pca" (64 directions, found without labels).
        name: of the encoder in the rows.
        penalties: grid of the logistic regression.
        neighbours: that vote, at most.
        batch_size: images encoded at a time.
        device: where to encode; where the encoder is, by default.
        precision: of the encoding, as `embed` takes it.
        on_row: called with each row as it is ready, for progress.

    Returns:
        Plain rows: method, classifier ("linear" or "knn"), budget, seed, accuracy on test, penalty (None for kNN), seconds
        (of fitting and measuring, without the embedding).

    Raises:
        ValueError: validation or test is empty, or a class has too few labels for a budget.
    """
    for split in (splits.val, splits.test):
        if len(split) == 0:
            raise ValueError(
                f"the {split.split} split is empty, and the study needs it to choose or to judge: set data.val_share > 0."
            )
    for split, use in ((splits.train, "learnt from, and the floors' statistics with it"), (splits.val, "chosen on")):
        if split.split == "test":
            raise ValueError(f"the test split would be {use}, and it judges: give train and validation splits of the data.")
    encode = partial(embed, prepare=prepare, batch_size=batch_size, device=device, precision=precision)
    rows: list[dict[str, Any]] = []
    for contestant in [_constant(name, encoder), *_floors(encoder, floors, splits.train, prepare)]:
        features = _Features(contestant, splits, encode)
        for row in _measure(features, budgets, seeds, penalties, neighbours):
            rows.append(row)
            if on_row is not None:
                on_row(row)
    return rows


class _Features:
    """Embeddings of one contestant: every image is encoded once for each encoder that it has."""

    def __init__(self, contestant: Contestant, splits: Splits, embed: Callable[[Encoder, Labelled], Embeddings]) -> None:
        self.contestant, self.splits, self.embed = contestant, splits, embed
        self._judges: dict[int, tuple[Encoder, Embeddings, Embeddings]] = {}

    def judges(self, seed: int) -> tuple[Encoder, Embeddings, Embeddings]:
        """The seed's encoder, and its validation and test."""
        draw = seed if self.contestant.seeded else 0
        if draw not in self._judges:
            encoder = self.contestant.encoder(seed)
            self._judges = {draw: (encoder, self.embed(encoder, self.splits.val), self.embed(encoder, self.splits.test))}
        return self._judges[draw]


def _measure(
    features: _Features, budgets: Sequence[Budget], seeds: Sequence[int], penalties: Sequence[float], neighbours: int
) -> Iterator[dict[str, Any]]:
    contestant, train = features.contestant, features.splits.train
    few = [budget for budget in budgets if budget != "all"]
    for seed in seeds:
        encoder, val, test = features.judges(seed)
        # budgets of one seed are nested: the largest holds all others
        pool = features.embed(encoder, train.subset(max(few), seed)) if few else None
        for budget in budgets:
            if budget == "all":
                if seed != seeds[0]:
                    continue
                chosen = features.embed(encoder, train)
            else:
                assert pool is not None
                chosen = _rows_of(pool, train.subset(budget, seed).index)
            row = {"method": contestant.name, "budget": budget, "seed": seed}
            yield from _judge(row, chosen, val, test, penalties, neighbours)


def _judge(
    row: dict[str, Any], train: Embeddings, val: Embeddings, test: Embeddings, penalties: Sequence[float], neighbours: int
) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    linear = fit_probe((train.x, train.y), (val.x, val.y), (test.x, test.y), penalties=penalties, scaling="common")
    seconds = time.perf_counter() - started
    measured = {"accuracy": linear.accuracy, "penalty": linear.penalty, "seconds": seconds}
    yield {**row, "classifier": "linear", **measured}
    started = time.perf_counter()
    predicted = knn(train.x, train.y, test.x, num_classes=1 + int(train.y.max()), k=neighbours)
    measured = {"accuracy": accuracy(predicted, test.y), "penalty": None, "seconds": time.perf_counter() - started}
    yield {**row, "classifier": "knn", **measured}


def _rows_of(pool: Embeddings, index: Tensor) -> Embeddings:
    """The samples `index` of a larger set."""
    place = {int(sample): row for row, sample in enumerate(pool.index)}
    rows = torch.tensor([place[int(sample)] for sample in index])
    return Embeddings(pool.x[rows], pool.y[rows], pool.index[rows])


def _floors(encoder: Encoder, floors: Iterable[Floor], train: Labelled, prepare: Prepare) -> Iterator[Contestant]:
    for floor in floors:
        if floor == "random":
            yield Contestant("random encoder", partial(random_like, cast(EncoderModule, encoder)), seeded=True)
        elif floor == "pixels":
            yield _constant("raw pixels", raw_pixels(train, prepare))
        elif floor == "pca":
            yield _constant("PCA", fitted_pca(train, prepare))
        else:
            raise ValueError(f"there is no floor {floor!r}: choose among random, pixels and pca.")


def _constant(name: str, encoder: Encoder) -> Contestant:
    def same(_: int) -> Encoder:
        return encoder

    return Contestant(name, same)


def raw_pixels(train: Labelled, prepare: Prepare) -> RawPixels:
    """The floor that has no weights, for images like those of a split."""
    shape = prepare(train.images([0])).shape[1:]
    return RawPixels(shape[0], list(shape[1:]))


def fitted_pca(train: Labelled, prepare: Prepare) -> PCA:
    """Directions of the training images, evenly spread over the split; labels play no part."""
    numbers = prepare(train.images([0])).numel()
    count = min(len(train), _PCA_IMAGES, max(2 * _PCA_WIDTH, _PCA_NUMBERS // numbers))
    images = prepare(train.images([i * len(train) // count for i in range(count)]))
    width = min(_PCA_WIDTH, numbers, count - 1)
    return PCA(width, images.shape[1], list(images.shape[2:])).fit(images)
