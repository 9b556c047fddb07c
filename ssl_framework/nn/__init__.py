"""Parts that pretext tasks are built from."""

from ssl_framework.nn.bank import MemoryBank
from ssl_framework.nn.centre import Centre
from ssl_framework.nn.clusters import Clusters, spherical_k_means
from ssl_framework.nn.colour import ColourWeights, colour_bins, lab, nearest_bins
from ssl_framework.nn.contrast import InBatch, InfoNCE, Relation, require_positive
from ssl_framework.nn.crops import compare_crops, each, encode_crops, encode_local_crops, place_positions, together
from ssl_framework.nn.decoder import CrossDecoder, TokenDecoder, TokenPredictor, sincos_positions
from ssl_framework.nn.distributed import gather, mean_over_processes, over_processes, own_rows
from ssl_framework.nn.follower import Branch, Follower, Teacher
from ssl_framework.nn.gradients import gradient_histograms
from ssl_framework.nn.maps import MapDecoder, PlaceDecoder, hide, input_channels
from ssl_framework.nn.masking import (
    block_mask,
    masked_mean,
    mean_per_sample,
    normalized_patches,
    on_tokens,
    patch_mask,
    pixel_mask,
    prefix_lengths,
    random_mask,
    random_order,
    region_mask,
    require_key,
    target_blocks,
    varied_mask,
    visible,
)
from ssl_framework.nn.precision import FullPrecision, widen
from ssl_framework.nn.prototypes import DINOHead, Prototypes, TokenBranch, cross_entropy
from ssl_framework.nn.queue import Queue
from ssl_framework.nn.sinkhorn import sinkhorn
from ssl_framework.nn.tiles import distant_orders, require_tiles, tiles

__all__ = [
    "Branch",
    "Centre",
    "Clusters",
    "ColourWeights",
    "CrossDecoder",
    "DINOHead",
    "Follower",
    "FullPrecision",
    "InBatch",
    "InfoNCE",
    "MapDecoder",
    "MemoryBank",
    "PlaceDecoder",
    "Prototypes",
    "Queue",
    "Relation",
    "Teacher",
    "TokenBranch",
    "TokenDecoder",
    "TokenPredictor",
    "block_mask",
    "colour_bins",
    "compare_crops",
    "cross_entropy",
    "distant_orders",
    "each",
    "encode_crops",
    "encode_local_crops",
    "gather",
    "gradient_histograms",
    "hide",
    "input_channels",
    "lab",
    "masked_mean",
    "mean_over_processes",
    "mean_per_sample",
    "nearest_bins",
    "normalized_patches",
    "on_tokens",
    "over_processes",
    "own_rows",
    "patch_mask",
    "pixel_mask",
    "place_positions",
    "prefix_lengths",
    "random_mask",
    "random_order",
    "region_mask",
    "require_key",
    "require_positive",
    "require_tiles",
    "sincos_positions",
    "sinkhorn",
    "spherical_k_means",
    "target_blocks",
    "tiles",
    "together",
    "varied_mask",
    "visible",
    "widen",
]
