"""What is drawn: torchvision's distributions, per sample, from the key alone."""

import math
from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop

from ssl_framework import keyed
from ssl_framework.views.draw import ATTEMPTS, NO_AFFINE, NO_JITTER, ImageDraw, ViewSpec, boxes, draw_views

FULL = ViewSpec(
    crop=True,
    flip=0.5,
    degrees=20,
    translate=0.1,
    scale=(0.8, 1.2),
    shear=5,
    brightness=0.8,
    contrast=0.4,
    saturation=1.2,
    hue=0.2,
    jitter_p=0.8,
    grey_p=0.2,
    blur_p=0.5,
    solarize_p=0.1,
)
KEYS = keyed.mix(0, 0, torch.arange(4000))


def test_probabilities_and_ranges():
    drawn = draw_views([FULL], [], KEYS)
    within = {"flip": 0.5, "grey": 0.2, "solarize": 0.1}
    for name, share in within.items():
        assert abs(getattr(drawn, name).float().mean() - share) < 0.03, name
    jittered = (drawn.jitter != torch.tensor(NO_JITTER)).any(dim=2)
    assert abs(jittered.float().mean() - 0.8) < 0.03
    assert abs((drawn.blur > 0).float().mean() - 0.5) < 0.03
    factors = drawn.jitter[jittered]
    for column, (low, high) in enumerate([(0.2, 1.8), (0.6, 1.4), (0.0, 2.2), (-0.2, 0.2)]):
        assert factors[:, column].min() == pytest.approx(low, abs=0.005)
        assert factors[:, column].max() == pytest.approx(high, abs=0.005)
        assert factors[:, column].mean() == pytest.approx((low + high) / 2, abs=0.03)
    for column, (low, high) in enumerate([(-20, 20), (-0.1, 0.1), (-0.1, 0.1), (0.8, 1.2), (-5, 5)]):
        values = drawn.affine[0, :, column]
        assert values.min() == pytest.approx(low, abs=0.01 * (high - low))
        assert values.max() == pytest.approx(high, abs=0.01 * (high - low))
    sigma = drawn.blur[drawn.blur > 0]
    assert sigma.min() == pytest.approx(0.1, abs=0.01)
    assert sigma.max() == pytest.approx(2.0, abs=0.01)


def test_all_24_orders_of_jitter_are_equally_likely():
    orders, counts = draw_views([FULL], [], KEYS).order[0].unique(dim=0, return_counts=True)
    assert len(orders) == 24
    expected = len(KEYS) / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # 99.9 % of chi-square with 23 degrees of freedom


def test_nothing_happens_by_default():
    drawn = draw_views([ViewSpec()], [], KEYS)
    assert not any(field.any() for field in (drawn.flip, drawn.grey, drawn.solarize, drawn.blur))
    assert (drawn.affine == torch.tensor(NO_AFFINE)).all()
    assert (drawn.jitter == torch.tensor(NO_JITTER)).all()


def test_boxes_are_distributed_like_torchvision_s():
    spec = replace(FULL, crop_scale=(0.2, 1.0), crop_ratio=(0.6, 1.5))
    ours = boxes(draw_views([spec], [], KEYS).crop[0], spec, (40, 61), (32, 32)).double()
    transform = RandomResizedCrop(32, scale=spec.crop_scale, ratio=spec.crop_ratio)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [transform.make_params([torch.zeros(3, 40, 61)]) for _ in range(len(KEYS))]
    theirs = torch.tensor([[d["top"], d["left"], d["height"], d["width"]] for d in drawn], dtype=torch.float64)
    for statistic in (ours, theirs):
        assert (statistic[:, :2] + statistic[:, 2:] <= torch.tensor([40, 61])).all()
    for power in (1, 2):  # means and second moments, within 4 standard errors of the difference
        difference = (ours**power).mean(0) - (theirs**power).mean(0)
        error = (((ours**power).var(0) + (theirs**power).var(0)) / len(KEYS)).sqrt()
        assert (difference.abs() < 4 * error).all(), (power, difference / error)


