"""Parts that pretext tasks are built from."""

from ssl_framework.nn.decoder import TokenDecoder, sincos_positions
from ssl_framework.nn.follower import Branch, Follower, Teacher
from ssl_framework.nn.masking import random_mask
from ssl_framework.nn.precision import FullPrecision

__all__ = ["Branch", "Follower", "FullPrecision", "Teacher", "TokenDecoder", "random_mask", "sincos_positions"]
