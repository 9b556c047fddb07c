"""Phase 2: cut an encoder, attach a head, freeze or not, train on few labels."""

from ssl_framework.downstream.audit import Audit, AuditError, fingerprint
from ssl_framework.downstream.augment import Augmentation
from ssl_framework.downstream.best import KeepBest
from ssl_framework.downstream.choice import Auto, Choice, choose_freezing
from ssl_framework.downstream.data import LabelledData
from ssl_framework.downstream.detection import DetectionData, DetectionModule
from ssl_framework.downstream.freezing import (
    BiasOnly,
    Freezer,
    Frozen,
    Full,
    Gradual,
    LastN,
    LayerDecay,
    Lora,
    LpFt,
    Moment,
    NormOnly,
    Place,
    Policy,
    Surgical,
)
from ssl_framework.downstream.heads import LinearHead
from ssl_framework.downstream.module import DownstreamModule
from ssl_framework.downstream.pooling import AttentionPooling, LastLayers, Pooling, TokenMean
from ssl_framework.downstream.study import fit_and_measure
from ssl_framework.downstream.tasks import (
    Classification,
    MultiLabel,
    Neighbours,
    Ordinal,
    Prediction,
    Regression,
    Retrieval,
    Segmentation,
    Several,
    Task,
    Verification,
    several,
)

__all__ = [
    "AttentionPooling",
    "Audit",
    "AuditError",
    "Augmentation",
    "Auto",
    "BiasOnly",
    "Choice",
    "Classification",
    "DetectionData",
    "DetectionModule",
    "DownstreamModule",
    "Freezer",
    "Frozen",
    "Full",
    "Gradual",
    "KeepBest",
    "LabelledData",
    "LastLayers",
    "LastN",
    "LayerDecay",
    "LinearHead",
    "Lora",
    "LpFt",
    "Moment",
    "MultiLabel",
    "Neighbours",
    "NormOnly",
    "Ordinal",
    "Place",
    "Policy",
    "Pooling",
    "Prediction",
    "Regression",
    "Retrieval",
    "Segmentation",
    "Several",
    "Surgical",
    "Task",
    "TokenMean",
    "Verification",
    "choose_freezing",
    "fingerprint",
    "fit_and_measure",
    "several",
]
