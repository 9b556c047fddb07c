"""Plain values, and whether they are what an annotation says."""

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PLAIN: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    bool: (bool,),
    str: (str,),
    Path: (str,),
    type(None): (type(None),),
}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", Path: "a path", type(None): "null"}


def fits(value: Any, hint: Any, *, strict: bool = False) -> bool:
    """Whether a plain value is what an annotation says.

    Args:
        value: of YAML or JSON.
        hint: the annotation, of plain values, `Literal`, sequences and mappings of them.
        strict: nothing fits an annotation of another kind; False: of what no file can write, nothing is judged.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one, strict=strict) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin in (Sequence, list, tuple):
        several = origin is not tuple or inner[1:] == (Ellipsis,)
        long_enough = isinstance(value, list) and (several or len(value) == len(inner))
        return long_enough and all(fits(one, inner[0], strict=strict) for one in value)
    if (origin or hint) in (Mapping, dict):
        named = isinstance(value, dict) and all(isinstance(key, str) for key in value)
        return named and all(fits(one, inner[1], strict=strict) for one in value.values() if inner)
    kind = origin or hint
    return type(value) in _PLAIN[kind] if kind in _PLAIN else not strict


def said(hint: Any) -> str:
    """An annotation in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(said, inner)))
    if origin is typing.Literal:
        return " or ".join(map(str, inner))
    if origin in (Sequence, list, tuple):
        return f"a list of {said(inner[0]).removeprefix('a ')}s" + (f", {len(inner)} of them" if origin is tuple else "")
    if (origin or hint) in (Mapping, dict):
        return "keys with values"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
