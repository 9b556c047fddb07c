"""Samples that cannot be read: counted once each, named in the run folder, and too many of them stop the run."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_framework.types import Source

LIMIT = 0.01
"""Share of a split that may be unreadable."""

_COLUMNS = ("index", "name", "reason", "split")


class BadSamples:
    """The list of unreadable samples of a data module.

    Attributes:
        rows: (split, index) to (name, reason).
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], tuple[str, str]] = {}
        self._folder: Path | None = None

    @property
    def folder(self) -> Path | None:
        """The run folder, where ``bad_samples.csv`` is written (index, name, reason, split); None: nowhere."""
        return self._folder

    @folder.setter
    def folder(self, folder: Path | None) -> None:
        self._folder = folder
        self._write()

    def report(self, split: str, source: Source, index: int, reason: str) -> None:
        """Note one sample; the second time does nothing.

        Args:
            split: which split of the data.
            source: the split's samples.
            index: position in `source`.
            reason: why it cannot be read.

        Raises:
            ValueError: more than `LIMIT` of the split is unreadable.
        """
        if (split, index) in self.rows:
            return
        self.rows[split, index] = (source.name(index), reason)
        known = self._write()
        count = len({row for row in known | self.rows.keys() if row[0] == split})
        if count > LIMIT * len(source):
            where = f"{self._file} names them" if self._folder is not None else f"the last is {source.name(index)} ({reason})"
            raise ValueError(
                f"{count} of {len(source)} {split} samples cannot be read, more than {LIMIT:.0%}: {where}. Repair or remove "
                "them."
            )
        if count == 1:
            rank_zero_warn(f"{source.name(index)} cannot be read ({reason}) and is replaced; further ones are counted.")

    def state_dict(self) -> list[list[Any]]:
        """Plain rows: split, index, name, reason."""
        return [[*key, *value] for key, value in self.rows.items()]

    def load_state_dict(self, state: list[list[Any]]) -> None:
        """Take up the list of an earlier part of the run."""
        self.rows |= {(split, index): (name, reason) for split, index, name, reason in state}
        self._write()

    @property
    def _file(self) -> Path:
        assert self._folder is not None
        return self._folder / "bad_samples.csv"

    def _write(self) -> set[tuple[str, int]]:
        """Append what the file lacks, and return what it had: other processes of the run write to it too."""
        if self._folder is None or not self.rows:
            return set()
        self._folder.mkdir(parents=True, exist_ok=True)
        known: set[tuple[str, int]] = set()
        if self._file.exists():
            with self._file.open(newline="") as file:
                known = {(row["split"], int(row["index"])) for row in csv.DictReader(file)}
        else:
            self._append([_COLUMNS], os.O_CREAT | os.O_EXCL)
        new = [(key[1], *value, key[0]) for key, value in self.rows.items() if key not in known]
        self._append(new, os.O_CREAT)
        return known

    def _append(self, rows: list[Any], flags: int) -> None:
        """One write call: lines of two processes do not mix."""
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | flags, 0o644)
        except FileExistsError:
            return  # another process has just written the header
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.getvalue().encode())
