"""Bad inputs by name, made when they are asked for: files of images, arrays, tables, masks and boxes."""

import copy
import gzip
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (120, 12, 14, 3), dtype=np.uint8)
LABELS = np.arange(120) % 2


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def good(folder: Path) -> Path:
    """120 images in two classes: one more that cannot be read is below 1 %."""
    for number, pixels in enumerate(PIXELS):
        target = folder / ("cat", "dog")[number % 2] / f"{number:03}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encoded(pixels))
    return folder


def png(width: int, height: int) -> bytes:
    """A black-and-white PNG that says to be so large, and takes few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    line = bytes(1 + (width + 7) // 8)
    packed = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


NOISE = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
JPEG, PNG = encoded(NOISE, "JPEG"), encoded(NOISE)
GREY = NOISE[:, :, 0]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


BYTES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zero byte jpg": ("new.jpg", lambda: b""),
    "zero byte png": ("new.png", lambda: b""),
    "text named jpg": ("new.jpg", lambda: b"not an image, but a note\n"),
    "html named jpg": ("new.jpg", lambda: b"<!doctype html><html><body>404 Not Found</body></html>"),
    "pointer of git lfs": ("new.jpg", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"),
    "svg named png": ("new.png", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "eps named jpg": ("new.jpg", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"),
    "pdf named jpg": ("new.jpg", lambda: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"),
    "heic named jpg": ("new.jpg", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)),
    "gzip named png": ("new.png", lambda: gzip.compress(PNG)),
    "zeros named jpg": ("new.jpg", lambda: bytes(5000)),
    "random bytes": ("new.jpg", lambda: np.random.default_rng(3).bytes(5000)),
    "head of a jpeg": ("new.jpg", lambda: JPEG[:300]),
    "truncated jpeg": ("new.jpg", lambda: half(JPEG)),
    "jpeg without its start": ("new.jpg", lambda: JPEG[100:]),
    "truncated png": ("new.png", lambda: half(PNG)),
    "png with a flipped bit": ("new.png", lambda: flipped(PNG, len(PNG) // 2)),
    "png of no pixels": ("new.png", lambda: png(0, 0)),
    "truncated gif": ("new.gif", lambda: half(encoded(NOISE, "GIF"))),
    "truncated webp": ("new.webp", lambda: half(encoded(NOISE, "WEBP"))),
    "truncated bmp": ("new.bmp", lambda: half(encoded(NOISE, "BMP"))),
    "truncated tiff": ("new.tif", lambda: half(encoded(NOISE, "TIFF"))),
    "truncated ppm": ("new.ppm", lambda: half(encoded(NOISE, "PPM"))),
    "100 megapixels": ("new.png", lambda: png(10_000, 10_000)),
    "400 megapixels": ("new.png", lambda: png(20_000, 20_000)),
    "float tiff with nan": ("new.tif", lambda: encoded(np.full((8, 8), np.nan, np.float32), "TIFF")),
    "float tiff below 0": ("new.tif", lambda: encoded(np.full((8, 8), -3, np.float32), "TIFF")),
    "float tiff up to a million": ("new.tif", lambda: encoded(np.full((8, 8), 1e6, np.float32), "TIFF")),
    "32-bit numbers": ("new.tif", lambda: encoded(np.full((8, 8), 10**6, np.int32), "TIFF")),
    "a name of two lines": ("two\nlines.jpg", lambda: half(JPEG)),
    "a name with a comma and quotes": ('a, "b".jpg', lambda: half(JPEG)),
    "a name that is not UTF-8": (os.fsdecode(b"caf\xe9.jpg"), lambda: half(JPEG)),
}
"""Files that cannot be read: their names, and their bytes."""


def dangling(folder: Path) -> Path:
    (folder / "new.jpg").symlink_to(folder / "gone.jpg")
    return folder / "new.jpg"


def itself(folder: Path) -> Path:
    (folder / "new.jpg").symlink_to(folder / "new.jpg")
    return folder / "new.jpg"


LINKS = {"a dangling link": dangling, "a link to itself": itself}

EXIF = Image.Exif()
EXIF[0x0112] = 6
SMOOTH = Image.fromarray(NOISE[:8, :8]).resize((64, 48), Image.Resampling.BICUBIC)
FRAMES = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]

ODD: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "16-bit png": ("deep", "new.png", lambda: encoded(GREY.astype(np.uint16) * 257)),
    "float tiff of 0 to 1": ("deep", "new.tif", lambda: encoded((GREY / 255).astype(np.float32), "TIFF")),
    "animation": ("frames", "new.gif", lambda: encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:])),
    "tiff of two pages": ("frames", "new.tif", lambda: encoded(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:])),
    "turned by exif": ("turned", "new.jpg", lambda: encoded(NOISE[:40], "JPEG", exif=EXIF)),
    "cmyk": ("mode", "new.jpg", lambda: encoded(Image.fromarray(NOISE).convert("CMYK"), "JPEG")),
    "palette": ("mode", "new.png", lambda: encoded(Image.fromarray(NOISE).quantize(16))),
    "black and white": ("mode", "new.png", lambda: encoded(GREY > 127)),
    "transparent": ("transparent", "new.png", lambda: encoded(Image.fromarray(NOISE).convert("RGBA"))),
    "grey among colours": ("grey", "new.png", lambda: encoded(GREY)),
    "1 x 1": ("smaller", "new.png", lambda: encoded(NOISE[:1, :1])),
    "a line": ("long", "new.png", lambda: encoded(np.resize(NOISE, (1, 60_000, 3)))),
    "black": ("one colour", "new.png", lambda: encoded(np.zeros((32, 32, 3), np.uint8))),
    "a copy": ("duplicate", "new.png", lambda: encoded(PIXELS[0])),
    "a copy in another format": ("duplicate", "new.bmp", lambda: encoded(PIXELS[0], "BMP")),
    "a copy in another class": ("two labels", "new.png", lambda: encoded(PIXELS[1])),
}
"""Files that are read as the documentation says, and that a check names, by the sort of finding."""


def left_out(folder: Path, name: str) -> Path:
    """What is not read, though a person may think so."""
    path = folder / name
    if name == "loop":
        path.symlink_to(folder.parent, target_is_directory=True)
    elif name == "folder.jpg":
        path.mkdir()
    elif name == "pipe.jpg":
        os.mkfifo(path)
    else:
        path.write_bytes(b"\0\5\x16\7" + bytes(40))
    return path


LEFT_OUT = ("._001.jpg", ".hidden.png", "Thumbs.db", ".DS_Store", "notes.txt", "picture.svg", "loop", "folder.jpg", "pipe.jpg")


def arrays_file(folder: Path, **stored: Any) -> Path:
    np.savez(folder / "stored.npz", **stored)
    return folder / "stored.npz"


UNIT = PIXELS / 255
ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "whole numbers of 64 bits": ({"images": PIXELS.astype(np.int64)}, "holds int64.*give uint8"),
    "complex numbers": ({"images": PIXELS.astype(complex)}, "holds complex128.*give uint8"),
    "words": ({"images": PIXELS[:2].astype(str)}, "holds <U3.*give uint8"),
    "dates": ({"images": PIXELS.astype("datetime64[s]")}, "holds datetime64.*give uint8"),
    "objects": ({"images": PIXELS[:2].astype(object)}, "without objects"),
    "records": ({"images": np.zeros(8, [("pixels", "u1", (4, 4))])}, "has the shape"),
    "nan": ({"images": np.where(PIXELS == 0, np.nan, UNIT)}, "floats in 0..1 without NaN"),
    "inf": ({"images": np.where(PIXELS == 0, np.inf, UNIT)}, "floats in 0..1 without NaN"),
    "floats to 255": ({"images": PIXELS.astype(float)}, "holds floats from 0 to 255"),
    "floats below 0": ({"images": UNIT - 0.5}, "holds floats from -0.5"),
    "four channels": ({"images": np.repeat(PIXELS[..., :1], 4, -1)}, "no axis of 1 or 3 channels"),
    "two axes of three": ({"images": PIXELS[:, :3]}, "two axes that could be the channels"),
    "lines and not images": ({"images": PIXELS[:, 0, :, 0]}, "has the shape"),
    "five axes": ({"images": PIXELS[None]}, "has the shape"),
    "one number": ({"images": np.uint8(1)}, "has the shape"),
    "no images": ({"images": PIXELS[:0]}, "not empty"),
    "no such array": ({"x": PIXELS}, "it needs `images`"),
    "black only": ({"images": np.zeros_like(PIXELS)}, "a channel is constant"),
    "labels of another length": ({"images": PIXELS, "targets": LABELS[:-1]}, "give 120 whole numbers"),
    "labels below 0": ({"images": PIXELS, "targets": LABELS - 1}, "give 120 whole numbers"),
    "labels with a point": ({"images": PIXELS, "targets": LABELS / 1.0}, "give 120 whole numbers"),
    "labels of nan": ({"images": PIXELS, "targets": np.full(120, np.nan)}, "give 120 whole numbers"),
    "labels of two axes": ({"images": PIXELS, "targets": LABELS[:, None]}, "give 120 whole numbers"),
    "labels that are words": ({"images": PIXELS, "targets": LABELS.astype(str)}, "give 120 whole numbers"),
    "labels that are times": ({"images": PIXELS, "targets": LABELS * 10**12}, "without gaps"),
    "test of another size": ({"images": PIXELS, "test_images": PIXELS[:, :8]}, "in train and .* in test"),
    "test of other channels": ({"images": PIXELS, "test_images": PIXELS[..., 0]}, "in train and .* in test"),
    "test without its labels": ({"images": PIXELS, "targets": LABELS, "test_images": PIXELS}, "no test_targets"),
    "a label of test alone": (
        {"images": PIXELS, "targets": LABELS, "test_images": PIXELS, "test_targets": LABELS + 1},
        "the label 2 has no name",
    ),
}

_NPY = io.BytesIO()
np.save(_NPY, PIXELS)
_NPZ = io.BytesIO()
np.savez(_NPZ, images=PIXELS)
_DAMAGED = "cannot be read as arrays of numbers"
ARRAY_FILES: dict[str, tuple[str, bytes, str]] = {
    "truncated npy": ("a.npy", _NPY.getvalue()[:-100], _DAMAGED),
    "head of an npy": ("a.npy", _NPY.getvalue()[:20], _DAMAGED),
    "empty npy": ("a.npy", b"", _DAMAGED),
    "text named npy": ("a.npy", b"hello", _DAMAGED),
    "truncated npz": ("a.npz", half(_NPZ.getvalue()), _DAMAGED),
    "npz with a flipped bit": ("a.npz", flipped(_NPZ.getvalue(), 5000), _DAMAGED),
    "empty npz": ("a.npz", b"", _DAMAGED),
    "a matlab file": ("a.mat", b"MATLAB", "is not a .npy or .npz file"),
}

_CELLS = [encoded(pixels) for pixels in PIXELS]
PARQUET: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "no column of images": (lambda: {"x": _CELLS, "label": LABELS}, "has no column 'img'; it has x, label"),
    "no column of labels": (lambda: {"img": _CELLS}, "has no column 'label'.*null: no labels"),
    "numbers for images": (lambda: {"img": LABELS, "label": LABELS}, "holds int here, not bytes"),
    "paths for images": (lambda: {"img": ["a.png"] * 120, "label": LABELS}, "holds str here, not bytes"),
    "images elsewhere": (lambda: {"img": [{"path": "a.png"}] * 120, "label": LABELS}, "holds NoneType here, not bytes"),
    "labels with a point": (lambda: {"img": _CELLS, "label": LABELS / 2}, "holds float, as 0.0"),
    "labels of nan": (lambda: {"img": _CELLS, "label": np.full(120, np.nan)}, "holds float, as nan"),
    "labels that are lists": (lambda: {"img": _CELLS, "label": [[1]] * 120}, "holds list"),
    "empty labels": (lambda: {"img": _CELLS, "label": [None, *LABELS[1:].tolist()]}, "has empty labels"),
    "no rows": (lambda: {"img": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "has no rows"),
}


def shard(folder: Path, name: str = "train-0.parquet", **columns: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)
    return folder


def _whole(folder: Path) -> bytes:
    return (shard(folder, img=_CELLS, label=LABELS) / "train-0.parquet").read_bytes()


def _two(folder: Path, name: str, **columns: Any) -> None:
    _whole(folder)
    shard(folder, name, img=_CELLS, **columns)


PARQUET_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda p: p.mkdir(), "There are no .parquet files"),
    "an empty file": (lambda p: (_whole(p), (p / "train-0.parquet").write_bytes(b"")), "train-0.parquet cannot be read"),
    "text": (lambda p: (_whole(p), (p / "train-0.parquet").write_bytes(b"hello")), "train-0.parquet cannot be read"),
    "a truncated file": (lambda p: (p / "train-0.parquet").write_bytes(_whole(p)[:-50]), "train-0.parquet cannot be read"),
    "other columns": (lambda p: _two(p, "train-1.parquet", other=LABELS), "shards of a split have the same"),
    "a label of test alone": (lambda p: _two(p, "test-0.parquet", label=LABELS + 9), "is not among the training labels"),
    "a shard of no split": (lambda p: _two(p, "more.parquet", label=LABELS), "begin their names with"),
    "no training": (lambda p: shard(p, "test-0.parquet", img=_CELLS, label=LABELS), "none called train"),
}

_HEAD = "name,size\n"
TABLES: dict[str, tuple[str, bytes, str]] = {
    "nothing in it": ("a.csv", b"", "cannot be read"),
    "names alone": ("a.csv", _HEAD.encode(), "no row for 3 of 3 samples"),
    "a row that is missing": ("a.csv", f"{_HEAD}0,1\n1,2\n".encode(), r"no row for 1 of 3 samples \(x\[2\]\)"),
    "a row twice": ("a.csv", f"{_HEAD}0,1\n0,1\n1,2\n2,3\n".encode(), "stands twice"),
    "no such column": ("a.csv", b"name,width\n0,1\n1,2\n2,3\n", "no column 'size'; it has name, width"),
    "the column twice": ("a.csv", b"name,size,size\n0,1,1\n1,2,2\n2,3,3\n", "several columns 'size'"),
    "words": ("a.csv", f"{_HEAD}0,large\n1,2\n2,3\n".encode(), "holds string, and numbers are needed"),
    "infinity": ("a.csv", f"{_HEAD}0,inf\n1,2\n2,3\n".encode(), "infinite or too large"),
    "a number beyond 32 bits": ("a.csv", f"{_HEAD}0,1e300\n1,2\n2,3\n".encode(), "infinite or too large"),
    "ragged rows": ("a.csv", f"{_HEAD}0,1,1\n1,2\n2,3\n".encode(), "cannot be read"),
    "semicolons": ("a.csv", b"name;size\n0;1\n1;2\n2;3\n", "no row for 3 of 3 samples"),
    "bytes that are not UTF-8": ("a.csv", b"name,size\n\xe9,1\n1,2\n2,3\n", "cannot be read"),
    "another ending": ("a.txt", f"{_HEAD}0,1\n".encode(), "is a .csv or a .parquet file"),
    "text named parquet": ("a.parquet", b"hello", "cannot be read"),
}

COCO: dict[str, Any] = {
    "images": [{"id": i, "file_name": f"{i}.png", "height": 12, "width": 14} for i in range(3)],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [{"id": 9, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}],
}
BOXES: dict[str, tuple[tuple[str, int, str, Any], str]] = {
    "outside": (("annotations", 0, "bbox", [1, 1, 50, 5]), "it lies outside"),
    "corners for sizes": (("annotations", 0, "bbox", [9, 9, 12, 12]), "it lies outside"),
    "inverted": (("annotations", 0, "bbox", [5, 5, -3, 2]), "of negative width or height"),
    "nan": (("annotations", 0, "bbox", [float("nan"), 1, 5, 5]), "give left, top, width and height"),
    "infinite": (("annotations", 0, "bbox", [1, 1, float("inf"), 5]), "give left, top, width and height"),
    "three numbers": (("annotations", 0, "bbox", [1, 1, 5]), "give left, top, width and height"),
    "words": (("annotations", 0, "bbox", ["1", "1", "5", "5"]), "give left, top, width and height"),
    "no box": (("annotations", 0, "bbox", None), "give left, top, width and height"),
    "an unknown class": (("annotations", 0, "category_id", 7), "has category 7"),
    "an unknown image": (("annotations", 0, "image_id", 7), "belongs to image 7"),
    "a file that is gone": (("images", 0, "file_name", "gone.png"), "are not in"),
    "a file elsewhere": (("images", 0, "file_name", "../secret.png"), "lies outside the folder"),
    "no height": (("images", 0, "height", None), "lacks height"),
    "an image twice": (("images", 0, "id", 1), "two images have the id 1"),
    "a class twice": (("categories", 0, "name", "dog"), "two categories have the name"),
    "a class without a name": (("categories", 0, "name", None), "lacks name"),
    "a number that is a word": (("categories", 0, "id", "1"), "is no whole number"),
    "another size": (("images", 0, "height", 99), "is 14 x 12, and its annotation says 14 x 99"),
}


def coco(folder: Path, change: tuple[str, int, str, Any] | None = None) -> tuple[Path, Path]:
    """Three images, and their annotations with one change."""
    content = copy.deepcopy(COCO)
    if change is not None:
        part, place, key, value = change
        content[part][place][key] = value
    for i in range(3):
        (folder / f"{i}.png").write_bytes(encoded(PIXELS[i]))
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder, folder / "boxes.json"


MASKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda mask: mask.unlink(), "has no mask"),
    "of another size": (lambda mask: mask.write_bytes(encoded(PIXELS[0][:10, :, 0])), "a label for each pixel"),
    "in colours": (lambda mask: mask.write_bytes(encoded(PIXELS[0])), "is a picture in colours"),
    "damaged": (lambda mask: mask.write_bytes(half(encoded(PIXELS[0][:, :, 0]))), "cannot be read"),
    "empty": (lambda mask: mask.write_bytes(b""), "cannot be read"),
    "text": (lambda mask: mask.write_bytes(b"hello"), "cannot be read"),
    "labels beyond 255": (lambda mask: mask.write_bytes(encoded(np.full((12, 14), 300, np.uint16))), "labels are 0 to 255"),
    "of a damaged image": (lambda mask: _image_of(mask).write_bytes(b"hello"), "0.png cannot be read"),
}


def _image_of(mask: Path) -> Path:
    return mask.parent.parent / "images" / mask.name
