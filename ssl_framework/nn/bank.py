"""What was last said of every sample of the training data."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_framework import keyed
from ssl_framework.nn.distributed import gather
from ssl_framework.nn.follower import Follower

_STREAM = 1_000_023


class MemoryBank(Follower):
    """A moving unit vector of each sample: NPID, Wu et al., 2018, https://arxiv.org/abs/1805.01978, section 3.1.

    It begins with random unit vectors. How many samples there are it learns from `begin`; if nobody tells, it makes room as
    samples turn up.

    Args:
        dim: width of a vector.
        momentum: of a vector; the official code takes 0.5.
    """

    _told = False  # how many samples there are: each fit says it anew, so no checkpoint keeps it

    def __init__(self, dim: int, momentum: float = 0.5) -> None:
        super().__init__()
        self.dim, self.momentum = dim, momentum
        self.rows: Tensor
        self.register_buffer("rows", torch.empty(0, dim))
        self._staged: list[tuple[Tensor, Tensor]] = []

    def begin(self, samples: int) -> None:
        """Make room; what is there stays."""
        self._told = True
        self._grow(samples)

    def _grow(self, samples: int) -> None:
        if samples > len(self.rows):
            index = torch.arange(len(self.rows), samples)
            self.rows = torch.cat([self.rows, self._fresh(index).to(self.rows)])

    def _fresh(self, index: Tensor) -> Tensor:
        """Vectors ``(B, dim)`` of samples that nothing was said of, the same on every process."""
        return F.normalize(keyed.normal(keyed.mix(0, index), _STREAM, self.dim), dim=1)

    def look_up(self, index: Tensor) -> Tensor:
        """``(B,)`` samples of this process to their vectors ``(B, dim)``. Those of validation are others."""
        if not self._told:
            self._grow(int(gather(index).max()) + 1)  # a GPU waits here
        return self.rows[index]

    def draw(self, key: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Samples drawn with replacement, the same on all processes.

        Args:
            key: ``(B,)`` of the batch, see `Views`.
            count: of samples.

        Returns:
            ``(count,)`` samples and their vectors ``(count, dim)``.
        """
        if len(self.rows) == 0:
            self._grow(1)  # validation before any training
        drawn = keyed.uniform(gather(key).sum()[None], _STREAM, count)[0]
        samples = (drawn * len(self.rows)).long()
        return samples, self.rows[samples]

    def stage(self, index: Tensor, z: Tensor) -> None:
        """Remember unit vectors ``(B, dim)`` of samples until the optimiser has moved. In evaluation nothing is remembered."""
        if self.training:
            self._staged.append((gather(index), gather(z.detach())))

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """Move the vectors of what was staged."""
        for index, z in self._staged:
            moved = self.momentum * self.rows[index] + (1 - self.momentum) * z.to(self.rows.dtype)
            self.rows.index_copy_(0, index, F.normalize(moved, dim=1)[_last(index, len(self.rows))])
        self._staged.clear()

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]  (the rest of its arguments is torch's own affair)
        self, state_dict: Mapping[str, Any], prefix: str, *rest: Any
    ) -> None:
        """A bank takes the size of what is loaded."""
        loaded = state_dict.get(f"{prefix}rows")
        if isinstance(loaded, Tensor) and loaded.shape[1:] == self.rows.shape[1:]:
            self.rows = self.rows.new_empty(loaded.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)  # pyright: ignore[reportArgumentType]  (a dict where torch types one)


def _last(index: Tensor, samples: int) -> Tensor:
    """Where each of ``(B,)`` samples stands last: of one that is twice in a batch, a GPU would keep either vector."""
    places = torch.arange(len(index), device=index.device)
    return places.new_zeros(samples).scatter_reduce_(0, index, places, "amax")[index]
