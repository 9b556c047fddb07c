"""Numbers of samples by their names: a CSV or parquet file beside the images."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

_SHOWN = 3  # names in an error


class Table:
    """Columns of a file, whose rows are found by the names of samples.

    Args:
        path: a ``.csv`` file with a first line of names, or a ``.parquet`` file.
        key: the column with the names of samples; None: the first. A name is the end of a path (``0412.jpg``,
            ``cats/0412.jpg``), or for images of an array or a table the number of the row.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such file, it has no such column, or two rows have one name.
    """

    def __init__(self, path: str | Path, key: str | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such table. Give the path of a .csv or .parquet file.")
        self._table = _read(self.path, key)
        self._key = key or self._table.column_names[0]
        names = [str(name).replace("\\", "/") for name in self._column(self._key).to_pylist()]
        self._rows = {name: row for row, name in enumerate(names)}
        if len(self._rows) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{self.path}: {twice!r} stands twice in the column {self._key}: one row a sample.")

    def numbers(self, columns: Sequence[str], samples: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Columns of numbers, ``(N, K)`` float32, a row for each sample; what is empty is NaN.

        Raises:
            ValueError: a column is not there or holds words, or a sample has no row.
        """
        rows = self._found(samples)
        found: list[np.ndarray] = []
        for column in columns:
            values = self._column(column)
            if not (pyarrow.types.is_integer(values.type) or pyarrow.types.is_floating(values.type) or
                    pyarrow.types.is_boolean(values.type)):  # fmt: skip
                raise ValueError(f"{self.path}: the column {column!r} holds {values.type}, and numbers are needed.")
            cast = (
                values.cast(pyarrow.float64())
                if not pyarrow.types.is_boolean(values.type)
                else values.cast("int8").cast("double")
            )
            found.append(self._finite(column, cast.to_numpy(zero_copy_only=False)[rows]))
        return np.stack(found, axis=1).astype(np.float32)

    def _finite(self, column: str, values: np.ndarray) -> np.ndarray:
        """The numbers, of which none is too large for 32 bits."""
        wrong = np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)
        if len(wrong):
            raise ValueError(
                f"{self.path}: {len(wrong)} numbers of the column {column!r} are infinite or too large, such as "
                f"{values[wrong[0]]:g}: correct them, or leave them empty."
            )
        return values

    def _column(self, name: str) -> Any:
        if name not in self._table.column_names:
            raise ValueError(f"{self.path} has no column {name!r}; it has {', '.join(self._table.column_names)}.")
        if self._table.column_names.count(name) > 1:
            raise ValueError(f"{self.path} has several columns {name!r}: give them different names.")
        return self._table.column(name)

    def _found(self, samples: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
        rows: list[int] = []
        missing: list[str] = []
        for sample in samples:
            row = next((self._rows[name] for name in _names(sample) if name in self._rows), None)
            rows.append(-1 if row is None else row)
            if row is None:
                missing.append(sample)
        if missing:
            shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise ValueError(
                f"{self.path} has no row for {len(missing)} of {len(samples)} samples ({shown}): their names are looked for "
                f"in the column {self._key}, as a path or its end, or as a number; labels.key= names another column."
            )
        first: dict[int, str] = {}
        for sample, row in zip(samples, rows, strict=True):
            if row in first:
                raise ValueError(
                    f"{self.path}: one row would be that of {first[row]} and of {sample}: name more of the paths in the column "
                    f"{self._key}, as folder/name."
                )
            first[row] = sample
        return np.array(rows, dtype=np.int64)


def _names(sample: str) -> list[str]:
    """What a table may call a sample: its path, any end of it, with and without the suffix, or its number in a file."""
    if sample.endswith("]") and "[" in sample:
        return [sample, sample.rpartition("[")[2][:-1]]
    parts = PurePath(sample).parts
    ends = [PurePath(*parts[start:]).as_posix() for start in range(len(parts))]
    return [name for end in ends for name in (end, str(PurePath(end).with_suffix("")))]


def _read(path: Path, key: str | None) -> Any:
    """Names stay words: 0412 is not 412."""
    try:
        if path.suffix == ".csv":
            with pyarrow.csv.open_csv(path) as begun:
                names = {key or begun.schema.names[0]: pyarrow.string()}
            return pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=names))
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}): save it again.") from error
    raise ValueError(f"{path}: a table is a .csv or a .parquet file.")
