"""The compiled kernel against the reference, for random and for awkward parameters.

The tolerance is 2e-5, pixels in [0, 1]. The reference runs in float64 where its own rounding of looked-up places would be more
than that. Where solarize is a step, pixels within 1e-4 of the threshold are left out.
"""

import dataclasses
import itertools
import multiprocessing
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ssl_framework.views.draw import NO_JITTER, ImageDraw, Plan, ViewSpec
from ssl_framework.views.kernels import cpu, reference

TOLERANCE = 2e-5
MEAN, STD = (0.5, 0.4, 0.45), (0.2, 0.25, 0.3)
NOTHING = ViewSpec()
ONE_BY_ONE = {
    "nothing": NOTHING,
    "crop": ViewSpec(crop=True),
    "flip": ViewSpec(flip=0.5),
    "rotation": ViewSpec(degrees=180.0),
    "shift": ViewSpec(translate=0.4),
    "zoom": ViewSpec(scale=(0.3, 3.0)),
    "shear": ViewSpec(shear=45.0),
    "brightness": ViewSpec(brightness=1.0, jitter_p=1.0),
    "contrast": ViewSpec(contrast=1.0, jitter_p=1.0),
    "saturation": ViewSpec(saturation=1.0, jitter_p=1.0),
    "hue": ViewSpec(hue=0.5, jitter_p=1.0),
    "jitter": ViewSpec(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5, jitter_p=1.0),
    "grey": ViewSpec(grey_p=0.7),
    "blur": ViewSpec(blur_p=1.0, blur_sigma=(0.01, 3.0), blur_kernel=0.4),
    "solarize": ViewSpec(solarize_p=1.0, solarize_threshold=0.4),
}
EVERYTHING = ViewSpec(
    crop=True,
    flip=0.5,
    degrees=30.0,
    translate=0.1,
    scale=(0.8, 1.2),
    shear=10.0,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.3,
    jitter_p=0.8,
    grey_p=0.2,
    blur_p=0.5,
    blur_kernel=0.3,
    solarize_p=0.3,
)
STRONGEST = dataclasses.replace(
    EVERYTHING,
    crop_scale=(0.001, 1.0),
    crop_ratio=(0.2, 5.0),
    brightness=1.0,
    contrast=1.0,
    saturation=1.0,
    hue=0.5,
    jitter_p=1.0,
    blur_p=1.0,
    blur_sigma=(0.01, 8.0),
    blur_kernel=1.0,
)
COLOURLESS = dataclasses.replace(EVERYTHING, jitter_p=0.0, grey_p=0.0)
SIZES = [((32, 32), (32, 32)), ((40, 57), (24, 36)), ((64, 50), (9, 33)), ((17, 9), (31, 40)), ((70, 90), (5, 6))]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan_of(*views: ViewSpec, size: tuple[int, int], local: tuple[ViewSpec, ...] = (), local_size: tuple[int, int] = (8, 8)):
    return Plan(views, local, size, local_size)


