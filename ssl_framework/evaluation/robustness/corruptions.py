"""Images as bad cameras, bad files and clumsy hands leave them: eight corruptions in five severities.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
https://arxiv.org/abs/1903.12261, with the numbers of the authors' CIFAR-10-C (``make_cifar_c.py`` in hendrycks/robustness),
for 32 x 32 pixels: lengths grow with the shorter side of the image. Turned and shifted images are not theirs; they
are after Engstrom et al., "Exploring the Landscape of Spatial Robustness", 2019, https://arxiv.org/abs/1712.02779.

Theirs cuts grey levels off to whole numbers, which darkens each image; here they are rounded to the nearest.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.views.kernels.reference import affine

SEVERITIES = (1, 2, 3, 4, 5)

_SIDE = 32  # pixels that the numbers are for
_LEAST = 24  # lengths for smaller images would fall between pixels, and leave them as they are
_NOISE, _SIGNS = 1, 2  # name the uses of a key
_NUMBERS = 1 << 21  # pixels at a time: 200 MB while noise is drawn


class _Kind(NamedTuple):
    """Of a corruption.

    Attributes:
        change: ``(B, C, H, W)`` uint8 images, one of the levels and ``(B,)`` int64 keys to images of their shape.
        levels: of severities 1 to 5.
        stream: part of the keys; no two corruptions share one.
    """

    change: Callable[[Tensor, float, Tensor], Tensor]
    levels: tuple[float, float, float, float, float]
    stream: int


def corrupt(images: Tensor, corruption: str, severity: int, *, index: Tensor | None = None, seed: int = 0) -> Tensor:
    """Corrupt images; what is drawn belongs to (seed, index, corruption, severity), so that every model sees the same bytes.

    Args:
        images: ``(B, C, H, W)`` uint8, of any number of channels, on any device.
        corruption: one of `CORRUPTIONS`.
        severity: 1 to 5, or 0, which changes nothing.
        index: ``(B,)`` int64 position of each image in its data set; None: as they come.
        seed: of the draws.

    Returns:
        ``(B, C, H, W)`` uint8 on the images' device, made on the CPU.

    Raises:
        ValueError: these are no uint8 images, or there is no such corruption or severity.
    """
    require_images(images)
    if corruption not in _KINDS:
        raise ValueError(f"there is no corruption {corruption!r}: choose of {', '.join(CORRUPTIONS)}.")
    require_severities([severity], least=0)
    if index is None:
        index = torch.arange(len(images))
    if index.shape != (len(images),):
        raise ValueError(f"index has the shape {tuple(index.shape)} for {len(images)} images: give one position an image.")
    if severity == 0:
        return images.clone()
    kind = _KINDS[corruption]
    keys = keyed.mix(seed, index.cpu(), kind.stream, severity)
    at_once = max(1, _NUMBERS // images[0].numel())
    parts = zip(images.cpu().split(at_once), keys.split(at_once), strict=True)
    return torch.cat([kind.change(part, kind.levels[severity - 1], own) for part, own in parts]).to(images.device)


def examples(images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """One image in every corruption and severity, for a contact sheet.

    Args:
        images: ``(N, C, H, W)`` uint8, all that are measured: the bytes are those that a model is measured on.
        seed: of the corruptions, and of which image it is.

    Returns:
        Of each corruption ``(6, C, H, W)`` uint8: the image as it is, then severities 1 to 5.
    """
    require_images(images)
    chosen = torch.tensor([keyed.mix_numbers(seed, _SIGNS) % len(images)])
    image = images[chosen]
    return {
        name: torch.cat([corrupt(image, name, severity, index=chosen, seed=seed) for severity in (0, *SEVERITIES)])
        for name in CORRUPTIONS
    }


def require_images(images: Tensor) -> None:
    """Refuse what is no batch of stored images."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.numel() == 0:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}: give uint8 of (N, C, H, W), none of them 0, as they were stored."
        )


def require_severities(severities: Sequence[int], least: int = 1) -> None:
    """Refuse severities that are not defined."""
    for severity in severities:
        if severity not in range(least, len(SEVERITIES) + 1):
            raise ValueError(f"severity={severity}: give a whole number from {least} to {len(SEVERITIES)}.")


def _gaussian_noise(images: Tensor, deviation: float, keys: Tensor) -> Tensor:
    """Each pixel and channel for itself; `deviation` is of pixels in [0, 1], whatever the size of the image."""
    drawn = keyed.normal(keys, _NOISE, images[0].numel()).view(images.shape)
    return _bytes(images + 255 * deviation * drawn)


def _gaussian_blur(images: Tensor, deviation: float, _: Tensor) -> Tensor:
    """`deviation` in pixels of an image of 32; the kernel ends after four of them, and the edge is repeated beyond itself."""
    height, width = images.shape[-2:]
    pixels = _scaled(deviation, images)
    rows, columns = _smoothing(height, pixels), _smoothing(width, pixels)
    return _bytes(rows @ images.double() @ columns.T)


