"""Model choice on validation: the best weights are kept in memory, and training may end when they get no better."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

Mode = Literal["min", "max"]

_FEW = 3  # validations that say one number: before that it may be chance
_MANY = 10  # likewise, of a measure that may stand while the loss still changes
_FALLS = 0.01  # of the first loss: where it falls by more, something is learnt, whatever the measure says


@dataclass
class _Said:
    """What validations said, as far as it tells whether a choice can be made by it."""

    count: int = 0
    finite: int = 0
    first: float = math.nan
    first_loss: float = math.nan
    least_loss: float = math.inf
    constant: bool = True
    constant_loss: bool = True

    def hear(self, value: float, loss: float) -> None:
        """One more validation; a loss that is not logged is NaN, and does not change."""
        self.count += 1
        self.finite += math.isfinite(value)
        if self.count == 1:
            self.first, self.first_loss = value, loss
        self.constant &= value == self.first
        self.least_loss = min(self.least_loss, loss)  # of NaN the other
        self.constant_loss &= loss == self.first_loss or math.isnan(loss)


class KeepBest(EarlyStopping):
    """At the end the module has the weights of its best validation; of equally good ones the earliest.

    Lightning's `EarlyStopping`, which does not put the best weights back, and ends a training quietly at the first NaN.
    Weights and the count are in the checkpoint.

    A measure that cannot choose is an error: one that is not logged, that is not finite at any validation, or that says the
    same at each of them while it could be better and nothing is learnt (three validations; ten where the loss changes, and does
    not fall). Where the loss falls, that is told of, and the earliest weights are taken.

    Args:
        monitor: what is logged, "val/accuracy" for one; never of the test set.
        mode: whether it should be large or small.
        patience: validations without a better one, after which training ends; None: never.

    Raises:
        ValueError: `patience` is no number of validations, or `monitor` is of the test set.
    """

    def __init__(self, monitor: str, mode: Mode, patience: int | None = None) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience={patience}: give at least 1 validation, or null, which never stops early.")
        if monitor.startswith("test"):
            raise ValueError(f"monitor={monitor} would choose on the test set, which judges: take a measure of validation.")
        super().__init__(
            monitor,
            mode=mode,
            patience=patience or 10**9,
            min_delta=0.0,
            check_finite=False,
            check_on_train_epoch_end=False,
        )
        self._said = _Said()
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
        """Keep the weights if this is the best validation so far.

        Raises:
            ValueError: the measure is not logged.
        """
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val"))) or "nothing"
            raise ValueError(
                f"choose=best goes by {self.monitor}, and validation after step {trainer.global_step} did not log it: there is "
                f"{known}. Give the name of one of them."
            )
        if not trainer.sanity_checking:
            loss = trainer.callback_metrics.get("val/loss")
            self._said.hear(float(trainer.callback_metrics[self.monitor]), math.nan if loss is None else float(loss))
        before = self.best_score.clone()
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and bool(self.best_score != before):
            self.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in _weights(pl_module).items()}
            self.best_step = trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back.

        Raises:
            ValueError: no validation told one from another.
        """
        self._require_choice()
        if self.best:
            own = _weights(pl_module)
            for name, tensor in self.best.items():
                own[name].data.copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """With the best weights, and what validations said."""
        return {**super().state_dict(), "best": self.best, "best_step": self.best_step, "said": asdict(self._said)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        self._said = _Said(**state_dict.get("said", {}))

    def _require_choice(self) -> None:
        said = self._said
        if said.count and not said.finite:
            raise ValueError(
                f"choose=best goes by {self.monitor}, which was not finite at any of {said.count} validations: there is no "
                "best one. Look at the validation labels, lower optimizer.lr, or take choose=last."
            )
        perfect = 1.0 if self.mode == "max" else 0.0
        enough = _FEW if said.constant_loss else _MANY
        if not said.constant or said.count < enough or said.first == perfect:
            return
        fall = said.first_loss - said.least_loss  # inf: the first one was
        if fall > (0 if math.isinf(fall) else _FALLS * abs(said.first_loss)):
            rank_zero_warn(
                f"{self.monitor} was {said.first:g} at each of {said.count} validations, while val/loss fell from "
                f"{said.first_loss:.4g} to {said.least_loss:.4g}: choose=best takes the earliest of them."
            )
        else:
            raise ValueError(
                f"choose=best goes by {self.monitor}, which was {said.first:g} at each of {said.count} validations: nothing "
                "can be chosen by it. Either nothing is learnt (look at optimizer.lr and freezing), or it does not "
                "measure what is. Or take choose=last."
            )


def _weights(module: pl.LightningModule) -> dict[str, Tensor]:
    """What training changes: encoder and head, with their statistics."""
    return {
        name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if name.startswith(("encoder.", "head."))
    }
