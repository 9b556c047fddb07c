import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ssl_framework.encoders import resnet_micro, vit_micro
from ssl_framework.types import Batch, Encoder, TokenEncoder, ViewMaker, Views
from ssl_framework.views.recipes import two_crops


def test_a_batch_moves_to_the_device_and_its_draw_stays():
    views = two_crops(8, (0.5,) * 3, (0.5,) * 3)
    index, meta, cpu = torch.arange(2), torch.device("meta"), torch.device("cpu")
    crops = views.crop(torch.zeros(3, 9, 9, dtype=torch.uint8), views.draw(index[:1], 0))
    batch = Batch(torch.zeros(2, 3, 8, 8), None, index, index, crops, bad=index, draw=views.draw(index, 0))
    assert batch.to(cpu) is batch
    moved = batch.to(meta)
    assert all(tensor.device == meta for tensor in (moved.input, moved.index, moved.epoch, moved.crops.global_crops))
    assert isinstance(moved.crops, Views)
    assert moved.crops.local_crops is None
    assert moved.target is None
    assert moved.draw is batch.draw
    assert moved.bad is index


@pytest.mark.parametrize(
    ("protocol", "made"),
    [
        (Encoder, lambda: resnet_micro(1, 8)),
        (TokenEncoder, lambda: vit_micro(1, 8)),
        (ViewMaker, lambda: two_crops(8, (0.5,) * 3, (0.5,) * 3)),
    ],
)
def test_isinstance_holds_since_python_312_too(protocol: Any, made: Callable[[], Any]):
    """It looks members up without ``__getattr__`` there, through which a module's submodules and parameters are found."""
    instance = made()
    assert isinstance(instance, protocol)
    members = {name for base in protocol.__mro__ for name in vars(base).get("__annotations__", ())}
    members |= {name for base in protocol.__mro__[:-2] for name in vars(base) if not name.startswith("_")}
    assert members
    for name in members:
        assert inspect.getattr_static(instance, name, None) is not None, name
