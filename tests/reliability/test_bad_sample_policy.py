"""R10: a sample that cannot be read is replaced by the key, counted by all processes together, or ends all of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_framework.commands import compose, pretrain
from ssl_framework.data import DataModule, datamodule
from ssl_framework.data.order import EndlessOrder
from ssl_framework.types import Batch
from support import Numbers, on_ranks

Record = Callable[[str, object], None]

SAMPLES, BATCH, STEPS = 300, 20, 15


@pytest.fixture(autouse=True)
def _proves(record_property: Record, request: pytest.FixtureRequest) -> None:
    record_property("promise", "R10")
    record_property("kind", "control" if request.node.name.startswith("test_control") else "planted fault")


class OneWeight(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append(batch.index.tolist())
        return self.weight * batch.input.float().mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """There is none, but Lightning asks for it."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def data(bad: tuple[int, ...], **options: Any) -> DataModule:
    return DataModule(Numbers(SAMPLES, bad), Numbers(SAMPLES), batch_size=BATCH, name="numbers", **options)


def train(module: DataModule, home: Path, **options: Any) -> OneWeight:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    plain = {
        "accelerator": "cpu",
        "max_steps": STEPS,
        "max_epochs": -1,
        "limit_val_batches": 0,
        "use_distributed_sampler": False,
    }
    model = OneWeight()
    pl.Trainer(default_root_dir=home, **plain, **quiet, **options).fit(model, datamodule=module)
    return model


def shares() -> tuple[list[int], list[int]]:
    """What two processes read of the first batch."""
    index, _ = EndlessOrder(SAMPLES, BATCH, seed=0).batch(0)
    return index[: BATCH // 2].tolist(), index[BATCH // 2 :].tolist()


def in_one_process(rank: int, world: int, home: Path, bad: tuple[int, ...], alone: bool, options: dict[str, Any]) -> Any:
    """A run of several processes, as torchrun starts them: how it ended here, and whom it names."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "TORCHELASTIC_RUN_ID": "one",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "0",
    }
    if alone:
        datamodule.of_all = lambda trainer, found: found
    module = data(bad, **options)
    try:
        train(module, home, strategy="ddp", devices=world)
    except ValueError as error:
        return str(error), sorted(module.bad_samples.names())
    return "done", sorted(module.bad_samples.names())


def names(samples: list[int]) -> list[str]:
    return sorted(f"number {i}" for i in samples)


@pytest.mark.filterwarnings("ignore")
def test_processes_count_together_and_end_together(tmp_path: Path) -> None:
    """Two bad samples in each process are below 1 %, and four of 300 are not."""
    first, second = shares()
    bad = [*first[:2], *second[:2]]
    ended = on_ranks(2, in_one_process, tmp_path, tuple(bad), False, {})
    assert ended[0] == ended[1]
    assert ended[0][0].startswith("4 of 300 train samples cannot be read, more than 1%")
    assert ended[0][1] == names(bad)
    lines = (tmp_path / "bad_samples.csv").read_text().splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == names(bad)


@pytest.mark.filterwarnings("ignore")
def test_below_the_limit_the_first_process_names_what_the_other_met(tmp_path: Path) -> None:
    bad = [shares()[0][0], *shares()[1][:2]]
    ended = on_ranks(2, in_one_process, tmp_path, tuple(bad), False, {})
    assert ended == [("done", names(bad))] * 2


@pytest.mark.filterwarnings("ignore")
def test_with_error_the_first_one_ends_both(tmp_path: Path) -> None:
    bad = shares()[1][0]
    ended = on_ranks(2, in_one_process, tmp_path, (bad,), False, {"on_bad_sample": "error"})
    assert ended[0] == ended[1]
    assert f"number {bad} cannot be read (planted), and on_bad_sample=error" in ended[0][0]


@pytest.mark.filterwarnings("ignore")
def test_control_alone_each_process_stays_below_the_limit(tmp_path: Path) -> None:
    first, second = shares()
    ended = on_ranks(2, in_one_process, tmp_path, (*first[:2], *second[:2]), True, {})
    assert ended == [("done", names(first[:2])), ("done", names(second[:2]))]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore")
def test_replacements_follow_from_the_key_and_not_from_loaders(workers: int, tmp_path: Path) -> None:
    bad = (shares()[0][0], shares()[1][3])
    seen = train(data(bad, workers=workers), tmp_path / "run").seen
    assert seen == train(data(bad), tmp_path / "again").seen
    whole = train(data(()), tmp_path / "whole").seen
    assert [len(set(batch)) for batch in seen] == [BATCH] * STEPS
    changed = [(now, then) for one, other in zip(seen, whole, strict=True) for now, then in zip(one, other, strict=True)]
    assert {then for now, then in changed if now != then} == set(bad)


@pytest.mark.filterwarnings("ignore")
def test_with_error_a_worker_of_the_loader_ends_the_run(tmp_path: Path) -> None:
    bad = shares()[0][4]
    with pytest.raises(ValueError, match=f"number {bad} cannot be read .planted., and on_bad_sample=error"):
        train(data((bad,), workers=1, on_bad_sample="error"), tmp_path)


def test_a_pretraining_names_them_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number:03}.png")
    bad = tmp_path / "photos" / "007.png"
    bad.write_bytes(bad.read_bytes()[:60])
    words = ["data=folder", f"data.path={tmp_path / 'photos'}", "data.size=[8,8]", "data.batch_size=65", "data.val_share=0"]
    quick = ["trainer=cpu", "trainer.max_steps=3", "trainer.progress_bar=false", "logger=none", "monitors=none", "views=affine"]
    with pytest.warns(UserWarning, match="007.png cannot be read"):
        found = pretrain.run(compose.compose("pretrain", [*words, *quick], folder=str(tmp_path / "run")))
    assert found["unreadable"] == [str(bad)]
    assert f"unreadable and replaced: 1 samples, {bad} (" in capsys.readouterr().out
