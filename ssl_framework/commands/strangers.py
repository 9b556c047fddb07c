"""A run folder may come from a stranger: what its configuration may say, so that it runs no code and tells no secret.

Nor does it write beside the run, or reach the network: what does so is asked of the user again.
"""

import copy
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override

from ssl_framework import reading
from ssl_framework.commands import explain
from ssl_framework.paths import conf_dir

_CHOICE = re.compile(r"[\w@-]+(/[\w@-]+)*")
_WORD = re.compile(r"[+~]{0,2}[A-Za-z_][\w@./-]*(=|$)")
_OF_HYDRA = re.compile(r"_\w+_")  # keys that say how something is called
_ELSEWHERE = ("logger",)  # groups and nodes that write to other places, or tell others of the run
_FETCHED = ("data.download", "labelled_data.download", "encoder.pretrained")
_WRITTEN = ("data.cache_dir", "labelled_data.cache_dir")


def read(file: Path, allowed: Sequence[str] = ()) -> Any:
    """Plain values of a ``config.yaml`` that names nothing but what our own configuration names, and where it names it.

    Args:
        file: it.
        allowed: further names that may be called, ``package.Class``; the user's own.

    Raises:
        ValueError: it is no plain YAML, or says more than a configuration of ours can; the message says what.
    """
    content = reading.parsed_yaml(reading.text(file), file)
    run = content.get("run") if isinstance(content, dict) else None
    _require_ours(content, f"{file}: ", allowed)
    if isinstance(run, dict):
        _require_choices(run.get("choices"), file)
        _require_words(run, file, allowed)
    return content


@cache
def targets() -> frozenset[str]:
    """Everything that our own configuration calls."""
    return frozenset(name for names in _places().values() for name in names)


@cache
def _places() -> Mapping[tuple[str, int], frozenset[str]]:
    """What our own configuration calls, by node and by how deep below it."""
    found: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for file in conf_dir().rglob("*.yaml"):
        group = "" if file.read_text().startswith("# @package _global_") else str(file.parent.relative_to(conf_dir()))
        for path, key, value in _entries(yaml.safe_load(file.read_text()), "" if group == "." else group):
            if key == "_target_":
                found[path.split(".")[0], path.count(".")].add(value)
    return {place: frozenset(names) for place, names in found.items()}


def refuse_links(home: Path) -> None:
    """Stop before something is written into a folder in which a link leads elsewhere.

    Raises:
        ValueError: there is one; the message names it.
    """
    inside = home.resolve()
    for path in home.rglob("*"):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):  # resolve() fails on circles
            raise ValueError(
                f"{path} is a link to {path.readlink()}, outside of the run folder, and what is written there would land "
                "outside: put a copy in its place, or link the whole folder."
            )


def inward(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run folder as far as they are believed: they fetch nothing, and cache where the user caches."""
    kept = copy.deepcopy(dict(settings))
    for path, value in (*((path, False) for path in _FETCHED), *((path, None) for path in _WRITTEN)):
        node, _, key = path.partition(".")
        if isinstance(kept.get(node), dict) and key in kept[node]:
            kept[node][key] = value
    return kept


def lent(words: Sequence[str], key: str, folder: str, own: Sequence[str]) -> list[str]:
    """The words of a run folder that are taken over.

    Args:
        words: of the run.
        key: what the user named it by: resume or from_run.
        folder: the run folder.
        own: the user's own words.

    Raises:
        ValueError: one of them writes elsewhere or reaches the network; the user is to say it again.
    """
    said = {_key(word) for word in own}
    chosen = {name.partition(".")[0] for name in said if "." not in name}
    kept: list[str] = []
    for word in words:
        name = _key(word)
        node = name.partition(".")[0]
        if name in _FETCHED and (key == "resume" or name != "encoder.pretrained"):  # what is there need not be fetched
            continue
        if name in said or (node in chosen and "." in name):
            kept.append(word)
            continue
        if (name in (*_WRITTEN, *_FETCHED) or node in _ELSEWHERE) and not _stays(word):
            raise ValueError(
                f"{key}={folder} has {word}, which reaches beyond the run folder: say it again beside {key}= if you want it, "
                f"or {_instead(name)}."
            )
        kept.append(word)
    return kept


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~")


def _stays(word: str) -> bool:
    """Whether a word asks for nothing beyond the run folder: it takes something away, or chooses what writes there alone."""
    name, _, value = word.partition("=")
    return name.startswith("~") or value in ("false", "null") or (name == "logger" and value in ("default", "csv", "none"))


def _instead(name: str) -> str:
    node, _, key = name.partition(".")
    return {"pretrained": f"{name}=false", "cache_dir": f"{name}=null"}.get(key, f"{node}=default")


def _entries(node: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every value with its dotted path and its key."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        here = f"{path}.{key}" if path else str(key)
        yield here, str(key), value
        yield from _entries(value, here)


def _require_ours(content: Any, source: str, allowed: Sequence[str]) -> None:
    """Values are plain, and what is called is what ours call in the same place."""
    for path, key, value in _entries(content):
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"{source}{path} is {value!r}, which would be looked up when read; ours are looked up before.")
        if not _OF_HYDRA.fullmatch(key):
            continue
        if key != "_target_":
            raise ValueError(f"{source}{path} says how something is called, which none of ours does.")
        name = str(value)
        if name in allowed or name in _places().get((_node(path), path.count(".")), ()):
            continue
        if name in targets():
            raise ValueError(f"{source}{path} names {name!r}, which ours call in other places: it is not called here.")
        raise ValueError(
            f"{source}{path} names {name!r}, which is no part of this program: it would be imported and called. If you "
            f"know it and trust it, give allow_target=[{name}]."
        )


def _node(path: str) -> str:
    node = path.split(".", maxsplit=1)[0]
    return "data" if node == "labelled_data" else node


def _require_choices(choices: Any, file: Path) -> None:
    if not isinstance(choices, dict | None):
        raise ValueError(f"{file}: run.choices is {choices!r}, which is none of ours.")
    for group, choice in (choices or {}).items():
        if choice is not None and not (isinstance(choice, str) and _CHOICE.fullmatch(choice)):
            raise ValueError(f"{file}: run.choices.{group} is {choice!r}, which is the name of no choice.")


def _require_words(run: Mapping[str, Any], file: Path, allowed: Sequence[str]) -> None:
    """The words of a run are given to Hydra again: they set keys and choose, and none of Hydra's own."""
    words = run.get("words")
    if not isinstance(words, list | None):
        raise ValueError(f"{file}: run.words is {words!r}, which is no list of key=value.")
    for word in words or ():
        key = str(word).split("=", 1)[0]
        if not isinstance(word, str) or not _WORD.match(word) or "hydra" in key or "/" in key or ".." in key:
            raise ValueError(f"{file}: run.words has {word!r}, which is no key=value of ours.")
        try:
            (override,) = explain.parse([word])
            explain.check_choices([override])
            values = [] if override.is_delete() else explain.values_of(override)
        except ValueError as error:
            raise ValueError(f"{file}: run.words has {word!r}, which is no key=value of ours: {error}") from error
        for value in values:
            if not _chooses(override):
                _require_ours(_nested(key.lstrip("+~").split("."), value), f"{file}: run.words has {word!r}: ", allowed)


def _chooses(override: Override) -> bool:
    return (conf_dir() / override.key_or_group).is_dir()


def _nested(path: Sequence[str], value: Any) -> Any:
    return value if not path else {path[0]: _nested(path[1:], value)}
