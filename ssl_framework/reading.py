"""Text, JSON and YAML of files that may be a stranger's: of bounded size, as plain values, and nothing in them runs."""

import json
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml

Kind = TypeVar("Kind")

LARGEST = 1_000_000
"""Bytes of a description, a configuration or a manifest; ours have a few thousand."""

_SHOWN = 200  # letters of another library's message


class _PlainLoader(yaml.SafeLoader):
    """Reads no references: a kilobyte of them unfolds into gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has references (*name), and ours have none")
        return super().compose_node(parent, index)


def text(file: Path, largest: int = LARGEST) -> str:
    """What a file says.

    Args:
        file: it.
        largest: bytes that it may have.

    Raises:
        ValueError: it is larger, or no text.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is no plain file: give a file.")
    with file.open("rb") as handle:
        raw = handle.read(min(largest, file.stat().st_size) + 1)
    if len(raw) > largest:
        raise ValueError(f"{file} has more than {largest:,} bytes, which none of ours has; it is not read.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text ({error.reason}): it is damaged. Copy it again.") from error


def parsed_yaml(content: str, source: Any) -> Any:
    """Plain values of YAML without tags and references.

    Args:
        content: the text.
        source: what a person calls it; errors begin with it.

    Raises:
        ValueError: it is not such YAML.
    """
    try:
        return yaml.load(content, Loader=_PlainLoader)  # a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, KeyError, OverflowError) as error:  # odd dates and numbers
        raise ValueError(f"{source} is not plain YAML ({_short(error)}): copy it again.") from error


def parsed_json(content: str, source: Any, kind: type[Kind]) -> Kind:
    """Plain values of JSON.

    Args:
        content: the text.
        source: what a person calls it; errors begin with it.
        kind: what it must be: a dict or a list.

    Raises:
        ValueError: it is no JSON, or something else.
    """
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError) as error:  # also numbers of more digits than Python reads
        raise ValueError(f"{source} is no JSON ({_short(error)}): it is damaged. Copy it again.") from error
    if type(found) is not (get_origin(kind) or kind):
        raise ValueError(f"{source} holds a {type(found).__name__}, and a {kind.__name__} is expected: it is damaged.")
    return found


def json_of(file: Path, kind: type[Kind], largest: int = LARGEST) -> Kind:
    """Plain values of a JSON file, see `text` and `parsed_json`."""
    return parsed_json(text(file, largest), file, kind)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:_SHOWN]
