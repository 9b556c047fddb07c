"""What a number depends on, as short digests: the recipe of its cell, the code that measured it, the data."""

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ssl_framework.data import Labelled

_HOME = Path(__file__).resolve().parents[1]
_NOT_MEASURING = (
    "checkpoint/",  # the recipe names the encoder's tensors
    "cli.py",
    "commands/",
    "__main__.py",
    "monitors/",
    "pretext/",
    "report/",
    "transfer/claims/",
    "transfer/rows.py",
)
_LOOKED_AT = 64  # images of each split


def digest(content: Any) -> str:
    """16 hexadecimal digits of plain values, whatever the order of keys."""
    return _short(json.dumps(content, sort_keys=True).encode())


@cache
def code_digest() -> str:
    """Of the files that a cell may run through; comments, docstrings and layout do not count."""
    found = hashlib.sha256()
    for path in sorted(_HOME.rglob("*.py")):
        name = path.relative_to(_HOME).as_posix()
        if not name.startswith(_NOT_MEASURING):
            found.update(f"{name}\n{meaning(path.read_text())}\n".encode())
    return found.hexdigest()[:16]


def meaning(source: str) -> str:
    """Python code as its syntax tree, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            del node.body[0]
    return ast.dump(tree)


def data_digest(splits: Mapping[str, Labelled]) -> str:
    """Of splits: which samples they hold, their labels, and the bytes of some of their images."""
    found = hashlib.sha256()
    for name, split in splits.items():
        some = torch.linspace(0, len(split) - 1, min(_LOOKED_AT, len(split))).round().long()
        found.update(f"{name} {len(split)}\n".encode())
        for tensor in (split.index, split.targets, split.images(some)):
            found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
