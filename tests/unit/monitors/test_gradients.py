"""Gradients, chance and followers at the ends of what they measure."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssl_framework.monitors import Chance
from ssl_framework.monitors.followers import _size
from ssl_framework.monitors.gradients import _norm
from ssl_framework.nn import Teacher


def test_where_nothing_has_a_gradient_the_norm_is_0_on_the_device_of_the_rest():
    none, some = (_norm(tensors, torch.device("meta")) for tensors in ([None, None], [torch.ones(2, device="meta")]))
    assert (none.device.type, none.shape) == ("meta", some.shape)
    torch.stack([none, some])
    assert _norm([None], torch.device("cpu")) == 0


@pytest.mark.parametrize(("chance", "logged"), [(0.0, {}), (2.0, {"chance/loss": 0.5}), (None, {})])
def test_a_batch_of_one_sample_has_no_chance_to_compare_with(chance: float | None, logged: dict[str, float]):
    trainer: Any = SimpleNamespace(global_step=9, max_steps=10, accumulate_grad_batches=1, world_size=1)
    seen = {"loss": torch.tensor(1.0), "chance": chance}
    assert Chance(1).look(trainer, nn.Module(), seen, None) == logged


def test_a_teacher_is_as_far_as_all_its_weights_together():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    teacher = Teacher(student, momentum=0.9)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(torch.randn_like(p))
    now, before = (torch.cat([p.flatten() for p in part.parameters()]) for part in (student, teacher.module))
    torch.testing.assert_close(_size(teacher), ((now - before).norm() / now.norm()).detach())