def images(batch: int, channels: int, source: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (batch, channels, *source), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def drawn(plan: Plan, batch: int, source: tuple[int, int], seed: int = 0) -> tuple[ImageDraw, Tensor]:
    draw = cpu.draw_views(plan.global_views, plan.local_views, seed, 0, torch.arange(batch))
    return draw, cpu.boxes(draw.crop, plan, source)


def sized(plan: Plan) -> list[tuple[ViewSpec, tuple[int, int]]]:
    views = [(spec, plan.size) for spec in plan.global_views]
    return views + [(spec, plan.local_size) for spec in plan.local_views]


def facts(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(MEAN[c % 3] for c in range(channels)), tuple(STD[c % 3] for c in range(channels))


def coloured(view: Tensor, draw: ImageDraw, v: int, spec: ViewSpec) -> tuple[Tensor, Tensor]:
    """What the reference makes of a view in [0, 1], not normalised; and where nobody can say on which side solarize falls."""
    view = reference.grey(reference.jitter(view, draw.jitter[v], draw.order[v]), draw.grey[v])
    view = reference.gaussian_blur(view, draw.blur[v].to(view.dtype), spec.blur_kernel_size((view.shape[2], view.shape[3])))
    doubtful = ((view - spec.solarize_threshold).abs() < 1e-4) & draw.solarize[v][:, None, None, None]
    return reference.solarize(view, draw.solarize[v], spec.solarize_threshold), doubtful


def check_views(pixels: Tensor, boxes: Tensor, draw: ImageDraw, plan: Plan) -> None:
    """Every view of every sample is what the operators of the reference say."""
    mean, std = facts(pixels.shape[1])
    made, local = cpu.make_views(pixels, boxes, draw, plan, mean, std, torch.float32)
    centre, width = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
    for v, (spec, size) in enumerate(sized(plan)):
        cropped = reference.resized_crop(pixels.double() / 255, boxes[v], draw.flip[v], size)
        expected, doubtful = coloured(reference.affine(cropped, draw.affine[v].double()), draw, v, spec)
        group, number = (made, v) if v < len(plan.global_views) else (local, v - len(plan.global_views))
        assert group is not None
        difference = (group[number] * width + centre - expected).abs().masked_fill(doubtful, 0)
        assert doubtful.double().mean() < 0.02
        assert difference.max() < TOLERANCE


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_every_operator_alone(name: str, channels: int):
    for seed, (source, size) in enumerate(SIZES[:3]):
        plan = plan_of(ONE_BY_ONE[name], size=size)
        check_views(images(16, channels, source, seed), *reversed(drawn(plan, 16, source, seed)), plan)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("source", "size"), SIZES)
def test_all_operators_together(source: tuple[int, int], size: tuple[int, int], channels: int):
    plan = plan_of(EVERYTHING, STRONGEST, size=size)
    for seed in range(3):
        check_views(images(32, channels, source, seed), *reversed(drawn(plan, 32, source, seed)), plan)


@pytest.mark.parametrize("channels", [2, 5])
def test_other_channels_without_colour(channels: int):
    for seed, (source, size) in enumerate(SIZES):
        plan = plan_of(COLOURLESS, size=size)
        check_views(images(16, channels, source, seed), *reversed(drawn(plan, 16, source, seed)), plan)


def test_large_views_and_small_ones():
    """Several blocks of rows a view, several vector registers a line, and another size beside it."""
    everything = dataclasses.replace(EVERYTHING, blur_kernel=0.1, blur_p=1.0)
    plan = plan_of(everything, NOTHING, size=(224, 224), local=(everything, NOTHING), local_size=(96, 80))
    check_views(images(3, 3, (256, 300)), *reversed(drawn(plan, 3, (256, 300))), plan)


def test_the_plain_function_of_the_reference():
    colours = dataclasses.replace(EVERYTHING, degrees=0.0, translate=0.0, scale=(1.0, 1.0), shear=0.0, solarize_p=0.0)
    plan = plan_of(colours, colours, size=(32, 24), local=(colours,), local_size=(12, 16))
    pixels = images(64, 3, (40, 36))
    draw, boxes = drawn(plan, 64, (40, 36))
    flat = ((0.0,) * 3, (1.0,) * 3)
    ours = cpu.make_views(pixels, boxes, draw, plan, *flat, torch.float32)
    theirs = reference.make_views(pixels, boxes, draw, plan, *flat, torch.float32)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (12, 17), (40, 40)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_boxes_on_the_edges(size: tuple[int, int], channels: int):
    height, width = 21, 34
    corners = [(top, left, 1, 1) for top in (0, height - 1) for left in (0, width - 1)]
    lines = [(0, 0, 1, width), (height - 1, 0, 1, width), (0, 0, height, 1), (0, width - 1, height, 1)]
    borders = [(0, 5, 9, 7), (12, 5, 9, 7), (6, 0, 9, 7), (6, 27, 9, 7), (0, 0, height, width), (5, 5, 2, 2), (4, 1, 3, 30)]
    boxes = torch.tensor([*corners, *lines, *borders])[None].repeat(2, 1, 1)
    batch = boxes.shape[1]
    plan = plan_of(NOTHING, NOTHING, size=size)
    draw, _ = drawn(plan, batch, (height, width))
    draw = draw._replace(flip=torch.tensor([[False], [True]]).repeat(1, batch))
    check_views(images(batch, channels, (height, width)), boxes, draw, plan)


def test_every_order_of_the_jitter():
    orders = torch.tensor(list(itertools.permutations(range(4))))  # (24, 4)
    factors = torch.tensor([1.3, 0.6, 1.5, 0.2])
    some = [
        torch.where(torch.tensor(on), factors, torch.tensor(NO_JITTER)) for on in itertools.product([True, False], repeat=4)
    ]
    plan = plan_of(NOTHING, size=(8, 9))
    pixels = images(24, 3, (8, 9))
    draw, boxes = drawn(plan, 24, (8, 9))
    for factor in some:
        check_views(pixels, boxes, draw._replace(order=orders[None], jitter=factor.expand(1, 24, 4)), plan)


@pytest.mark.parametrize("shift", [-0.5, -1 / 3, -1 / 6, 1e-4, 1 / 6, 0.25, 1 / 3, 0.5])
def test_hue_at_greys_and_between_sectors(shift: float):
    steps = torch.tensor([0, 1, 127, 128, 254, 255])
    pixels = torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, 12, 18).to(torch.uint8)  # ties between all channels
    plan = plan_of(NOTHING, size=(12, 18))
    draw, boxes = drawn(plan, 1, (12, 18))
    check_views(pixels, boxes, draw._replace(jitter=torch.tensor([1.0, 1.0, 1.0, shift]).expand(1, 1, 4)), plan)


