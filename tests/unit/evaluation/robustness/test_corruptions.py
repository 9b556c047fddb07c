"""Corruptions: what they are said to be, by other libraries; the same bytes for every model; more with every severity."""

import colorsys
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.io  # noqa: F401  (registers the operators of JPEG)
from scipy import ndimage, stats
from torch import Tensor

from ssl_framework.evaluation import CORRUPTIONS, SEVERITIES, corrupt, examples
from ssl_framework.evaluation.robustness import corruptions

DRAWN = ("gaussian_noise", "translation", "rotation")


def photographs(count: int = 4, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    """Smooth random colours with edges."""
    generator = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(generator.normal(size=(count, channels, height, width)), (0, 0, 2, 2))
    noise = 127 + 400 * noise + 60 * (noise > 0.1)
    return torch.from_numpy(noise.clip(0, 255).astype(np.uint8))


def error(changed: Tensor, images: Tensor) -> float:
    return float((changed.double() - images.double()).square().mean())


def resized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images.float(), (side, side), mode="bilinear").round().to(torch.uint8)


def agree(found: Tensor, expected: np.ndarray) -> None:
    """Equal but for what lies between two grey levels."""
    levels = expected.clip(0, 255)
    assert np.abs(found.numpy() - levels).max() <= 0.51


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [8, 28, 32])
def test_errors_grow_with_severity(images: Tensor, name: str, side: int):
    digits = resized(images, side) if side != 8 else images
    errors = [error(corrupt(digits, name, severity), digits) for severity in (0, *SEVERITIES)]
    assert errors[0] == 0
    assert all(less < more for less, more in pairwise(errors)), errors


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_0_is_a_copy(images: Tensor, name: str):
    untouched = corrupt(images, name, 0)
    assert torch.equal(untouched, images)
    assert untouched.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", [1, 5])
def test_bytes_belong_to_the_sample(monkeypatch: pytest.MonkeyPatch, name: str, severity: int):
    images = photographs(12, 3, 20, 28)
    whole = corrupt(images, name, severity, seed=3)
    assert torch.equal(whole, corrupt(images, name, severity, seed=3))
    order = torch.tensor([7, 2, 11, 0])
    assert torch.equal(corrupt(images[order], name, severity, index=order, seed=3), whole[order])
    monkeypatch.setattr(corruptions, "_NUMBERS", 5000)  # three images at a time
    assert torch.equal(corrupt(images, name, severity, seed=3), whole)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_moves_what_is_drawn_and_nothing_else(name: str):
    images = photographs(12)
    same = torch.equal(corrupt(images, name, 3, seed=0), corrupt(images, name, 3, seed=1))
    assert same == (name not in DRAWN)


def test_images_and_severities_are_drawn_for_apart():
    grey = torch.full((2, 1, 16, 16), 128, dtype=torch.uint8)
    first, second = corrupt(grey, "gaussian_noise", 1).double() - 128, corrupt(grey, "gaussian_noise", 5).double() - 128
    for a, b in ((first[0], first[1]), (first[0], second[0])):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.2


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 17, 9), (3, 12, 30), (4, 40, 24)])
def test_any_channels_and_shapes(name: str, shape: tuple[int, int, int]):
    images = photographs(3, *shape)
    changed = corrupt(images, name, 3)
    assert changed.dtype == torch.uint8
    assert changed.shape == images.shape
    assert error(changed, images) > 0


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_is_gaussian_and_of_the_published_size(severity: int):
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    noise = (corrupt(grey, "gaussian_noise", severity).double() - 128) / 255
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    assert float(noise.std()) == pytest.approx(deviation, rel=0.01)
    assert float(noise.mean()) == pytest.approx(0, abs=0.001)
    assert abs(stats.kurtosis(noise.flatten())) < 0.1
    assert abs(np.corrcoef(noise[:, 0].flatten(), noise[:, 1].flatten())[0, 1]) < 0.03
    smooth = noise.flatten().numpy() + np.random.default_rng(0).uniform(-0.5, 0.5, noise.numel()) / 255
    assert stats.kstest(smooth, "norm", (0, np.hypot(deviation, 1 / 255 / 12**0.5))).pvalue > 0.001


@pytest.mark.parametrize(("height", "width", "scale"), [(32, 32, 1), (28, 28, 0.875), (64, 90, 2), (8, 8, 0.75)])
def test_blur_is_scipys(height: int, width: int, scale: float):
    images = photographs(3, 2, height, width)
    for severity, deviation in zip(SEVERITIES, (0.4, 0.6, 0.7, 0.8, 1.0), strict=True):
        sizes = (0, 0, deviation * scale, deviation * scale)
        expected = ndimage.gaussian_filter(images.numpy().astype(float), sizes, mode="nearest", truncate=4.0)
        agree(corrupt(images, "gaussian_blur", severity), expected)


def test_contrast_is_the_authors_formula():
    images = photographs()
    for severity, factor in zip(SEVERITIES, (0.75, 0.5, 0.4, 0.3, 0.15), strict=True):
        pixels = images.numpy() / 255.0
        for image, found in zip(pixels, corrupt(images, "contrast", severity), strict=True):
            means = np.mean(image, axis=(1, 2), keepdims=True)
            agree(found, ((image - means) * factor + means) * 255)


