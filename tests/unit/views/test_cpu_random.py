"""Draws and boxes of the compiled kernel: the bits of the plain functions."""

import pytest
import torch

from ssl_framework import keyed
from ssl_framework.views import draw as plain
from ssl_framework.views.draw import ImageDraw, Plan, ViewSpec
from ssl_framework.views.kernels import cpu

EVERYTHING = ViewSpec(
    crop=True,
    flip=0.5,
    degrees=30.0,
    translate=0.1,
    scale=(0.8, 1.2),
    shear=10.0,
    brightness=0.8,
    contrast=1.8,
    saturation=0.8,
    hue=0.3,
    jitter_p=0.8,
    grey_p=0.2,
    blur_p=0.5,
    solarize_p=0.3,
)
WIDE = ViewSpec(crop=True, crop_scale=(0.001, 1.0), crop_ratio=(0.01, 100.0))
HUGE = 2**63 - 1


@pytest.mark.parametrize("seed", [0, 1, -1, 12345, HUGE, -HUGE - 1])
def test_draws_have_the_bits_of_the_plain_ones(seed: int):
    index = torch.tensor([*range(200), -1, -200, HUGE, -HUGE - 1, 2**40])
    specs, local = (EVERYTHING, WIDE, ViewSpec()), (ViewSpec(grey_p=1.0), EVERYTHING)
    for epoch in (0, 7, -3, HUGE, torch.arange(len(index)) - 50):
        ours = cpu.draw_views(specs, local, seed, epoch, index)
        theirs = plain.draw_views(specs, local, keyed.mix(seed, epoch, index))
        for name, our, their in zip(ImageDraw._fields, ours, theirs, strict=True):
            assert our.dtype == their.dtype
            assert torch.equal(our, their.expand_as(our)), name


def test_draws_of_an_index_with_gaps_in_memory():
    index = torch.arange(20)[::2]
    ours = cpu.draw_views((EVERYTHING,), (), 3, 1, index)
    assert all(torch.equal(a, b) for a, b in zip(ours, cpu.draw_views((EVERYTHING,), (), 3, 1, index.clone()), strict=True))


@pytest.mark.parametrize("source", [(32, 32), (256, 300), (1, 1), (1, 40), (40, 1), (7, 90), (500, 375)])
def test_boxes_have_the_bits_of_the_plain_ones(source: tuple[int, int]):
    one = ViewSpec(crop=True, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    plan = Plan((EVERYTHING, WIDE, one, ViewSpec()), (WIDE, ViewSpec()), (32, 24), (9, 30))
    sizes = [plan.size] * 4 + [plan.local_size] * 2
    crop = cpu.draw_views(plan.global_views, plan.local_views, 0, 0, torch.arange(500)).crop
    crop[:, :50] = 1.0  # what float32 rounds numbers close to 1 to
    ours = cpu.boxes(crop, plan, source)
    for v, (spec, size) in enumerate(zip((*plan.global_views, *plan.local_views), sizes, strict=True)):
        assert torch.equal(ours[v], plain.boxes(crop[v], spec, source, size))


def test_indices_of_another_type_are_refused():
    with pytest.raises(AssertionError, match=r"index is .*int32"):
        cpu.draw_views((ViewSpec(),), (), 0, 0, torch.arange(3, dtype=torch.int32))
    with pytest.raises(AssertionError, match=r"uniforms is .*float64"):
        cpu.boxes(torch.zeros(1, 3, 10, 4, dtype=torch.float64), Plan((ViewSpec(),), (), (5, 5), (5, 5)), (9, 9))