@pytest.mark.parametrize("size", [(2, 3), (3, 2), (4, 5), (1, 7), (7, 1)])
def test_a_blur_wider_than_the_image(size: tuple[int, int]):
    spec = ViewSpec(blur_p=1.0, blur_sigma=(0.2, 20.0), blur_kernel=1.0)
    plan = plan_of(spec, size=size)
    for channels in (1, 2, 3):
        check_views(images(16, channels, (9, 9)), *reversed(drawn(plan, 16, (9, 9))), plan)


@pytest.mark.parametrize("side", [64, 100])
def test_a_blur_of_many_pixels(side: int):
    plan = plan_of(ViewSpec(blur_p=1.0, blur_sigma=(3.0, 12.0), blur_kernel=0.9), size=(side, side - 7))
    check_views(images(8, 3, (side, side)), *reversed(drawn(plan, 8, (side, side))), plan)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_solarize_inverts_the_threshold_itself(threshold: float):
    """Pixels that are exact numbers, so that there is no doubt: 0 and 1."""
    spec = ViewSpec(solarize_p=1.0, solarize_threshold=threshold)
    plan = plan_of(spec, size=(4, 4))
    draw, boxes = drawn(plan, 1, (4, 4))
    pixels = (images(1, 3, (4, 4)) > 127).to(torch.uint8) * 255
    made, _ = cpu.make_views(pixels, boxes, draw, plan, (0.0,) * 3, (1.0,) * 3, torch.float32)
    torch.testing.assert_close(made[0], reference.solarize(pixels / 255, draw.solarize[0], threshold), atol=1e-6, rtol=0)


