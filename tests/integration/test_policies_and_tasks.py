"""Every freezing policy with every task, by the command line: a few steps each, on a CNN and on a vision transformer."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ssl_framework.commands import compose, downstream, pretrain
from ssl_framework.commands.explain import choices_in
from ssl_framework.commands.quiet import quiet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:You have overridden `on_before_batch_transfer`"),
    pytest.mark.filterwarnings("ignore:The '.*' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
]

SHORT = ["debug=short", "trainer.progress_bar=false", "trainer=cpu"]
ENCODERS = {
    "cnn": ["encoder=resnet_micro"],
    "vit": [  # three small blocks: the whole test split is measured each time
        "encoder=timm",
        "encoder.name=vit_tiny_patch16_224",
        "encoder.model_args={patch_size: 4, embed_dim: 24, depth: 3, num_heads: 2}",
    ],
}
POLICIES = choices_in("freezing")
TABLES = {
    "regression": "task=regression task.columns=[ink,left]",
    "ordinal": "task=ordinal task.column=tenth task.steps=10",
    "multi_label": "task=multi_label task.columns=[dark,wide]",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pretrained encoder of each kind on each data set, made when it is asked for."""
    made: dict[tuple[str, str], Path] = {}

    def run(data: str, encoder: str) -> Path:
        if (data, encoder) not in made:
            folder = tmp_path_factory.mktemp("runs") / f"{data}-{encoder}"
            words = [*SHORT, f"data={data}", *ENCODERS[encoder], "pretext=simclr", "monitors=none", "data.batch_size=16"]
            with warnings.catch_warnings():
                quiet()
                pretrain.run(compose.compose("pretrain", words, folder=str(folder)))
            made[data, encoder] = folder
        return made[data, encoder]

    return run


def transferred(run: Path, folder: Path, freezing: str, *words: str) -> dict[str, Any]:
    said = [f"from_run={run}", *SHORT, "seeds=1", f"freezing={freezing}", *words]
    row = downstream.run(compose.compose("downstream", said, folder=str(folder)))["rows"][0]
    audit = json.loads((folder / "audit.json").read_text())
    assert audit["freezing"]["kind"] == (row["freezing"] if freezing == "auto" else freezing)
    assert audit["encoder"]["tensors"] == audit["encoder"]["tensors_expected"]
    return row


def skip_what_cannot_be(encoder: str, freezing: str) -> None:
    if freezing == "lora" and encoder == "cnn":
        pytest.skip("n/a: a CNN has no linear layers for LoRA; test_command_line has what it says")


@pytest.mark.data
@pytest.mark.skipif("SSL_FRAMEWORK_DATA" not in os.environ, reason="SSL_FRAMEWORK_DATA is not set")
@pytest.mark.parametrize("freezing", POLICIES)
@pytest.mark.parametrize(("data", "encoder"), [*(("fashion_mnist", e) for e in ENCODERS), ("cifar10", "cnn")])
def test_classification(runs: Any, tmp_path: Path, data: str, encoder: str, freezing: str) -> None:
    skip_what_cannot_be(encoder, freezing)
    row = transferred(runs(data, encoder), tmp_path / "d", freezing, "labels_per_class=4")
    assert 0 <= row["accuracy"] <= 1


@pytest.mark.parametrize("freezing", POLICIES)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("task", TABLES)
def test_tasks_of_a_table(runs: Any, tmp_path: Path, task: str, encoder: str, freezing: str) -> None:
    """How much ink a digit has, and where."""
    skip_what_cannot_be(encoder, freezing)
    images = load_digits().images
    ink, left, wide = images.sum((1, 2)), images[:, :, :4].sum((1, 2)), (images > 8).any(1).sum(1) > 4
    lines = ["row,ink,left,tenth,dark,wide"]
    for i, (x, part, w) in enumerate(zip(ink, left, wide, strict=True)):
        lines.append(f"{i},{x:.1f},{part:.1f},{min(9, int(x // 60))},{int(x > 310)},{int(w)}")
    (tmp_path / "ink.csv").write_text("\n".join(lines) + "\n")
    words = [f"labels.path={tmp_path / 'ink.csv'}", "labels.count=60", *TABLES[task].split()]
    row = transferred(runs("digits", encoder), tmp_path / "d", freezing, *words)
    assert np.isfinite(row["loss"])
