"""The fast road of JPEG files ends where Pillow's does; and images that are decoded smaller."""

import io
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torch import Tensor

from ssl_framework.data import decode as decode_module
from ssl_framework.data import jpeg
from ssl_framework.data.decode import DAMAGE, MAX_PIXELS, decode, decode_reduced, size_of, to_tensor
from ssl_framework.types import BadSampleError
from ssl_framework.views import two_crops

PHOTOS = Path(sklearn.datasets.__file__).parent / "images"  # china.jpg and flower.jpg, 427 x 640
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def picture(height: int = 37, width: int = 53, mode: str = "RGB") -> Image.Image:
    """Smooth colours and hard edges."""
    noise = np.random.default_rng(height * 1000 + width)
    small = Image.fromarray(noise.integers(0, 256, (6, 8, 3), np.uint8))
    image = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    image[height // 3 : height // 2] = 255 - image[height // 3 : height // 2]
    return Image.fromarray(image).convert(mode)


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def exif(orientation: int | None = None, thumbnail: bytes = b"") -> bytes:
    made = Image.Exif()
    made[0x010E] = "a description"
    if orientation is not None:
        made[0x0112] = orientation
    return made.tobytes() + thumbnail


def with_segments(data: bytes, *bodies: bytes) -> bytes:
    """The file with APP1 segments behind its first mark."""
    return data[:2] + b"".join(b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body for body in bodies) + data[2:]


def pillow(data: bytes, channels: int) -> Tensor | None:
    """Pillow's road; None: it finds damage."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return to_tensor(image, channels)
    except (*DAMAGE, BadSampleError):
        return None


def road(data: bytes, channels: int) -> Tensor | None:
    try:
        return decode(data, channels)
    except BadSampleError:
        return None


def agree(data: bytes) -> bool:
    """Both readings, RGB and grey, are Pillow's to the bit, or damage on both roads."""
    for channels in (3, 1):
        ours, theirs = road(data, channels), pillow(data, channels)
        if ours is None or theirs is None:
            if ours is not theirs:
                return False
        elif not torch.equal(ours, theirs) or not ours.permute(1, 2, 0).is_contiguous():
            return False
    return True


def higher(data: bytes) -> bytes:
    """4:2:2 of 48 x 48 pixels with the two halves of each block below each other, as a turned photograph has them (4:4:0)."""
    assert data.count(b"\x01\x21\x00\x02\x11\x01") == 1
    return data.replace(b"\x01\x21\x00\x02\x11\x01", b"\x01\x12\x00\x02\x11\x01")


PLAIN = {
    "4:2:0": saved(picture()),
    "4:2:2": saved(picture(), subsampling="4:2:2", quality=90),
    "4:4:4": saved(picture(), subsampling="4:4:4", quality=95),
    "4:4:0": higher(saved(picture(48, 48), subsampling="4:2:2")),
    "stored as RGB": saved(picture(), keep_rgb=True),
    "grey": saved(picture(mode="L")),
    "progressive": saved(picture(), progressive=True),
    "progressive grey": saved(picture(mode="L"), progressive=True),
    "optimised": saved(picture(), optimize=True, quality=30),
    "restart markers": saved(picture(), restart_marker_blocks=2),
    "restart rows, progressive": saved(picture(), restart_marker_rows=1, progressive=True),
    "garbage after the end": saved(picture()) + b"some garbage",
    "another image after the end": saved(picture()) + saved(picture(mode="L"), quality=10),
    "upright by EXIF": saved(picture(), exif=exif(1)),
    "EXIF without orientation": saved(picture(), exif=exif()),
    "upright by XMP": saved(picture(), xmp=XMP % 1),
    "a comment": saved(picture(), comment=b"\xff\xd9 is no end"),
    "thumbnail": saved(picture(), exif=exif(thumbnail=saved(picture(8, 8)))),
    **{f"{h} x {w}": saved(picture(h, w)) for h, w in ((1, 1), (1, 30), (31, 1), (7, 9), (8, 16), (17, 33), (200, 3))},
}

TO_PILLOW = {
    "CMYK": saved(picture().convert("CMYK")),
    **{f"turned by EXIF {k}": saved(picture(), exif=exif(k)) for k in range(2, 9)},
    "turned by XMP": saved(picture(), xmp=XMP % 6),
    "turned by the first EXIF": with_segments(saved(picture()), exif(6), exif()),
    "turned, then upright": with_segments(saved(picture()), exif(6), exif(1)),
    "broken EXIF": saved(picture(), exif=b"Exif\0\0neither MM nor II"),
    "16 bits, a PNG": saved(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100), "PNG"),
    "a PNG": saved(picture(), "PNG"),
    "MAX": saved(picture(), "GIF"),
}

