"""All of an encoder, or nothing of it."""

import dataclasses

from ssl_framework.downstream.freezing.policy import Moment, Place, Policy, positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen(Policy):
    """Nothing of the encoder learns. It stays in evaluation mode: BatchNorm's statistics stand still, drop-path is off.

    Args:
        batch_norm: see `Policy`.
    """

    def rate(self, place: Place, stage: int) -> float:
        """Zero."""
        return 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Full(Policy):
    """Everything learns; what the encoder itself holds fixed (sine-cosine positions) stays so.

    Args:
        encoder_lr: learning rate of the encoder, as a multiple of the head's. Below 1, the new layers move before they pull at
            what was pretrained.
        batch_norm: see `Policy`.
    """

    encoder_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(encoder_lr=self.encoder_lr)

    def rate(self, place: Place, stage: int) -> float:
        """`encoder_lr`."""
        return self.encoder_lr


@dataclasses.dataclass(frozen=True, kw_only=True)
class LpFt(Policy):
    """First the head alone, then everything: the head no longer pulls at the features while it is still random.

    Kumar et al., 2022, https://arxiv.org/abs/2202.10054. Each of the two has its own rise and fall of the learning rate, and
    the second begins with a fresh optimiser.

    Args:
        probe_share: share of the steps for the head alone.
        finetune_lr: learning rate of the second part, head and encoder alike, as a multiple of the first's. The paper finds it
            on validation data, ten times and more below that of the probe.
        batch_norm: see `Policy`.
    """

    probe_share: float = 0.5
    finetune_lr: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(finetune_lr=self.finetune_lr)
        if not 0 < self.probe_share < 1:
            raise ValueError(f"probe_share={self.probe_share} must lie between 0 and 1: it is the share of steps for the head.")

    def rate(self, place: Place, stage: int) -> float:
        """Zero, then `finetune_lr`."""
        return self.finetune_lr if stage else 0.0

    def head_rate(self, stage: int) -> float:
        """One, then `finetune_lr`."""
        return self.finetune_lr if stage else 1.0

    def stage(self, moment: Moment) -> int:
        """Zero for the probe, one for the fine-tuning."""
        return int(moment.step >= self._boundary(moment.total))

    def cycle(self, stage: int, total: int) -> tuple[int, int]:
        """The steps of either part."""
        boundary = self._boundary(total)
        return (boundary, total) if stage else (0, boundary)

    def _boundary(self, total: int) -> int:
        return min(max(1, round(self.probe_share * total)), max(1, total - 1))
