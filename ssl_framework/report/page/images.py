"""Tensors as PNGs inside the page: a sprite of many thumbnails, and single pictures."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Array = np.ndarray[Any, np.dtype[Any]]

_SIDES = (32, 24, 16, 12, 8)
_COLOURS = (256, 64, 32)


class Sprite(NamedTuple):
    """Many thumbnails in one picture, line by line.

    Attributes:
        data: PNG as data URI.
        columns: thumbnails a line.
        size: pixels of a thumbnail, which is square.
    """

    data: str
    columns: int
    size: int


def sprite(images: Tensor, *, most_bytes: int = 400_000) -> Sprite:
    """Thumbnails of all images as one small PNG.

    Images keep their proportions inside a square, at most 32 pixels wide. Where that is too large a file, there are fewer
    colours at first, and then fewer pixels.

    Args:
        images: ``(N, C, H, W)`` uint8; grey with fewer than 3 channels, the first three otherwise.
        most_bytes: of the PNG; a data URI is a third longer. 8 pixels and 32 colours are the least, whatever the file takes.

    Raises:
        ValueError: not such images, or none.
    """
    if images.ndim != 4 or images.dtype != torch.uint8 or 0 in images.shape:
        raise ValueError(f"a sprite needs (N, C, H, W) uint8, got {tuple(images.shape)} {images.dtype}: give at least one.")
    longest = max(images.shape[2:])
    sides = [side for side in _SIDES if side < longest]
    sides = sides if longest > _SIDES[0] else [longest, *sides]
    columns = int(np.ceil(np.sqrt(len(images))))
    data, size = b"", sides[0]
    for size in sides:
        sheet = _sheet(_squares(images, size), columns)
        for colours in (None, *_COLOURS):
            data = _png(sheet, colours)
            if len(data) <= most_bytes:
                return Sprite(_uri(data), columns, size)
    return Sprite(_uri(data), columns, size)


def picture(image: Tensor, *, side: int | None = None, colours: int | None = None) -> str:
    """One image as a PNG in a data URI.

    Args:
        image: ``(H, W)`` or ``(C, H, W)``; uint8, or floats in [0, 1]; grey with fewer than 3 channels, else the first three.
        side: pixels of its longer side, at most; a larger image is made smaller. None: as it is.
        colours: at most so many, for a smaller file. None: as they are.

    Raises:
        ValueError: another shape, or values outside the range.
    """
    image = image[None] if image.ndim == 2 else image
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"a picture needs (H, W) or (C, H, W), got {tuple(image.shape)}.")
    if image.is_floating_point():
        if not bool(((image >= 0) & (image <= 1)).all()):
            low, high = float(image.min()), float(image.max())
            raise ValueError(f"a picture of floats lies in [0, 1], got {low:.3g} to {high:.3g}: undo the normalisation first.")
        image = (255 * image.float()).round().to(torch.uint8)
    if side is not None and max(image.shape[1:]) > side:
        scale = side / max(image.shape[1:])
        size = [max(1, round(scale * length)) for length in image.shape[1:]]
        image = (
            F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0].round().clamp(0, 255).to(torch.uint8)
        )
    return _uri(_png(_channels_last(image[None])[0], colours))


def _squares(images: Tensor, size: int) -> Array:
    """``(N, C, H, W)`` to ``(N, size, size)`` or ``(N, size, size, 3)``, in their proportions, on black."""
    height, width = images.shape[2:]
    scale = size / max(height, width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = images.cpu()
    if inner != (height, width):
        small = F.interpolate(small.float(), inner, mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
    left, top = (size - inner[1]) // 2, (size - inner[0]) // 2
    return _channels_last(F.pad(small, (left, size - inner[1] - left, top, size - inner[0] - top)))


def _channels_last(images: Tensor) -> Array:
    return (images[:, 0] if images.shape[1] < 3 else images[:, :3].permute(0, 2, 3, 1)).cpu().contiguous().numpy()


def _sheet(squares: Array, columns: int) -> Array:
    """``(N, S, S, ...)`` to ``(lines * S, columns * S, ...)``."""
    lines, size = -(-len(squares) // columns), squares.shape[1]
    sheet = np.zeros((lines * columns, *squares.shape[1:]), np.uint8)
    sheet[: len(squares)] = squares
    grid = sheet.reshape(lines, columns, size, size, -1).swapaxes(1, 2)
    return grid.reshape(lines * size, columns * size, *squares.shape[3:])


def _png(pixels: Array, colours: int | None) -> bytes:
    made = Image.fromarray(pixels)
    if colours is not None:
        made = made.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    made.save(file, "PNG", optimize=True)
    return file.getvalue()


def _uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