DAMAGED = {
    "empty": b"",
    "mark of the start": PLAIN["4:2:0"][:2],
    "header only": PLAIN["4:2:0"][: PLAIN["4:2:0"].index(b"\xff\xda")],
    "no scan": PLAIN["4:2:0"][: PLAIN["4:2:0"].index(b"\xff\xda") + 12],
    "half": PLAIN["4:2:0"][: len(PLAIN["4:2:0"]) * 6 // 10],
    "half, progressive": PLAIN["progressive"][: len(PLAIN["progressive"]) * 6 // 10],
    "half, with a thumbnail": PLAIN["thumbnail"][: len(PLAIN["thumbnail"]) - 300],
    "half, with restart markers": PLAIN["restart markers"][:-200],
    "the last byte of the scan": PLAIN["4:2:0"][:-3],
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_files_have_pillows_pixels_to_the_bit(kind: str):
    data = PLAIN[kind]
    found = jpeg.header(data)
    assert found is not None
    assert found.plain
    assert agree(data)
    height, width = found.size
    assert decode(data, 3).shape == (3, height, width)
    assert size_of(data) == found.size
    fast = jpeg.pixels(data, found, found.channels)
    assert fast is not None  # and it did take the fast road
    assert torch.equal(fast, decode(data, found.channels))


@pytest.mark.parametrize("kind", TO_PILLOW)
def test_what_is_not_plain_is_pillows(kind: str):
    found = jpeg.header(TO_PILLOW[kind])
    assert found is None or jpeg.pixels(TO_PILLOW[kind], found, 3) is None
    assert agree(TO_PILLOW[kind])
    assert road(TO_PILLOW[kind], 3) is not None
    assert decode(TO_PILLOW[kind], 3).shape[1:] == size_of(TO_PILLOW[kind])


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("channels", [3, 1])
def test_what_is_cut_off_is_damage_and_not_grey(kind: str, channels: int):
    with pytest.raises(BadSampleError):
        decode(DAMAGED[kind], channels)


def test_grey_of_a_colour_file_is_pillows():
    data = saved(Image.fromarray(np.full((16, 16, 3), (0, 0, 255), np.uint8)), quality=10)  # its luma is not that of its RGB
    found = jpeg.header(data)
    assert found is not None
    assert jpeg.pixels(data, found, 1) is None
    assert agree(data)


def test_the_header_says_what_the_file_is():
    assert jpeg.header(PLAIN["grey"]) == ((37, 53), 1, True)
    assert jpeg.header(PLAIN["progressive"]) == ((37, 53), 3, True)
    assert jpeg.header(TO_PILLOW["CMYK"]) == ((37, 53), 4, True)
    frame = PLAIN["4:2:0"].index(b"\xff\xc0")
    changes = {"lossless": (1, b"\xc3"), "arithmetic": (1, b"\xc9"), "12 bits": (4, b"\x0c"), "height left open": (5, b"\0\0")}
    for place, value in changes.values():
        found = jpeg.header(PLAIN["4:2:0"][: frame + place] + value + PLAIN["4:2:0"][frame + place + len(value) :])
        assert found is not None
        assert not found.plain
    assert jpeg.header(PLAIN["4:2:0"][:-2]) == ((37, 53), 3, False)
    thumbnail = PLAIN["thumbnail"][:-2]
    assert b"\xff\xd9" in thumbnail  # which is not the end of the file
    assert jpeg.header(thumbnail) == ((37, 53), 3, False)


def mutations(data: bytes, count: int) -> Iterator[bytes]:
    """Bytes changed, cut out or put in, half of them near the head."""
    noise = np.random.default_rng(len(data))
    for number in range(count):
        changed = bytearray(data)
        place = int(noise.integers(0, len(data) if number % 2 else min(len(data), 700)))
        some = noise.bytes(int(noise.integers(1, 20)))
        if number % 4 == 0:
            changed[place] = some[0]
        elif number % 4 == 1:
            changed[place : place + len(some)] = some
        elif number % 4 == 2:
            del changed[place : place + len(some)]
        else:
            changed[place:place] = some
        yield bytes(changed)
        yield data[:place]


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged EXIF
@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "upright by EXIF", "restart markers", "upright by XMP"])
def test_damaged_files_are_pillows_too(kind: str):
    for data in mutations(PLAIN[kind], 40):
        jpeg.header(data)
        assert agree(data)


@pytest.mark.filterwarnings("ignore")
def test_reading_a_header_never_fails():
    for kind in ("upright by EXIF", "thumbnail", "progressive", "a comment"):
        for data in mutations(PLAIN[kind], 150):
            jpeg.header(data)
    assert jpeg.header(b"\xff\xd8\xff\xc0\x00\x04ab\xff\xda\x00\x02") is None  # a frame of two bytes
    noise = np.random.default_rng(0)
    for start in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x00\x20Exif\0\0"):
        for length in range(60):
            jpeg.header(start + noise.bytes(length))


def test_without_torchvisions_operator_pillow_decodes_the_same(monkeypatch: pytest.MonkeyPatch):
    fast = {kind: decode(data, 3) for kind, data in PLAIN.items()}
    assert jpeg.decoder() == "torchvision"
    monkeypatch.setattr(jpeg, "_operator", lambda: None)
    assert jpeg.decoder() == "Pillow"
    for kind, data in PLAIN.items():
        found = jpeg.header(data)
        assert found is not None
        assert jpeg.pixels(data, found, 3) is None
        assert torch.equal(decode(data, 3), fast[kind])


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch):
    claims = bytearray(PLAIN["4:2:0"])
    frame = PLAIN["4:2:0"].index(b"\xff\xc0")
    claims[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"  # height and width
    assert MAX_PIXELS < 65535**2
    with pytest.raises(BadSampleError, match="65535 x 65535 pixels are more than 64,000,000"):
        decode(bytes(claims), 3)
    with pytest.raises(BadSampleError):
        size_of(bytes(claims))
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 37 * 53 - 1)
    monkeypatch.setattr(jpeg, "pixels", lambda *_: pytest.fail("decoded"))
    for data in (PLAIN["4:2:0"], TO_PILLOW["a PNG"]):
        for refused in (lambda data=data: decode(data, 3), lambda data=data: size_of(data)):
            with pytest.raises(BadSampleError, match="53 x 37 pixels are more than 1,960"):
                refused()
    monkeypatch.undo()
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 37 * 53)
    decode(PLAIN["4:2:0"], 3)


