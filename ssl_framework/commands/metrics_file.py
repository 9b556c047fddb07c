"""The curves of a run in one table, which a resumed run goes on with."""

import csv
import os
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn


class MetricsFile(Logger):
    """``RUN/metrics.csv``: one row a logged step, one column a quantity, `step` first.

    Lightning's own CSV logger deletes the file when a run is resumed; this one removes the rows that the resumed run will
    write again, and keeps the others. A disk that takes nothing does not end the run: rows are kept until it does.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns = ["step"]
        self._row: dict[str, Any] = {}  # of the current step, which may still grow
        self._waiting: list[dict[str, Any]] = []  # rows that the disk did not take yet
        self._lost = False

    @property
    def name(self) -> str:
        """There is one a run, without a name."""
        return ""

    @property
    def version(self) -> str:
        """There is one a run."""
        return ""

    @rank_zero_only
    def go_on_from(self, step: int) -> None:
        """Keep only what an earlier part of the run logged before `step`."""
        try:
            rows = [row for row in self._read() if int(row["step"]) < step and "" not in row]
        except (csv.Error, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is no table of a run ({error}): move it away, and the curves begin anew.") from error
        self._columns = list(rows[0]) if rows else ["step"]
        self._rewrite(rows)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add what was measured at a step; calls for the same step share its row."""
        at = self._row.get("step", 0) if step is None else step
        if self._row and self._row["step"] != at:
            self._put()
        new = {name: float(value) for name, value in metrics.items()}
        if "epoch" in self._row:
            new.pop("epoch", None)  # Lightning adds its own to what others log, and ours counts passes over the data
        self._row.update({"step": at, **new})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """They stand in config.yaml."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the last row."""
        if self._row or self._waiting:
            self._put()
        if self._waiting and not self._lost:
            rank_zero_warn(f"{self.path} lacks its end ({len(self._waiting)} of its rows): it could not be written.")
        self._lost = bool(self._waiting)

    def _put(self) -> None:
        told = bool(self._waiting)
        self._waiting += [self._row] if self._row else []
        self._row = {}
        try:
            self._write()
        except OSError as error:
            if not told:
                rank_zero_warn(
                    f"{self.path} was not written ({error.strerror}). The run goes on and keeps the rows; free some space "
                    "before it ends, or they are lost."
                )

    def _write(self) -> None:
        """All rows that wait, or none."""
        new = [name for name in dict.fromkeys(name for row in self._waiting for name in row) if name not in self._columns]
        if new or not self.path.is_file():
            rows = self._read()
            columns, self._columns = self._columns, self._columns + new
            try:
                self._rewrite(rows)
            except OSError:
                self._columns = columns
                raise
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerows(self._waiting)
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, size)  # of a part of a row
            raise
        self._waiting = []

    def _read(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file, restkey=""))  # what a row has too many

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self.path)
