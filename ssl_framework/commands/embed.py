"""``ssl-framework embed``: embeddings of a split with ids and labels, in one file."""

from pathlib import Path
from typing import Any

from ssl_framework.commands import build, folder
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.commands.explain import did_you_mean
from ssl_framework.evaluation import embed, write_embeddings
from ssl_framework.views.preprocessing import plain

_SPLITS = ["train", "val", "test"]


def run(settings: Settings) -> dict[str, Any]:
    """Encode a split and write it.

    Args:
        settings: of `compose("embed", ...)`.

    Returns:
        ``run``, the folder; ``output``, the file; ``shape`` of the embeddings; ``unreadable``, names of the
        samples that were replaced.

    Raises:
        ValueError: what the user asked for does not fit together; nothing was written.
    """
    split = settings["split"]
    if split not in _SPLITS:
        raise ValueError(f"split={split}: no such split. {did_you_mean(str(split), _SPLITS)}")
    output = settings["output"]
    if output is not None and Path(output).suffix not in (".npz", ".parquet"):
        raise ValueError(f"output={output}: the name must end in .npz or .parquet.")
    device = build.device(settings["accelerator"])
    precision = build.encoding_precision(settings)
    settings = build.on_this_machine(settings, settings["accelerator"])
    data = build.data(settings)
    loaded = build.load(settings["encoder_file"], data.facts)
    labelled = data.split(split)
    home = data.bad_samples.folder = folder.begin(settings)
    embeddings = embed(
        loaded.encoder.cut(settings["cut"]),
        labelled,
        plain(**loaded.preprocessing).center,
        batch_size=settings["batch_size"],
        device=device,
        precision=precision,
        progress=True,
    )
    file = write_embeddings(Path(output) if output is not None else home / f"{split}.npz", embeddings, labelled.classes)
    shape = list(embeddings.x.shape)
    say(*data.bad_samples.lines(), f"{shape[0]:,} embeddings of width {shape[1]}: {file}")
    return {"run": str(home), "output": str(file), "shape": shape, "unreadable": data.bad_samples.names()}
