import torch

from ssl_framework.types import Batch, Views
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
