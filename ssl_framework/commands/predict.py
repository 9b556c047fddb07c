"""``ssl-framework predict``: what a model says of images that nobody has labelled, as a table."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm import tqdm

from ssl_framework import machine
from ssl_framework.commands import build, folder
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.data import FolderSource, fit
from ssl_framework.downstream import DownstreamModule
from ssl_framework.types import BadSampleError

Row = dict[str, Any]


def run(settings: Settings) -> dict[str, Any]:
    """Read every image, ask the model, write a line for each.

    Args:
        settings: of `compose("predict", ...)`.

    Returns:
        ``run``, the folder; ``output``, the file; ``images`` that were read, and ``unreadable`` ones, which keep their line.

    Raises:
        ValueError: what the user asked for does not fit together; nothing was written.
    """
    output, source = settings["output"], _source(settings["input"])
    if output is not None and Path(output).suffix not in (".csv", ".parquet"):
        raise ValueError(f"output={output}: the name must end in .csv or .parquet.")
    device = build.device(settings["accelerator"])
    settings = build.on_this_machine(settings, settings["accelerator"])
    model = DownstreamModule.load(settings["model"]).to(device)
    source = FolderSource(source, channels=len(model.views.mean), labels=False)
    home = folder.begin(settings)
    rows = list(_rows(model, source, settings["batch_size"]))
    file = Path(output) if output is not None else home / "predictions.csv"
    _write(rows, file)
    unreadable = sum(row["error"] is not None for row in rows)
    say(f"{len(rows) - unreadable:,} images of {settings['input']}: {file}")
    if unreadable:
        say(f"{unreadable} cannot be read: their lines say why, in the column error")
    return {"run": str(home), "output": str(file), "images": len(rows) - unreadable, "unreadable": unreadable}


def _source(path: str) -> Path:
    if not Path(path).is_dir():
        what = "is a file" if Path(path).is_file() else "does not exist"
        raise ValueError(f"input={path} {what}: give a folder with images.")
    return Path(path)


def _rows(model: DownstreamModule, source: FolderSource, batch_size: int) -> Iterator[Row]:
    """A row for each image, in the order of their paths."""

    def read(position: int) -> Tensor | str:
        try:
            return fit(source.read(position), model.views.size)
        except BadSampleError as error:
            return str(error)

    with ThreadPoolExecutor(machine.cores()) as pool:
        for start in tqdm(range(0, len(source), batch_size), desc="predicting", leave=False):
            positions = range(start, min(start + batch_size, len(source)))
            read_all = list(pool.map(read, positions))
            images = [image for image in read_all if isinstance(image, Tensor)]
            found = model.task.as_table(model.predict(torch.stack(images)), model.classes) if images else {}
            table = {f"predicted {name}" if name in ("file", "error") else name: values for name, values in found.items()}
            said = iter([dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)])
            for position, image in zip(positions, read_all, strict=True):
                known = next(said) if isinstance(image, Tensor) else {}
                yield {"file": source.name(position), **known, "error": image if isinstance(image, str) else None}


def _write(rows: list[Row], file: Path) -> None:
    """Whole or not at all; the columns of the fullest row, the errors last."""
    names = [*(name for name in max(rows, key=len) if name != "error"), "error"]
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    if file.suffix == ".csv":
        pyarrow.csv.write_csv(table, partial)
    else:
        pq.write_table(table, partial)
    partial.replace(file)
