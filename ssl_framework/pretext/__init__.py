"""Phase 1: pretext tasks, one file each."""

from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.pretext.contrastive.dcl import DCL
from ssl_framework.pretext.contrastive.densecl import DenseCL
from ssl_framework.pretext.contrastive.moco_v2 import MoCoV2
from ssl_framework.pretext.contrastive.moco_v3 import MoCoV3
from ssl_framework.pretext.contrastive.nnclr import NNCLR
from ssl_framework.pretext.contrastive.npid import NPID
from ssl_framework.pretext.contrastive.pirl import PIRL
from ssl_framework.pretext.contrastive.simclr import SimCLR
from ssl_framework.pretext.generative.aim import AIM
from ssl_framework.pretext.generative.colorization import Colorization
from ssl_framework.pretext.generative.context_encoder import ContextEncoder
from ssl_framework.pretext.generative.crossmae import CrossMAE
from ssl_framework.pretext.generative.denoising_autoencoder import DenoisingAutoencoder
from ssl_framework.pretext.generative.mae import MAE
from ssl_framework.pretext.generative.maskfeat import MaskFeat
from ssl_framework.pretext.generative.simmim import SimMIM
from ssl_framework.pretext.predictive.barlow_twins import BarlowTwins
from ssl_framework.pretext.predictive.byol import BYOL
from ssl_framework.pretext.predictive.data2vec import Data2Vec
from ssl_framework.pretext.predictive.deepcluster_v2 import DeepClusterV2
from ssl_framework.pretext.predictive.dino import DINO
from ssl_framework.pretext.predictive.dinov2 import DINOv2
from ssl_framework.pretext.predictive.frossl import FroSSL
from ssl_framework.pretext.predictive.ibot import IBOT
from ssl_framework.pretext.predictive.ijepa import IJEPA
from ssl_framework.pretext.predictive.jigsaw import Jigsaw
from ssl_framework.pretext.predictive.lejepa import LeJEPA
from ssl_framework.pretext.predictive.mmcr import MMCR
from ssl_framework.pretext.predictive.msn import MSN
from ssl_framework.pretext.predictive.relative_location import RelativeLocation
from ssl_framework.pretext.predictive.ressl import ReSSL
from ssl_framework.pretext.predictive.rotation import Rotation
from ssl_framework.pretext.predictive.simsiam import SimSiam
from ssl_framework.pretext.predictive.swav import SwAV
from ssl_framework.pretext.predictive.tico import TiCo
from ssl_framework.pretext.predictive.vicreg import VICReg
from ssl_framework.pretext.predictive.vicregl import VICRegL
from ssl_framework.pretext.predictive.w_mse import WMSE

__all__ = [
    "AIM",
    "BYOL",
    "DCL",
    "DINO",
    "IBOT",
    "IJEPA",
    "MAE",
    "MMCR",
    "MSN",
    "NNCLR",
    "NPID",
    "PIRL",
    "WMSE",
    "BarlowTwins",
    "Card",
    "Colorization",
    "ContextEncoder",
    "CrossMAE",
    "DINOv2",
    "Data2Vec",
    "DeepClusterV2",
    "DenoisingAutoencoder",
    "DenseCL",
    "FroSSL",
    "Jigsaw",
    "LeJEPA",
    "MaskFeat",
    "MoCoV2",
    "MoCoV3",
    "PretextModule",
    "ReSSL",
    "RelativeLocation",
    "Rotation",
    "SimCLR",
    "SimMIM",
    "SimSiam",
    "SwAV",
    "TiCo",
    "Training",
    "VICReg",
    "VICRegL",
]
