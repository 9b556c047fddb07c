"""Images with boxes around things, as COCO's annotation files have them."""

import math
from collections import Counter
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_framework import reading
from ssl_framework.data.decode import decode
from ssl_framework.types import BadSampleError

_LARGEST = 4_000_000_000  # bytes of an annotation file; those of COCO have half of one
_SHOWN = 3  # names in an error


class Boxed(NamedTuple):
    """An image and what is in it.

    Attributes:
        image: ``(C, H, W)`` uint8.
        boxes: ``(n, 4)`` float32: left, top, right, bottom, in pixels.
        labels: ``(n,)`` int64, 1 to C; 0 is the background.
        crowd: ``(n,)`` bool: a group of things, which is not learnt from, and in which nothing that is found counts as wrong.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    crowd: Tensor


class CocoBoxes:
    """Boxes of an annotation file: https://cocodataset.org/#format-data, "object detection".

    Boxes without area are left out and counted in `empty`; images without boxes stay: they show what nothing looks like.

    Args:
        images: the folder of the images.
        annotations: the ``.json`` file.
        channels: 3 reads RGB, 1 grey.
        classes: names that the categories must be among, in their order (those of the training split).

    Raises:
        FileNotFoundError: no such folder or file, or images that are not there.
        ValueError: the file is no such file; or a box lies outside its image, belongs to no image, or has an unknown category.
    """

    def __init__(
        self, images: str | Path, annotations: str | Path, channels: int = 3, classes: tuple[str, ...] | None = None
    ) -> None:
        self.root, self.channels = Path(images), channels
        if not self.root.is_dir():
            raise FileNotFoundError(f"{images}: there is no such folder of images.")
        content = _read(Path(annotations))
        _check(content, annotations)
        try:
            self._understand(content, annotations, classes)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{annotations} has an entry that is not COCO's ({error!r}): correct it.") from error

    def _understand(self, content: dict[str, Any], annotations: str | Path, classes: tuple[str, ...] | None) -> None:
        named = {int(one["id"]): str(one["name"]) for one in content["categories"]}
        self.classes = classes or tuple(named[key] for key in sorted(named))
        unknown = sorted(set(named.values()) - set(self.classes))
        if unknown:
            raise ValueError(
                f"{annotations} has the category {unknown[0]!r}, and the training classes are {', '.join(self.classes)}."
            )
        number = {key: 1 + self.classes.index(name) for key, name in named.items()}
        self._files = {int(one["id"]): one for one in sorted(content["images"], key=lambda one: int(one["id"]))}
        self._ids = list(self._files)
        self._require_files(annotations)
        self._things: dict[int, list[tuple[list[float], int, bool]]] = {key: [] for key in self._ids}
        self.empty = 0
        for one in content["annotations"]:
            self._add(one, number, annotations)

    def _require_files(self, annotations: str | Path) -> None:
        if not self._files:
            raise ValueError(f"{annotations} lists no images: there is nothing to learn from.")
        lost = [str(one["file_name"]) for one in self._files.values() if not (self.root / str(one["file_name"])).is_file()]
        if lost:
            names = ", ".join(lost[:_SHOWN]) + (", ..." if len(lost) > _SHOWN else "")
            raise FileNotFoundError(
                f"{len(lost)} of {len(self._files)} images are not in {self.root} ({names}): correct the folder."
            )

    def _add(self, one: dict[str, Any], number: dict[int, int], source: str | Path) -> None:
        what = f"annotation {one.get('id')} of {source}"
        if one.get("image_id") not in self._things:
            raise ValueError(f"{what} belongs to image {one.get('image_id')}, which the file does not list.")
        if one.get("category_id") not in number:
            raise ValueError(f"{what} has category {one.get('category_id')}, which the file does not list.")
        box = one.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(x, int | float) and math.isfinite(x) for x in box):
            raise ValueError(f"{what} has the box {box}: give left, top, width and height in pixels.")
        left, top, width, height = map(float, box)
        if width < 0 or height < 0:
            raise ValueError(f"{what} has the box {box}, of negative width or height: give left, top, width and height.")
        if width == 0 or height == 0:
            self.empty += 1
            return
        image = self._files[int(one["image_id"])]
        if left < -1 or top < -1 or left + width > float(image["width"]) + 1 or top + height > float(image["height"]) + 1:
            raise ValueError(
                f"{what} has the box {one['bbox']} (left, top, width, height), and its image is {image['width']} x "
                f"{image['height']}: it lies outside. Boxes are in pixels, not in shares or corners."
            )
        corners = [left, top, left + width, top + height]
        self._things[int(one["image_id"])].append((corners, number[int(one["category_id"])], bool(one.get("iscrowd", 0))))

    def __len__(self) -> int:
        return len(self._ids)

    def name(self, index: int) -> str:
        """The path of an image."""
        return str(self.root / str(self._files[self._ids[index]]["file_name"]))

    def counts(self) -> dict[str, int]:
        """How many boxes each class has."""
        found = Counter(self.classes[label - 1] for things in self._things.values() for _, label, _ in things)
        return {name: found[name] for name in self.classes}

    def read(self, index: int) -> Boxed:
        """One image with its boxes.

        Raises:
            ValueError: the file cannot be read, or has another size than the annotations say.
        """
        one, path = self._files[self._ids[index]], Path(self.name(index))
        try:
            image = decode(path, self.channels)
        except BadSampleError as error:
            raise ValueError(f"{path} cannot be read ({error}): repair it, or take it out of the annotations.") from error
        height, width = image.shape[1:]
        if (height, width) != (int(one["height"]), int(one["width"])):
            raise ValueError(f"{path} is {width} x {height}, and its annotation says {one['width']} x {one['height']}.")
        things = self._things[self._ids[index]]
        boxes = torch.tensor([box for box, _, _ in things], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([label for _, label, _ in things], dtype=torch.int64)
        return Boxed(image, boxes, labels, torch.tensor([crowd for *_, crowd in things], dtype=torch.bool))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such annotation file.")
    content = reading.json_of(path, dict[str, Any], _LARGEST)
    lacking = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}: give a COCO annotation file of object detection.")
    return content


def _check(content: dict[str, Any], source: str | Path) -> None:
    """What every image and every category of an annotation file must have.

    Raises:
        ValueError: one lacks a key, two have one number, or a file lies outside the folder of the images.
    """
    needed = {"images": ("id", "file_name", "height", "width"), "categories": ("id", "name"), "annotations": ("image_id",)}
    for part, keys in needed.items():
        if not isinstance(content[part], list):
            raise ValueError(f"{source}: {part} is no list: give a COCO annotation file of object detection.")
        for place, one in enumerate(content[part]):
            lacking = [key for key in keys if not isinstance(one, dict) or one.get(key) is None]
            wrong = [key for key in keys if not lacking and key not in ("file_name", "name") and not isinstance(one[key], int)]
            if lacking or wrong:
                what = f"lacks {lacking[0]}" if lacking else f"has the {wrong[0]} {one[wrong[0]]!r}, which is no whole number"
                raise ValueError(f"{source}: number {place} of {part} {what}: give a COCO annotation file of object detection.")
    for part, key in (("images", "id"), ("categories", "id"), ("categories", "name")):
        count = Counter(one[key] for one in content[part])
        twice = next((value for value, n in count.items() if n > 1), None)
        if twice is not None:
            raise ValueError(f"{source}: two {part} have the {key} {twice!r}: each has its own.")
    for one in content["images"]:
        name = PurePath(str(one["file_name"]))
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"{source}: the file {one['file_name']!r} lies outside the folder of the images: move it there.")
