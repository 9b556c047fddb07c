"""What every freezing policy says: plain numbers, and functions of them. The mechanism is in `freezer`."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

Statistics = Literal["frozen", "adapt", "recompute"]


class Place(NamedTuple):
    """A parameter of an encoder, and where it acts.

    Attributes:
        name: in the encoder.
        depth: 1 to `layers` for the layers, 0 before the first, ``layers + 1`` after the last; see `encoders.depths`.
        layers: of the encoder.
        owner: the module that holds it.
    """

    name: str
    depth: int
    layers: int
    owner: nn.Module


class Moment(NamedTuple):
    """Where training stands.

    Attributes:
        step: optimiser steps done.
        total: optimiser steps of the whole training.
        epoch: passes over the labels done.
    """

    step: int
    total: int
    epoch: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """Which part of an encoder learns from labels, when, and at which rate. A subclass says `rate`.

    Args:
        batch_norm: what BatchNorm's statistics do. None: they move where the norm itself learns, and stand still elsewhere.
            "frozen": they stand still everywhere. "adapt": they move everywhere, also in layers that do not learn (AdaBN, Li et
            al., 2016, https://arxiv.org/abs/1603.04779). "recompute": they are computed anew over the training images before
            the first step, and then stand still.
    """

    batch_norm: Statistics | None = None

    def __post_init__(self) -> None:
        if self.batch_norm not in (None, "frozen", "adapt", "recompute"):
            raise ValueError(
                f"batch_norm={self.batch_norm}: choose frozen, adapt, recompute, or null for what the policy does."
            )

    def rate(self, place: Place, stage: int) -> float:
        """Learning rate of a parameter of the encoder as a multiple of the head's; 0: it is frozen."""
        raise NotImplementedError(f"{type(self).__name__} does not say what learns: define rate(place, stage).")

    def stage(self, moment: Moment) -> int:
        """Stages are numbered from 0; within one, nothing changes. A function of the moment alone, so it can be resumed."""
        return 0

    def head_rate(self, stage: int) -> float:
        """The head's own multiple."""
        return 1.0

    def cycle(self, stage: int, total: int) -> tuple[int, int]:
        """First step, and the one after the last, of the learning rate's rise and fall that a stage belongs to."""
        return 0, total

    def alter(self, encoder: nn.Module, example: Tensor) -> None:
        """Add to the encoder what learns in its place; nothing, for most.

        Args:
            encoder: in evaluation mode.
            example: ``(1, C, H, W)`` that it takes.

        Raises:
            ValueError: this encoder cannot have it.
        """

    def merged(self, encoder: nn.Module) -> nn.Module:
        """The encoder to be saved: a plain one, of the architecture that was loaded."""
        return encoder

    def check(self, places: Sequence[Place], layers: int) -> None:
        """Look at the parameters of the encoder and at its number of layers.

        Raises:
            ValueError: the policy asks for others than there are.
        """

    @property
    def kind(self) -> str:
        """Its name on the command line: ``LayerDecay`` is ``layer_decay``."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def state(self) -> dict[str, Any]:
        """Plain numbers and strings that tell this policy from another."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


def positive(**numbers: float) -> None:
    """Refuse a rate that is none.

    Raises:
        ValueError: it is not above 0.
    """
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name}={value} must be positive; for an encoder that does not learn take freezing=frozen.")
