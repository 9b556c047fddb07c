"""Phase 2: cut an encoder, attach a head, freeze or not, train on few labels."""

from ssl_framework.downstream.data import LabelledData
from ssl_framework.downstream.freezing import Freezing, Frozen, Full, fingerprint
from ssl_framework.downstream.heads import LinearHead
from ssl_framework.downstream.module import DownstreamModule
from ssl_framework.downstream.study import fit_and_measure
from ssl_framework.downstream.tasks import Classification, Task

__all__ = [
    "Classification",
    "DownstreamModule",
    "Freezing",
    "Frozen",
    "Full",
    "LabelledData",
    "LinearHead",
    "Task",
    "fingerprint",
    "fit_and_measure",
]
