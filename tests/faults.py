"""Runs that are killed, told to stop, or kept from going on, each in a child of this process."""

import os
import resource
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ssl_framework.checkpoint import SaveRun, files, store

TIMED_OUT = -1
"""In place of an exit code: the child had to be killed."""


def forked(function: Callable[[], object]) -> int:
    """Begin something in a child, with a terminal's handlers of signals; its process number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function()
        os._exit(0)
    except SystemExit as left:
        os._exit(left.code if isinstance(left.code, int) else 1)
    except BaseException:  # whatever it is: a child that went on would be a second test session
        traceback.print_exc()
    finally:
        os._exit(1)


def codes(pids: Sequence[int], limit: float) -> list[int]:
    """How children ended, within `limit` seconds: their exit codes, ``128 + n`` for a signal, or `TIMED_OUT`."""
    ended: dict[int, int] = {}
    deadline = time.monotonic() + limit
    while len(ended) < len(pids) and time.monotonic() < deadline:
        for pid in pids:
            if pid not in ended:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    ended[pid] = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        time.sleep(0.01)
    for pid in pids:
        if pid not in ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            ended[pid] = TIMED_OUT
    return [ended[pid] for pid in pids]


def ranks(world: int, function: Callable[[int], object]) -> list[int]:
    """Begin ``function(rank)`` in `world` children that Lightning takes for processes of torchrun; their process numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def begin(rank: int) -> None:
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world),
            LOCAL_WORLD_SIZE=str(world), GROUP_RANK="0", TORCHELASTIC_RUN_ID="tests", GLOO_SOCKET_IFNAME="lo",
        )  # fmt: skip
        function(rank)

    return [forked(lambda rank=rank: begin(rank)) for rank in range(world)]


class At(pl.Callback):
    """Does something at a hook, once, at the first time when so many steps are done."""

    def __init__(self, hook: str, step: int, do: Callable[[], object]) -> None:
        self._step, self._do, self._done = step, do, False
        setattr(self, hook, self._look)

    def _look(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step >= self._step and not self._done:
            self._done = True
            self._do()


def killed() -> None:
    """SIGKILL, as an out-of-memory killer or a scheduler sends it."""
    os.kill(os.getpid(), signal.SIGKILL)


def nothing(*_: object) -> None:
    """In place of a defence."""


class Disk:
    """Counts what a save does to the disk, and does something at one of these events: halves of a write, syncs, renames."""

    def __init__(self, do: Callable[[], object], at: int | None = None) -> None:
        self.events, self._at, self._do = 0, at, do

    def attach(self) -> None:
        """For the rest of this process."""
        make, sync, rename = tempfile.NamedTemporaryFile, os.fsync, Path.replace

        def opened(**options: Any) -> Any:
            handle = make(**options)
            write = handle.write

            def halves(data: Any) -> int:
                flat = memoryview(data).cast("B")
                middle = len(flat) // 2
                write(flat[:middle])
                handle.flush()
                self._event()
                write(flat[middle:])
                return len(flat)

            handle.write = halves
            return handle

        def synced(descriptor: Any) -> None:
            self._event()
            sync(descriptor)

        def renamed(path: Path, target: Any) -> Path:
            self._event()
            return rename(path, target)

        files.tempfile.NamedTemporaryFile = opened
        files.os.fsync = synced
        setattr(Path, "replace", renamed)  # noqa: B010

    def _event(self) -> None:
        self.events += 1
        if self.events == self._at:
            self._do()


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond `size` bytes: what is written there fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from, if the run has come to one."""
    found = store.checkpoints(folder)
    return found[-1] if found else None


def saver(every: int) -> list[pl.Callback]:
    """What saves a run at every so many steps."""
    return [SaveRun(every_n_steps=every)]
