import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_framework.data import decode as decode_module
from ssl_framework.data.decode import decode, decode_reduced, size_of
from ssl_framework.types import BadSampleError

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def grey(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def check(data: bytes, rgb: np.ndarray, tolerance: int = 0) -> None:
    """Both readings, RGB and grey."""
    colour, single = decode(data, 3), decode(data, 1)
    assert colour.dtype == single.dtype == torch.uint8
    assert colour.shape == (3, *rgb.shape[:2])
    assert single.shape == (1, *rgb.shape[:2])
    assert np.abs(colour.permute(1, 2, 0).numpy().astype(int) - rgb).max() <= tolerance
    assert np.abs(single[0].numpy().astype(int) - grey(rgb)).max() <= max(tolerance, 1)


def stacked(values: np.ndarray) -> np.ndarray:
    return np.stack([values] * 3, -1)


def test_rgb() -> None:
    check(saved(Image.fromarray(RGB)), RGB)


def test_grey() -> None:
    check(saved(Image.fromarray(GREY)), stacked(GREY))


def test_black_and_white() -> None:
    check(saved(Image.fromarray(GREY > 127)), stacked((GREY > 127) * np.uint8(255)))


def test_palette() -> None:
    image = Image.fromarray(RGB).quantize(16)
    check(saved(image), np.asarray(image.convert("RGB")))


def test_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.fromarray(np.zeros((6, 8), np.uint8), "P")
    image.putpalette([10, 20, 30])
    check(saved(image, transparency=0), np.full((6, 8, 3), 255, np.uint8))


def test_cmyk_of_a_jpeg() -> None:
    flat = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    check(saved(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=100), flat, tolerance=3)


@pytest.mark.parametrize("value", [0, 257, 300, 32768, 65535])
def test_sixteen_bits_are_scaled_not_cut_off(value: int) -> None:
    deep = np.full((6, 8), value, np.uint16)
    deep[0, 0] = 1000
    check(saved(Image.fromarray(deep)), stacked(np.rint(deep / 257).astype(np.uint8)))


@pytest.mark.parametrize("scale", [1, 255])
def test_floats_in_0_to_1_or_0_to_255(scale: int) -> None:
    values = np.linspace(0, scale, 48, dtype=np.float32).reshape(6, 8)
    check(saved(Image.fromarray(values), "TIFF"), stacked(np.rint(values.astype(float) * 255 / scale).astype(np.uint8)))


@pytest.mark.parametrize("values", [[-1.0, 0.0], [0.0, 300.0], [float("nan"), 0.5]])
def test_floats_outside_are_refused(values: list[float]) -> None:
    with pytest.raises(BadSampleError, match=r"outside 0\.\.255"):
        decode(saved(Image.fromarray(np.array([values], np.float32)), "TIFF"), 3)


@pytest.mark.parametrize(("alpha", "weight"), [(255, 1.0), (0, 0.0), (128, 128 / 255)])
def test_transparency_lies_on_white(alpha: int, weight: float) -> None:
    expected = np.rint(RGB * weight + 255 * (1 - weight)).astype(np.uint8)
    image = Image.fromarray(RGB).convert("RGBA")
    image.putalpha(alpha)
    check(saved(image), expected, tolerance=1)
    image = Image.fromarray(GREY).convert("LA")
    image.putalpha(alpha)
    check(saved(image), stacked(np.rint(GREY * weight + 255 * (1 - weight)).astype(np.uint8)), tolerance=1)


def test_the_cameras_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows of the file are columns of the picture
    check(saved(Image.fromarray(RGB), exif=exif), np.rot90(RGB, -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_size_is_that_of_the_upright_image(kind: str, orientation: int) -> None:
    image, exif = Image.new("RGB", (6, 3), "red"), Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    data = file.getvalue()
    pixels, size = decode_reduced(data, 3, lambda size: 1)
    assert tuple(pixels.shape[1:]) == size == size_of(data) == ((6, 3) if orientation == 6 else (3, 6))


def test_of_several_frames_the_first() -> None:
    first, second = (Image.new("P", (8, 6), 0) for _ in range(2))
    first.putpalette([9, 9, 9])
    second.putpalette([99, 99, 99])
    check(saved(first, "GIF", save_all=True, append_images=[second]), np.full((6, 8, 3), 9, np.uint8))


def test_one_pixel() -> None:
    check(saved(Image.fromarray(RGB[:1, :1])), RGB[:1, :1])


WHOLE = {
    kind: saved(Image.fromarray(np.tile(RGB, (20, 20, 1))), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
}


@pytest.mark.parametrize("kind", sorted(WHOLE))
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated_files(kind: str, share: float) -> None:
    with pytest.raises(BadSampleError):
        decode(WHOLE[kind][: int(len(WHOLE[kind]) * share)], 3)


@pytest.mark.parametrize("data", [b"", b"a line of text", b"<html></html>", b"\x89PNG\r\n\x1a\n" + bytes(50), bytes(5000)])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(BadSampleError, match=r"is empty|no image of a kind|Error"):
        decode(data, 3)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(BadSampleError, match="no such file"):
        decode(tmp_path / "gone.png", 3)


def test_an_image_that_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 47)
    with pytest.raises(BadSampleError, match="8 x 6 pixels are more than 47"):
        decode(saved(Image.fromarray(RGB)), 3)
    bomb = saved(Image.new("1", (14_000, 13_000)))
    with pytest.raises(BadSampleError, match="DecompressionBomb"):
        decode(bomb, 3)