def naive_box(uniforms: list[list[float]], spec: ViewSpec, height: int, width: int) -> list[int]:
    """torchvision's loop, with the numbers given."""
    low, high = (math.log(r) for r in spec.crop_ratio)
    for area_u, ratio_u, top_u, left_u in uniforms:
        area = height * width * (spec.crop_scale[0] + area_u * (spec.crop_scale[1] - spec.crop_scale[0]))
        ratio = math.exp(low + ratio_u * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return [int(top_u * (height - h + 1)), int(left_u * (width - w + 1)), h, w]
    w, h = width, height
    if width / height < spec.crop_ratio[0]:
        h = round(w / spec.crop_ratio[0])
    elif width / height > spec.crop_ratio[1]:
        w = round(h * spec.crop_ratio[1])
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize("source", [(32, 32), (40, 61), (200, 9), (9, 200), (1, 1), (2, 3)])
def test_boxes_are_torchvision_s_loop(source: tuple[int, int]):
    drawn = draw_views([FULL], [], KEYS[:300]).crop[0]
    ours = boxes(drawn, FULL, source, (32, 32))
    assert ours.tolist() == [naive_box(u, FULL, *source) for u in drawn.double().tolist()]


def test_an_attempt_at_the_end_of_the_range_stays_inside():
    spec = ViewSpec(crop=True, crop_scale=(0.25, 0.25), crop_ratio=(1, 1))
    assert boxes(torch.ones(1, ATTEMPTS, 4), spec, (40, 40), (8, 8)).tolist() == [[20, 20, 20, 20]]


def test_without_a_crop_the_centre_with_the_shape_of_the_output_is_taken():
    uniforms = torch.zeros(2, ATTEMPTS, 4)
    assert boxes(uniforms, ViewSpec(), (28, 28), (28, 28)).tolist() == [[0, 0, 28, 28]] * 2
    assert boxes(uniforms, ViewSpec(), (40, 60), (20, 20)).tolist() == [[0, 10, 40, 40]] * 2
    assert boxes(uniforms, ViewSpec(), (60, 40), (10, 20)).tolist() == [[20, 0, 20, 40]] * 2


def test_a_draw_belongs_to_its_key_and_view_alone():
    whole = draw_views([FULL, FULL], [FULL], KEYS[:32])
    part = draw_views([FULL, FULL], [FULL], KEYS[5:9])
    for one, other in zip(whole[1:], part[1:], strict=True):
        assert torch.equal(one[:, 5:9], other)
    more = draw_views([FULL] * 3, [FULL] * 2, KEYS[:32])
    for one, other in zip(whole[1:], more[1:], strict=True):
        assert torch.equal(one[:2], other[:2])  # another view leaves the global views,
        assert torch.equal(one[2], other[3])  # and the local ones, as they were
    uniforms = whole.crop.flatten(1)
    assert uniforms[0].ne(uniforms[1]).all()
    assert uniforms[0].ne(uniforms[2]).all()


def test_one_setting_does_not_move_another():
    one = draw_views([FULL], [], KEYS[:64])
    other = draw_views([replace(FULL, flip=0.0, degrees=0.0, jitter_p=0.1, blur_p=1.0)], [], KEYS[:64])
    assert torch.equal(one.crop, other.crop)
    assert torch.equal(one.order, other.order)
    assert torch.equal(one.grey, other.grey)
    assert torch.equal(one.solarize, other.solarize)
    assert torch.equal(one.affine[..., 1:], other.affine[..., 1:])


def test_at_is_the_draw_of_one_sample():
    whole = draw_views([FULL, FULL], [FULL], KEYS[:8])
    for one, other in zip(whole.at(3), draw_views([FULL, FULL], [FULL], KEYS[3:4]), strict=True):
        assert torch.equal(one, other)
    assert isinstance(whole.at(3), ImageDraw)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.5, 1.2)),
        ("crop_scale", (1.0, 0.5)),
        ("crop_ratio", (-1.0, 1.0)),
        ("scale", (0.0, 1.0)),
        ("flip", 1.5),
        ("grey_p", -0.1),
        ("hue", 0.6),
        ("brightness", -1.0),
        ("contrast", math.nan),
        ("degrees", 200.0),
        ("shear", 90.0),
        ("translate", 2.0),
        ("blur_sigma", (0.0, 2.0)),
        ("blur_kernel", 0.0),
        ("solarize_threshold", 128.0),
    ],
)
def test_a_number_out_of_range_is_named_with_the_remedy(name: str, value: object):
    with pytest.raises(ValueError, match=rf"{name}=.*: give ") as error:
        ViewSpec(**{name: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(("side", "kernel"), [(224, 23), (96, 9), (64, 7), (32, 3), (28, 3), (20, 3), (19, 1), (8, 1), (1, 1)])
def test_the_blur_kernel_is_odd_and_a_tenth_of_the_side(side: int, kernel: int):
    assert ViewSpec().blur_kernel_size((side, 2 * side))[0] == kernel
    assert ViewSpec().blur_kernel_size((side, side)) == (kernel, kernel)
