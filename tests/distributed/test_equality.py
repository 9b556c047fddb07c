"""Several processes with different data on each equal one process with the joined batch, for every task."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_framework import nn as parts
from ssl_framework.nn import Follower
from ssl_framework.pretext import PretextModule
from ssl_framework.types import Views
from support import TASKS, GlobalBatchNorm, MapEncoder, channels, on_ranks, replace_batch_norm, small, some_views, task_class

PER_RANK = 8
STEPS = 3
NORMS: dict[str, Callable[[nn.BatchNorm1d], nn.Module]] = {"none": lambda _: nn.Identity(), "global": GlobalBatchNorm}


def build(task: str, norm: str) -> PretextModule:
    torch.manual_seed(0)
    module = small(task, encoder=MapEncoder(6, channels(task))).double()
    replace_batch_norm(module, NORMS[norm])
    module.progress = 0.5  # schedules, queues and prototypes are all in motion
    return module


def batches(task: str, world: int) -> list[Views]:
    """A batch for each step, the same on every process, with local crops where views are compared."""
    made = []
    for step in range(STEPS):
        views = some_views(task, PER_RANK * world, seed=step)
        crops = views.global_crops.double()
        local = crops[:1].flip(-1) if len(crops) > 1 else None
        boxes = views.boxes if local is None or views.boxes is None else torch.cat([views.boxes, views.boxes[:1]])
        made.append(views._replace(global_crops=crops, local_crops=local, boxes=None if boxes is None else boxes.double()))
    return made


def share_of(views: Views, rank: int) -> Views:
    rows = slice(rank * PER_RANK, (rank + 1) * PER_RANK)
    assert views.index is not None
    assert views.key is not None
    local = None if views.local_crops is None else views.local_crops[:, rows]
    boxes = None if views.boxes is None else views.boxes[:, rows]
    return Views(views.global_crops[:, rows], local, views.index[rows], views.key[rows], boxes)


def train(module: PretextModule, views: list[Views], *, average: bool) -> dict[str, Tensor]:
    """Some steps of gradient descent: the losses, the gradients of the first and last, and what moves without one."""
    found: dict[str, Tensor] = {}
    followers = [child for child in module.modules() if isinstance(child, Follower)]
    for number, batch in enumerate(views):
        module.zero_grad()
        loss = module(batch).loss
        loss.backward()
        loss = loss.detach()
        trained = {name: p for name, p in module.named_parameters() if p.grad is not None}
        for value in (loss, *(p.grad for p in trained.values())) if average else ():
            assert value is not None
            dist.all_reduce(value)
            value.div_(dist.get_world_size())
        found[f"loss {number}"] = loss
        found |= {f"gradient {number} {name}": p.grad.clone() for name, p in trained.items() if p.grad is not None}
        with torch.no_grad():
            for p in trained.values():
                assert p.grad is not None
                p.sub_(0.05 * p.grad)
        for follower in followers:
            follower.follow(0.5)
    for name, child in module.named_modules():
        if isinstance(child, Follower):
            found |= {f"{name} {key}": value for key, value in tensors(child.state_dict()).items()}
    return found


def tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """What a follower keeps, its plain numbers, too."""
    found = {key: value.detach().clone() for key, value in state.items() if isinstance(value, Tensor)}
    plain = {f"{key} {k}": v for key, value in state.items() if isinstance(value, dict) for k, v in value.items()}
    return found | {key: torch.tensor(float(value)) for key, value in plain.items()}


def on_one_rank(rank: int, world: int, task: str, norm: str) -> dict[str, Tensor]:
    return train(build(task, norm), [share_of(views, rank) for views in batches(task, world)], average=True)


def differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """What is not equal, to 1e-5 in a loss and 1e-4 of the largest entry in anything else."""
    assert found.keys() == expected.keys()
    wrong = []
    for name, value in expected.items():
        error, scale = (found[name] - value).abs().max().item(), value.abs().max().item()
        if not error <= (1e-5 if name.startswith("loss") else 1e-4) * scale + 1e-12:
            wrong.append(f"{name}: {error:.2e} of {scale:.2e}")
    return wrong


@pytest.mark.parametrize(
    ("world", "norm"),
    [(2, "global"), *(pytest.param(*more, marks=pytest.mark.slow) for more in ((2, "none"), (3, "none"), (3, "global")))],
)
@pytest.mark.parametrize("task", TASKS)
def test_processes_train_as_one(task: str, norm: str, world: int):
    expected = train(build(task, norm), batches(task, world), average=False)
    assert sum(name.startswith("gradient") for name in expected) >= 2 * STEPS
    for found in on_ranks(world, on_one_rank, task, norm):
        assert differences(found, expected) == []


# What is known to go wrong in other libraries, planted here: the comparison must see it.


class Constant(torch.autograd.Function):
    """A sum over processes without a gradient through the others: torch.distributed.all_reduce in a loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / dist.get_world_size()


FAULTS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "a mean without gradients": ("barlow_twins", "mean_over_processes", Constant.apply),
    "statistics of the own process in a loss": ("barlow_twins", "mean_over_processes", lambda x: x),
    "a dropped sum in a test of normality": ("lejepa", "mean_over_processes", lambda x: x),
    "samples that are not gathered": ("frossl", "gather", lambda x: x),
}


def with_a_fault(rank: int, world: int, fault: str) -> dict[str, Tensor]:
    task, name, wrong = FAULTS[fault]
    module = __import__(task_class(task).__module__, fromlist=[name])
    setattr(module, name, wrong)  # in this process only
    return on_one_rank(rank, world, task, "none")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault: str):
    task = FAULTS[fault][0]
    expected = train(build(task, "none"), batches(task, 2), average=False)
    assert any(differences(found, expected) for found in on_ranks(2, with_a_fault, fault))


def with_a_queue_of_its_own(rank: int, world: int) -> dict[str, Tensor]:
    parts.queue.gather = lambda x: x
    return on_one_rank(rank, world, "moco_v2", "none")


def with_a_centre_of_its_own(rank: int, world: int) -> dict[str, Tensor]:
    parts.centre.mean_over_processes = lambda x: x
    return on_one_rank(rank, world, "dino", "none")


def with_the_diagonal_of_the_first_rank(rank: int, world: int) -> dict[str, Tensor]:
    parts.contrast.own_rows = lambda batch: slice(0, batch)
    return on_one_rank(rank, world, "moco_v3", "none")


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ("moco_v2", with_a_queue_of_its_own),
        ("dino", with_a_centre_of_its_own),
        ("moco_v3", with_the_diagonal_of_the_first_rank),
    ],
)
def test_a_planted_fault_of_a_part_is_seen(task: str, fault: Callable[..., dict[str, Tensor]]):
    expected = train(build(task, "none"), batches(task, 2), average=False)
    assert any(differences(found, expected) for found in on_ranks(2, fault))
