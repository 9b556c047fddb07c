"""Data sets: sources of images, their splits, and the module that hands out batches."""

from ssl_framework.data.arrays import ArraySource, arrays
from ssl_framework.data.boxes import Boxed, CocoBoxes
from ssl_framework.data.cifar10 import cifar10
from ssl_framework.data.datamodule import DataModule
from ssl_framework.data.digits import digits
from ssl_framework.data.encoded import fit
from ssl_framework.data.folder import FolderSource, folder
from ssl_framework.data.labelled import Labelled
from ssl_framework.data.masks import Masks
from ssl_framework.data.options import Options
from ssl_framework.data.overlap import copies
from ssl_framework.data.parquet import ParquetSource, parquet
from ssl_framework.data.table import Table
from ssl_framework.data.torchvision import torchvision_dataset

__all__ = [
    "ArraySource",
    "Boxed",
    "CocoBoxes",
    "DataModule",
    "FolderSource",
    "Labelled",
    "Masks",
    "Options",
    "ParquetSource",
    "Table",
    "arrays",
    "cifar10",
    "copies",
    "digits",
    "fit",
    "folder",
    "parquet",
    "torchvision_dataset",
]
