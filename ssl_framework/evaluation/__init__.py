"""Frozen encoders measured: embeddings computed once, probes and neighbours on them, floors beside them; and robustness."""

from ssl_framework.evaluation.depth import DepthCurve, depth_curve
from ssl_framework.evaluation.embed import Embeddings, embed, write_embeddings
from ssl_framework.evaluation.linear import Splits, fitted_pca, raw_pixels, study
from ssl_framework.evaluation.robustness.attacks import from_pixels
from ssl_framework.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt, examples
from ssl_framework.evaluation.robustness.measure import budget_key, robustness
from ssl_framework.evaluation.robustness.noise import noisy
from ssl_framework.evaluation.robustness.sanity import Check, sanity

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Check",
    "DepthCurve",
    "Embeddings",
    "Splits",
    "budget_key",
    "corrupt",
    "depth_curve",
    "embed",
    "examples",
    "fitted_pca",
    "from_pixels",
    "noisy",
    "raw_pixels",
    "robustness",
    "sanity",
    "study",
    "write_embeddings",
]
