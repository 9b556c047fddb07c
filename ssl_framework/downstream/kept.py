"""What an encoder that stands still says of the images to learn from, computed once for all steps."""

from collections.abc import Callable

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from ssl_framework.downstream.freezing import Frozen, Policy
from ssl_framework.downstream.heads import PooledHead

LIMIT = 2**30  # bytes, in each process
_AT_ONCE = 256  # images


class Kept:
    """The vectors that a head reads, one for each image to learn from. A step then costs the head alone.

    Args:
        policy: a step that changes the encoder, or BatchNorm's statistics, makes them stale.
        head: so does a pooling that learns.
        augmented: so does a new crop in each pass.

    Attributes:
        still: no step changes what the head reads of an image.
    """

    def __init__(self, policy: Policy, head: PooledHead, augmented: bool) -> None:
        self.like = head.standard
        learns = type(policy) is not Frozen or policy.batch_norm == "adapt"
        self.still = not learns and next(head.pool.parameters(), None) is None
        self.possible = self.still and not head.on_tokens and not augmented
        self.vectors: Tensor | None = None

    def due(self, images: int, asked: int, trainer: pl.Trainer) -> bool:
        """Whether to keep them.

        Args:
            images: to learn from.
            asked: images of all steps; where they are fewer, it does not pay.
            trainer: on one device, or with DDP.
        """
        plain = trainer.world_size == 1 or isinstance(trainer.strategy, DDPStrategy)
        return self.possible and plain and images <= asked and images * self.like.mean.nbytes <= LIMIT

    @torch.no_grad()
    def fill(self, images: int, read: Callable[[Tensor], Tensor], trainer: pl.Trainer) -> None:
        """Compute them: the same ones however often, for a run that goes on as for one that was never stopped.

        Args:
            images: to learn from.
            read: rows to vectors, in evaluation mode.
            trainer: its processes share the work.
        """
        mean = self.like.mean
        vectors = mean.new_zeros(images, len(mean))
        parts = torch.arange(images).split(_AT_ONCE)
        with trainer.precision_plugin.forward_context():
            for rows in parts[trainer.global_rank :: trainer.world_size]:
                vectors[rows[0] : rows[-1] + 1] = read(rows)
        reduced = trainer.strategy.reduce(vectors, reduce_op="sum")
        assert isinstance(reduced, Tensor)
        self.vectors = reduced
