"""How the CPU kernel is compiled: once, kept on disk, and by a process's first view, not by an import.

Numba keeps machine code beside the source, or in the user's cache folder where the package is read-only, or where
``NUMBA_CACHE_DIR`` says. It writes files under another name and then renames them, so processes that compile at once do not
disturb each other: every entry has one signature, and whoever comes last leaves the same code.
"""

import functools
import hashlib
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
from numba.core import config

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# Sums may be taken in any order, multiplied and added at once; NaN and infinity keep their meaning.
_RELAXED = {"nsz", "arcp", "contract", "afn", "reassoc"}


def exact(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A part of an entry whose arithmetic is that of torch, operation by operation."""
    return _compiled(function)


def relaxed(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A part of an entry whose sums may be rearranged, so that they run in vector registers."""
    return _compiled(function, fastmath=_RELAXED)


def entry(function: Callable[Parameters, Result], signature: str) -> Callable[Parameters, Result]:
    """What Python calls: compiled for one signature, or taken from the disk.

    Numba compares the source of the function's own file only. The name of its cache file therefore says of which state of all
    files of this folder it was made.

    Args:
        function: in plain Python, calling `exact` and `relaxed` parts.
        signature: in Numba's notation.
    """
    function.__qualname__ = f"{function.__name__}_{_version()}"
    with _straight_lines_vectorised():
        try:
            return _compiled(function, signature, cache=True)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            warnings.warn(
                "The view kernel is compiled anew by every process (about 20 s), because no folder for its machine code can be "
                "written: set NUMBA_CACHE_DIR to one.",
                stacklevel=2,
            )
            return _compiled(function, signature)


@contextmanager
def _straight_lines_vectorised() -> Generator[None]:
    """Operations that stand side by side, such as those on the four numbers of a pixel, become one: not Numba's default."""
    settings: Any = config
    before = settings.SLP_VECTORIZE
    settings.SLP_VECTORIZE = 1
    try:
        yield
    finally:
        settings.SLP_VECTORIZE = before


def _compiled(function: Callable[Parameters, Result], *signature: str, **options: Any) -> Callable[Parameters, Result]:
    # division by zero gives infinity, as in torch; raising would break the vector loops
    compiler: Any = numba.njit  # its stubs know no signature given beside options
    made = compiler(*signature, nogil=True, error_model="numpy", **options)(function)
    return cast(Callable[Parameters, Result], made)


@functools.cache
def _version() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
