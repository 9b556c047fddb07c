"""Image bytes to pixels: every mode that files really have becomes RGB or grey, and what is damaged says so."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from ssl_framework.data import jpeg
from ssl_framework.types import BadSampleError

Reduction: TypeAlias = Callable[[tuple[int, int]], int]
"""From height and width of an upright image to how many times smaller (1, 2, 4 or 8) it may be decoded."""

MAX_PIXELS = 64_000_000
"""Above it a file counts as damaged: a small file may claim to be an image that fills the memory."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
"""Kinds of files that are read, whatever their names say. Pillow has others, and hands some to programs: EPS to Ghostscript."""

_DEEP = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
_ORIENTATION = 0x0112  # the tag of EXIF
_DRAFTED = {"JPEG", "MPO"}  # may be decoded smaller
_TRANSPARENT = {"LA", "La", "PA", "RGBA", "RGBa"}
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,  # pages of a TIFF file that lack tags
    RuntimeError,  # AVIF
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow's readers raise on damaged files; anything else is a fault of ours and must be seen."""


def decode(file: Path | bytes, channels: int) -> Tensor:
    """Read one image.

    The camera's rotation (EXIF) is applied. 16-bit values are divided by 257 (not cut off), floats must lie in 0..1 or 0..255,
    transparent pixels lie on white, palettes and CMYK become RGB, and of several frames the first is taken.

    Args:
        file: a path, or the bytes of a file.
        channels: 3 for RGB, 1 for grey (ITU-R 601 luma).

    Returns:
        ``(channels, H, W)`` uint8, in memory channels last.

    Raises:
        BadSampleError: it is no image, truncated, larger than `MAX_PIXELS`, or of a kind that has no meaning as a picture.
    """
    return decode_reduced(file, channels, lambda _: 1)[0]


def decode_reduced(file: Path | bytes, channels: int, reduction: Reduction) -> tuple[Tensor, tuple[int, int]]:
    """Like `decode`, and a JPEG file may be decoded smaller, which spares work.

    Args:
        file: a path, or the bytes of a file.
        channels: 3 for RGB, 1 for grey.
        reduction: asked once the size is known.

    Returns:
        The image, and its height and width when it is not reduced.

    Raises:
        BadSampleError: as `decode`.
    """
    data = _bytes(file)
    try:
        found = jpeg.header(data)
        if found is not None and found.plain:
            _check_size(*found.size)
            if reduction(found.size) == 1 and (image := jpeg.pixels(data, found, channels)) is not None:
                return image, found.size
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.height, image.width)
            size = _upright_size(image)
            by = reduction(size)
            if by > 1:
                image.draft(None, (max(1, image.width // by), max(1, image.height // by)))  # of JPEG files only
            pixels = to_tensor(image, channels)
            return pixels, size if image.format in _DRAFTED else (pixels.shape[1], pixels.shape[2])
    except DAMAGE as error:
        raise BadSampleError(_why(error, data)) from error


def size_of(file: Path | bytes) -> tuple[int, int]:
    """Height and width of an image, upright, from the head of its file.

    Raises:
        BadSampleError: it is no image, or larger than `MAX_PIXELS`.
    """
    try:
        if isinstance(file, Path):
            _require_file(file)
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
            _check_size(image.height, image.width)
            return _upright_size(image)
    except DAMAGE as error:
        raise BadSampleError(_why(error, file)) from error


class Kind(NamedTuple):
    """What the head of a file says of its image.

    Attributes:
        format: of the file, as Pillow calls it (``JPEG``, ``PNG``).
        mode: of its pixels, as Pillow calls it (``RGB``, ``L``, ``P``, ``CMYK``, ``I;16``, ``F``, ``RGBA``).
        size: height and width, upright.
        turned: EXIF or the file's own tags say that it lies.
        frames: more than 1 of an animation, or of a file with several pages; the first one is read.
    """

    format: str
    mode: str
    size: tuple[int, int]
    turned: bool
    frames: int


def kind_of(file: Path | bytes) -> Kind:
    """What a file says of its image, without decoding it.

    Raises:
        BadSampleError: as `size_of`.
    """
    try:
        if isinstance(file, Path):
            _require_file(file)
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
            _check_size(image.height, image.width)
            turned = image.getexif().get(_ORIENTATION, 1) not in {0, 1}
            return Kind(image.format or "", image.mode, _upright_size(image), turned, getattr(image, "n_frames", 1))
    except DAMAGE as error:
        raise BadSampleError(_why(error, file)) from error


def _why(error: Exception, file: Path | bytes) -> str:
    """The reason in a word or two."""
    if isinstance(error, UnidentifiedImageError) and not (file if isinstance(file, bytes) else file.stat().st_size):
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a kind that is read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {error}"


def _bytes(file: Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file
    try:
        _require_file(file)
        return file.read_bytes()
    except OSError as error:
        raise BadSampleError(_why(error, file)) from error


def _require_file(file: Path) -> None:
    """A pipe would never end."""
    if file.exists() and not file.is_file():
        raise BadSampleError(f"{file} is no file")


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadSampleError(f"{width} x {height} pixels are more than {MAX_PIXELS:,}")


def _upright_size(image: Image.Image) -> tuple[int, int]:
    lies = image.getexif().get(_ORIENTATION, 1) in {5, 6, 7, 8}
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # newer Pillows have turned its size already
        width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    return (width, height) if lies else (height, width)


def to_tensor(image: Image.Image, channels: int) -> Tensor:
    """A Pillow image of any mode as ``(channels, H, W)`` uint8, upright, in memory channels last; `decode` says how.

    Raises:
        BadSampleError: numbers outside what its mode can mean.
        OSError: the file behind it is truncated.
        ValueError: a mode that Pillow cannot convert.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _DEEP:
        upright = _from_numbers(np.asarray(upright), limit=65535)
    elif upright.mode == "F":
        upright = _from_numbers(np.asarray(upright), limit=255)
    if upright.mode in _TRANSPARENT or "transparency" in upright.info:
        above = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    pixels = np.array(upright.convert("L" if channels == 1 else "RGB"))  # (H, W) or (H, W, 3), a copy that torch may own
    tensor = torch.from_numpy(pixels)
    return tensor[None] if channels == 1 else tensor.permute(2, 0, 1)


def _from_numbers(values: np.ndarray, limit: int) -> Image.Image:
    """Grey image of 16-bit integers or of floats."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= limit):  # NaN fails it too
        raise BadSampleError(f"values from {low:g} to {high:g} are outside 0..{limit}")
    scale = 255 / 65535 if limit == 65535 else 255 if high <= 1 else 1
    return Image.fromarray(np.rint(values.astype(np.float64) * scale).astype(np.uint8))