SIDES = [(64, 64), (65, 99), (37, 53), (16, 200), (127, 9), (8, 8)]


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("by", [2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}])
def test_a_reduced_jpeg_has_its_sides_divided_and_rounded_up(sides: tuple[int, int], by: int, options: dict[str, object]):
    image, size = decode_reduced(saved(picture(*sides), **options), 3, lambda size: by)
    assert size == sides
    assert image.shape == (3, math.ceil(sides[0] / by), math.ceil(sides[1] / by))
    assert image.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("by", [1, 2, 4])
def test_the_size_is_that_of_the_upright_image(orientation: int, by: int):
    data = saved(picture(40, 64), exif=exif(orientation), quality=95)
    upright = (64, 40) if orientation >= 5 else (40, 64)
    asked: list[tuple[int, int]] = []
    image, size = decode_reduced(data, 3, lambda size: asked.append(size) or by)
    assert size == size_of(data) == upright
    assert set(asked) == {upright}
    assert image.shape == (3, upright[0] // by, upright[1] // by)
    small = torch.nn.functional.avg_pool2d(decode(data, 3).float(), by)
    assert (image.float() - small).abs().mean() < 6  # turned as the whole is
    for other in (small.flip(1), small.flip(2), small.flip(1, 2)):
        assert (image.float() - other).abs().mean() > 30


def test_what_cannot_be_reduced_is_whole():
    for kind in ("PNG", "GIF", "BMP"):
        image, size = decode_reduced(data := saved(picture(), kind), 3, lambda size: 8)
        assert size == (37, 53)
        assert torch.equal(image, decode(data, 3))


@pytest.mark.parametrize("kind", [*PLAIN, *TO_PILLOW])
def test_a_reduction_of_one_is_none(kind: str, tmp_path: Path):
    data = (PLAIN | TO_PILLOW)[kind]
    (tmp_path / "a.jpg").write_bytes(data)
    for channels in (3, 1):
        whole = decode(data, channels)
        for file in (data, tmp_path / "a.jpg"):
            image, size = decode_reduced(file, channels, lambda size: 1)
            assert torch.equal(image, whole)
            assert size == tuple(whole.shape[1:]) == size_of(file)


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize(("side", "reductions"), [(24, {4, 8}), (32, {2, 4}), (64, {2})])
def test_views_of_a_reduced_photograph_are_those_of_the_whole_one(name: str, side: int, reductions: set[int]):
    """Of 255 levels a view is at most 1.1 off in the mean, and a pixel 30.

    The decoder keeps the low frequencies of each 8 x 8 block. What it leaves out is what a view, which shrinks the reduced
    image at least twice more, would have averaged away. A pixel is most off on hard edges, where cutting off frequencies rings
    and averaging does not. Measured over these draws: 1.01 and 26.
    """
    data = (PHOTOS / name).read_bytes()
    whole = decode(data, 3)
    views = two_crops((side, side), [0.5] * 3, [0.25] * 3, crop_scale=(0.3, 1.0))
    met: set[int] = set()
    for index in range(60):
        draw = views.draw(torch.tensor([index]), 0)
        image, size = decode_reduced(data, 3, lambda size, draw=draw: views.reduction(size, draw))
        reduced, full = views.crop(image, draw, size), views.crop(whole, draw)
        off = (reduced.global_crops.float() - full.global_crops.float()).abs()
        assert off.mean() <= 1.1
        assert off.max() <= 30
        assert reduced.boxes is not None
        assert full.boxes is not None
        assert torch.equal(reduced.boxes, full.boxes)  # of the whole image
        met.add(math.ceil(427 / image.shape[1]))
    assert met - {1} == reductions


def test_the_fast_road_does_not_depend_on_what_was_read_before():
    images = [decode(PLAIN[kind], 3) for kind in ("4:2:0", "grey", "4:2:0", "progressive", "4:2:0")]
    assert all(torch.equal(one, other) for one, other in pairwise(images[::2]))
