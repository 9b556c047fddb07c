"""Plain values, and whether they are what an annotation says."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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


def of(called: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the parameters of a function or a class, those of ``**options: Unpack[Options]`` among them.

    What cannot be resolved is left out, as names that are imported for type checkers alone.
    """
    called = getattr(called, "func", called)  # functools.partial
    function = called.__init__ if isinstance(called, type) else called
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # written in C
        return {}
    hints = {name: hint for name in parameters if (hint := _resolved(function, name)) is not None}
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD and typing.get_origin(hints.get(name)) is typing.Unpack:
            hints |= typing.get_type_hints(typing.get_args(hints.pop(name))[0])
    return hints


def takes(called: Callable[..., Any]) -> set[str] | None:
    """What a function or a class takes, names of ``**options: Unpack[Options]`` among them; None: it takes anything."""
    called = getattr(called, "func", called)
    try:
        parameters = inspect.signature(called).parameters
    except ValueError:
        return None
    named = {name for name, one in parameters.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    for name, one in parameters.items():
        if one.kind is one.VAR_KEYWORD:
            hint = _resolved(called.__init__ if isinstance(called, type) else called, name)
            if typing.get_origin(hint) is not typing.Unpack:
                return None
            named |= set(typing.get_type_hints(typing.get_args(hint)[0]))
    return named


def _resolved(function: Any, name: str) -> Any:
    function = inspect.unwrap(function)
    annotations = getattr(function, "__annotations__", {})
    if name not in annotations:
        return None
    alone = types.SimpleNamespace(__annotations__={name: annotations[name]})
    try:
        return typing.get_type_hints(alone, globalns=getattr(function, "__globals__", {}))[name]
    except (NameError, TypeError, AttributeError, SyntaxError):
        return None


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
    kind = origin or hint
    if kind in (Sequence, list, tuple):
        if not isinstance(value, list):
            return False
        each = inner if kind is tuple and inner[1:] != (Ellipsis,) else inner[:1] * len(value)  # none: of anything
        return not inner or (len(each) == len(value) and all(map(partial(fits, strict=strict), value, each)))
    if kind in (Mapping, dict):
        of_key, of_value = inner or (Any, Any)
        pairs = value.items() if isinstance(value, dict) else ()
        each = (fits(key, of_key, strict=strict) and fits(one, of_value, strict=strict) for key, one in pairs)
        return isinstance(value, dict) and all(each)
    return type(value) in _PLAIN[kind] if kind in _PLAIN else hint is Any or not strict


def said(hint: Any) -> str:
    """An annotation in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(said, inner)))
    if origin is typing.Literal:
        return " or ".join(map(str, inner))
    if (origin or hint) in (Sequence, list, tuple):
        return f"a list{_said_of_items(origin, inner)}"
    if (origin or hint) in (Mapping, dict):
        return "keys with values"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _said_of_items(origin: Any, inner: tuple[Any, ...]) -> str:
    """What stands in a list, behind the word."""
    kinds = list(dict.fromkeys(one for one in inner if one is not Ellipsis))
    if len(kinds) > 1:
        return f" of {', '.join(map(said, inner))}"
    count = f", {len(inner)} of them" if origin is tuple and kinds and Ellipsis not in inner else ""
    if kinds in ([], [Any]):
        return count
    word = said(kinds[0])
    return f" of {word.removeprefix('a ')}s{count}" if word in _WORDS.values() and word[:2] == "a " else f"{count}, each {word}"
