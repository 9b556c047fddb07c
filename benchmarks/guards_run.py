"""A contestant of `guards.py`: the command itself, with or without what guards and watches it."""

import sys
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from throughput_ours import Gate
from throughput_window import claim_pipes, specification

from ssl_framework import cli, run

_GUARDS = ("FiniteGate", "Preemption", "RankAgreement", "Watchdog", "WholeRun")


class Nothing(pl.Callback):
    """Stands where a guard would."""

    def __init__(self, *_: object) -> None:
        pass


class ClockedGate(Gate):
    """A gate that also says how many seconds the other callbacks have had since training began."""

    def __init__(self, orders: int, replies: int) -> None:
        super().__init__(orders, replies)
        self._spent = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Everything is built."""
        callbacks: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]  (set by a connector)
        for callback in callbacks:
            for name in dir(pl.Callback):
                if name.startswith(("on_train_batch", "on_before", "on_after")) and callback is not self:
                    setattr(callback, name, self._clocked(getattr(callback, name)))
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step is done."""
        self.windows.step(outputs["loss"], hooks=self._spent)

    def _clocked(self, hook: Callable[..., None]) -> Callable[..., None]:
        def clocked(*arguments: Any, **more: Any) -> None:
            began = time.perf_counter()
            hook(*arguments, **more)
            self._spent += time.perf_counter() - began

        return clocked


def main() -> None:
    """Train between windows, until the race ends."""
    orders, replies = claim_pipes()
    spec = specification()
    if not spec["guards"]:
        for name in _GUARDS:
            setattr(run, name, Nothing)
    gate = [
        "+monitors.gate._target_=guards_run.ClockedGate",
        f"+monitors.gate.orders={orders}",
        f"+monitors.gate.replies={replies}",
    ]
    sys.exit(cli.run(["pretrain", *spec["words"], *gate]))


if __name__ == "__main__":
    main()
