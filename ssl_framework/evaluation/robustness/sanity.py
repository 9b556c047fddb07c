"""Is an attack one? What must hold of a real one on any model, before a number of it is believed.

Carlini et al., "On Evaluating Adversarial Robustness", 2019, https://arxiv.org/abs/1902.06705; Athalye, Carlini and Wagner,
"Obfuscated Gradients Give a False Sense of Security", 2018, https://arxiv.org/abs/1802.00420, section 3.1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_framework.evaluation.robustness.attacks import (
    BUDGETS,
    STEPS,
    STRIDE,
    Logits,
    fgsm,
    gradient,
    gradient_share,
    pgd,
    random_signs,
)
from ssl_framework.metrics import accuracy

_ROUNDING = 1e-6
_LEAST_GRADIENTS = 0.9


class Check(NamedTuple):
    """What must hold.

    Attributes:
        name: in a few words.
        passed: whether it does.
        found: the numbers.
    """

    name: str
    passed: bool
    found: str


def sanity(
    logits: Logits,
    x: Tensor,
    targets: Tensor,
    eps: float = BUDGETS[-1],
    *,
    steps: int = STEPS,
    seed: int = 0,
    slack: float = 0.01,
) -> list[Check]:
    """Check the attacks on a model, with some hundred images.

    Args:
        logits: of pixels in [0, 1], in evaluation mode and with a gradient.
        x: ``(B, C, H, W)`` floats in [0, 1], one batch.
        targets: ``(B,)`` int64 true classes.
        eps: budget of the checks.
        steps: of PGD.
        seed: of what is drawn.
        slack: by how much the accuracy under PGD may exceed that under FGSM and random signs, which meet other points.

    Returns:
        All checks. One that failed says that the accuracy under attack is too high, because gradients are masked or the way to
        them is wrong.

    Raises:
        ValueError: as `fgsm`.
    """

    def right(images: Tensor) -> float:
        with torch.no_grad():
            return accuracy(logits(images), targets)

    stride = STRIDE * eps / steps
    many = pgd(logits, x, targets, eps, steps=steps, step=stride, seed=seed)
    one, chance = fgsm(logits, x, targets, eps), random_signs(x, eps, seed=seed)
    clean, strong, weak, blind = right(x), right(many), right(one), right(chance)
    longer = right(pgd(logits, x, targets, eps, steps=2 * steps, step=stride, seed=seed))
    whole = right(pgd(logits, x, targets, 1.0, steps=steps, seed=seed))
    nothing = [right(pgd(logits, x, targets, 0.0, steps=1, seed=seed)), right(fgsm(logits, x, targets, 0.0))]
    furthest = max(float((moved - x).abs().max()) for moved in (many, one, chance))
    inside = all(bool(((moved >= 0) & (moved <= 1)).all()) for moved in (many, one, chance))
    share = gradient_share(gradient(logits, x, targets))
    return [
        Check("no budget changes nothing", nothing == [clean, clean], f"clean {clean:.3f}, with eps=0 {nothing}"),
        Check("a whole budget leaves nothing", whole == 0, f"accuracy with eps=1: {whole:.3f}"),
        Check("many steps beat one", strong <= weak + slack, f"PGD {strong:.3f}, FGSM {weak:.3f}"),
        Check("a gradient beats chance", strong <= blind + slack, f"PGD {strong:.3f}, random signs {blind:.3f}"),
        Check("more steps are not weaker", longer <= strong, f"{2 * steps} steps {longer:.3f}, {steps} steps {strong:.3f}"),
        Check("changes keep to the budget", furthest <= eps + _ROUNDING and inside, f"up to {furthest:.6f} of {eps:.6f}"),
        Check("gradients are there", share >= _LEAST_GRADIENTS, f"in {share:.1%} of the samples"),
    ]
