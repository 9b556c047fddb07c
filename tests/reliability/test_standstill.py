"""A process that is dead, stuck or stopped ends the run within its limit, which says where it stood (R8)."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from torch import Tensor

from faults import TIMED_OUT, At, codes, forked, killed, nothing, ranks
from ssl_framework.data import FolderSource, folder
from ssl_framework.guards import Watchdog, watchdog
from support import digits_data, fit, small

STEP, LIMIT = 3, 5.0


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def train(home: Path, world: int, *callbacks: At) -> None:
    fit(
        small("rotation"), digits_data(batch_size=32), 400, home, callbacks=list(callbacks), strategy="ddp", devices=world,
        step_timeout=LIMIT, data_timeout=LIMIT,
    )  # fmt: skip


def two(home: Path, do: Callable[[], object], limit: float) -> tuple[list[int], float]:
    """How two processes end of which the second has something happen to it, and after how long."""
    started = time.monotonic()
    pids = ranks(2, lambda rank: train(home, 2, *([At("on_before_backward", STEP, do)] if rank == 1 else [])))
    ended = codes(pids, limit)
    return ended, time.monotonic() - started


@pytest.mark.promise("R8", "dead process: the others end")
def test_a_dead_process_ends_the_others(tmp_path: Path):
    ended, took = two(tmp_path, killed, 40)
    assert ended[1] == 128 + 9
    assert ended[0] not in (0, TIMED_OUT)
    assert took < 30


@pytest.mark.slow
@pytest.mark.promise("R8", "stopped process: the others say so, and end")
def test_a_stopped_process_ends_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    ended, took = two(tmp_path, stopped, 40)
    assert ended[0] == watchdog.EXIT_CODE
    assert took < 40 + 5
    told = capfd.readouterr().err
    assert f"process 0 of 2 stands still: {LIMIT:g} s in its step, after step {STEP} and {STEP + 1} batches" in told


@pytest.mark.slow
@pytest.mark.promise("R8", "control")
def test_without_the_watchdog_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Watchdog, "on_train_start", nothing)
    ended, _ = two(tmp_path, stopped, 20)
    assert ended == [TIMED_OUT, TIMED_OUT]


def with_workers(images: Path, home: Path, do: Callable[[], object], limit: float = LIMIT) -> None:
    """Something happens to the worker that reads the 100th image."""
    read, training = FolderSource.read, os.getpid()

    def unlucky(source: FolderSource, index: int) -> Tensor:
        if index == 100 and os.getpid() != training:
            (home / "worker").write_text(str(os.getpid()))
            do()
        return read(source, index)

    setattr(FolderSource, "read", unlucky)  # noqa: B010  (in this child only)
    data = folder(
        images, size=(8, 8), workers=2, resident=False, batch_size=32, channels=1, mean=(0.3,), std=(0.3,), val_share=0
    )
    fit(small("rotation"), data, 400, home, data_timeout=limit)


def ended(pid: int, within: float) -> bool:
    """Whether a process of others is no more, or becomes so in so many seconds."""
    deadline = time.monotonic() + within
    while (
        alive := psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive


@pytest.fixture
def images(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (160, 8, 8), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:03d}.png")
    return tmp_path / "images"


@pytest.mark.promise("R8", "dead or stuck worker: the run ends")
@pytest.mark.parametrize(
    ("do", "said"),
    [
        (killed, "killed by signal|exited unexpectedly"),  # by whether torch's handler or its queue sees it first
        (stopped, "s waiting for a batch of training"),
    ],
    ids=["killed", "stopped"],
)
def test_a_worker_that_is_gone_ends_the_run(
    do: Callable[[], object], said: str, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    started = time.monotonic()
    (code,) = codes([forked(lambda: with_workers(images, tmp_path, do, 30 if do is killed else LIMIT))], 40)
    assert code == (watchdog.EXIT_CODE if do is stopped else 1)
    assert time.monotonic() - started < (10 if do is killed else 15) + 20  # of which the start takes some on a busy machine
    assert re.search(said, capfd.readouterr().err)
    assert ended(int((tmp_path / "worker").read_text()), within=5)


@pytest.mark.slow
@pytest.mark.promise("R8", "control")
def test_without_the_watchdog_a_stuck_worker_is_waited_for(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Watchdog, "on_train_start", nothing)
    assert codes([forked(lambda: with_workers(images, tmp_path, stopped))], 20) == [TIMED_OUT]
