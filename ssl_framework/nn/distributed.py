"""What the processes of a training say together, with gradients: every process's share of a batch has the same size.

DistributedDataParallel averages the gradients of processes. A loss that is the same number on all of them, computed from what
`gather` and `mean_over_processes` return, then has the gradient that one process has on the joined batch.
"""

from typing import Any

import torch
from lightly.utils import dist
from torch import Tensor


def gather(x: Tensor) -> Tensor:
    """``(B, ...)`` of every process, joined in the order of ranks: ``(W * B, ...)``. Gradients go back to whom they belong."""
    return torch.cat(dist.gather(x.contiguous())) if dist.world_size() > 1 else x


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of a tensor over processes, with gradients: ``torch.distributed.all_reduce`` in a loss has none."""
    return _Mean.apply(x) if dist.world_size() > 1 else x  # pyright: ignore[reportReturnType]  (apply() has no type)


def take_from_first(x: Tensor) -> None:
    """Give `x` the values that the first process has, on all of them."""
    if dist.world_size() > 1:
        torch.distributed.broadcast(x, src=0)


def over_processes(count: int) -> int:
    """So many of each process, all together."""
    return count * dist.world_size()


def own_rows(batch: int) -> slice:
    """Where this process's rows stand among those that `gather` joined."""
    return slice(dist.rank() * batch, (dist.rank() + 1) * batch)


class _Mean(torch.autograd.Function):
    """Each process's number counts 1 / W in what all of them get, so each gets 1 / W of the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return _mean(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _mean(gradients[0])


def _mean(x: Tensor) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total / dist.world_size()
