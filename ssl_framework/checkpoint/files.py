"""Files that are whole or not there."""

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast


@contextmanager
def replacing(target: Path) -> Generator[BinaryIO]:
    """A file to write, which takes its place when all of it is on the disk: a kill leaves the old file or the new one.

    It is written beside its place, because a rename is only atomic within a file system, and synced, as its folder is.

    Args:
        target: its place.
    """
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp", delete=False) as handle:
        temporary = Path(handle.name)
        try:
            yield cast(BinaryIO, handle)
            handle.flush()
            os.fsync(handle.fileno())
            temporary.chmod(0o644)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(target.parent)


def replace_text(target: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(target) as handle:
        handle.write(text.encode())


def sync_folder(folder: Path) -> None:
    """What was renamed in a folder stays renamed after a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what writes left behind that were killed."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
