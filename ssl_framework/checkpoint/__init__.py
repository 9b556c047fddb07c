"""What a run leaves on disk: encoders for phase 2, and checkpoints to go on from."""

from ssl_framework.checkpoint.encoder_file import Loaded, load_encoder, save_encoder
from ssl_framework.checkpoint.training import SaveRun, checkpoints, last_checkpoint

__all__ = ["Loaded", "SaveRun", "checkpoints", "last_checkpoint", "load_encoder", "save_encoder"]
