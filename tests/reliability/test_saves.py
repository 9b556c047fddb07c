"""A checkpoint is whole or not there, whatever kills the save or stops the disk (R5); a damaged one is passed over (R6)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import pytest
import pytorch_lightning as pl
import torch

from faults import At, Disk, codes, forked, killed, limit_files, saver
from ssl_framework.checkpoint import files, last_checkpoint, load_encoder, store
from ssl_framework.checkpoint.io import WholeFiles
from support import digits_data, fit, small

FIRST, SECOND = 2, 4
KILLS = 40
"""In the second save, under each condition."""

CONDITIONS = ("alone", "with TMPDIR on another file system", "on a full disk")
OTHER_DISK = Path("/dev/shm")


def train(folder: Path, condition: str, *callbacks: pl.Callback) -> None:
    """Two saves; the disk is full from before the second on, where that is the condition."""
    extra: list[pl.Callback] = []
    if condition == CONDITIONS[1]:
        os.environ["TMPDIR"] = str(OTHER_DISK)
    if condition == CONDITIONS[2]:
        extra.append(At("on_train_batch_start", FIRST + 1, lambda: limit_files(_size(folder) * 2 // 3)))
    fit(small("simclr"), digits_data(batch_size=32), SECOND, folder, callbacks=[*callbacks, *extra, *saver(FIRST)])


def _size(folder: Path) -> int:
    return last_checkpoint(folder).stat().st_size


def events(condition: str, home: Path) -> tuple[int, int]:
    """The first and the last of what is done to the disk in the second save."""
    disk, told = Disk(lambda: None), home / "events.txt"
    seen: list[int] = []

    def run() -> None:
        disk.attach()
        try:
            train(home, condition, At("on_train_batch_start", FIRST + 1, lambda: seen.append(disk.events)))
        finally:
            told.write_text(f"{seen[0]} {disk.events}")

    home.mkdir()
    (code,) = codes([forked(run)], 120)
    assert code == (1 if condition == CONDITIONS[2] else 0)
    first, last = map(int, told.read_text().split())
    return first, last


def check(folder: Path, steps: set[int]) -> int:
    """The step of the newest checkpoint, which is whole, as the encoder is; and the next start leaves nothing behind."""
    step = store.verify(last_checkpoint(folder))["step"]
    assert step in steps
    assert load_encoder(folder).history["steps"] in steps
    store.remove_unfinished(folder)
    for place in (folder, store.checkpoint_dir(folder)):
        files.remove_leftovers(place)
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {name for name in left if ".tmp" in name or name.startswith(".")} == set()
    assert len({name for name in left if name.startswith("step-")}) in (2, 4)  # one or two, each with its manifest
    return step


@pytest.mark.promise("R5", "SIGKILL inside a save: the old checkpoint or the new one, whole")
@pytest.mark.parametrize("part", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 8))])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_kill_leaves_the_old_or_the_new(
    condition: str, part: int, tmp_path: Path, record_property: Callable[[str, object], None]
):
    """Points spread over all that the second save does, in eight parts."""
    if condition == CONDITIONS[1] and not OTHER_DISK.is_dir():
        pytest.skip(f"no {OTHER_DISK}")
    first, last = events(condition, tmp_path / "counted")
    points = sorted({first + 1 + (last - first - 1) * number // KILLS for number in range(KILLS)})[part::8]
    for number in points:
        folder = tmp_path / str(number)

        def run(folder: Path = folder, number: int = number) -> None:
            Disk(killed, number).attach()
            train(folder, condition)

        assert codes([forked(run)], 120) == [128 + 9]
        check(folder, {FIRST} if condition == CONDITIONS[2] else {FIRST, SECOND})
    assert points
    record_property("times", len(points))


def plainly(writer: WholeFiles, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
    """As `torch.save` is used: under its last name at once."""
    del writer, storage_options
    target = Path(path).with_suffix(".ckpt")
    target.parent.mkdir(exist_ok=True)
    with store.checkpoint_dir(target.parent.parent).joinpath(target.name).open("wb") as file:

        class Half:
            def write(self, data: Any) -> int:
                flat = memoryview(data).cast("B")
                file.write(flat[: len(flat) // 2])
                file.flush()
                if target.name.endswith(f"{SECOND}.ckpt") and len(flat) > 4096:
                    killed()
                file.write(flat[len(flat) // 2 :])
                return len(flat)

            def flush(self) -> None:
                file.flush()

        torch.save(checkpoint, cast(IO[bytes], Half()))
    Path(path).write_bytes(target.read_bytes())


@pytest.mark.promise("R5", "control")
def test_a_plain_save_is_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(WholeFiles, "save_checkpoint", plainly)
    assert codes([forked(lambda: train(tmp_path, CONDITIONS[0]))], 120) == [128 + 9]
    torn = store.checkpoint_dir(tmp_path) / f"step-{SECOND:09d}.ckpt"
    with pytest.raises((RuntimeError, OSError), match=r"central directory|PytorchStreamReader|Invalid argument"):
        torch.load(torn, weights_only=True)
    check(tmp_path, {FIRST})  # what has no manifest is passed over


@pytest.mark.promise("R5", "save on a full disk: told of, and the old checkpoint is whole")
def test_a_full_disk_is_told_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert codes([forked(lambda: train(tmp_path, CONDITIONS[2]))], 120) == [1]
    told = capfd.readouterr().err
    assert f"step {SECOND} was not saved: " in told
    assert "kept is step-000000002.ckpt" in told
    assert "Free some space, and go on with resume=" in told
    check(tmp_path, {FIRST})
