"""The fast road for plain JPEG files; what is not plain, or is damaged, takes Pillow's road in `decode`.

Both roads end in libjpeg: on plain files their pixels are the same. This one is 1.3 to 2 times as fast.
"""

import re
import struct
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torchvision.io  # registers the operator
from PIL import Image
from torch import Tensor

_HUFFMAN = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; the other frames are lossless or arithmetic
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three numbers are tables
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_SCAN, _APP1, _END = 0xDA, 0xE1, b"\xff\xd9"
_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')  # Pillow turns by it where EXIF does not say


class Header(NamedTuple):
    """What a JPEG file says of itself before its pixels.

    Attributes:
        size: height and width as they are stored.
        channels: 1 for grey, 3 for colour, 4 for print.
        plain: Huffman coded with 8 bits, upright, and ending with the mark of the end.
    """

    size: tuple[int, int]
    channels: int
    plain: bool


def header(data: bytes) -> Header | None:
    """Read the header of a file; None if it is no JPEG file, or a broken one."""
    if data[:2] != b"\xff\xd8":
        return None
    place, frame, upright = 2, None, True
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif marker in _ALONE:
            place += 2
        elif marker == _SCAN:
            return None if frame is None else _plain(data, place, frame, upright)
        else:
            length = int.from_bytes(data[place + 2 : place + 4], "big")
            body = data[place + 4 : place + 2 + length]
            if marker in _FRAMES and len(body) >= 6:
                frame = marker, body
            elif marker == _APP1:
                upright = upright and _upright(body)  # there may be several, and Pillow knows which one counts
            place += 2 + length
    return None


def _plain(data: bytes, scan: int, frame: tuple[int, bytes], upright: bool) -> Header:
    marker, body = frame
    bits, height, width, channels = struct.unpack(">BHHB", body[:6])
    # a decoder may fill the missing rows of a truncated file with grey; a thumbnail before the scan has an end of its own
    whole = data.rfind(_END, scan) > 0
    return Header((height, width), channels, marker in _HUFFMAN and bits == 8 and upright and whole and height > 0)


def _upright(segment: bytes) -> bool:
    """Whether neither EXIF nor XMP turns the image."""
    if segment[:6] != b"Exif\0\0":
        turned = _XMP_ORIENTATION.search(segment)
        return turned is None or turned[1] == b"1"
    exif = Image.Exif()
    try:
        exif.load(segment)
    except (SyntaxError, struct.error, ValueError, KeyError):
        return False  # Pillow's reader says what to make of it
    return exif.get(_ORIENTATION, 1) == 1


def pixels(data: bytes, found: Header, channels: int) -> Tensor | None:
    """``(channels, H, W)`` uint8 of a plain file, in memory channels last, or None where Pillow has to look at it.

    Args:
        data: the file.
        found: its header.
        channels: 3 for RGB, 1 for grey. Grey of a colour file is Pillow's: the luma of clipped colours is another than the
            file's own.
    """
    if not found.plain or found.channels not in (1, channels):
        return None
    decode = _operator()
    if decode is None:
        return None
    mode = torchvision.io.ImageReadMode.GRAY if channels == 1 else torchvision.io.ImageReadMode.RGB
    try:
        return decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode.value, False)  # False: leave it as it lies
    except RuntimeError:  # damaged
        return None


def decoder() -> str:
    """Whose decoder reads plain JPEG files here."""
    return "Pillow" if _operator() is None else "torchvision"


@cache
def _operator() -> Callable[[Tensor, int, bool], Tensor] | None:
    """Torchvision's own function warns that it will go; where its operator is gone, or was never built, Pillow decodes."""
    try:
        return torch.ops.image.decode_jpeg
    except AttributeError:
        return None
