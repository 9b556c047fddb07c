"""Model choice on validation: the best weights are kept in memory, and training may end when they get no better."""

import math
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor

Mode = Literal["min", "max"]


class KeepBest(EarlyStopping):
    """At the end the module has the weights of its best validation; of equally good ones the earliest.

    Lightning's `EarlyStopping`, which does not put the best weights back. Weights and the count are in the checkpoint.

    Args:
        monitor: what is logged, "val/accuracy" for one.
        mode: whether it should be large or small.
        patience: validations without a better one, after which training ends; None: never.
    """

    def __init__(self, monitor: str, mode: Mode, patience: int | None = None) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience={patience}: give at least 1 validation, or null, which never stops early.")
        super().__init__(monitor, mode=mode, patience=patience or 10**9, min_delta=0.0, check_on_train_epoch_end=False)
        self.best: dict[str, Tensor] = {}
        self.best_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a training that ends before its first validation.

        Raises:
            ValueError: there would be nothing to choose from.
        """
        del pl_module
        steps = trainer.max_steps * trainer.accumulate_grad_batches
        if (trainer.val_check_batch or math.inf) > steps or not sum(trainer.num_val_batches):
            raise ValueError(
                f"choose=best takes the weights of the best validation, and there would be none in {trainer.max_steps} steps: "
                "set trainer.val_check_interval below them and give validation samples."
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if this is the best validation so far."""
        before = self.best_score.clone()
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and bool(self.best_score != before):
            self.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in _weights(pl_module).items()}
            self.best_step = trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        if self.best:
            own = _weights(pl_module)
            for name, tensor in self.best.items():
                own[name].data.copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """With the best weights."""
        return {**super().state_dict(), "best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]


def _weights(module: pl.LightningModule) -> dict[str, Tensor]:
    """What training changes: encoder and head, with their statistics."""
    return {
        name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if name.startswith(("encoder.", "head."))
    }
