"""What a run leaves on disk: encoders for phase 2, and checkpoints to go on from."""

from ssl_framework.checkpoint.encoder_file import Loaded, load_encoder, save_encoder
from ssl_framework.checkpoint.head_file import LoadedModel, load_model, save_head
from ssl_framework.checkpoint.store import DamagedError, checkpoints, last_checkpoint
from ssl_framework.checkpoint.training import SaveRun

__all__ = [
    "DamagedError",
    "Loaded",
    "LoadedModel",
    "SaveRun",
    "checkpoints",
    "last_checkpoint",
    "load_encoder",
    "load_model",
    "save_encoder",
    "save_head",
]
