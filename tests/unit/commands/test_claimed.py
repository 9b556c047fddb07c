"""A run folder belongs to one live process."""

import os
import signal
import time
from pathlib import Path

import pytest

from ssl_framework.commands import folder


def held(home: Path) -> int:
    """A process that has claimed a folder."""
    child = os.fork()
    if child == 0:
        with folder.claimed(home):
            (home / "ready").touch()
            time.sleep(60)
    while not (home / "ready").exists():
        time.sleep(0.01)
    return child


def test_a_folder_of_a_live_process_is_refused_and_that_of_a_dead_one_is_not(tmp_path: Path):
    child = held(tmp_path)
    refused = pytest.raises(ValueError, match=rf"run.dir={tmp_path} is being written by process {child} on .*: wait until it")
    with refused, folder.claimed(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with folder.claimed(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")


def test_workers_do_not_inherit_the_claim(tmp_path: Path):
    """A loader's worker may live for seconds when its run was killed."""
    owner = os.fork()
    if owner == 0:
        with folder.claimed(tmp_path):
            if os.fork() == 0:
                (tmp_path / "worker").write_text(str(os.getpid()))
                time.sleep(60)
            time.sleep(60)
    while not (tmp_path / "worker").exists() or not (tmp_path / "worker").read_text():
        time.sleep(0.01)
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    with folder.claimed(tmp_path):
        pass
    os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


def test_other_processes_of_the_run_claim_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "is_first", lambda: False)
    with folder.claimed(tmp_path), folder.claimed(tmp_path):
        assert not (tmp_path / ".lock").exists()
