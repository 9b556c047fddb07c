"""How well classes separate in the embedding while it is being learnt, without training anything."""

from typing import Any

import pytorch_lightning as pl

from ssl_framework.metrics import accuracy
from ssl_framework.monitors.watch import Bank, Every, LabelledData, log, watched
from ssl_framework.probes import knn


class OnlineKNN(pl.Callback):
    """Logs ``knn/accuracy``: a weighted kNN on validation embeddings, with train embeddings as the bank.

    It needs no training and has no state. It understates generative tasks, whose embeddings share a strong common part.

    Args:
        data: labelled; may be another set than the one that pretraining sees.
        every_n_steps: optimiser steps between two looks. With the default sizes a look is as much work as 5 steps of 64 images
            in two views, if a backward pass is counted as two forward passes.
        max_train: samples of train in the bank, at most.
        max_val: samples of validation, at most; 500 give a standard error of 2 points.
        k: neighbours that vote (Wu et al. 2018 and DINO report 20 and 200).
        temperature: of the votes (Wu et al. 2018, section 3.4).
        batch_size: images that are encoded at once.
        seed: of which samples are taken.
    """

    def __init__(
        self,
        data: LabelledData,
        every_n_steps: int = 400,
        max_train: int = 1500,
        max_val: int = 500,
        k: int = 20,
        temperature: float = 0.07,
        batch_size: int = 256,
        seed: int = 0,
    ):
        self._data = data
        self._every = Every(every_n_steps)
        self._sizes = (max_train, max_val, batch_size, seed)
        self._k, self._temperature = k, temperature
        self.bank: Bank | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read labels, before any training, so that missing ones are known early."""
        watched(pl_module)
        self.bank = Bank(self._data, *self._sizes)
        self._every.start(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, if it is time."""
        if self._every.due(trainer):
            bank = self.bank
            assert bank is not None
            train_x, val_x = bank.embed(trainer, pl_module)
            train_y, val_y = bank.train_y.to(train_x.device), bank.val_y.to(val_x.device)
            predicted = knn(train_x, train_y, val_x, num_classes=bank.num_classes, k=self._k, temperature=self._temperature)
            log(trainer, pl_module, {"knn/accuracy": accuracy(predicted, val_y)}, prog_bar=True)