def test_bfloat16_is_float32_rounded():
    plan = plan_of(EVERYTHING, size=(24, 20), local=(EVERYTHING,), local_size=(9, 7))
    for channels in (1, 3):
        pixels = images(32, channels, (30, 33))
        draw, boxes = drawn(plan, 32, (30, 33))
        full = cpu.make_views(pixels, boxes, draw, plan, *facts(channels), torch.float32)
        half = cpu.make_views(pixels, boxes, draw, plan, *facts(channels), torch.bfloat16)
        for ours, exact in zip(half, full, strict=True):
            assert exact is not None
            assert ours is not None
            assert torch.equal(ours, exact.bfloat16())


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_views_are_channels_last(channels: int):
    plan = plan_of(NOTHING, NOTHING, size=(6, 7))
    draw, boxes = drawn(plan, 3, (8, 9))
    made, local = cpu.make_views(images(3, channels, (8, 9)), boxes, draw, plan, *facts(channels), torch.float32)
    assert local is None
    assert made.shape == (2, 3, channels, 6, 7)
    assert made.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "layout", ["channels last", "expanded", "every second", "transposed", "inside", "one channel repeated"]
)
def test_memory_layouts(layout: str, channels: int):
    big = images(7, channels + 2, (44, 50))
    pixels = {
        "channels last": images(6, channels, (20, 23)).contiguous(memory_format=torch.channels_last),
        "expanded": images(1, channels, (20, 23)).expand(6, -1, -1, -1),
        "every second": big[1:, 1 : channels + 1, 4::2, 4::2],
        "transposed": images(6, channels, (23, 20)).transpose(2, 3),
        "inside": big[1:, 2:, 7:27, 9:32],
        "one channel repeated": images(6, 1, (20, 23)).expand(-1, channels, -1, -1),
    }[layout]
    plan = plan_of(dataclasses.replace(COLOURLESS, blur_kernel=0.2), size=(16, 18), local=(NOTHING,))
    draw, boxes = drawn(plan, 6, (pixels.shape[2], pixels.shape[3]))
    ours = cpu.make_views(pixels, boxes, draw, plan, *facts(channels), torch.float32)
    same = cpu.make_views(pixels.contiguous().clone(), boxes, draw, plan, *facts(channels), torch.float32)
    assert all(torch.equal(our, one) for our, one in zip(ours, same, strict=True) if our is not None and one is not None)


def triangle(start: float, length: float, source: int, target: int) -> Tensor:
    """The weights of a box that begins and ends anywhere, ``(target, source)``: of every pixel that it touches."""
    step = length / target
    centre = start + step * (torch.arange(target, dtype=torch.float64)[:, None] + 0.5)
    place = torch.arange(source, dtype=torch.float64)
    weight = (1 - (place + 0.5 - centre).abs() / max(step, 1)).clamp(min=0)
    weight = weight * ((place > start - 1) & (place < start + length))
    return weight / weight.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(12, 15), (31, 40)])
def test_cut_rounds_to_8_bits_also_from_boxes_between_pixels(size: tuple[int, int], channels: int):
    plan = plan_of(ViewSpec(flip=0.5), size=size)
    pixels = images(40, channels, (25, 31))
    draw, _ = drawn(plan, 40, (25, 31))
    corner = torch.rand(1, 40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 12
    boxes = (torch.cat([corner, torch.tensor([25.0, 31.0]) - corner], dim=2) * 8).floor() / 8
    boxes[0, :4] = torch.tensor([[0, 0, 25, 31], [0, 0, 0.5, 0.5], [24.5, 30.5, 0.5, 0.5], [3.25, 0, 2.5, 31]])
    made, local = cpu.cut(pixels, boxes, draw, plan)
    assert local is None
    assert made.dtype == torch.uint8
    for image, (top, left, height, width), flip, ours in zip(pixels, boxes[0].tolist(), draw.flip[0], made[0], strict=True):
        columns = triangle(left, width, 31, size[1])
        exact = triangle(top, height, 25, size[0]) @ image.double() @ (columns.flip(0) if flip else columns).T
        assert (ours - exact).abs().max() <= 0.5 + 255 * TOLERANCE


def test_cut_of_whole_boxes_is_the_reference_rounded():
    plan = plan_of(COLOURLESS, size=(20, 21), local=(COLOURLESS,), local_size=(9, 8))
    pixels = images(64, 3, (30, 40))
    draw, boxes = drawn(plan, 64, (30, 40))
    made = cpu.cut(pixels, boxes.double(), draw, plan)
    for v, (ours, (_, size)) in enumerate(zip(made, sized(plan), strict=True)):
        assert ours is not None
        cropped = reference.resized_crop(pixels.double() / 255, boxes[v], draw.flip[v], size)
        exact = reference.affine(cropped, draw.affine[v].double())
        assert (ours[0] / 255 - exact).abs().max() <= 0.5 / 255 + TOLERANCE


@pytest.mark.parametrize("channels", [1, 3])
def test_finish_crops_is_the_colour_half(channels: int):
    spec = dataclasses.replace(EVERYTHING, solarize_p=0.0)
    plan = plan_of(spec, spec, size=(20, 21), local=(spec,), local_size=(9, 8))
    draw, boxes = drawn(plan, 48, (30, 40))
    crops = cpu.cut(images(48, channels, (30, 40)), boxes.double(), draw, plan)
    ours = cpu.finish_crops(*crops, draw, plan, *facts(channels), torch.float32)
    theirs = reference.finish_crops(*crops, draw, plan, *facts(channels), torch.float32)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, atol=TOLERANCE / min(STD), rtol=0)


