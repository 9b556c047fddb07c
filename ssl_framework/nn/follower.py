"""What moves without a gradient: it follows the optimiser, inside the optimiser step, so that no checkpoint comes between."""

import copy
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  (of all its kinds)

from ssl_framework.schedules import cosine, ramp

_STANDS = 1e-6  # of the way to the student, in a step: float32 has some 7 digits


class Follower(nn.Module):
    """A part of a task that changes by rule and not by gradient. Its state lives in buffers or frozen parameters.

    `forward` may stage what it saw; `follow` is called once after each optimiser step, on every follower of the module.
    """

    def begin(self, samples: int) -> None:
        """Make ready for a training on so many samples; few followers need to know.

        Args:
            samples: of the training data, whose `Views.index` runs from 0 to ``samples - 1``.
        """

    def follow(self, progress: float) -> None:
        """Move.

        Args:
            progress: share of the training that is done, in [0, 1].
        """
        raise TypeError(f"{type(self).__name__} does not say how it follows: define follow(progress).")

    def settled(self, progress: float) -> bool:
        """Whether it may stand still from here on, so that monitors do not take it for dead.

        Args:
            progress: share of the training that is done, in [0, 1].
        """
        del progress
        return False


class Teacher(Follower):
    """An exponential moving average of a student, built as a deep copy in the constructor.

    Its weights follow ``teacher = momentum * teacher + (1 - momentum) * student`` with a momentum that grows from `momentum` to
    `final_momentum`. BatchNorm statistics are the teacher's own: it normalises by its batch, as its student does, and keeps its
    own running averages, as in BYOL's official code (deepmind-research/byol/byol_experiment.py, `target_state`). Dropout and
    drop-path are its student's alone, as in DINO's (``main_dino.py`` builds the teacher without).

    Args:
        student: what is followed. It stays where it is: it is not a submodule of the teacher.
        momentum: at the start of training.
        final_momentum: at its end.
        rise: from one to the other, on half a cosine or on a straight line.
    """

    def __init__(
        self,
        student: nn.Module,
        momentum: float,
        final_momentum: float = 1.0,
        rise: Literal["cosine", "linear"] = "cosine",
    ) -> None:
        super().__init__()
        if not 0.0 <= momentum <= final_momentum <= 1.0:
            raise ValueError(f"0 <= momentum <= final_momentum <= 1 must hold: got {momentum} and {final_momentum}.")
        self.module = copy.deepcopy(student).requires_grad_(False)
        self._student = (student,)  # in a tuple, so that its weights are not registered a second time
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.rise = rise
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """BatchNorm goes by the batch in training; nothing is dropped."""
        super().train(mode)
        for part in self.module.modules():
            part.training = mode and isinstance(part, _BatchNorm)
        return self

    @torch.no_grad()
    def forward(self, x: Tensor, **options: Any) -> Any:
        """What the averaged student says of `x`, without a gradient; `options` are the student's."""
        return self.module(x, **options)

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """Move the weights towards the student's."""
        momentum = self.momentum_at(progress)
        students = dict(self._student[0].named_parameters())
        for name, parameter in self.module.named_parameters():
            parameter.lerp_(students[name].detach(), 1.0 - momentum)

    def momentum_at(self, progress: float) -> float:
        """What the weights keep of themselves in a step."""
        ends = self.momentum, self.final_momentum
        return cosine(progress, *ends) if self.rise == "cosine" else ramp(progress, 1.0, *ends)

    def settled(self, progress: float) -> bool:
        """Near the end of a momentum that rises to 1, what it moves is less than a number's last digit."""
        return self.momentum < 1.0 and self.momentum_at(progress) > 1.0 - _STANDS

    @property
    def student(self) -> nn.Module:
        """What it follows."""
        return self._student[0]


class Branch(nn.Module):
    """An encoder and what stands on it, as one module: what a teacher averages.

    Args:
        encoder: maps inputs to an `Encoding`.
        head: maps its pooled vector onwards.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)`` to ``(B, P)``."""
        return self.head(self.encoder(x).pooled)
