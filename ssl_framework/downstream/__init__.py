"""Phase 2: cut an encoder, attach a head, freeze or not, train on few labels."""

from ssl_framework.downstream.audit import Audit, AuditError, fingerprint
from ssl_framework.downstream.data import LabelledData
from ssl_framework.downstream.freezing import (
    BiasOnly,
    Freezer,
    Frozen,
    Full,
    Gradual,
    LastN,
    LayerDecay,
    LpFt,
    Moment,
    NormOnly,
    Place,
    Policy,
    Surgical,
)
from ssl_framework.downstream.heads import LinearHead
from ssl_framework.downstream.module import DownstreamModule
from ssl_framework.downstream.study import fit_and_measure
from ssl_framework.downstream.tasks import Classification, Task

__all__ = [
    "Audit",
    "AuditError",
    "BiasOnly",
    "Classification",
    "DownstreamModule",
    "Freezer",
    "Frozen",
    "Full",
    "Gradual",
    "LabelledData",
    "LastN",
    "LayerDecay",
    "LinearHead",
    "LpFt",
    "Moment",
    "NormOnly",
    "Place",
    "Policy",
    "Surgical",
    "Task",
    "fingerprint",
    "fit_and_measure",
]
