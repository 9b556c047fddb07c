"""Augmentation as data: parameters drawn on the CPU from (seed, epoch, index, view), then applied without randomness."""

from ssl_framework.views.draw import ImageDraw, ViewSpec
from ssl_framework.views.image import ImageViews
from ssl_framework.views.recipes import affine, multi_crop, one_crop, strong_and_weak, two_crops, two_crops_asymmetric

__all__ = [
    "ImageDraw",
    "ImageViews",
    "ViewSpec",
    "affine",
    "multi_crop",
    "one_crop",
    "strong_and_weak",
    "two_crops",
    "two_crops_asymmetric",
]
