"""FSDP2 on two gloo processes: encoder and teacher sharded alike, the encoder gathered and written once."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_framework.checkpoint import load_encoder
from support import some_views

SCRIPT = Path(__file__).parent / "fsdp2_script.py"
pytestmark = pytest.mark.slow


def start(task: str, folder: Path, kind: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), task, str(folder), kind]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("task", ["byol", "mae"])
def test_sharded_training_gives_the_encoder_of_one_process(task: str, tmp_path: Path):
    """MAE, without BatchNorm, equals one process; BYOL's norms see half of the batch on each."""
    done = start(task, tmp_path / "two", "sharded")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "done 4 steps" in done.stdout
    loaded = load_encoder(tmp_path / "two").encoder.eval()
    x = some_views(task).global_crops[0]
    with torch.no_grad():
        pooled = loaded(x).pooled
    assert pooled.isfinite().all()
    if task == "mae":
        assert start(task, tmp_path / "one", "single").returncode == 0
        with torch.no_grad():
            torch.testing.assert_close(pooled, load_encoder(tmp_path / "one").encoder.eval()(x).pooled, rtol=1e-3, atol=1e-4)


def test_lars_is_refused(tmp_path: Path):
    done = start("byol", tmp_path, "lars")
    assert done.returncode != 0
    assert "LARS needs the norm of whole ones" in done.stderr