def test_brightness_is_the_value_of_hsv():
    images = photographs(2, 3, 9, 11)
    images[0, :, 0, 0] = 0  # black becomes grey
    for severity, more in zip(SEVERITIES, (0.05, 0.1, 0.15, 0.2, 0.3), strict=True):
        expected = np.empty(images.shape)
        for i, _, y, x in np.ndindex(2, 1, 9, 11):
            hue, saturation, value = colorsys.rgb_to_hsv(*(images[i, :, y, x].numpy() / 255.0))
            expected[i, :, y, x] = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + more))
        agree(corrupt(images, "brightness", severity), expected * 255)
        grey = images[:, :1]
        agree(corrupt(grey, "brightness", severity), grey.numpy() + 255 * more)


def test_cells_of_whole_pixels_are_means_of_blocks():
    images = photographs(2, 1, 48, 48)
    cells = corruptions._pixelate(images, 0.6, torch.zeros(2))  # 1 + (1 / 0.6 - 1) * 48 / 32 = 2 pixels a side
    agree(cells, F.avg_pool2d(images.double(), 2).repeat_interleave(2, 2).repeat_interleave(2, 3).numpy())


def test_cells_of_part_pixels_share_them():
    line = photographs(1, 1, 1, 20)[0, 0].double()
    fine = line.repeat_interleave(20)  # a cell is 1.25 pixels: 25 of these
    expected = fine.view(16, 25).mean(1).repeat_interleave(25).view(20, 20).mean(1)
    assert torch.allclose(corruptions._celled(20, 1.25) @ line[0], expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_cells_are_as_many_as_published(severity: int):
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    images = photographs(1)
    weights = corruptions._celled(32, 1 / share)
    agree(corrupt(images, "pixelate", severity), (weights @ images.double() @ weights.T).numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_torchvisions(channels: int):
    images = photographs(3, channels, 28, 36)
    for severity, quality in zip(SEVERITIES, (80, 65, 58, 50, 40), strict=True):
        for image, found in zip(images, corrupt(images, "jpeg", severity), strict=True):
            file = torch.ops.image.encode_jpeg(image, quality)
            agree(found, torch.ops.image.decode_jpeg(file, 0, False).numpy())


def test_jpeg_of_other_channels_is_one_file_a_channel():
    images = photographs(2, 4, 16, 16)
    changed = corrupt(images, "jpeg", 5)
    assert all(torch.equal(changed[:, c : c + 1], corrupt(images[:, c : c + 1], "jpeg", 5)) for c in range(4))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 30), (8, 8)])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_shifts_are_scipys(height: int, width: int, severity: int):
    images = photographs(12, 1, height, width)
    pixels = 0.6 * severity * min(height, width) / 32
    seen: set[tuple[int, int]] = set()
    for image, found in zip(images, corrupt(images, "translation", severity), strict=True):
        options = {
            (down, right): ndimage.shift(
                image[0].numpy().astype(float), (down * pixels, right * pixels), order=1, mode="grid-constant"
            )
            for down in (-1, 1)
            for right in (-1, 1)
        }
        nearest = min(options, key=lambda signs: float(np.abs(found[0].numpy() - options[signs]).mean()))
        agree(found[0], options[nearest])
        seen.add(nearest)
    assert len(seen) == 4


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 30), (8, 8)])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_turns_are_scipys(height: int, width: int, severity: int):
    images = photographs(12, 1, height, width)
    seen: set[int] = set()
    for image, found in zip(images, corrupt(images, "rotation", severity), strict=True):
        options = {
            sign: ndimage.rotate(
                image[0].numpy().astype(float), sign * 6 * severity, reshape=False, order=1, mode="grid-constant"
            )
            for sign in (-1, 1)
        }
        nearest = min(options, key=lambda sign: float(np.abs(found[0].numpy() - options[sign]).mean()))
        agree(found[0], options[nearest])
        seen.add(nearest)
    assert seen == {-1, 1}


def test_lengths_grow_with_the_image():
    large = resized(photographs(2), 224)
    small = F.avg_pool2d(large.float(), 8).round().to(torch.uint8)  # 28 pixels
    for name in ("gaussian_blur", "translation", "rotation"):
        reduced = F.avg_pool2d(corrupt(large, name, 5).float(), 8)
        assert error(reduced, corrupt(small, name, 5)) < 0.2 * error(corrupt(small, name, 5), small)


def test_examples_are_what_models_are_measured_on(images: Tensor):
    sheet = examples(images, seed=4)
    assert tuple(sheet) == CORRUPTIONS
    place = int((images == sheet["jpeg"][0]).flatten(1).all(1).nonzero()[0])
    for name, row in sheet.items():
        assert row.shape == (6, 1, 8, 8)
        for severity in SEVERITIES:
            assert torch.equal(row[severity], corrupt(images, name, severity, seed=4)[place])


@pytest.mark.parametrize("bad", [torch.zeros(2, 1, 8, 8), torch.zeros(0, 1, 8, 8).byte(), torch.zeros(8, 8).byte()])
def test_what_is_no_batch_of_images_is_refused(bad: Tensor):
    for refused in (lambda: corrupt(bad, "jpeg", 1), lambda: examples(bad)):
        with pytest.raises(ValueError, match=r"images are .*: give uint8 of \(N, C, H, W\)"):
            refused()


def test_bad_names_severities_and_positions(images: Tensor):
    with pytest.raises(ValueError, match="no corruption 'fog': choose of gaussian_noise, gaussian_blur, contrast"):
        corrupt(images, "fog", 1)
    for severity in (6, -1):
        with pytest.raises(ValueError, match=f"severity={severity}: give a whole number from 0 to 5"):
            corrupt(images, "jpeg", severity)
    with pytest.raises(ValueError, match=r"index has the shape \(3,\) for 200 images"):
        corrupt(images, "jpeg", 1, index=torch.arange(3))
