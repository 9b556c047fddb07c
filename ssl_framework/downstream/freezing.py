"""Which part of an encoder learns from labels, and what "frozen" means: the same to the bit afterwards, buffers included."""

import hashlib
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Freezing(Protocol):
    """A policy. `prepare` runs once; `mode` whenever somebody calls ``train()`` or ``eval()`` on the whole module."""

    def prepare(self, encoder: nn.Module) -> None:
        """Say which parameters learn (``requires_grad``)."""
        ...

    def mode(self, encoder: nn.Module, training: bool) -> None:
        """Put the encoder's layers into training or evaluation mode."""
        ...

    def lr_scale(self, name: str) -> float:
        """Learning rate of the encoder's parameter `name`, as a multiple of the head's."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain numbers and strings that tell this policy, at this moment, from another."""
        ...


class Frozen:
    """Nothing of the encoder learns. It stays in evaluation mode: BatchNorm's statistics stand still, drop-path is off."""

    def prepare(self, encoder: nn.Module) -> None:
        """No parameter learns."""
        encoder.requires_grad_(requires_grad=False)

    def mode(self, encoder: nn.Module, training: bool) -> None:
        """Evaluation mode, whatever the rest does."""
        encoder.eval()

    def lr_scale(self, name: str) -> float:
        """Zero, and no optimiser holds the parameter."""
        return 0.0

    def state(self) -> dict[str, Any]:
        """Its name."""
        return {"kind": "frozen"}


class Full:
    """Everything learns.

    Args:
        encoder_lr: learning rate of the encoder, as a multiple of the head's. Below 1, the new layers move before they pull at
            what was pretrained.
    """

    def __init__(self, encoder_lr: float = 1.0) -> None:
        if not encoder_lr > 0:
            raise ValueError(
                f"encoder_lr={encoder_lr} must be positive; for an encoder that does not learn take freezing=frozen."
            )
        self.encoder_lr = encoder_lr

    def prepare(self, encoder: nn.Module) -> None:
        """Everything learns as it came; what the encoder itself holds fixed (sine-cosine positions) stays so.

        Raises:
            ValueError: the encoder has parameters, and somebody has frozen all of them.
        """
        parameters = list(encoder.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            raise ValueError(
                "every parameter of the encoder is frozen, so full would train none: call encoder.requires_grad_(True)."
            )

    def mode(self, encoder: nn.Module, training: bool) -> None:
        """The encoder follows the rest."""
        encoder.train(training)

    def lr_scale(self, name: str) -> float:
        """`encoder_lr`."""
        return self.encoder_lr

    def state(self) -> dict[str, Any]:
        """Its name and number."""
        return {"kind": "full", "encoder_lr": self.encoder_lr}


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of every parameter and buffer, with names, types and shapes: equal only if all are equal to the bit.

    Buffers that are not saved count too; unlike a `state_dict`, nothing is left out.
    """
    digest = hashlib.sha256()
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
