"""A run folder may come from a stranger: what its configuration may say, so that it runs no code and tells no secret."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ssl_framework.paths import conf_dir

_LARGEST = 1_000_000  # bytes; ours have a few thousand
_CHOICE = re.compile(r"[\w@-]+(/[\w@-]+)*")
_CALLED = re.compile(r"_target_ *[:=] *['\"]?([\w.]*)")
_WORD = re.compile(r"[+~]{0,2}[A-Za-z_][\w@./-]*(=|$)")


class _Loader(yaml.SafeLoader):
    """Reads no references: a kilobyte of them unfolds into gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has references (*name), and ours have none")
        return super().compose_node(parent, index)


def read(file: Path, allowed: Sequence[str] = ()) -> Any:
    """Plain values of a ``config.yaml`` that names nothing but what our own configuration names.

    Args:
        file: it.
        allowed: further names that may be called, ``package.Class``; the user's own.

    Raises:
        ValueError: it is no plain YAML, or says more than a configuration of ours can; the message says what.
    """
    with file.open("rb") as handle:
        raw = handle.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise ValueError(f"{file} has more than {_LARGEST:,} bytes, which none of ours has; it is not read.")
    try:
        content = yaml.load(raw, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not plain YAML ({' '.join(str(error).split())[:200]}): copy it again.") from error
    for path, key, value in _entries(content):
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"{file}: {path} is {value!r}, which would be looked up when read; ours are looked up before.")
        called = [str(value)] if key == "_target_" else _CALLED.findall(value) if isinstance(value, str) else []
        if isinstance(value, str) and key != "_target_" and len(called) != value.count("_target_"):
            raise ValueError(f"{file}: {path} is {value!r}, which does not say plainly what it would call.")
        for name in called:
            if name not in targets() and name not in allowed:
                raise ValueError(
                    f"{file}: {path} names {name!r}, which is no part of this program: it would be imported and called. If you "
                    f"know it and trust it, give allow_target=[{name}]."
                )
    _require_words(content, file)
    return content


@cache
def targets() -> frozenset[str]:
    """Everything that our own configuration calls."""
    files = conf_dir().rglob("*.yaml")
    return frozenset(name for file in files for name in re.findall(r"_target_: *([\w.]+)", file.read_text()))


def _entries(node: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every value with its dotted path and its key."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        here = f"{path}.{key}" if path else str(key)
        yield here, str(key), value
        yield from _entries(value, here)


def _require_words(content: Any, file: Path) -> None:
    """The words of a run are given to Hydra again: they set keys, and none of Hydra's own."""
    run = content.get("run") if isinstance(content, dict) else None
    if not isinstance(run, dict):
        return
    for word in run.get("words") or ():
        key = str(word).split("=", 1)[0]
        if not isinstance(word, str) or not _WORD.match(word) or "hydra" in key or ".." in key:
            raise ValueError(f"{file}: run.words has {word!r}, which is no key=value of ours.")
    for group, choice in (run.get("choices") or {}).items():
        if choice is not None and not (isinstance(choice, str) and _CHOICE.fullmatch(choice)):
            raise ValueError(f"{file}: run.choices.{group} is {choice!r}, which is the name of no choice.")
