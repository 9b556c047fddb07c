"""What holds a policy to an encoder: who learns, who evaluates, and what must be the same to the bit afterwards."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  (of all its kinds)

from ssl_framework.downstream.freezing.policy import Moment, Place, Policy
from ssl_framework.encoders import depths
from ssl_framework.types import Encoder


class Freezer:
    """A policy at work on one encoder.

    Args:
        policy: what learns, when, and at which rate.
        encoder: it is changed: ``requires_grad``, modes, and what `Policy.alter` adds.
        example: ``(1, C, H, W)`` of the kind that the encoder takes; it goes through once, to find the depths.

    Attributes:
        stage: where the policy stands.

    Raises:
        ValueError: the policy does not fit the encoder, or would train nothing of it.
    """

    def __init__(self, policy: Policy, encoder: Encoder, example: Tensor) -> None:
        self.policy, self.encoder = policy, cast(nn.Module, encoder)
        self._fixed = {name for name, p in self.encoder.named_parameters(remove_duplicate=False) if not p.requires_grad}
        like = next((p for p in self.encoder.parameters() if p.is_floating_point()), example)
        found = depths(encoder, example.to(like))
        policy.alter(self.encoder, example.to(like))
        n = encoder.num_layers
        self.places = {name: Place(name, found.get(name, 0), n, owner) for name, owner in _owners(self.encoder)}
        self._norms = [name for name, part in self.encoder.named_modules() if isinstance(part, _BatchNorm)]
        self._check()
        self.stage = 0
        self.enter(0)

    def due(self, moment: Moment) -> int:
        """The stage of a moment; beyond one for each layer and the stem, nothing changes any more."""
        return min(self.policy.stage(moment), cast(Encoder, self.encoder).num_layers + 1)

    def enter(self, stage: int) -> None:
        """Let learn what learns in this stage, and nothing else."""
        self.stage = stage
        for name, parameter in self.encoder.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(self.rate(name) > 0)
        self._awake = self._wake()

    def rate(self, name: str) -> float:
        """Learning rate of a parameter of the encoder now, as a multiple of the head's base rate; 0: it is frozen."""
        return 0.0 if name in self._fixed else self.policy.rate(self.places[name], self.stage)

    @property
    def head_rate(self) -> float:
        """The head's multiple of the base rate now."""
        return self.policy.head_rate(self.stage)

    def mode(self, training: bool) -> None:
        """Training or evaluation for what learns; evaluation for what is frozen, so that it drops no path and no unit."""
        self.encoder.train(training and any(self._awake.values()))
        for name, part in self.encoder.named_modules():
            part.training = training and self._trains(name)

    def frozen(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that must not change in this stage, buffers included, by name."""
        for name, parameter in self.encoder.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                yield name, parameter
        for name, buffer in self.encoder.named_buffers(remove_duplicate=False):
            if not self._trains(name.rpartition(".")[0]):  # what learns may have statistics of its own, such as a spectral norm
                yield name, buffer

    def recompute(self, batches: Iterator[Tensor]) -> None:
        """BatchNorm's statistics anew, over normalised images: the mean over batches, as torch's ``update_bn`` has it.

        Args:
            batches: ``(B, C, H, W)``; each counts by its size. None should be of one image, which may have no variance.
        """
        norms = [cast(_BatchNorm, self.encoder.get_submodule(name)) for name in self._norms]
        momenta = [norm.momentum for norm in norms]
        self.encoder.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.training = True
        seen = 0
        with torch.no_grad():
            for images in batches:
                seen += len(images)
                for norm in norms:
                    norm.momentum = len(images) / seen
                self.encoder(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def wakeful(self) -> list[str]:
        """Modules that should evaluate and are in training mode, by name: somebody called ``train()`` on them."""
        modules = self.encoder.named_modules()
        return [name or "the encoder itself" for name, part in modules if part.training and not self._trains(name)]

    def _trains(self, module: str) -> bool:
        """Whether a module is in training mode while training."""
        if self.policy.batch_norm is None or module not in self._norms:
            return self._awake[module]
        return self.policy.batch_norm == "adapt"

    def _wake(self) -> dict[str, bool]:
        """Of every module, whether something in it learns; one without parameters goes with what surrounds it."""
        held: dict[str, bool] = {}
        for name, parameter in self.encoder.named_parameters(remove_duplicate=False):
            for module in _above(name):
                held[module] = held.get(module, False) or parameter.requires_grad
        awake: dict[str, bool] = {}
        for name, _ in self.encoder.named_modules():  # from the outside inwards
            parent = name.rpartition(".")[0]
            awake[name] = held.get(name, awake[parent] if name else False)
        return awake

    def _check(self) -> None:
        if self.policy.batch_norm is not None and not self._norms:
            raise ValueError(
                f"batch_norm={self.policy.batch_norm}: this {type(self.encoder).__name__} has no BatchNorm. Leave it out."
            )
        self.policy.check(list(self.places.values()), cast(Encoder, self.encoder).num_layers)
        free = [place for name, place in self.places.items() if name not in self._fixed]
        last = 10**9  # later than any stage
        learns = self.policy.kind != "frozen" and bool(self.places)
        if learns and not any(self.policy.rate(place, last) > 0 for place in free):
            why = (
                "somebody has frozen all of it: call encoder.requires_grad_(True)" if not free else "it has nothing of the kind"
            )
            raise ValueError(f"freezing={self.policy.kind} would train nothing of this {type(self.encoder).__name__}: {why}.")


def _owners(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every parameter's name with the module that holds it."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        for name, _ in part.named_parameters(recurse=False):
            yield f"{prefix}.{name}".lstrip("."), part


def _above(name: str) -> Iterator[str]:
    """The modules that a parameter lies in, the innermost first, and last the root, which is ''."""
    while name:
        name = name.rpartition(".")[0]
        yield name
