"""Which part of an encoder learns from labels, and what "frozen" means: the same to the bit afterwards, buffers included."""

from ssl_framework.downstream.freezing.freezer import Freezer
from ssl_framework.downstream.freezing.layers import Gradual, LastN, LayerDecay, Surgical
from ssl_framework.downstream.freezing.low_rank import Lora
from ssl_framework.downstream.freezing.parts import BiasOnly, NormOnly
from ssl_framework.downstream.freezing.policy import Moment, Place, Policy
from ssl_framework.downstream.freezing.whole import Frozen, Full, LpFt

__all__ = [
    "BiasOnly",
    "Freezer",
    "Frozen",
    "Full",
    "Gradual",
    "LastN",
    "LayerDecay",
    "Lora",
    "LpFt",
    "Moment",
    "NormOnly",
    "Place",
    "Policy",
    "Surgical",
]