def some_views(batch: slice = slice(None)) -> Tensor:
    plan = plan_of(EVERYTHING, STRONGEST, size=(64, 64))
    draw, boxes = drawn(plan, 48, (40, 70))
    draw = ImageDraw(draw.key[batch], *(field[:, batch] for field in draw[1:]))
    made, _ = cpu.make_views(images(48, 3, (40, 70))[batch], boxes[:, batch], draw, plan, MEAN, STD, torch.float32)
    return made


def test_a_view_has_the_same_bits_alone_and_in_a_batch():
    together = some_views()
    for one in (0, 13, 47):
        assert torch.equal(some_views(slice(one, one + 1))[:, 0], together[:, one])


@pytest.mark.parametrize("threads", [2, 4])
def test_any_number_of_threads_gives_the_same_bits(threads: int):
    alone = some_views()
    torch.set_num_threads(threads)
    assert torch.equal(some_views(), alone)


def _fails_unless_it_makes(expected: Tensor) -> None:
    torch.set_num_threads(2)
    made = some_views()
    torch.set_num_threads(1)  # torch's own threads do not survive a fork
    sys.exit(not torch.equal(made, expected))


def test_a_forked_child_makes_views():
    expected = some_views()
    torch.set_num_threads(2)
    some_views()  # the parent has threads, which a child does not inherit
    child = multiprocessing.get_context("fork").Process(target=_fails_unless_it_makes, args=(expected,))
    child.start()
    child.join(60)
    hangs = child.is_alive()
    if hangs:
        child.kill()
    assert not hangs
    assert child.exitcode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": images(4, 3, (9, 9)).float()}, "images is .*float32"),
        ({"boxes": torch.tensor([0, 0, 10, 9]).expand(1, 4, 4)}, r"\[0, 0, 10, 9\].* not inside of images of \[9, 9\]"),
        ({"boxes": torch.tensor([0, -1, 5, 5]).expand(1, 4, 4)}, "not inside"),
        ({"boxes": torch.tensor([0, 0, 0, 5]).expand(1, 4, 4)}, "not inside"),
        ({"boxes": torch.tensor([0, 0, 5, 5]).expand(1, 3, 4)}, "boxes is"),
        ({"blur": torch.zeros(1, 4, dtype=torch.float64)}, r"draw\.blur is .*float64"),
        ({"jitter": torch.ones(1, 3, 4)}, r"draw\.jitter is"),
        ({"order": torch.zeros(1, 4, 4, dtype=torch.int32)}, r"draw\.order is .*int32"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Tensor], message: str):
    plan = plan_of(NOTHING, size=(5, 5))
    draw, boxes = drawn(plan, 4, (9, 9))
    pixels = change.pop("images", images(4, 3, (9, 9)))
    boxes = change.pop("boxes", boxes)
    with pytest.raises(AssertionError, match=message):
        cpu.make_views(pixels, boxes, draw._replace(**change), plan, MEAN, STD, torch.float32)
