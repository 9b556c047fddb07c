"""How many of its last layers should a frozen encoder lose? Every depth probed by cross-validation on the training labels."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.data import Labelled
from ssl_framework.evaluation.embed import embed
from ssl_framework.probes import logistic, rescaler
from ssl_framework.types import Encoder

PENALTIES = tuple(10.0**k for k in range(-4, 2))

_FOLDS = 0xF01D5  # names this use of the seed


class DepthCurve(NamedTuple):
    """What a linear probe reaches on each layer.

    Attributes:
        scores: ``(F, L)`` of each fold and layer, with the penalty that is best for the layer over all folds.
        measure: "accuracy" of labels, "r2" of numbers.
    """

    scores: Tensor
    measure: str

    @property
    def mean(self) -> Tensor:
        """``(L,)`` over folds."""
        return self.scores.mean(dim=0)

    @property
    def standard_error(self) -> Tensor:
        """``(L,)`` of the mean, from the spread between folds."""
        return self.scores.std(dim=0, correction=1) / len(self.scores) ** 0.5

    @property
    def best(self) -> int:
        """The layer with the highest mean."""
        return int(self.mean.argmax())

    @property
    def bar(self) -> float:
        """The highest mean less its standard error: what reaches it is as good, for all that is known."""
        return float(self.mean[self.best] - self.standard_error[self.best])

    @property
    def chosen(self) -> int:
        """The last layer that reaches the bar: nothing is cut that may have been of use.

        The one-standard-error rule: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section 7.10.
        """
        return int((self.mean >= self.bar).nonzero()[-1])

    @property
    def cut(self) -> int:
        """Layers to take off."""
        return self.scores.shape[1] - 1 - self.chosen

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        last, said = self.scores.shape[1] - 1, f"{self.measure} by {len(self.scores)}-fold cross-validation on training labels"
        if self.chosen == last:
            return (
                f"cut=0: the last layer's probe is within one standard error of the best ({said}: "
                f"{self.mean[last]:.3f}; layer {self.best + 1} of {last + 1}: {self.mean[self.best]:.3f})"
            )
        return (
            f"cut={self.cut}: layer {self.chosen + 1} of {last + 1} is the last one within one standard error of the best "
            f"({said}: {self.mean[self.chosen]:.3f}; uncut: {self.mean[last]:.3f})"
        )


def depth_curve(
    encoder: Encoder,
    split: Labelled,
    prepare: Callable[[Tensor], Tensor],
    targets: Tensor,
    *,
    folds: int = 5,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
    device: torch.device | str | None = None,
    precision: str = "auto",
) -> DepthCurve:
    """Probe every layer of an encoder; all layers come from one forward pass, and no label but those of `split` is read.

    Args:
        encoder: frozen.
        split: what will be learnt from.
        prepare: uint8 images to the normalised floats that the encoder saw.
        targets: ``(N,)`` int64 classes, for a logistic regression, or ``(N, K)`` numbers, for a ridge regression on their
            standardised values.
        folds: as many at most; no more than the rarest class has samples.
        seed: of the folds.
        penalties: grid; each layer has its own choice.
        device: where the encoder computes.
        precision: of its products, see `embed`.

    Raises:
        ValueError: too few samples for two folds.
    """
    fold = _folds(split, targets, folds, seed)
    layers = embed(encoder, split, prepare, layers=range(encoder.num_layers), device=device, precision=precision).layers
    classes = not targets.is_floating_point()
    measure = _accuracies if classes else _explained
    every = torch.stack(
        [torch.stack([measure(x, targets, fold == f, penalties) for f in range(int(fold.max()) + 1)]) for x in layers]
    )  # (L, F, P)
    best = every.mean(dim=1).argmax(dim=1)  # (L,)
    scores = every[torch.arange(len(layers)), :, best].T
    return DepthCurve(scores, "accuracy" if classes else "r2")


def _folds(split: Labelled, targets: Tensor, folds: int, seed: int) -> Tensor:
    """``(N,)`` int64: the fold that each sample is held out in; of each class as many in each, give or take one."""
    fold = torch.empty(len(targets), dtype=torch.int64)
    groups = [torch.arange(len(targets))]
    if not targets.is_floating_point():
        groups = [(targets == c).nonzero()[:, 0] for c in targets.unique()]
    rarest = min(groups, key=len)
    count = min(folds, len(rarest))
    if count < 2:
        label = int(targets[rarest[0]].reshape(-1)[0])
        name = repr(split.classes[label]) if split.table is None and label < len(split.classes) else str(label)
        named = f"class {name} has" if len(groups) > 1 else "there is"
        raise ValueError(
            f"cut=auto compares depths by cross-validation, which needs 2 labels of each class, and {named} {len(rarest)}: "
            "give more labels (labels_per_class=2 and more), or say how many layers to cut."
        )
    for number, rows in enumerate(groups):
        order = torch.from_numpy(keyed.permutation(len(rows), _FOLDS, seed, number))
        fold[rows[order]] = torch.arange(len(rows)) % count
    return fold


def _accuracies(x: Tensor, y: Tensor, held: Tensor, penalties: Sequence[float]) -> Tensor:
    """``(P,)`` accuracies on what is held out."""
    scale = rescaler(x[~held].double())
    weights = logistic(scale(x[~held]), y[~held], penalties, num_classes=int(y.max()) + 1)  # (P, D + 1, C)
    scores = scale(x[held]) @ weights[:, :-1] + weights[:, -1:]
    return (scores.argmax(dim=2) == y[held]).double().mean(dim=1)


def _explained(x: Tensor, y: Tensor, held: Tensor, penalties: Sequence[float]) -> Tensor:
    """``(P,)`` shares of the variance explained on what is held out, the mean over columns.

    The variance is that of all targets: in one fold a column may be constant, and one sample has none.
    """
    std, mean = y.double().std(dim=0, correction=0), y[~held].double().mean(dim=0)
    scale, target = rescaler(x[~held].double()), (y.double() - mean) / torch.where(std > 0, std, 1.0)
    learnt, asked = scale(x[~held]).numpy(), scale(x[held]).numpy()
    truth = target[held]
    shares: list[Tensor] = []
    for penalty in penalties:
        model = Ridge(alpha=penalty * len(learnt)).fit(learnt, target[~held].numpy())
        missed = truth - torch.from_numpy(model.predict(asked)).reshape(truth.shape)
        shares.append((1 - missed.square().mean(dim=0)).mean())
    return torch.stack(shares)
