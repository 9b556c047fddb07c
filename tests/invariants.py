"""Every task in float64 and in motion, and views of every sort, for tests of what must hold exactly."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_framework.nn import Follower, Teacher
from ssl_framework.types import Views
from support import TASKS, MapEncoder, channels, small, some_views, task_class

BATCH = 8
JOINT = [task for task in TASKS if task_class(task).card.views == 2]
every_task = pytest.mark.parametrize("task", TASKS)
every_joint_task = pytest.mark.parametrize("task", JOINT)


def build(task: str, *, normalised: bool = False) -> Any:
    """The task in float64 in the middle of its training: a teacher is no longer its student.

    Args:
        task: its name.
        normalised: with BatchNorm in the encoder, if that is a CNN.
    """
    torch.manual_seed(0)
    module: Any = small(task, encoder=None if normalised else MapEncoder(6, channels(task))).double()
    module.progress = 0.5
    with torch.no_grad():
        for teacher in (child for child in module.modules() if isinstance(child, Teacher)):
            for parameter in teacher.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@cache
def exact_views(task: str, side: int = 4, batch: int = BATCH, seed: int = 0) -> Views:
    """Real digits in float64, for joint-embedding tasks with two local crops of a height and width of `side`."""
    views = some_views(task, batch, seed)
    x, boxes = views.global_crops.double(), None if views.boxes is None else views.boxes.double()
    if task not in JOINT:
        return views._replace(global_crops=x, boxes=boxes)
    noise = torch.randn(2, *x.shape[1:], dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    local = (x.flip(-1) + 0.1 * noise)[..., :side, :side].contiguous()
    return views._replace(
        global_crops=x, local_crops=local, boxes=None if boxes is None else torch.cat([boxes, boxes.flip(0) + 1])
    )


def crops_of(views: Views, chosen: list[int], local: list[int]) -> Views:
    """Some crops in some order, with their boxes."""
    rows = [*chosen, *(len(views.global_crops) + i for i in local)]
    return views._replace(
        global_crops=views.global_crops[chosen],
        local_crops=None if views.local_crops is None or not local else views.local_crops[local],
        boxes=None if views.boxes is None else views.boxes[rows],
    )


def samples_of(views: Views, order: Tensor) -> Views:
    """The samples in another order, with everything that is known of them."""
    crops = {
        name: None if (x := getattr(views, name)) is None else x[:, order] for name in ("global_crops", "local_crops", "boxes")
    }
    return views._replace(
        **crops, index=None if views.index is None else views.index[order], key=None if views.key is None else views.key[order]
    )


def followers(module: nn.Module) -> list[Follower]:
    return [child for child in module.modules() if isinstance(child, Follower)]


def difference(loss: Tensor, expected: Tensor) -> float:
    """Relative to what is expected."""
    return abs(float(loss.detach() / expected.detach()) - 1)
