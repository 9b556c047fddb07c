"""A run that is told to go leaves after its step: by one decision of all processes, with everything saved."""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, come again."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Preempted(SystemExit):
    """The run was told to stop, and did after a whole step. A script that does not catch it leaves with code 75.

    Attributes:
        signal: that one of the processes got, as far as this one knows.
    """

    def __init__(self, code: int, number: int | None) -> None:
        super().__init__(code)
        self.signal = None if number is None else signal.Signals(number)


class Preemption(pl.Callback):
    """SIGTERM, SIGUSR1, SIGHUP or a first Ctrl-C, to any of the processes, ends the run after the optimiser step under way.

    A handler only notes the signal: whatever it did itself, it would do in the middle of a step, and in one process of several,
    which then wait for each other (Lightning 2.6.6 hung in 3 of 7 trials). After each optimiser step all processes ask each
    other, save where there is a `ssl_framework.checkpoint.SaveRun`, and leave with code 75. A second Ctrl-C stops at once.
    Under SLURM, SIGUSR1 also requeues the job (``#SBATCH --signal=USR1@90``).

    A signal that somebody else handles, or has ignored (``nohup``, a shell's background), is left to them.
    """

    def __init__(self) -> None:
        self.saver: Checkpoint | None = None  # what saves, and calls `leave` then; without one the run leaves by itself
        self._got: int | None = None
        self._before: dict[int, Any] = {}
        self._speaks = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen from now on, instead of Lightning's handlers."""
        self._got = None
        if threading.current_thread() is not threading.main_thread():
            return
        self._speaks = trainer.is_global_zero
        for number in _SIGNALS:
            if _is_free(number):
                self._before[number] = signal.signal(number, self._note)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave, if it was asked for."""
        if self.saver is None and self.asked(trainer):
            self.leave(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._restore()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen no more."""
        self._restore()

    def asked(self, trainer: pl.Trainer) -> bool:
        """Whether any process was told to stop; called by all of them together."""
        here = self._got is not None
        return here if trainer.world_size == 1 else bool(trainer.strategy.reduce_boolean_decision(here, all=False))

    def leave(self, trainer: pl.Trainer) -> None:
        """Leave the run, with nothing left to do.

        Raises:
            Preempted: always.
        """
        trainer.strategy.barrier("Preemption")
        if self._got == signal.SIGUSR1:
            requeue()
        # the process that started the others takes any other code than 0 of theirs for a crash, and kills all
        started = isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)
        raise Preempted(0 if started and not trainer.is_global_zero else EXIT_CODE, self._got)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._got = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._before.pop(signal.SIGINT))
        if self._speaks:
            again = "; Ctrl-C again stops at once" if number == signal.SIGINT else f" ({signal.Signals(number).name})"
            os.write(sys.stderr.fileno(), f"stopping after this step{again}\n".encode())  # a print may be under way

    def _restore(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:  # Lightning may have put back what there was before it
                signal.signal(number, handler)
        self._before.clear()


def _is_free(number: int) -> bool:
    """Whether nobody but Lightning has a handler."""
    handler = signal.getsignal(number)
    module = getattr(handler, "__module__", None) or type(handler).__module__
    return handler in (signal.SIG_DFL, signal.default_int_handler) or str(module).startswith("pytorch_lightning")


@rank_zero_only
def requeue() -> None:
    """Ask SLURM to start this job again; outside SLURM nothing happens."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ.get("SLURM_JOB_ID") if array is None else f"{array}_{task}"
    if job is not None:
        subprocess.run(["scontrol", "requeue", job], check=False)  # the run is saved, and leaves, whatever SLURM says
