"""All processes of a run train one model: what they hold is compared from time to time."""

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_SHOWN = 5  # names in an error
_STATISTICS = "running_"  # of normalisation layers, torch's and others', by their names
_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class RanksDisagreeError(RuntimeError):
    """Processes of one run hold different models."""


class RankAgreement(pl.Callback):
    """Compares a checksum of each parameter and buffer over all processes, and stops the run where they differ.

    A process whose model drifts away spoils the gradient of all, and nothing shows it: each loss looks healthy. One process has
    nothing to compare. What is sharded (FSDP2) is in one process only, and a normalisation that is not synchronised has the
    running statistics of its own share; both are left out. Other buffers that differ are told of once, for who wrote the layer
    may have meant them to; those below a follower, which has `follow`, may not.

    Args:
        every_n_steps: optimiser steps between two looks; the last step is looked at, too.
    """

    def __init__(self, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: give at least 1.")
        self._every = every_n_steps
        self._done = -1
        self._told = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What was loaded is the same everywhere."""
        self._done = trainer.global_step
        self._compare(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare, if it is time.

        Raises:
            RanksDisagreeError: a tensor differs.
        """
        step = trainer.global_step
        if step != self._done and (step % self._every == 0 or step == trainer.max_steps):
            self._compare(trainer, pl_module)
        self._done = step

    def _compare(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size == 1:
            return
        held = common(module)
        if not held:
            return
        own = checksums(held.values())
        rows = [torch.empty_like(own) for _ in range(trainer.world_size)]
        dist.all_gather(rows, own)
        everyone = torch.stack(rows)  # (W, T)
        differs = (everyone != everyone[0]).any(dim=0).tolist()
        names = [name for name, other in zip(held, differs, strict=True) if other]
        strict = {name for name, _ in module.named_parameters()} | _followed(module)
        loose, names = [name for name in names if name not in strict], [name for name in names if name in strict]
        if loose and not self._told:
            self._told = True
            rank_zero_warn(
                f"after step {trainer.global_step} the processes of this run hold different values of "
                f"{', '.join(loose[:_SHOWN])}: fine where a layer counts for itself, and a fault where it is used in training."
            )
        if names:
            away = (everyone != everyone[0]).any(dim=1).nonzero().flatten().tolist()
            more = f", and {len(names) - 1} more ({', '.join(names[1:_SHOWN])})" if len(names) > 1 else ""
            raise RanksDisagreeError(
                f"the processes of this run hold different models after step {trainer.global_step}: {names[0]} of process "
                f"{', '.join(map(str, away))} is not that of process 0{more}. Something writes into the model of one process: "
                "a callback, a part that draws without a key, a broken GPU. Go on from a checkpoint before it, and look there."
            )


def common(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that each process should hold alike, in their order."""
    own = {
        f"{prefix}.{name}" if prefix else name
        for prefix, layer in module.named_modules()
        if not isinstance(layer, nn.SyncBatchNorm)
        for name, _ in layer.named_buffers(recurse=False)
        if name.startswith(_STATISTICS)
    }
    held = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor for name, tensor in held if name not in own and not isinstance(tensor, DTensor)}


def _followed(module: nn.Module) -> set[str]:
    """Names of the buffers of what moves by a rule of ours: teachers, queues, banks, centres."""
    parts = [(prefix, part) for prefix, part in module.named_modules() if hasattr(part, "follow")]
    return {f"{prefix}.{name}" for prefix, part in parts for name, _ in part.named_buffers()}


@torch.no_grad()
def checksums(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of the bits of each tensor, as whole numbers: ``(T,)`` int64. Nothing waits for the device."""
    parts = [tensor.detach() for tensor in tensors]
    parts = [part.to_local() if isinstance(part, DTensor) else part for part in parts]
    parts = [torch.view_as_real(part) if part.is_complex() else part for part in parts]
    return torch.stack([part.view(_WHOLE[part.element_size()]).sum(dtype=torch.int64) for part in parts])
