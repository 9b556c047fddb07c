from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_framework.checkpoint import SaveRun, checkpoints, last_checkpoint, load_encoder
from ssl_framework.checkpoint.training import sync_and_rename
from ssl_framework.optim import adamw
from ssl_framework.pretext import SimCLR
from support import LinearEncoder, digits_data, fit, small


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


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
    (folder / "step-000000099.tmp").write_bytes(b"half")
    assert checkpoints(tmp_path) == []
    fit(small("rotation"), digits_data(), 1, tmp_path)
    assert names(tmp_path) == ["step-000000001.ckpt"]


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fit(small("rotation"), digits_data(), 1, tmp_path)
    before = last_checkpoint(tmp_path).read_bytes()

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("ssl_framework.checkpoint.training.sync_and_rename", broken)
    with pytest.raises(OSError, match="No space"):
        fit(small("rotation"), digits_data(), 2, tmp_path, resume=last_checkpoint(tmp_path))
    assert last_checkpoint(tmp_path).read_bytes() == before


def test_rename_replaces_in_one_step(tmp_path: Path):
    old, new = tmp_path / "a.ckpt", tmp_path / "a.tmp"
    old.write_text("old")
    new.write_text("new")
    sync_and_rename(new, old)
    assert old.read_text() == "new"
    assert not new.exists()


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
