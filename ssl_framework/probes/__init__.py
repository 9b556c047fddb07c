"""Simple classifiers on frozen features: how much of the classes can be read off them.

Features are ``(N, D)``, labels ``(N,)`` int64 from 0. Everything is deterministic and runs where the features lie.
"""

from ssl_framework.probes.fit import PENALTIES, ProbeResult, Split, fit_probe
from ssl_framework.probes.linear import logistic, ridge
from ssl_framework.probes.neighbours import knn
from ssl_framework.probes.scaling import Standardizer, rescaler, standardizer

__all__ = [
    "PENALTIES",
    "ProbeResult",
    "Split",
    "Standardizer",
    "fit_probe",
    "knn",
    "logistic",
    "rescaler",
    "ridge",
    "standardizer",
]