def _smoothing(length: int, deviation: float) -> Tensor:
    """``(length, length)``: what each pixel of a line gives to each other."""
    radius = int(4 * deviation + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / deviation) ** 2)
    sources = (torch.arange(length)[:, None] + offsets).clamp(0, length - 1)  # (length, 2 * radius + 1)
    return torch.zeros(length, length).double().scatter_add_(1, sources, (weights / weights.sum()).expand(length, -1))


def _contrast(images: Tensor, factor: float, _: Tensor) -> Tensor:
    """Towards the mean of each channel of each image."""
    pixels = images.double()
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    return _bytes((pixels - mean) * factor + mean)


def _brightness(images: Tensor, more: float, _: Tensor) -> Tensor:
    """The value of HSV, which is the largest channel, raised; hue and saturation stay, so all channels grow in proportion."""
    pixels = images.double()
    value = pixels.amax(dim=1, keepdim=True)
    raised = (value + 255 * more).clamp(max=255)
    return _bytes(torch.where(value > 0, pixels * raised / value.clamp(min=1), raised))


def _pixelate(images: Tensor, share: float, _: Tensor) -> Tensor:
    """Averaged over square cells, `share` times as many a side as there are pixels in an image of 32.

    What a cell's side is above one pixel grows with the image: at 224 pixels the shares are 0.73, 0.56, 0.45, 0.30 and 0.21,
    and those of the authors' ImageNet-C 0.6, 0.5, 0.4, 0.3 and 0.25. A pixel on a border shows both cells in proportion; the
    authors resize by Pillow's box filter, which gives it to one of them, so that by cells of little more than a pixel some rows
    are doubled, and errors go up and down from one severity to the next.
    """
    side = 1 + _scaled(1 / share - 1, images)
    return _bytes(_celled(images.shape[-2], side) @ images.double() @ _celled(images.shape[-1], side).T)


def _celled(length: int, side: float) -> Tensor:
    """``(length, length)``: each pixel of a line as the mean of its cells, two of which meet in the middle."""
    pixels, half = torch.arange(length).double(), math.ceil(length / 2 / side)
    begins = length / 2 + side * torch.arange(-half, half).double()[:, None]
    shared = torch.minimum(begins + side, pixels + 1) - torch.maximum(begins, pixels)  # (cells, length)
    shared = shared[shared.amax(dim=1) > 0].clamp(min=0)  # but for a last cell that rounding puts outside
    return shared.T @ (shared / shared.sum(dim=1, keepdim=True))


def _jpeg(images: Tensor, quality: float, _: Tensor) -> Tensor:
    """Written as a JPEG file and read, with blocks of 8 pixels; images of other than 1 or 3 channels as one file a channel."""
    whole = images.shape[1] in (1, 3)
    files = images if whole else images.flatten(0, 1)[:, None]

    def change(image: Tensor) -> Tensor:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(file, "JPEG", quality=int(quality))
        pixels = np.array(Image.open(file))
        return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)

    return torch.stack([change(image) for image in files]).view(images.shape)


def _translation(images: Tensor, pixels: float, keys: Tensor) -> Tensor:
    """Shifted along both axes, each to a side that is drawn; `pixels` of an image of 32. What comes in is black."""
    height, width = images.shape[-2:]
    shift = pixels / _SIDE * min(height, width) / torch.tensor([width, height])
    parameters = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0]).repeat(len(images), 1)
    parameters[:, 1:3] = shift * _signs(keys, 2)
    return _bytes(affine(images.float(), parameters))


def _rotation(images: Tensor, degrees: float, keys: Tensor) -> Tensor:
    """Turned about the centre, to a side that is drawn. What comes in is black."""
    parameters = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0]).repeat(len(images), 1)
    parameters[:, :1] = degrees * _signs(keys, 1)
    return _bytes(affine(images.float(), parameters))


def _scaled(pixels: float, images: Tensor) -> float:
    """What is so long in an image of 32 pixels, in these."""
    return pixels * max(min(images.shape[-2:]), _LEAST) / _SIDE


def _signs(keys: Tensor, n: int) -> Tensor:
    """``(B, n)`` float32, each -1 or 1."""
    return torch.where(keyed.uniform(keys, _SIGNS, n) < 0.5, -1.0, 1.0)


def _bytes(pixels: Tensor) -> Tensor:
    """Grey levels 0 to 255, rounded to the nearest."""
    return pixels.round().clamp(0, 255).to(torch.uint8)


_KINDS = {
    "gaussian_noise": _Kind(_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), 1),
    "gaussian_blur": _Kind(_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0), 2),
    "contrast": _Kind(_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), 3),
    "brightness": _Kind(_brightness, (0.05, 0.1, 0.15, 0.2, 0.3), 4),
    "pixelate": _Kind(_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), 5),
    "jpeg": _Kind(_jpeg, (80, 65, 58, 50, 40), 6),
    # to the ends of Engstrom et al.'s range for CIFAR-10, 3 pixels along each axis and 30 degrees, in equal steps
    "translation": _Kind(_translation, (0.6, 1.2, 1.8, 2.4, 3.0), 7),
    "rotation": _Kind(_rotation, (6, 12, 18, 24, 30), 8),
}
CORRUPTIONS = tuple(_KINDS)
