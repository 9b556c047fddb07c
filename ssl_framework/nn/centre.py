"""A moving mean of what a teacher says."""

import torch
from torch import Tensor

from ssl_framework.nn.distributed import mean_over_processes
from ssl_framework.nn.follower import Follower


class Centre(Follower):
    """The mean of all outputs of all processes, moving: DINO, Caron et al., 2021, https://arxiv.org/abs/2104.14294, equation 4.

    Args:
        dim: width ``K`` of an output.
        momentum: of the mean; 0.9 in the official code (``main_dino.py``).
    """

    def __init__(self, dim: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.value: Tensor
        self.register_buffer("value", torch.zeros(dim))
        self._staged: list[Tensor] = []

    def stage(self, outputs: Tensor) -> None:
        """Remember the mean of ``(..., K)`` outputs until the optimiser has moved. In evaluation nothing is remembered."""
        if self.training:
            self._staged.append(outputs.detach().flatten(0, -2).mean(0))

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """Move towards the mean of what was staged."""
        if not self._staged:
            return
        mean = mean_over_processes(torch.stack(self._staged).mean(0)).to(self.value.dtype)
        self._staged.clear()
        self.value.lerp_(mean, 1.0 - self.momentum)
