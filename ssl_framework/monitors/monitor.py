"""What monitors that judge have in common: they look from time to time, are patient, and keep what they said."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from ssl_framework.monitors.watch import Every, log

_SHOWN = 4  # alarms in the line at the end


class MonitorWarning(UserWarning):
    """Training goes on, and something in it is probably wrong."""


class Alarm(NamedTuple):
    """What a monitor said.

    Attributes:
        step: after which it said it.
        kind: in few words, the same each time.
        message: with the numbers, and what to do.
    """

    step: int
    kind: str
    message: str


class Monitor(pl.Callback):
    """Looks at a training every so many steps, logs numbers, and warns by name when they stay wrong.

    A subclass defines `look`. A warning comes once for each kind, when a value was wrong at `patience` looks in a row, and
    again only after it was right. What was said is in `alarms`, in the checkpoint, and in the line at the end of the run.

    Args:
        every_n_steps: optimiser steps between two looks; the last step is looked at, too.
        patience: wrong looks before a warning.
    """

    watches: ClassVar[str]
    """What it watches, in a word: for the line at the end."""
    category: ClassVar[type[MonitorWarning]] = MonitorWarning

    def __init__(self, every_n_steps: int = 50, patience: int = 2) -> None:
        if patience < 1:
            raise ValueError(f"patience is {patience}: give at least 1")
        self.alarms: list[Alarm] = []
        self._every = Every(every_n_steps)
        self._patience = patience
        self._wrong: dict[str, int] = {}
        self._step = 0

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, seen: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Judge, and say what is to be logged.

        Args:
            trainer: of the run.
            module: what is trained.
            seen: what the step gave: ``loss``, ``embedding`` and the rest of `ssl_framework.types.Step`.
            batch: of the step.
        """
        raise TypeError(f"{type(self).__name__} does not look: define look(trainer, module, seen, batch).")

    def judge(self, kind: str, wrong: bool | None, why: str, *, patience: int | None = None) -> None:
        """Count a look, and warn if it was one too many.

        Args:
            kind: of what may be wrong, in few words.
            wrong: whether it is, the same on all processes; None: this look says nothing.
            why: numbers and remedy, for the message.
            patience: another than the monitor's, where one look is proof.
        """
        if wrong is None:
            return
        self._wrong[kind] = self._wrong.get(kind, 0) + 1 if wrong else 0
        if self._wrong[kind] == (patience or self._patience):
            self.alarms.append(Alarm(self._step, kind, f"{kind}: {why}"))
            rank_zero_warn(self.alarms[-1].message, category=self.category)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count steps."""
        self._every.start(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, if it is time."""
        if self._every.due(trainer):
            self._step = trainer.global_step
            log(trainer, pl_module, self.look(trainer, pl_module, outputs or {}, batch))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One of all monitors says what all of them found."""
        if monitors(trainer)[0] is self:
            rank_zero_info(summary(trainer))

    def state_dict(self) -> dict[str, Any]:
        """How many looks each kind has lasted, so that a resumed run does not warn again, and what was said."""
        return {"wrong": dict(self._wrong), "alarms": [list(alarm) for alarm in self.alarms]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` stood."""
        self._wrong = dict(state_dict["wrong"])
        self.alarms = [Alarm(*alarm) for alarm in state_dict["alarms"]]


def monitors(trainer: pl.Trainer) -> list[Monitor]:
    """Those of a Trainer that judge."""
    callbacks: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]  (set by a connector)
    return [callback for callback in callbacks if isinstance(callback, Monitor)]


def alarms(trainer: pl.Trainer) -> list[Alarm]:
    """What all monitors of a Trainer said, in the order of the steps; of a resumed run from its beginning."""
    return sorted(alarm for monitor in monitors(trainer) for alarm in monitor.alarms)


def summary(trainer: pl.Trainer) -> str:
    """One line: what was watched, and which alarms there were after which step."""
    watched = ", ".join(dict.fromkeys(monitor.watches for monitor in monitors(trainer)))
    said = alarms(trainer)
    if not watched:
        return "watched: nothing"
    return f"watched: {watched}; {_counted(said)}"


def _counted(said: Sequence[Alarm]) -> str:
    if not said:
        return "no alarms"
    shown = ", ".join(f"{alarm.kind} (step {alarm.step:,})" for alarm in said[:_SHOWN])
    more = f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    return f"{len(said)} ALARM{'S' * (len(said) > 1)}: {shown}{more}"


def over_processes(trainer: pl.Trainer, values: Tensor) -> list[float]:
    """Means over all processes of ``(n,)`` numbers. The host waits for the device once."""
    if trainer.world_size > 1:
        values = values.clone()
        dist.all_reduce(values)
        values = values / trainer.world_size
    return values.tolist()
