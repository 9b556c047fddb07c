"""The kernel against torchvision's functional operators, sample by sample.

Tolerances are absolute, pixels in [0, 1]: 2e-6 for resizing and colours, 5e-6 for hue (another formula for the same HSV), 1e-5
for what goes through ``grid_sample`` with other roundings of the grid.
"""

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from ssl_framework.views.draw import NO_AFFINE, NO_JITTER
from ssl_framework.views.kernels import reference


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    pixels = torch.randint(0, 256, (batch, channels, height, width), generator=torch.Generator().manual_seed(seed))
    return pixels.float() / 255


BOXES = {
    "whole": (0, 0, 21, 34),
    "pixel in a corner": (20, 33, 1, 1),
    "pixel inside": (7, 9, 1, 1),
    "line": (3, 0, 1, 34),
    "column": (0, 5, 21, 1),
    "same size as the output": (2, 3, 12, 17),
    "enlarged": (5, 5, 6, 7),
    "shrunk and enlarged": (4, 1, 3, 30),
    "at the end": (9, 14, 12, 20),
}


@pytest.mark.parametrize("size", [(12, 17), (1, 1), (5, 40), (40, 40)])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_resized_crop(size: tuple[int, int], flipped: bool, channels: int):
    batch = images(len(BOXES), channels, 21, 34)
    ours = reference.resized_crop(batch, torch.tensor(list(BOXES.values())), torch.tensor([flipped] * len(BOXES)), size)
    for image, box, view, name in zip(batch, BOXES.values(), ours, BOXES, strict=True):
        expected = tv.resized_crop(image, *box, size=list(size), antialias=True)
        expected = tv.horizontal_flip(expected) if flipped else expected
        torch.testing.assert_close(view, expected, atol=2e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_resized_crop_of_a_photograph_s_size():
    batch = images(2, 3, 300, 401)
    ours = reference.resized_crop(
        batch, torch.tensor([[11, 7, 280, 390], [0, 0, 300, 401]]), torch.tensor([False, False]), (64, 64)
    )
    expected = torch.stack(
        [tv.resized_crop(batch[0], 11, 7, 280, 390, [64, 64]), tv.resized_crop(batch[1], 0, 0, 300, 401, [64, 64])]
    )
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)


def test_flip_is_chosen_by_sample():
    batch = images(3, 1, 6, 8)
    box = torch.tensor([0, 0, 6, 8]).expand(3, 4)
    ours = reference.resized_crop(batch, box, torch.tensor([False, True, False]), (6, 8))
    assert torch.equal(ours, torch.stack([batch[0], batch[1].flip(-1), batch[2]]))


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (17, 30)])
def test_affine(shape: tuple[int, int]):
    height, width = shape
    parameters = torch.tensor(
        [
            [0.0, 0.0, 0.0, 1.0, 10.0],
            [15.0, 0.0, 0.0, 1.0, 0.0],
            [-170.0, 0.1, -0.2, 0.7, -35.0],
            [0.0, 2 / width, -1 / height, 1.0, 0.0],  # whole pixels
            [0.0, 0.03, 0.0, 1.3, 0.0],
            list(NO_AFFINE),
        ]
    )
    batch = images(len(parameters), 3, height, width)
    ours = reference.affine(batch, parameters)
    for image, row, view in zip(batch, parameters.tolist(), ours, strict=True):
        angle, x, y, scale, shear = row
        shift = [x * width, y * height]
        expected = tv.affine(image, angle, shift, scale, [shear, 0.0], interpolation=tv.InterpolationMode.BILINEAR)
        torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)
    assert torch.equal(ours[-1], batch[-1])


COLOURS = torch.tensor(
    [[0.2, 1.7, 0.5, 0.1], [1.8, 0.2, 1.8, -0.2], [1.0, 1.3, 0.0, 0.5], [0.0, 1.0, 1.2, -0.5], [1.3, 0.0, 1.0, 0.0]]
)
TORCHVISION = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
OURS = (reference.brightness, reference.contrast, reference.saturation, reference.hue)


def coloured() -> Tensor:
    """Noise, and what HSV finds difficult: greys, pure colours, black and white."""
    batch = images(len(COLOURS), 3, 9, 11)
    batch[:, :, 0] = batch[:, :1, 0]
    batch[:, :, 1] = (torch.arange(11) % 8)[None, None].bitwise_and(torch.tensor([1, 2, 4])[None, :, None]).ne(0).float()
    return batch


@pytest.mark.parametrize("number", range(4))
def test_each_colour_operator(number: int):
    batch = coloured()
    ours = OURS[number](batch, COLOURS[:, number])
    expected = torch.stack([TORCHVISION[number](i, f) for i, f in zip(batch, COLOURS[:, number].tolist(), strict=True)])
    torch.testing.assert_close(ours, expected, atol=5e-6 if number == 3 else 2e-6, rtol=0)


