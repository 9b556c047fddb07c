"""A run that stopped because its numbers were not finite, and the batch of it once more."""

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_framework import cli
from ssl_framework.commands import compose, pretrain, replay
from ssl_framework.guards import NonFiniteError

WORDS = [
    "data.batch_size=32", "trainer.max_steps=9", "trainer.progress_bar=false", "logger=none", "monitors=none",
    "trainer.val_check_interval=0", "trainer=cpu", "precision=32",
]  # fmt: skip


@pytest.fixture(scope="module")
def burst(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose learning rate is far too high: the first step leaves weights that are finite and useless."""
    home = tmp_path_factory.mktemp("replay") / "run"
    settings = compose.compose("pretrain", [*WORDS, "optimizer.lr=1e18", "optimizer.scale_lr=none"], folder=str(home))
    with (
        pytest.warns(UserWarning, match="is not finite"),
        pytest.raises(NonFiniteError, match=r"3 steps in a row until step . were not finite"),
    ):
        pretrain.run(settings)
    return home


def replayed(home: Path, *words: str) -> list[dict[str, Any]]:
    return replay.run(compose.compose("replay", [f"run_folder={home}", *words]))["batches"]


def test_it_says_where_the_numbers_went(burst: Path, capsys: pytest.CaptureFixture[str]):
    facts = json.loads((burst / "failure" / "failure.json").read_text())
    (one,) = replayed(burst)
    assert [one["position"]] == facts["positions"]
    assert str(one["loss"]) == facts["loss"]
    assert one["first"].startswith("the output of encoder.")
    assert one["samples"]
    said = capsys.readouterr().out
    assert f"batch {one['position']}: loss" in said
    assert "Not finite first: the output of encoder." in said
    assert "Samples: " in said


def test_any_batch_of_a_run_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    home = tmp_path / "run"
    losses = pretrain.run(compose.compose("pretrain", [*WORDS, "logger=csv", "trainer.log_every_n_steps=1"], folder=str(home)))
    with pytest.raises(ValueError, match=r"this run did not stop because .* positions=\[N\] and checkpoint=FILE"):
        replayed(home)
    kept = home / "checkpoints" / "step-000000009.ckpt"
    (one,) = replayed(home, "positions=9", f"checkpoint={kept}")
    assert one["first"] is None
    assert one["samples"] == []
    assert 0.2 * losses["train/loss"] < one["loss"] < 5 * losses["train/loss"]
    assert "It is finite here" in capsys.readouterr().out
    with pytest.raises(ValueError, match="rank=1: the run had 1 processes, numbered from 0"):
        replayed(home, "positions=9", f"checkpoint={kept}", "rank=1")


def test_the_command_says_what_stopped_it_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [*WORDS, "optimizer.lr=1e18", "optimizer.scale_lr=none", f"run.dir={tmp_path / 'run'}"]
    with pytest.warns(UserWarning, match="is not finite"):
        assert cli.run(["pretrain", *words]) == 2
    said = capsys.readouterr().err
    assert "error: 3 steps in a row" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "encoder.safetensors").exists()
