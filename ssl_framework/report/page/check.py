"""Checks plain data before anything is drawn: a page shows no NaN, no per cent as shares, and nothing from elsewhere."""

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from ssl_framework.report.page.study import Image, Map, Row, Study, Thumbnails


def check(study: Mapping[str, Any]) -> Study:
    """The study, if a page can be made of it.

    Raises:
        ValueError: something is missing, has another type, is not finite, or points to what is not there; the message names the
            place and what belongs there.
    """
    unknown = [key for key in study if key not in Study.__annotations__]
    if unknown:
        raise ValueError(f"study has {unknown[0]!r}, which no section shows: the parts are {', '.join(Study.__annotations__)}.")
    study = {key: value for key, value in study.items() if value is not None or key == "pays_after_tasks"}
    _conform(study, Study, "study")
    known = cast(Study, study)
    _check_rows(known)
    _check_depth(known)
    _check_robustness(known)
    _check_images(known)
    return known


class Size(NamedTuple):
    """Of a picture, in pixels."""

    width: int
    height: int


def png_size(data: str) -> Size:
    """Width and height of a PNG that is a data URI.

    Raises:
        ValueError: it is none.
    """
    head = base64.b64decode(data.partition(",")[2][:32])
    if not data.startswith("data:image/png;base64,") or head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        raise ValueError(f"{data[:40]!r} is no PNG as data URI: make it by ssl_framework.report.sprite or picture.")
    return Size(*struct.unpack(">II", head[16:24]))


def _check_rows(study: Study) -> None:
    rows: list[Row] = [*study["rows"], *study.get("more_rows", [])]
    for order, row in enumerate(rows):
        if row.get("na"):
            continue
        place = f"study['rows'][{order}] ({row['method']}, budget {row['budget']})"
        for key in ("accuracy", "seed", "labels"):
            if key not in row:
                raise ValueError(f"{place} has no {key!r}: give it, or say under 'na' why the run was not made.")
        _share(row.get("accuracy"), f"{place}['accuracy']")
        if row.get("labels", 0) < 1:
            raise ValueError(f"{place}['labels'] is {row.get('labels')}: give the number of labels, at least 1.")
    if not any("accuracy" in row and not row.get("na") for row in study["rows"]):
        raise ValueError("study['rows'] holds no accuracy: run the study first.")


def _check_depth(study: Study) -> None:
    depth = study.get("depth")
    if depth is None:
        return
    layers = len(depth["mean"])
    if layers == 0 or len(depth["standard_error"]) != layers or not 0 <= depth["chosen"] < layers:
        raise ValueError(
            f"study['depth'] has {layers} means, {len(depth['standard_error'])} standard errors and keeps layer "
            f"{depth['chosen']}: give one of each per layer, and a layer from 0."
        )


def _check_robustness(study: Study) -> None:
    for method, measured in study.get("robustness", {}).items():
        place = f"study['robustness'][{method!r}]"
        for key in ("clean", "ece", "ood_auroc", "gradient_share"):
            _share(measured.get(key), f"{place}[{key!r}]")
        for name, values in measured.get("corruptions", {}).items():
            if len(values) != 5:
                raise ValueError(f"{place}['corruptions'][{name!r}] has {len(values)} accuracies: give 5, severity 1 first.")
            for value in values:
                _share(value, f"{place}['corruptions'][{name!r}]")
        for key in ("fgsm", "pgd", "noise", "label_noise"):
            for value in measured.get(key, {}).values():
                _share(value, f"{place}[{key!r}]")


def _check_images(study: Study) -> None:
    shown = study.get("map", Map(points=[], classes=[]))
    thumbnails = shown.get("thumbnails")
    count = _thumbnail_count(thumbnails) if thumbnails else 0
    classes = shown["classes"]
    for order, (_, _, kind, image) in enumerate(shown["points"]):
        place = f"study['map']['points'][{order}]"
        if not 0 <= kind < len(classes):
            raise ValueError(f"{place} is of class {kind}: there are {len(classes)} classes, from 0.")
        if image is not None and thumbnails:
            _check_image(image, count, place)
    for order, found in enumerate(study.get("neighbours", [])):
        place = f"study['neighbours'][{order}]"
        if len(found["answers"]) != len(found["right"]):
            raise ValueError(
                f"{place} has {len(found['answers'])} answers and {len(found['right'])} of 'right': give one each."
            )
        for image in (found["query"], *found["answers"]):
            _check_image(image, count, place)
    for order, picture in enumerate(study.get("attention", [])):
        _check_image(picture["image"], count, f"study['attention'][{order}]")
    for order, sample in enumerate(study.get("views", [])):
        for image in (sample["original"], *sample["views"]):
            _check_image(image, count, f"study['views'][{order}]")


