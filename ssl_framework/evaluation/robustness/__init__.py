"""What a classifier is worth where images are bad, labels were wrong, or somebody means harm; and whether it knows."""

from ssl_framework.evaluation.robustness.attacks import fgsm, from_pixels, gradient, gradient_share, pgd, random_signs
from ssl_framework.evaluation.robustness.confidence import calibration_error, energy_score, max_softmax, ood_auroc
from ssl_framework.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt, examples
from ssl_framework.evaluation.robustness.measure import budget_key, robustness
from ssl_framework.evaluation.robustness.noise import noisy
from ssl_framework.evaluation.robustness.sanity import Check, sanity

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Check",
    "budget_key",
    "calibration_error",
    "corrupt",
    "energy_score",
    "examples",
    "fgsm",
    "from_pixels",
    "gradient",
    "gradient_share",
    "max_softmax",
    "noisy",
    "ood_auroc",
    "pgd",
    "random_signs",
    "robustness",
    "sanity",
]
