"""Frozen encoders measured: embeddings computed once, probes and neighbours on them, floors beside them."""

from ssl_framework.evaluation.depth import DepthCurve, depth_curve
from ssl_framework.evaluation.embed import Embeddings, embed, write_embeddings
from ssl_framework.evaluation.linear import Splits, fitted_pca, raw_pixels, study

__all__ = [
    "DepthCurve",
    "Embeddings",
    "Splits",
    "depth_curve",
    "embed",
    "fitted_pca",
    "raw_pixels",
    "study",
    "write_embeddings",
]