def _thumbnail_count(thumbnails: Thumbnails) -> int:
    width, height = png_size(thumbnails["data"])
    columns, size = thumbnails["columns"], thumbnails["size"]
    if size < 1 or columns * size != width or height % size:
        raise ValueError(
            f"study['map']['thumbnails'] is {width} x {height} pixels, which is not {columns} columns of {size} pixels: "
            "take data, columns and size from ssl_framework.report.sprite."
        )
    return columns * (height // size)


def _check_image(image: Image, count: int, place: str) -> None:
    if isinstance(image, str):
        if not image.startswith("data:image/"):
            raise ValueError(
                f"{place} shows {image[:60]!r}: a page loads nothing, so give a data URI (report.picture makes one)."
            )
    elif not 0 <= image < count:
        raise ValueError(f"{place} shows thumbnail {image}: study['map']['thumbnails'] holds {count}, from 0.")


def _share(value: float | None, place: str) -> None:
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{place} is {value}: give a share in [0, 1], not per cent.")


def _conform(value: Any, hint: Any, place: str) -> None:
    """Raise unless `value` has the type `hint`, with numbers that are finite."""
    origin, parts = get_origin(hint), get_args(hint)
    if is_typeddict(hint):
        _conform_record(value, hint, place)
    elif origin in (Union, UnionType):
        _conform_any(value, parts, place)
    elif origin is Literal:
        if value not in parts:
            raise ValueError(f"{place} is {value!r}: give {' or '.join(map(repr, parts))}.")
    elif origin in (list, tuple):
        _conform_items(value, origin, parts, place)
    elif origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} is a {type(value).__name__}: give a dict.")
        for key, item in value.items():
            if parts[0] is float:
                _conform_number(_as_number(key), float, f"{place}, key {key!r},")
            _conform(item, parts[1], f"{place}[{key!r}]")
    elif hint in (int, float):
        _conform_number(value, hint, place)
    elif not isinstance(value, hint):
        raise ValueError(f"{place} is {value!r}, a {type(value).__name__}: give a {_kind(hint)}.")


def _conform_record(value: Any, hint: Any, place: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place} is a {type(value).__name__}: give a dict.")
    missing = sorted(hint.__required_keys__ - set(value))
    if missing:
        raise ValueError(f"{place} has no {missing[0]!r}: it belongs to every {hint.__name__.lower()}.")
    for key, inner in get_type_hints(hint).items():
        if key in value:
            _conform(value[key], inner, f"{place}[{key!r}]")


def _conform_any(value: Any, hints: tuple[Any, ...], place: str) -> None:
    if value is None and type(None) in hints:
        return
    hints = tuple(hint for hint in hints if hint is not type(None))
    if len(hints) == 1:
        _conform(value, hints[0], place)
        return
    if float in hints and not isinstance(value, bool) and isinstance(value, Real):
        _conform_number(value, float, place)
        return
    for hint in hints:
        if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
            _conform(value, hint, place)
            return
    raise ValueError(f"{place} is {value!r}, a {type(value).__name__}: give a {' or a '.join(map(_kind, hints))}.")


def _conform_items(value: Any, origin: Any, parts: tuple[Any, ...], place: str) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{place} is a {type(value).__name__}: give a list.")
    if origin is tuple and len(value) != len(parts):
        raise ValueError(f"{place} has {len(value)} values: give {len(parts)}.")
    for order, item in enumerate(value):
        _conform(item, parts[order] if origin is tuple else parts[0], f"{place}[{order}]")


def _conform_number(value: Any, hint: Any, place: str) -> None:
    kind = Integral if hint is int else Real
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(f"{place} is {value!r}, a {type(value).__name__}: give a {_kind(hint)}.")
    if not math.isfinite(value):
        raise ValueError(f"{place} is {value}: a page shows finite numbers only; leave out what is not known, or give null.")


def _as_number(key: Any) -> Any:
    try:
        return float(key)
    except ValueError:
        return key


def _kind(hint: Any) -> str:
    return {int: "whole number", float: "number", str: "string", bool: "bool"}.get(hint, str(hint))
