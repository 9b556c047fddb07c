"""Low-rank corrections beside frozen weights."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ssl_framework.downstream.freezing.policy import Place, Policy, positive
from ssl_framework.types import Encoder

_ADDED = "lora_"  # in the names of what peft adds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora(Policy):
    """Every weight of a linear layer keeps its pretrained value and learns a correction of low rank, merged when it is saved.

    Hu et al., 2021, https://arxiv.org/abs/2106.09685, by Hugging Face's peft (``pip install "ssl-framework[lora]"``). The saved
    encoder is a plain one of the architecture that was loaded. Only linear layers: an encoder without any, such as a ResNet, is
    refused; convolutions of another that has some (ConvNeXt) stay frozen. So do linear layers that are not called, since
    their weight is read (``qkv`` of BEiT and EVA-02, ``out_proj`` of torchvision's ViT): a correction beside one does nothing.

    Args:
        rank: of the corrections; 8 (section 7.2: 4 to 8 suffice).
        alpha: they are scaled by ``alpha / rank``; 16.
        targets: ends of the names of the linear layers that get one, such as ``[qkv, proj]``; empty: all of them.
        encoder_lr: learning rate of the corrections, as a multiple of the head's.
        batch_norm: see `Policy`.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: Sequence[str] = ()
    encoder_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(rank=self.rank, alpha=self.alpha, encoder_lr=self.encoder_lr)

    def rate(self, place: Place, stage: int) -> float:
        """`encoder_lr` for what was added."""
        return self.encoder_lr if _ADDED in place.name else 0.0

    def alter(self, encoder: nn.Module, example: Tensor) -> None:
        """Put a correction beside each linear layer that is called."""
        layers = [name for name, part in encoder.named_modules() if isinstance(part, nn.Linear)]
        called = _called(encoder, layers, example)
        if not layers:
            raise ValueError(
                f"freezing=lora: this {type(encoder).__name__} has no linear layer, and LoRA corrects only those. Take a "
                "vision transformer, or freezing=norm_only, bias_only or last_n."
            )
        chosen = [name for name in layers if not self.targets or f".{name}".endswith(tuple(f".{end}" for end in self.targets))]
        missing = [end for end in self.targets if not any(f".{name}".endswith(f".{end}") for name in layers)]
        if missing:
            known = sorted({name.rpartition(".")[2] for name in layers})
            raise ValueError(f"freezing.targets: no linear layer ends in {', '.join(missing)}. There are {', '.join(known)}.")
        mute = [name for name in chosen if name not in called] if self.targets else []
        if mute:
            raise ValueError(
                f"freezing.targets: {mute[0]} and {len(mute) - 1} others of this {type(encoder).__name__} are read and never "
                "called, so a correction beside them would do nothing: leave them out."
            )
        chosen = [name for name in chosen if name in called]
        peft = _peft()
        config = peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=chosen)
        peft.inject_adapter_in_model(config, encoder)

    def merged(self, encoder: nn.Module) -> nn.Module:
        """A copy whose linear layers hold the sum, named as they were."""
        layer: Any = _peft().tuners.lora.LoraLayer
        plain = copy.deepcopy(encoder)
        corrected: dict[str, Any] = {name: part for name, part in plain.named_modules() if isinstance(part, layer)}
        for name, part in corrected.items():
            part.merge()
            plain.set_submodule(name, part.get_base_layer())
        return plain

    def state(self) -> dict[str, Any]:
        """Its words as a plain list."""
        return {**super().state(), "targets": list(self.targets)}


def _called(encoder: nn.Module, layers: Sequence[str], example: Tensor) -> set[str]:
    """Names of the modules whose ``forward`` runs."""
    called: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        return lambda *_: called.add(name)

    hooks = [encoder.get_submodule(name).register_forward_hook(note(name)) for name in layers]
    with torch.no_grad():
        encoder(example, layers=range(cast(Encoder, encoder).num_layers))
    for hook in hooks:
        hook.remove()
    return called


def _peft() -> Any:
    try:
        import peft  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ValueError('freezing=lora needs peft: pip install "ssl-framework[lora]".') from error
    return peft
