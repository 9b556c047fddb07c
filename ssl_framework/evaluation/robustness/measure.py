"""How robust is a classifier? Bad images, changes that mean harm, confidence, and images of another kind, in plain numbers."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_framework.evaluation.robustness.attacks import (
    BUDGETS,
    STEPS,
    Logits,
    gradient,
    gradient_share,
    moved,
    pgd,
    random_signs,
    require_alike,
    require_budget,
)
from ssl_framework.evaluation.robustness.confidence import calibration_error, ood_auroc, require_logits
from ssl_framework.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt, require_images, require_severities
from ssl_framework.evaluation.robustness.noise import require_labels
from ssl_framework.metrics import accuracy

Progress = Callable[[str, int, int], None]

_ALIKE = 16  # images on which both ways to the model are compared


def robustness(
    logits_of_uint8: Logits,
    logits01: Logits,
    images: Tensor,
    targets: Tensor,
    *,
    severities: Sequence[int] = SEVERITIES,
    budgets: Sequence[float] = BUDGETS,
    steps: int = STEPS,
    others: Tensor | None = None,
    batch_size: int = 250,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> dict[str, float]:
    """Measure a classifier in evaluation mode.

    With S severities and E budgets that is ``8 S + 1`` passes over the images for corruptions, and for attacks one forward and
    backward for FGSM and `steps` a budget for PGD, which a sample leaves where it is misclassified.

    Args:
        logits_of_uint8: stored images to ``(B, K)``, `DownstreamModule` for one.
        logits01: the same of pixels in [0, 1], with a gradient: `from_pixels`.
        images: ``(N, C, H, W)`` uint8, on the model's device.
        targets: ``(N,)`` int64 true classes, on the same device.
        severities: of corruptions, 1 to 5.
        budgets: of attacks, of pixels in [0, 1].
        steps: of PGD.
        others: ``(M, C, H, W)`` uint8 images of none of the classes.
        batch_size: images at a time; the result depends on it in the last bits of logits only.
        seed: of corruptions, random signs and the starts of PGD.
        on_progress: told what has been measured, how many of them there are by now, and how many there will be.

    Returns:
        Accuracies in [0, 1]: "accuracy" of the images as they are; "gaussian_noise/1" and so on of each of `CORRUPTIONS` and
        severities; "corrupted", their mean, "corrupted_drop", by how much it is less, and "corrupted_kept", which share of the
        accuracy it is (left out where that is 0). Of each budget, by `budget_key`, "random/...", "fgsm/..." and "pgd/...".
        "gradient_share", without which those mean nothing, see `gradient_share`. "calibration_error". With `others`
        "ood_auroc/softmax" and "ood_auroc/energy".

    Raises:
        ValueError: something is none of what it should be, the two ways to the model disagree, it is not in evaluation mode, or
            its logits are not finite.
    """
    tested = _Tested(images, targets, batch_size, seed)
    _require(tested, severities, budgets, others)
    require_alike(logits_of_uint8, logits01, images[:_ALIKE])
    clean = _outputs(logits_of_uint8, images, batch_size)
    require_labels(targets, clean.shape[1], len(images))
    directions = _directions(logits01, tested)
    total = 1 + len(CORRUPTIONS) * len(severities) + 3 * len(budgets)
    measured = chain(
        [("accuracy", accuracy(clean, targets))],
        _corrupted(logits_of_uint8, tested, severities),
        _attacked(logits01, tested, directions, budgets, steps),
    )
    found: dict[str, float] = {}
    for name, value in measured:
        found[name] = value
        if on_progress is not None:
            on_progress(name, len(found), total)
    found |= _summary(found, severities)
    found |= {"gradient_share": gradient_share(directions), "calibration_error": calibration_error(clean, targets)}
    if others is not None:
        told = ood_auroc(clean, _outputs(logits_of_uint8, others, batch_size))
        found |= {f"ood_auroc/{score}": value for score, value in told.items()}
    return found


def budget_key(eps: float) -> str:
    """What a budget is called in the names of results: ``"2/255"`` where it is that many grey levels, else its digits."""
    levels = round(eps * 255)
    return f"{levels}/255" if levels > 0 and abs(eps - levels / 255) < 1e-6 else f"{eps:g}"


class _Tested(NamedTuple):
    """What is measured on, see `robustness`."""

    images: Tensor
    targets: Tensor
    batch_size: int
    seed: int

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels ``(b, C, H, W)`` in [0, 1], targets ``(b,)`` and rows ``(b,)``."""
        for rows in torch.arange(len(self.images)).split(self.batch_size):
            here = rows.to(self.images.device)
            yield self.images[here].float() / 255, self.targets[here], rows


def _corrupted(logits: Logits, tested: _Tested, severities: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Accuracy of each corruption and severity."""
    for name in CORRUPTIONS:
        for severity in severities:
            made = corrupt(tested.images, name, severity, seed=tested.seed)
            yield f"{name}/{severity}", accuracy(_outputs(logits, made, tested.batch_size), tested.targets)


def _attacked(
    logits: Logits, tested: _Tested, directions: Tensor, budgets: Sequence[float], steps: int
) -> Iterator[tuple[str, float]]:
    """Accuracy of each attack and budget, and of random signs beside them."""
    attacks: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
        "random": lambda x, _, rows, eps: random_signs(x, eps, seed=tested.seed, index=rows),
        "fgsm": lambda x, _, rows, eps: moved(x, directions[rows.to(x.device)], eps),
        "pgd": lambda x, y, rows, eps: pgd(logits, x, y, eps, steps=steps, seed=tested.seed, index=rows),
    }
    for eps in budgets:
        for name, attack in attacks.items():
            with torch.no_grad():
                outputs = torch.cat([logits(attack(x, y, rows, eps)) for x, y, rows in tested.batches()])
            require_logits(outputs)
            yield f"{name}/{budget_key(eps)}", accuracy(outputs, tested.targets)


def _directions(logits: Logits, tested: _Tested) -> Tensor:
    """``(N, C, H, W)`` int8 signs of the gradient, which FGSM follows as far as each budget goes."""
    return torch.cat([gradient(logits, x, y).sign().to(torch.int8) for x, y, _ in tested.batches()])


@torch.no_grad()
def _outputs(logits: Logits, images: Tensor, batch_size: int) -> Tensor:
    """``(N, K)`` of stored images."""
    outputs = torch.cat([logits(part) for part in images.split(batch_size)])
    require_logits(outputs)
    return outputs


def _summary(found: dict[str, float], severities: Sequence[int]) -> dict[str, float]:
    """Corruptions as one number, and beside the accuracy without them."""
    if not severities:
        return {}
    mean = fmean(found[f"{name}/{severity}"] for name in CORRUPTIONS for severity in severities)
    clean = found["accuracy"]
    kept = {"corrupted_kept": mean / clean} if clean > 0 else {}
    return {"corrupted": mean, "corrupted_drop": clean - mean, **kept}


def _require(tested: _Tested, severities: Sequence[int], budgets: Sequence[float], others: Tensor | None) -> None:
    require_images(tested.images)
    if others is not None:
        require_images(others)
    require_severities(severities)
    if tested.batch_size < 1:
        raise ValueError(f"batch_size={tested.batch_size}: give 1 or more.")
    if len(tested.targets) != len(tested.images):
        raise ValueError(f"there are {len(tested.targets)} labels for {len(tested.images)} images: give one an image.")
    for eps in budgets:
        require_budget(eps)
