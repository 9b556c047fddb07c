"""Several processes with different data on each equal one process with the joined batch."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_framework.pretext import SimCLR
from support import GlobalBatchNorm, LinearEncoder, on_ranks, replace_batch_norm, views_of

PER_RANK = 4


def task(norm: str) -> SimCLR:
    torch.manual_seed(0)
    module = SimCLR(LinearEncoder(12, 6), hidden_dim=8, projection_dim=4).double()
    replace_batch_norm(module, GlobalBatchNorm if norm == "global" else lambda _: nn.Identity())
    return module


def batch(world: int) -> Tensor:
    return torch.randn(2, PER_RANK * world, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_and_gradients(module: nn.Module, crops: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    loss = module(views_of(crops)).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def on_one_rank(rank: int, world: int, norm: str) -> Any:
    share = batch(world)[:, rank * PER_RANK : (rank + 1) * PER_RANK]
    loss, gradients = loss_and_gradients(task(norm), share)
    for value in (loss, *gradients.values()):  # DistributedDataParallel's mean
        dist.all_reduce(value)
        value.div_(world)
    return loss, gradients


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("norm", ["none", "global"])
def test_simclr(world: int, norm: str):
    loss, gradients = loss_and_gradients(task(norm), batch(world))
    for rank_loss, rank_gradients in on_ranks(world, on_one_rank, norm):
        torch.testing.assert_close(rank_loss, loss, rtol=1e-10, atol=0)
        assert rank_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(rank_gradients[name], gradient, rtol=1e-8, atol=1e-12)


def without_gathering(rank: int, world: int, norm: str) -> Any:
    module = task(norm)
    module.criterion.criterion.gather_distributed = False
    share = batch(world)[:, rank * PER_RANK : (rank + 1) * PER_RANK]
    return loss_and_gradients(module, share)


def test_the_comparison_sees_a_loss_that_is_not_gathered():
    loss, _ = loss_and_gradients(task("none"), batch(2))
    losses = [found for found, _ in on_ranks(2, without_gathering, "none")]
    assert abs(sum(losses) / 2 - loss) > 0.1
