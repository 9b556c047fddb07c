"""Frozen encoders measured: embeddings computed once, probes and neighbours on them, floors beside them."""

from ssl_framework.evaluation.depth import DepthCurve, depth_curve
from ssl_framework.evaluation.embed import Embeddings, embed, write_embeddings
from ssl_framework.evaluation.linear import Splits, study

__all__ = ["DepthCurve", "Embeddings", "Splits", "depth_curve", "embed", "study", "write_embeddings"]
