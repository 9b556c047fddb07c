"""Encoders: what turns a batch into vectors, and the only place that knows what an image is made of."""

from ssl_framework.encoders.adapter import Adapter, torchvision_encoder
from ssl_framework.encoders.base import EncoderModule, Spec
from ssl_framework.encoders.build import build, describe, random_like, refresh
from ssl_framework.encoders.depth import depths
from ssl_framework.encoders.floors import PCA, RawPixels
from ssl_framework.encoders.presets import convnext_tiny, resnet18, resnet50, resnet_micro, vit_micro, vit_small, vit_tiny
from ssl_framework.encoders.timm import TimmEncoder, TimmViT, timm_encoder
from ssl_framework.encoders.weights import load_strictly, read_tensors

__all__ = [
    "PCA",
    "Adapter",
    "EncoderModule",
    "RawPixels",
    "Spec",
    "TimmEncoder",
    "TimmViT",
    "build",
    "convnext_tiny",
    "depths",
    "describe",
    "load_strictly",
    "random_like",
    "read_tensors",
    "refresh",
    "resnet18",
    "resnet50",
    "resnet_micro",
    "timm_encoder",
    "torchvision_encoder",
    "vit_micro",
    "vit_small",
    "vit_tiny",
]
