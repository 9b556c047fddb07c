"""The last keys of a training, first in, first out."""

import torch
from lightly.utils import dist
from torch import Tensor
from torch.nn import functional as F

from ssl_framework.nn.distributed import gather
from ssl_framework.nn.follower import Follower


class Queue(Follower):
    """The keys of the last batches of all processes: MoCo, He et al., 2020, https://arxiv.org/abs/1911.05722, section 3.2.

    It begins with random unit vectors, as the official code does (``builder.py``), and each step's keys take the place of the
    oldest.

    Args:
        size: keys that are held.
        dim: width of a key.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"queue_size={size}: a queue holds at least one key.")
        self.rows: Tensor
        self.next: Tensor
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))
        self._staged: list[Tensor] = []

    def share(self) -> Tensor:
        """``(size / W, dim)``: the rows that are this process's, where each stands once over all processes."""
        return self.rows[dist.rank() :: dist.world_size()]

    def stage(self, keys: Tensor) -> None:
        """Remember ``(B, dim)`` keys of this process until the optimiser has moved. In evaluation nothing is remembered."""
        if self.training:
            self._staged.append(gather(keys.detach()))

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """Put what was staged in the place of the oldest keys."""
        if not self._staged:
            return
        keys = torch.cat(self._staged)[-len(self.rows) :].to(self.rows.dtype)
        self._staged.clear()
        places = (self.next + torch.arange(len(keys), device=keys.device)) % len(self.rows)
        self.rows.index_copy_(0, places, keys)
        self.next.add_(len(keys)).remainder_(len(self.rows))
