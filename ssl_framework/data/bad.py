"""Samples that cannot be read: counted once each, named in the run folder, and too many of them stop the run."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_warn

from ssl_framework.paths import printable
from ssl_framework.types import Source

LIMIT = 0.01
"""Share of a split that may be unreadable."""

POLICIES = ("skip", "error")
"""What may be done about one: another sample takes its place, or the run ends."""

_COLUMNS = ("index", "name", "reason", "split")
_SHOWN = 3  # names in a line for people


class Bad(NamedTuple):
    """One unreadable sample.

    Attributes:
        split: which split of the data.
        row: position in it.
        name: what a person calls it.
        reason: why it cannot be read.
        of: samples of the split.
    """

    split: str
    row: int
    name: str
    reason: str
    of: int


class BadSamples:
    """The list of unreadable samples of a data module.

    Where several processes train together, each reads its own samples. Then `report` only keeps what it is told, and the data
    module hands to `note`, on all processes alike, what all of them have found: so they count together, and stop together.

    Args:
        policy: ``skip``: replaced and counted, at most `LIMIT` of a split; ``error``: the first one ends the run.

    Attributes:
        rows: (split, index) to (name, reason).
        together: whether other processes of the run read other samples.
        writes: whether this process writes the file.

    Raises:
        ValueError: no such policy.
    """

    def __init__(self, policy: str = "skip") -> None:
        if policy not in POLICIES:
            raise ValueError(
                f"on_bad_sample={policy}: give skip (counted and replaced, at most {LIMIT:.0%}) or error (the first one ends "
                "the run)."
            )
        self.policy = policy
        self.rows: dict[tuple[str, int], tuple[str, str]] = {}
        self.together = False
        self.writes = True
        self._told: list[Bad] = []
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
            ValueError: as `note`.
        """
        if (split, index) not in self.rows:
            one = Bad(split, index, printable(source.name(index)), printable(reason), len(source))
            if self.together:
                self._told.append(one)
            else:
                self.note([one])

    def told(self) -> list[Bad]:
        """What `report` has kept, taken away."""
        told, self._told = self._told, []
        return told

    def note(self, found: Iterable[Bad]) -> None:
        """Count samples, those that are not known yet.

        Args:
            found: the same on all processes.

        Raises:
            ValueError: the policy is ``error``, or more than `LIMIT` of a split is unreadable.
        """
        new = {(one.split, one.row): one for one in found if (one.split, one.row) not in self.rows}
        if not new:
            return
        self.rows |= {key: (one.name, one.reason) for key, one in new.items()}
        known = self._write()
        last = {one.split: one for one in new.values()}
        for one in last.values():
            self._judge(one, 0 if self.together else sum(row[0] == one.split for row in known - self.rows.keys()))

    def lines(self) -> list[str]:
        """What a run says of them at its end: one line, or nothing."""
        if not self.rows:
            return []
        shown = "; ".join(f"{name} ({reason})" for name, reason in list(self.rows.values())[:_SHOWN])
        rest = "" if self._folder is None else f"; {self._file} names all"
        return [f"unreadable and replaced: {len(self.rows)} samples, {shown}{rest}"]

    def names(self) -> list[str]:
        """Their names, as they were found."""
        return [name for name, _ in self.rows.values()]

    def state_dict(self) -> list[list[Any]]:
        """Plain rows: split, index, name, reason."""
        return [[*key, *value] for key, value in self.rows.items()]

    def load_state_dict(self, state: list[list[Any]]) -> None:
        """Take up the list of an earlier part of the run."""
        self.rows |= {(split, index): (name, reason) for split, index, name, reason in state}
        self._write()

    def _judge(self, one: Bad, elsewhere: int) -> None:
        """Whether to go on after a sample; `elsewhere`: what other runs in the same folder have found of its split."""
        if self.policy == "error":
            raise ValueError(
                f"{one.name} cannot be read ({one.reason}), and on_bad_sample=error: repair or remove it, or give "
                "data.on_bad_sample=skip."
            )
        count = elsewhere + sum(row[0] == one.split for row in self.rows)
        if count > LIMIT * one.of:
            where = f"{self._file} names them" if self._folder is not None else f"the last is {one.name} ({one.reason})"
            raise ValueError(
                f"{count} of {one.of} {one.split} samples cannot be read, more than {LIMIT:.0%}: {where}. Repair or remove "
                "them."
            )
        if count == 1:
            rank_zero_warn(f"{one.name} cannot be read ({one.reason}) and is replaced; further ones are counted.")

    @property
    def _file(self) -> Path:
        assert self._folder is not None
        return self._folder / "bad_samples.csv"

    def _write(self) -> set[tuple[str, int]]:
        """Append what the file lacks, and return what it had: other processes of the run write to it too."""
        if self._folder is None or not self.rows or not self.writes:
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


def of_all(trainer: pl.Trainer, found: list[Bad]) -> list[Bad]:
    """What all processes have found; called by all of them together."""
    if not trainer.strategy.reduce_boolean_decision(bool(found), all=False):
        return []
    everyone: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(everyone, found)
    return [one for part in everyone for one in part]
