import errno
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from ssl_framework.checkpoint import SaveRun, checkpoints, last_checkpoint, load_encoder, store
from ssl_framework.guards import NonFiniteError
from ssl_framework.optim import adamw
from ssl_framework.pretext import SimCLR
from support import LinearEncoder, digits_data, fit, small


def names(folder: Path) -> list[str]:
    """Of checkpoints, each of which has its manifest, and of nothing else."""
    found = sorted(path.name for path in (folder / "checkpoints").iterdir())
    kept = [name for name in found if name.endswith(".ckpt")]
    assert found == sorted([*kept, *(name.replace(".ckpt", ".json") for name in kept)])
    return kept


def test_the_last_two_are_kept_and_the_end_is_saved(tmp_path: Path):
    fit(small("rotation"), digits_data(), 7, tmp_path, callbacks=[SaveRun(every_n_steps=2)])
    assert names(tmp_path) == ["step-000000006.ckpt", "step-000000007.ckpt"]
    assert last_checkpoint(tmp_path).name == "step-000000007.ckpt"
    assert load_encoder(tmp_path).history["steps"] == 7


def test_a_module_brings_its_own_and_saves_about_once_an_epoch(tmp_path: Path):
    data = digits_data(batch_size=512)  # about 3 batches an epoch
    fit(small("rotation"), data, 4, tmp_path)
    assert names(tmp_path) == ["step-000000003.ckpt", "step-000000004.ckpt"]


def test_checkpoints_hold_plain_containers_and_tensors(tmp_path: Path):
    fit(small("byol"), digits_data(), 2, tmp_path)
    state = torch.load(last_checkpoint(tmp_path), weights_only=True)
    assert state["global_step"] == 2
    assert any(key.startswith("teacher.") for key in state["state_dict"])


def test_leftovers_of_a_killed_save_are_removed_and_never_resumed_from(tmp_path: Path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for left in ("step-000000099.tmp", ".step-000000099.ckpt.abc.tmp", "step-000000099.ckpt", "step-000000098.json"):
        (folder / left).write_bytes(b"half")
    (tmp_path / ".encoder.yaml.abc.tmp").write_bytes(b"half")
    assert checkpoints(tmp_path) == []
    fit(small("rotation"), digits_data(), 1, tmp_path)
    assert names(tmp_path) == ["step-000000001.ckpt"]
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_told_of_and_the_run_goes_on_until_its_last_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fit(small("rotation"), digits_data(), 1, tmp_path)
    before = last_checkpoint(tmp_path).read_bytes()
    monkeypatch.setattr(torch, "save", full)
    saver = SaveRun(every_n_steps=2)
    with (
        pytest.warns(UserWarning, match=r"step 2 was not saved: .*No space left.*kept is step-000000001.ckpt"),
        pytest.raises(OSError, match=r"step 3 was not saved: .* Free some space, and go on with resume="),
    ):
        fit(small("rotation"), digits_data(), 3, tmp_path, resume=last_checkpoint(tmp_path), callbacks=[saver])
    assert last_checkpoint(tmp_path).read_bytes() == before
    assert names(tmp_path) == ["step-000000001.ckpt"]
    assert not list(tmp_path.rglob("*.tmp"))


def full(content: Any, file: Any) -> None:
    file.write(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_would_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fit(small("rotation"), digits_data(), 1, tmp_path)
    size = last_checkpoint(tmp_path).stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(OSError, match=rf"step 2 was not saved: .* bytes are needed on the disk of .*, and {size:,} are free"):
        fit(small("rotation"), digits_data(), 2, tmp_path, resume=last_checkpoint(tmp_path))


@pytest.mark.promise("R7", "weights that are not finite: not saved")
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path):
    module = small("rotation")
    fit(module, digits_data(), 1, tmp_path)
    before = last_checkpoint(tmp_path).read_bytes()
    with pytest.raises(NonFiniteError, match=r"step 2 left weights that are not finite \(encoder.* it is kept"):
        fit(module, digits_data(), 2, tmp_path, resume=last_checkpoint(tmp_path), callbacks=[Ruins(), SaveRun()])
    assert last_checkpoint(tmp_path).read_bytes() == before


class Ruins(pl.Callback):
    """A finite gradient can leave weights that are not."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        next(pl_module.encoder.parameters()).data.fill_(torch.inf)


def test_another_environment_is_said_to_be_other_bits(tmp_path: Path):
    fit(small("rotation"), digits_data(), 1, tmp_path)
    last = last_checkpoint(tmp_path)
    manifest = last.with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"threads": 64, "torch": "1.0"}))
    with pytest.warns(
        UserWarning, match=r"going on is not bit-exact, because torch is .* and was 1.0, threads is 1 and was 64"
    ):
        fit(small("rotation"), digits_data(), 2, tmp_path, resume=last)


@pytest.mark.parametrize("shape", [(), (1,), (7, 3)])
def test_moments_of_another_shape_are_refused_before_a_step(shape: tuple[int, ...], tmp_path: Path):
    """torch loads them as they are; some of its kernels would read past their end."""
    fit(small("rotation"), digits_data(), 1, tmp_path)
    path = last_checkpoint(tmp_path)
    state = torch.load(path, weights_only=True)
    number = max(state["optimizer_states"][0]["state"])
    state["optimizer_states"][0]["state"][number]["exp_avg"] = torch.zeros(shape)
    torch.save(state, path)
    store.seal(path, {})
    with pytest.raises(ValueError, match=rf"exp_avg of \S+ has shape {re.escape(str(shape))}, and the weight .*from a backup"):
        fit(small("rotation"), digits_data(), 2, tmp_path, resume=path)


def test_what_there_is_to_resume_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="check resume="):
        last_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        last_checkpoint(tmp_path)


def test_an_encoder_that_could_not_be_saved_is_refused_before_training(tmp_path: Path):
    module = SimCLR(LinearEncoder(64, 4), 8, 4, views=small("simclr").views, optimizer=adamw())
    with pytest.raises(ValueError, match=r"LinearEncoder cannot be saved .*Adapter"):
        fit(module, digits_data(), 1, tmp_path)
    assert module.trainer.global_step == 0


def test_keeping_nothing_is_refused():
    with pytest.raises(ValueError, match="keep=0"):
        SaveRun(keep=0)
