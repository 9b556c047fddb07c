"""What the result of a run does not depend on: workers (R2), and, within rounding, the number of processes (R3)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from faults import At, codes, forked, killed, newest, nothing, ranks, saver
from ssl_framework.checkpoint import last_checkpoint
from ssl_framework.data import DataModule, folder
from ssl_framework.data.arrays import ArraySource
from ssl_framework.encoders import vit_micro
from ssl_framework.optim import sgd
from ssl_framework.pretext import PretextModule
from support import TASKS, GlobalBatchNorm, bits, channels, digits_data, fit, replace_batch_norm, small

STEPS, BATCH = 20, 24
WORLDS = (1, 2, 3)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("images")
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(home / f"{number:02d}.png")
    return home


@pytest.mark.promise("R2", "task: the same bits with 0, 1 and 2 workers")
@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task in {"simclr", "mae"} else pytest.mark.slow) for task in TASKS]
)
def test_workers_do_not_matter(task: str, images: Path, tmp_path: Path):
    """Six steps of 32 of 80 images, over two passes."""
    found, many = set(), channels(task)
    for workers in (0, 1, 2):

        def train(home: Path, workers: int = workers) -> None:
            data = folder(
                images, size=(8, 8), workers=workers, resident=False, batch_size=32, channels=many, val_share=0,
                mean=(0.3,) * many, std=(0.3,) * many,
            )  # fmt: skip
            fit(small(task), data, 6, home, callbacks=saver(0))

        home = tmp_path / str(workers)
        assert codes([forked(lambda train=train, home=home: train(home))], 120) == [0]
        found.add(bits(torch.load(last_checkpoint(home), weights_only=True)["state_dict"]))
    assert len(found) == 1


class Drawn(ArraySource):
    """Noise from the global generator, which each worker has of its own."""

    def read_many(self, index: np.ndarray) -> Tensor:
        return torch.randint(0, 256, super().read_many(index).shape, dtype=torch.uint8)


@pytest.mark.promise("R2", "control")
def test_workers_matter_to_what_draws_from_a_global_generator(tmp_path: Path):
    found, noise = set(), np.zeros((80, 8, 8, 1), np.uint8)
    for workers in (0, 2):

        def train(home: Path, workers: int = workers) -> None:
            data = DataModule(
                Drawn(noise), name="noise", workers=workers, resident=False, batch_size=32, mean=(0.3,), std=(0.3,)
            )
            fit(small("simclr"), data, 6, home, callbacks=saver(0))

        home = tmp_path / str(workers)
        assert codes([forked(lambda train=train, home=home: train(home))], 120) == [0]
        found.add(bits(torch.load(last_checkpoint(home), weights_only=True)["state_dict"]))
    assert len(found) == 2


class Notes(pl.Callback):
    """Which samples a process saw, step after step."""

    def __init__(self, file: Path) -> None:
        self.file, self.seen = file, []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch.index.clone())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.stack(self.seen), self.file)


def module(task: str) -> PretextModule:
    """Without dropout, and with BatchNorm over all processes: what else is trained is another function.

    By SGD, at a small rate: AdamW divides by a gradient's size, and so makes much of what is nearly zero and rounding (there
    they are 2e-5 to 2e-3 apart), and at a large rate a trajectory of 20 steps magnifies rounding by itself.
    """
    optimizer = sgd(lr=1e-3, scale_lr="none")
    if task == "mae":
        return small(task, optimizer=optimizer)
    encoder = vit_micro(in_chans=channels(task), img_size=8, patch_size=2, pool="mean").cut(2)
    made = small(task, encoder=encoder, optimizer=optimizer)
    replace_batch_norm(made, GlobalBatchNorm)
    return made


def train(task: str, home: Path, world: int, rank: int, *callbacks: pl.Callback) -> None:
    """Begin, or go on; saved every 4 steps."""
    data, found = digits_data(task, batch_size=BATCH, val_share=0), newest(home)
    several: dict[str, Any] = {"strategy": "ddp", "devices": world} if world > 1 else {}
    notes = Notes(home / f"seen-{world}" / f"{rank}.pt")
    fit(module(task), data, STEPS, home, resume=found, callbacks=[*callbacks, notes, *saver(4)], **several)


def run(task: str, home: Path, world: int, kill_at: int | None = None) -> None:
    """On so many processes, which end by themselves or are killed in the step after so many."""

    def begin(rank: int) -> None:
        train(task, home, world, rank, *([] if kill_at is None else [At("on_before_backward", kill_at, killed)]))

    ended = codes(ranks(world, begin) if world > 1 else [forked(lambda: begin(0))], 120)
    assert ended == [0] * world if kill_at is None else 128 + 9 in ended


def weights(home: Path) -> Tensor:
    state = torch.load(last_checkpoint(home), weights_only=True)["state_dict"]
    return torch.cat([value.double().flatten() for value in state.values() if value.is_floating_point()])


def far(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def seen(home: Path, world: int) -> Tensor:
    """``(steps, batch)``: the samples of each step, rank after rank."""
    return torch.cat([torch.load(home / f"seen-{world}" / f"{rank}.pt") for rank in range(world)], 1)


@pytest.mark.slow
@pytest.mark.promise("R3", "task on 2 and 3 processes: the same samples and, to 1e-5, the same weights")
@pytest.mark.parametrize("task", ["mae", "simclr", "vicreg", "byol"])
def test_another_number_of_processes_trains_alike(task: str, tmp_path: Path):
    for world in WORLDS:
        run(task, tmp_path / str(world), world)
    expected = weights(tmp_path / "1")
    for world in WORLDS[1:]:
        assert torch.equal(seen(tmp_path / str(world), world), seen(tmp_path / "1", 1))
        assert far(weights(tmp_path / str(world)), expected) < 1e-5


@pytest.mark.slow
@pytest.mark.promise("R3", "task on 1, 2, and 1 process in turn: to 1e-5, the same weights")
@pytest.mark.parametrize("task", ["mae", "simclr"])
@pytest.mark.filterwarnings("ignore:going on is not bit-exact, because processes is")
def test_a_run_may_go_on_on_another_number_of_processes(task: str, tmp_path: Path):
    run(task, tmp_path / "one", 1)
    home = tmp_path / "moved"
    for world, kill_at in ((1, 6), (2, 13), (1, None)):
        run(task, home, world, kill_at)
    assert far(weights(home), weights(tmp_path / "one")) < 1e-5


@pytest.mark.slow
@pytest.mark.promise("R3", "control")
def test_batch_norm_of_each_process_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "replace_batch_norm", nothing)
    for world in (1, 2):
        run("simclr", tmp_path / str(world), world)
    assert far(weights(tmp_path / "2"), weights(tmp_path / "1")) > 1e-4
