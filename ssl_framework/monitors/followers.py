"""Whether what follows the optimiser does: teachers, queues, banks, centres."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ssl_framework.guards.agreement import checksums
from ssl_framework.monitors.monitor import Monitor
from ssl_framework.nn import Centre, Follower, Queue, Teacher

_SAME = 1e-7  # of the student's size


class Followers(Monitor):
    """Finds every `ssl_framework.nn.Follower` of a task; warns of one that stands still, and of a teacher that is its student.

    That a follower has not moved between two looks is told from the bits of all that it holds, so one look is proof. Those that
    may stand still say so (`Follower.settled`): a teacher whose momentum has risen to 1.

    Logged are, by the name of the part: ``teacher/distance`` from the student, over the size of the student's weights, and
    ``teacher/momentum``; ``queue/fill``, the share that was replaced since the beginning, and ``queue/age`` of the oldest key,
    in steps; ``centre/norm``.

    Args:
        every_n_steps: optimiser steps between two looks.
        patience: looks at which a teacher is its student before a warning.
    """

    watches = "followers"

    def __init__(self, every_n_steps: int = 50, patience: int = 2) -> None:
        super().__init__(every_n_steps, patience)
        self._before: dict[str, int] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note where each stands."""
        super().on_train_start(trainer, pl_module)
        self._before = {name: total for name, (total, _) in _measured(pl_module).items()}

    def look(self, trainer: pl.Trainer, module: pl.LightningModule, seen: Mapping[str, Any], batch: Any) -> Mapping[str, float]:
        """Judge how far each has come."""
        progress = min(1.0, trainer.global_step / trainer.max_steps)
        logged: dict[str, float] = {}
        for name, (total, numbers) in _measured(module).items():
            part = module.get_submodule(name)
            assert isinstance(part, Follower)
            still, self._before[name] = total == self._before.get(name), total
            self.judge(
                f"{name} stands still",
                None if part.settled(progress) else still,
                f"this {type(part).__name__} holds what it held a look ago, although the optimiser has stepped. Nothing is "
                "staged for it, or its follow() moves nothing.",
                patience=1,
            )
            logged |= {f"{name}/{what}": value for what, value in numbers.items()}
            if isinstance(part, Teacher):
                logged[f"{name}/momentum"] = part.momentum_at(progress)
                self.judge(
                    f"{name} is its student",
                    part.momentum > 0 and numbers["distance"] < _SAME,
                    f"their weights are equal, although its momentum is {part.momentum_at(progress):g}. It was not copied, or "
                    "is overwritten.",
                )
            elif isinstance(part, Queue):
                keys = len(batch.index) * trainer.world_size * trainer.accumulate_grad_batches
                logged[f"{name}/fill"] = min(1.0, trainer.global_step * keys / len(part.rows))
                logged[f"{name}/age"] = len(part.rows) / keys
        return logged


@torch.no_grad()
def _measured(module: pl.LightningModule) -> dict[str, tuple[int, dict[str, float]]]:
    """Of each follower by name: a number that changes with what it holds, and what is to be logged."""
    followers = {name: part for name, part in module.named_modules() if isinstance(part, Follower)}
    parts = {name: part for name, part in followers.items() if any(True for _ in _held(part))}
    if not parts:
        return {}
    totals = torch.stack([checksums(_held(part)).sum() for part in parts.values()])
    sizes = torch.stack([_size(part) for part in parts.values()])
    return {
        name: (total, {"distance": size} if isinstance(part, Teacher) else {"norm": size} if isinstance(part, Centre) else {})
        for (name, part), total, size in zip(parts.items(), totals.tolist(), sizes.tolist(), strict=True)
    }


def _held(part: Follower) -> Iterator[Tensor]:
    """What moves of a follower: of a teacher its weights, for its BatchNorm statistics move whatever it does."""
    yield from part.parameters()
    if not isinstance(part, Teacher):
        yield from part.buffers()


def _size(part: Follower) -> Tensor:
    """``()``: distance of a teacher from its student over the student's norm, norm of a centre, 0 of others."""
    if isinstance(part, Centre):
        return part.value.float().norm()
    if not isinstance(part, Teacher):
        return next(_held(part)).new_zeros((), dtype=torch.float32)
    students = dict(part.student.named_parameters())
    norms = [
        (p.sub(students[name].detach()).norm(), students[name].detach().norm()) for name, p in part.module.named_parameters()
    ]
    apart, size = (torch.stack(each).norm() for each in zip(*norms, strict=True))  # one difference is held at a time
    share = apart / size
    return (share.full_tensor() if isinstance(share, DTensor) else share).float()
