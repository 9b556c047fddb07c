"""`ImageViews`: different views in a batch of equal images, the same view wherever it is made."""

import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor

from ssl_framework import views
from ssl_framework.types import Batch, ViewMaker, Views
from ssl_framework.views import ImageDraw, ImageViews, ViewSpec, image
from ssl_framework.views.kernels import reference

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
# Pixels in [0, 1] of the same view in another batch; division by std in `normalize` multiplies it.
ELSEWHERE = 1e-5 / min(STD)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photo(batch: int, height: int = 40, width: int = 36, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth random images, as photographs are."""
    noise = torch.rand(batch, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8)


def batch_of(images: Tensor, index: Tensor | None = None, epoch: int = 0) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    return Batch(images, None, index, torch.full_like(index, epoch))


def make(maker: ImageViews, batch: Batch) -> Views:
    assert batch.epoch is not None
    return maker.apply(batch, maker.draw(batch.index, batch.epoch))


RECIPES = {
    "one_crop": views.one_crop(24, MEAN, STD),
    "two_crops": views.two_crops((24, 20), MEAN, STD),
    "two_crops_asymmetric": views.two_crops_asymmetric(24, MEAN, STD),
    "multi_crop": views.multi_crop(28, MEAN, STD, local_crops=3),
    "affine": views.affine((40, 36), MEAN, STD),
    "affine_one": views.affine(24, MEAN, STD, views=1),
}
every_recipe = pytest.mark.parametrize("maker", RECIPES.values(), ids=list(RECIPES))


def test_shapes_of_every_recipe():
    shapes = {name: make(maker, batch_of(photo(5))) for name, maker in RECIPES.items()}
    assert shapes["one_crop"].global_crops.shape == (1, 5, 3, 24, 24)
    assert shapes["two_crops"].global_crops.shape == (2, 5, 3, 24, 20)
    assert shapes["multi_crop"].global_crops.shape == (2, 5, 3, 28, 28)
    assert shapes["affine"].global_crops.shape == (2, 5, 3, 40, 36)
    assert shapes["affine_one"].global_crops.shape == (1, 5, 3, 24, 24)
    assert shapes["two_crops"].local_crops is None
    local = shapes["multi_crop"].local_crops
    assert local is not None
    assert local.shape == (3, 5, 3, 12, 12)
    assert RECIPES["multi_crop"].local_size == (12, 12)
    assert RECIPES["multi_crop"].num_views == (2, 3)


@every_recipe
def test_it_is_a_view_maker_and_says_what_it_made(maker: ImageViews):
    batch = batch_of(photo(4), torch.tensor([9, 2, 5, 7]), epoch=3)
    made = make(maker, batch)
    assert isinstance(maker, ViewMaker)
    assert made.global_crops.dtype == torch.float32
    assert made.index is not None
    assert torch.equal(made.index, batch.index)
    assert made.key is not None
    assert torch.equal(made.key, maker.draw(batch.index, 3).key)
    assert made.boxes is not None
    assert made.boxes.shape == (sum(maker.num_views), 4, 5)
    assert (made.boxes[..., 2:4] >= 1).all()
    assert (made.boxes[..., :2] + made.boxes[..., 2:4] <= torch.tensor([40, 36])).all()


@every_recipe
def test_in_a_batch_of_equal_images_all_views_differ(maker: ImageViews):
    made = make(maker, batch_of(photo(1).expand(16, -1, -1, -1)))
    flat = made.global_crops.flatten(0, 1).flatten(1)
    assert torch.cdist(flat, flat).fill_diagonal_(torch.inf).min() > 0.05
    if made.local_crops is not None:
        flat = made.local_crops.flatten(0, 1).flatten(1)
        assert torch.cdist(flat, flat).fill_diagonal_(torch.inf).min() > 0.05


@every_recipe
def test_a_view_does_not_depend_on_its_batch(maker: ImageViews):
    images = photo(12)
    whole = make(maker, batch_of(images, epoch=2))
    chosen = torch.tensor([7, 3, 11])
    part = make(maker, batch_of(images[chosen], chosen, epoch=2))
    assert part.boxes is not None
    assert whole.boxes is not None
    assert torch.equal(part.boxes, whole.boxes[:, chosen])
    torch.testing.assert_close(part.global_crops, whole.global_crops[:, chosen], atol=ELSEWHERE, rtol=0)
    if part.local_crops is not None and whole.local_crops is not None:
        torch.testing.assert_close(part.local_crops, whole.local_crops[:, chosen], atol=ELSEWHERE, rtol=0)


@every_recipe
def test_the_same_batch_gives_the_same_bits_and_another_seed_or_epoch_others(maker: ImageViews):
    images = photo(6)
    first = make(maker, batch_of(images)).global_crops
    assert torch.equal(first, make(pickle.loads(pickle.dumps(maker)), batch_of(images)).global_crops)
    assert (make(maker, batch_of(images, epoch=1)).global_crops - first).abs().flatten(2).amax(2).min() > 0.05
    assert (make(maker, batch_of(images, torch.arange(6, 12))).global_crops - first).abs().flatten(2).amax(2).min() > 0.05
    reseeded = ImageViews([ViewSpec(crop=True)], 8, MEAN, STD, seed=1).draw(torch.arange(6), 0)
    assert reseeded.crop.ne(ImageViews([ViewSpec(crop=True)], 8, MEAN, STD).draw(torch.arange(6), 0).crop).all()


@every_recipe
def test_global_generators_are_neither_read_nor_moved(maker: ImageViews):
    images = photo(3)
    made: list[Tensor] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
        made.append(make(maker, batch_of(images)).global_crops)
        maker.crop(images[0], maker.draw(torch.tensor([0]), 0))
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()
        assert np.array_equal(before[2], np.random.get_state()[1])
    assert torch.equal(*made)


def test_the_whole_pipeline_is_torchvision_s_in_order():
    maker = views.two_crops_asymmetric(24, MEAN, STD, brightness=0.3, contrast=0.3, saturation=0.3, solarize_p=(0.5, 0.5))
    images = photo(16)
    drawn = maker.draw(torch.arange(16), 0)
    made = maker.apply(batch_of(images), drawn)
    assert made.boxes is not None
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    close = 0
    for v in range(2):
        for b in range(16):
            top, left, height, width, flipped = (int(number) for number in made.boxes[v, b])
            view = tv.resized_crop(images[b].float() / 255, top, left, height, width, [24, 24])
            view = tv.horizontal_flip(view) if flipped else view
            for number in drawn.order[v, b].tolist():
                view = adjust[number](view, drawn.jitter[v, b, number].item())
            view = tv.rgb_to_grayscale(view, 3) if drawn.grey[v, b] else view
            view = tv.gaussian_blur(view, [3, 3], [drawn.blur[v, b].item()] * 2) if drawn.blur[v, b] > 0 else view
            view = tv.solarize(view, 0.5) if drawn.solarize[v, b] else view
            far = (made.global_crops[v, b] - tv.normalize(view, list(MEAN), list(STD))).abs() > 1e-4
            close += int(far.sum() <= (2 if drawn.solarize[v, b] else 0))  # a pixel on the threshold may fall on either side
    assert close == 32


def collate(crops: list[Views]) -> Views:
    """What the data module does with the views of single samples."""
    local = None if crops[0].local_crops is None else torch.cat([c.local_crops for c in crops if c.local_crops is not None], 1)
    return Views(
        torch.cat([c.global_crops for c in crops], 1),
        local,
        key=torch.cat([c.key for c in crops if c.key is not None]),
        boxes=torch.cat([c.boxes for c in crops if c.boxes is not None], 1),
    )


@every_recipe
def test_crops_made_in_a_worker_equal_those_of_the_batch(maker: ImageViews):
    images, index, epoch = photo(10), torch.arange(10), torch.full((10,), 4)
    drawn = maker.draw(index, epoch)
    crops = collate([maker.crop(images[b], drawn.at(b)) for b in range(10)])
    assert crops.global_crops.dtype == torch.uint8
    mixed = Batch(torch.zeros(10, 0, dtype=torch.uint8), None, index, epoch, crops)
    plain = _geometry_only(maker)
    still = plain.draw(index, epoch)
    straight, worked = plain.apply(batch_of(images, index, 4), still), plain.apply(mixed, still)
    assert worked.boxes is not None
    assert straight.boxes is not None
    assert torch.equal(worked.boxes, straight.boxes)
    difference = (worked.global_crops - straight.global_crops).abs()
    assert difference.max() < 0.51 / 255  # rounded once
    assert difference.mean() < 0.3 / 255
    if worked.local_crops is not None and straight.local_crops is not None:
        assert (worked.local_crops - straight.local_crops).abs().max() < 0.51 / 255
    # with colours the rounding is stretched by contrast and std, and turned by hue where a pixel is almost grey
    made, expected = maker.apply(mixed, drawn), maker.apply(batch_of(images, index, 4), drawn)
    assert (made.global_crops - expected.global_crops).abs().mean() < 2 / 255 / min(STD)
    assert made.index is not None
    assert torch.equal(made.index, index)


def _geometry_only(maker: ImageViews) -> ImageViews:
    """The same boxes, flips and warps; colours and normalisation do nothing."""
    plan = maker._plan
    still = {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0, "solarize_p": 0.0}
    return ImageViews(
        [replace(spec, **still) for spec in plan.global_views],
        plan.size,
        (0.0,) * 3,
        (1.0,) * 3,
        local_views=[replace(spec, **still) for spec in plan.local_views],
        local_size=plan.local_size,
    )


def test_crop_takes_images_of_any_size():
    maker = RECIPES["multi_crop"]
    crops = [
        maker.crop(photo(1, *size)[0], maker.draw(torch.tensor([i]), 0)) for i, size in enumerate([(90, 31), (7, 9), (1, 1)])
    ]
    joined = collate(crops)
    assert joined.global_crops.shape == (2, 3, 3, 28, 28)
    made = maker.apply(
        Batch(torch.zeros(3, 0, dtype=torch.uint8), None, torch.arange(3), None, joined), maker.draw(torch.arange(3), 0)
    )
    assert made.global_crops.isfinite().all()
    assert made.boxes is joined.boxes


def test_center_normalises_images_of_the_right_size():
    images = photo(3, 28, 28)
    maker = views.two_crops(28, MEAN, STD)
    expected = tv.normalize(images.float() / 255, list(MEAN), list(STD))
    torch.testing.assert_close(maker.center(images), expected, atol=2e-6, rtol=0)


def test_center_has_a_gradient_to_pixels():
    images, maker = photo(2, 40, 60), views.one_crop((20, 24), MEAN, STD)
    pixels = (images.float() / 255).requires_grad_()
    made = maker.center_pixels(pixels)
    torch.testing.assert_close(made, maker.center(images), atol=0, rtol=0)
    (gradient,) = torch.autograd.grad(made.sum(), pixels)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("source", "size"), [((40, 60), (20, 20)), ((61, 40), (20, 24)), ((10, 13), (28, 28)), ((28, 28), (14, 28))]
)
def test_center_covers_and_crops(source: tuple[int, int], size: tuple[int, int]):
    images = photo(2, *source)
    zoom = max(size[0] / source[0], size[1] / source[1])
    resized = tv.resize(images.float() / 255, [max(size[0], round(source[0] * zoom)), max(size[1], round(source[1] * zoom))])
    top, left = (resized.shape[-2] - size[0]) // 2, (resized.shape[-1] - size[1]) // 2
    expected = tv.normalize(tv.crop(resized, top, left, *size), list(MEAN), list(STD))
    torch.testing.assert_close(views.one_crop(size, MEAN, STD).center(images), expected, atol=2e-6, rtol=0)


def test_affine_keeps_the_box_and_the_identity_keeps_the_image():
    images = photo(3, 28, 28)
    still = views.affine(28, MEAN, STD, degrees=0, translate=0, scale=(1, 1), shear=0)
    made = make(still, batch_of(images))
    torch.testing.assert_close(made.global_crops[0], still.center(images), atol=1e-6, rtol=0)
    assert made.boxes is not None
    assert (made.boxes == torch.tensor([0, 0, 28, 28, 0])).all()


def test_byol_s_views_are_asymmetric():
    drawn = views.two_crops_asymmetric(224, MEAN, STD).draw(torch.arange(2000), 0)
    blurred, solarized = (drawn.blur > 0).float().mean(1), drawn.solarize.float().mean(1)
    assert blurred.tolist() == pytest.approx([1.0, 0.1], abs=0.03)
    assert solarized.tolist() == pytest.approx([0.0, 0.2], abs=0.03)


def test_one_channel():
    maker = views.two_crops(28, (0.3,), (0.3,))
    made = make(maker, batch_of(photo(4, 28, 28, channels=1)))
    assert made.global_crops.shape == (2, 4, 1, 28, 28)


def test_other_channels_go_without_colour():
    made = make(views.one_crop(16, (0.5,) * 4, (0.2,) * 4), batch_of(photo(2, channels=4)))
    assert made.global_crops.shape == (1, 2, 4, 16, 16)
    with pytest.raises(ValueError, match=r"1 or 3 channels, mean and std have 4: set brightness"):
        views.two_crops(16, (0.5,) * 4, (0.2,) * 4)


def test_half_precision_around_it_does_not_touch_the_pixels():
    maker, batch = RECIPES["two_crops"], batch_of(photo(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = make(maker, batch).global_crops
    assert torch.equal(inside, make(maker, batch).global_crops)


def test_lightning_moves_a_draw():
    drawn = RECIPES["two_crops"].draw(torch.arange(3), 0)
    moved = move_data_to_device(drawn, torch.device("meta"))
    assert isinstance(moved, ImageDraw)
    assert all(field.device.type == "meta" for field in moved)


def test_it_is_cheap_to_send_to_a_worker():
    assert len(pickle.dumps(RECIPES["multi_crop"])) < 5000


def test_only_normalize_knows_mean_and_std():
    images = photo(2, 28, 28)
    unit = make(views.one_crop(16, (0.0,) * 3, (1.0,) * 3), batch_of(images)).global_crops
    other = make(views.one_crop(16, MEAN, STD), batch_of(images)).global_crops
    torch.testing.assert_close(other[0], reference.normalize(unit[0], MEAN, STD), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": (0.5,)}, r"mean has 1 numbers and std has 3: give one of each"),
        ({"mean": (), "std": ()}, r"mean has 0 numbers"),
        ({"std": (0.1, 0.0, 0.1)}, r"std=\(0.1, 0.0, 0.1\) is not positive: give"),
        ({"size": 0}, r"size=0: give height and width"),
        ({"size": (8, 8, 3)}, r"size=\(8, 8, 3\): give height and width"),
        ({"crop_scale": (0.0, 1.0)}, r"crop_scale=\(0.0, 1.0\) of a view is out of range: give shares"),
        ({"crop_scale": (0.5,)}, r"\[0.5\] is not a range: give two numbers"),
    ],
)
def test_bad_arguments_are_named_with_the_remedy(arguments: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        views.one_crop(**({"size": 8, "mean": MEAN, "std": STD} | arguments))


def test_bad_counts_are_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"views=0: give 1 or more"):
        views.affine(8, MEAN, STD, views=0)
    with pytest.raises(ValueError, match=r"local_crops=-1: give 0 or more"):
        views.multi_crop(8, MEAN, STD, local_crops=-1)
    with pytest.raises(ValueError, match=r"blur_p=\[0.5\] has 1 numbers: give 2"):
        views.two_crops_asymmetric(8, MEAN, STD, blur_p=(0.5,))
    with pytest.raises(ValueError, match=r"global_views is empty"):
        ImageViews([], 8, MEAN, STD)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (photo(2, channels=1), r"the images have 1 channels, mean and std have 3: give the mean and std of these data"),
        (photo(2).float(), r"uint8 images \(B, C, H, W\), not of torch.float32"),
        (photo(2)[:, 0], r"not of torch.uint8 \(2, 40, 36\)"),
    ],
)
def test_images_that_do_not_fit_are_named_with_the_remedy(images: Tensor, message: str):
    maker = RECIPES["two_crops"]
    with pytest.raises(ValueError, match=message):
        make(maker, batch_of(images))
    with pytest.raises(ValueError, match=message):
        maker.center(images)
    if images.ndim == 4:
        with pytest.raises(ValueError, match=message):
            maker.crop(images[0], maker.draw(torch.tensor([0]), 0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_recipe
def test_a_view_does_not_depend_on_its_device(maker: ImageViews):
    batch = batch_of(photo(8))
    here, there = make(maker, batch), make(maker, move_data_to_device(batch, torch.device("cuda")))
    assert there.global_crops.is_cuda
    assert here.boxes is not None
    assert there.boxes is not None
    assert torch.equal(here.boxes, there.boxes.cpu())
    far = (here.global_crops - there.global_crops.cpu()).abs() > ELSEWHERE
    assert far.float().mean() < 1e-4  # solarize is a step: a pixel on the threshold may fall on either side


def test_compiled_views_go_through_the_compiled_kernel_of_devices_alone(monkeypatch: pytest.MonkeyPatch):
    asked: list[bool] = []

    def noted(images: Tensor, *arguments: object, compiled: bool) -> tuple[Tensor, None]:
        asked.append(compiled)
        return images.new_empty(2, len(images), 3, 8, 8, dtype=torch.float32), None

    monkeypatch.setattr(image.device, "make_views", noted)
    maker = ImageViews([ViewSpec(), ViewSpec()], 8, MEAN, STD)
    batch = Batch(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), None, torch.arange(4))
    for _ in range(2):
        for kernel in (image.device, image.cpu):
            maker._make(batch, maker.draw(batch.index, 0), kernel)
        maker.compile()
    assert asked == [False, True]