def test_jitter_in_every_order():
    orders = torch.cartesian_prod(*[torch.arange(4)] * 4)
    orders = orders[[len(set(order.tolist())) == 4 for order in orders]]
    assert len(orders) == 24
    batch = coloured()[:1].expand(24, -1, -1, -1)
    factors = torch.tensor([[1.3, 0.7, 1.5, 0.15]]).expand(24, 4)
    ours = reference.jitter(batch, factors, orders)
    for order, view in zip(orders.tolist(), ours, strict=True):
        expected = batch[0]
        for number in order:
            expected = TORCHVISION[number](expected, factors[0, number].item())
        torch.testing.assert_close(view, expected, atol=2e-5, rtol=0)
    assert len({tuple(view.flatten().tolist()) for view in ours}) > 12  # the order matters


def test_jitter_leaves_the_others_alone():
    batch = coloured()
    factors = torch.tensor([list(NO_JITTER)] * len(batch))
    factors[2] = torch.tensor([0.5, 1.0, 1.0, 0.0])
    ours = reference.jitter(batch, factors, torch.arange(4).expand(len(batch), 4))
    expected = batch.clone()
    expected[2] *= 0.5
    assert torch.equal(ours, expected)


def test_one_channel_has_neither_saturation_nor_hue():
    batch = images(3, 1, 7, 5)
    factors = torch.tensor([[1.3, 0.6, 0.1, 0.4]]).expand(3, 4)
    ours = reference.jitter(batch, factors, torch.tensor([[3, 0, 2, 1]]).expand(3, 4))
    for image, view in zip(batch, ours, strict=True):
        expected = tv.adjust_hue(image, 0.4)
        expected = tv.adjust_saturation(tv.adjust_brightness(expected, 1.3), 0.1)
        torch.testing.assert_close(view, tv.adjust_contrast(expected, 0.6), atol=2e-6, rtol=0)
    assert torch.equal(reference.grey(batch, torch.ones(3, dtype=torch.bool)), batch)


def test_grey_solarize_and_normalize():
    batch, chosen = images(4, 3, 9, 11), torch.tensor([True, False, True, False])
    greyed = reference.grey(batch, chosen)
    solarized = reference.solarize(batch, chosen, 128 / 255)
    for image, picked, one, other in zip(batch, chosen.tolist(), greyed, solarized, strict=True):
        torch.testing.assert_close(one, tv.rgb_to_grayscale(image, 3) if picked else image, atol=1e-6, rtol=0)
        assert torch.equal(other, tv.solarize(image, 128 / 255) if picked else image)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    torch.testing.assert_close(
        reference.normalize(batch, mean, std), tv.normalize(batch, list(mean), list(std)), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize(("shape", "kernel"), [((32, 32), (3, 3)), ((40, 64), (5, 7)), ((24, 24), (23, 23)), ((9, 20), (1, 3))])
def test_gaussian_blur(shape: tuple[int, int], kernel: tuple[int, int]):
    sigma = torch.tensor([0.1, 0.0, 0.7, 2.0])
    batch = images(4, 3, *shape)
    ours = reference.gaussian_blur(batch, sigma, kernel)
    for image, s, view in zip(batch, sigma.tolist(), ours, strict=True):
        expected = tv.gaussian_blur(image, [kernel[1], kernel[0]], [s, s]) if s else image
        torch.testing.assert_close(view, expected, atol=2e-6, rtol=0)
    assert torch.equal(ours[1], batch[1])


def test_nothing_is_changed_in_place():
    batch = images(2, 3, 32, 32)
    before, yes = batch.clone(), torch.tensor([True, True])
    reference.affine(batch, torch.tensor([[15.0, 0.1, 0.0, 1.0, 0.0]]).expand(2, 5))
    reference.jitter(batch, torch.tensor([[1.3, 0.6, 0.1, 0.4]]).expand(2, 4), torch.arange(4).expand(2, 4))
    reference.grey(batch, yes)
    reference.gaussian_blur(batch, torch.ones(2), (3, 3))
    reference.solarize(batch, yes, 0.5)
    assert torch.equal(batch, before)


def test_parameters_follow_the_images_to_their_device():
    """The meta device refuses to mix with the CPU, like a GPU: what forgets to move its parameters fails here."""
    batch, yes = images(2, 3, 32, 32).to("meta"), torch.tensor([True, True])
    made = reference.resized_crop(batch, torch.tensor([[1, 2, 20, 30]] * 2), torch.tensor([True, False]), (24, 24))
    made = reference.affine(made, torch.tensor([[15.0, 0.1, 0.0, 1.0, 5.0]] * 2))
    made = reference.jitter(made, COLOURS[:2], torch.arange(4).expand(2, 4))
    made = reference.gaussian_blur(reference.grey(made, yes), torch.ones(2), (3, 3))
    made = reference.normalize(reference.solarize(made, yes, 0.5), (0.5,) * 3, (0.2,) * 3)
    assert made.device.type == "meta"
    assert made.shape == (2, 3, 24, 24)
