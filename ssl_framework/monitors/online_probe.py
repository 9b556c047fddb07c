"""How well a linear head reads classes off the embedding while it is being learnt."""

import copy
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_framework import keyed
from ssl_framework.metrics import accuracy
from ssl_framework.monitors.watch import Bank, Every, LabelledData, log, watched
from ssl_framework.probes import standardizer


class OnlineProbe(pl.Callback):
    """Logs ``probe/accuracy``: a linear head that goes on learning, at every look, on embeddings of labelled samples.

    The head and its optimiser belong to the monitor: they live across looks, stand in the checkpoint, and nothing flows back
    into the encoder. It starts at zero and its batches are keyed, so it draws no random number.

    Args:
        data: labelled; may be another set than the one that pretraining sees.
        every_n_steps: optimiser steps of the encoder between two looks.
        max_train: samples of train that the head learns from, at most.
        max_val: samples of validation, at most; 500 give a standard error of 2 points.
        passes: over the train embeddings at every look.
        lr: of AdamW, constant.
        weight_decay: of AdamW.
        batch_size: images that are encoded at once, and embeddings in a step of the head.
        seed: of which samples are taken, and of their order.
    """

    def __init__(
        self,
        data: LabelledData,
        every_n_steps: int = 400,
        max_train: int = 1500,
        max_val: int = 500,
        passes: int = 10,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
        batch_size: int = 256,
        seed: int = 0,
    ):
        if passes < 1 or lr <= 0:
            raise ValueError(f"passes = {passes} and lr = {lr} must be positive: the head learns nothing otherwise")
        self._data = data
        self._every = Every(every_n_steps)
        self._sizes = (max_train, max_val, batch_size, seed)
        self._passes, self._lr, self._weight_decay, self._batch_size, self._seed = passes, lr, weight_decay, batch_size, seed
        self.bank: Bank | None = None
        self._looks = 0
        self._head: nn.Linear | None = None
        self._optimizer: torch.optim.AdamW | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read labels, before any training, so that missing ones are known early."""
        watched(pl_module)
        self.bank = Bank(self._data, *self._sizes)
        self._every.start(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Learn and look, if it is time."""
        if self._every.due(trainer):
            bank = self.bank
            assert bank is not None
            train_x, val_x = bank.embed(trainer, pl_module)
            scale = standardizer(train_x)
            head, optimizer = self._learner(train_x.shape[1], bank.num_classes, train_x.device)
            self._learn(head, optimizer, scale(train_x).float(), bank.train_y.to(train_x.device))
            with torch.no_grad():
                predicted = head(scale(val_x).float())
            log(trainer, pl_module, {"probe/accuracy": accuracy(predicted, bank.val_y.to(val_x.device))}, prog_bar=True)
            self._looks += 1

    def state_dict(self) -> dict[str, Any]:
        """The head, its optimiser and the number of looks; plain containers and tensors."""
        if self._head is None or self._optimizer is None:
            return {"looks": self._looks, "head": None, "optimizer": None}
        return {
            "looks": self._looks,
            "head": copy.deepcopy(dict(self._head.state_dict())),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` stood."""
        self._looks = state_dict["looks"]
        if state_dict["head"] is not None:
            classes, width = state_dict["head"]["weight"].shape
            head, optimizer = self._learner(width, classes, torch.device("cpu"))
            head.load_state_dict(state_dict["head"])
            optimizer.load_state_dict(copy.deepcopy(state_dict["optimizer"]))

    def _learner(self, width: int, classes: int, device: torch.device) -> tuple[nn.Linear, torch.optim.AdamW]:
        """The head and its optimiser on a device: made at first, moved once after a resume."""
        if self._head is None or self._optimizer is None:
            self._head = nn.Linear(width, classes, device="meta").to_empty(device=device)  # its own start would draw numbers
            nn.init.zeros_(self._head.weight)
            nn.init.zeros_(self._head.bias)
            self._optimizer = torch.optim.AdamW(self._head.parameters(), lr=self._lr, weight_decay=self._weight_decay)
        if self._head.weight.shape != (classes, width):
            raise ValueError(
                f"the probe in the checkpoint reads {tuple(self._head.weight.shape)} (classes, width), this run has "
                f"{(classes, width)}: resume with the same encoder and labelled data, or without the probe"
            )
        if self._head.weight.device != device:
            state = self._optimizer.state_dict()
            self._head = self._head.to(device)
            self._optimizer = torch.optim.AdamW(self._head.parameters(), lr=self._lr, weight_decay=self._weight_decay)
            self._optimizer.load_state_dict(state)
        return self._head, self._optimizer

    def _learn(self, head: nn.Linear, optimizer: torch.optim.AdamW, x: Tensor, y: Tensor) -> None:
        for number in range(self._passes):
            order = torch.from_numpy(keyed.permutation(len(x), self._seed, 2, self._looks, number)).to(x.device)
            for rows in order.split(self._batch_size):
                with torch.enable_grad():
                    loss = F.cross_entropy(head(x[rows]), y[rows])
                gradients = torch.autograd.grad(loss, list(head.parameters()))
                for parameter, gradient in zip(head.parameters(), gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
