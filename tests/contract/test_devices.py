"""A step stays on the device of its views: seen without a GPU, by fake tensors, which know shapes and devices and no values."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv

from ssl_framework.nn import Follower
from ssl_framework.types import Views
from support import TASKS, digits_data, small, some_views

AS_FAR_AS = {
    "aim": "patches behind the prefix, which differ in number",
    "dcl": "lightly's mask",
    "dinov2": "hidden tokens, which differ in number",
    "ibot": "hidden tokens, which differ in number",
    "w_mse": "whether the covariance could be factored",
}
"""Tasks whose step asks for a value, which no fake tensor has: they are followed up to there."""


@pytest.mark.parametrize("task", TASKS)
def test_a_step_stays_on_the_device_of_its_views(task: str):
    module, views, fake = small(task), some_views(task), FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
    module.progress = 0.5
    for follower in (part for part in module.modules() if isinstance(part, Follower)):
        follower.begin(len(digits_data(task).split("train")))

    def moved(tensor: Tensor) -> Tensor:
        there = fake.from_tensor(tensor.detach())
        with fake:
            return there.to("cuda")

    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(moved(parameter), requires_grad=parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, moved(buffer))
    there = Views(moved(views.global_crops), *(None if value is None else moved(value) for value in views[1:]))
    with fake:
        try:
            loss = module(there).loss
        except GuardOnDataDependentSymNode:
            assert task in AS_FAR_AS
        else:
            assert task not in AS_FAR_AS, "it can be followed to its end now"
            assert loss.device == torch.device("cuda", 0)
