"""The images of a race: clouds with detail and grain, which decode and compress about as photographs do; or CIFAR-10."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from throughput_cases import Case

_CHUNK = 256
_SCALES = (4, 16, 64)  # cells a side of the clouds, each half as strong as the one before
_QUALITY = 90


def make(case: Case, folder: Path, seed: int = 0) -> Path:
    """Write synthetic images, where they are not there yet.

    Args:
        case: says how many, how large, and whether as files.
        folder: of all cases' images.
        seed: of the images.

    Returns:
        ``images.npy``, ``(N, H, W, C)`` uint8, or the folder of JPEG files, ``CLASS/NUMBER.jpg`` with ten classes.
    """
    kind = "jpeg" if case.files else "arrays"
    home = folder / f"{kind}-{case.stored}-{case.images}"
    images = home / "images.npy"
    if home.exists():
        return home if case.files else images
    part = home.with_suffix(".partial")
    part.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    chunks = [_clouds(min(_CHUNK, case.images - at), case.stored, generator) for at in range(0, case.images, _CHUNK)]
    if case.files:
        for number, image in enumerate(image for chunk in chunks for image in chunk):
            place = part / str(number % 10)
            place.mkdir(exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{number:06}.jpg", quality=_QUALITY)
    else:
        np.save(part / images.name, torch.cat(chunks).permute(0, 2, 3, 1).numpy())
    part.rename(home)
    return home if case.files else images


def cifar10(root: Path, folder: Path) -> Path:
    """The 50,000 training images of CIFAR-10 as ``(N, 32, 32, 3)`` uint8 in a file, written where it is not there yet.

    Args:
        root: the folder that ``data=cifar10`` reads.
        folder: where the file goes.

    Raises:
        FileNotFoundError: no CIFAR-10 in `root`.
    """
    from ssl_framework.data import cifar10 as read  # noqa: PLC0415  (synthetic images need nothing of ours)

    file = folder / "cifar10" / "images.npy"
    if not file.is_file():
        source = read(root / "cifar10", val_share=0.0).train
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.stack([source.read(index).permute(1, 2, 0).numpy() for index in range(len(source))]))
    return file


def _clouds(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """``(count, 3, side, side)`` uint8."""
    light = torch.full((count, 3, side, side), 0.5)
    for power, cells in enumerate(_SCALES):
        coarse = torch.randn(count, 3, min(cells, side), min(cells, side), generator=generator)
        light += 0.25 * 0.5**power * F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    light += 0.015 * torch.randn(light.shape, generator=generator)
    return (light.clamp(0, 1) * 255).to(torch.uint8)
