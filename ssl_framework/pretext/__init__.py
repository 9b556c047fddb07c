"""Phase 1: pretext tasks, one file each."""

from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.pretext.contrastive.simclr import SimCLR
from ssl_framework.pretext.generative.mae import MAE
from ssl_framework.pretext.predictive.byol import BYOL
from ssl_framework.pretext.predictive.rotation import Rotation

__all__ = ["BYOL", "MAE", "Card", "PretextModule", "Rotation", "SimCLR", "Training"]
