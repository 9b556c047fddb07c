"""Policies by kind of parameter: few numbers everywhere instead of many in some layers."""

import dataclasses

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  (of all its kinds)

from ssl_framework.downstream.freezing.policy import Place, Policy, positive

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiasOnly(Policy):
    """Only biases learn: a thousandth of the parameters.

    BitFit: Ben Zaken et al., 2022, https://arxiv.org/abs/2106.10199

    Args:
        encoder_lr: their learning rate, as a multiple of the head's; the paper searches above that of full fine-tuning.
        batch_norm: see `Policy`.
    """

    encoder_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(encoder_lr=self.encoder_lr)

    def rate(self, place: Place, stage: int) -> float:
        """`encoder_lr` for what is named bias, of norms too."""
        return self.encoder_lr if place.name.rpartition(".")[2] == "bias" else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormOnly(Policy):
    """Only the scales and shifts of the norms learn.

    Frankle et al., 2021, https://arxiv.org/abs/2003.00152, for BatchNorm; LN-tuning for transformers.

    Args:
        encoder_lr: their learning rate, as a multiple of the head's.
        batch_norm: see `Policy`.
    """

    encoder_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(encoder_lr=self.encoder_lr)

    def rate(self, place: Place, stage: int) -> float:
        """`encoder_lr` for what a norm holds."""
        return self.encoder_lr if isinstance(place.owner, NORMS) else 0.0
