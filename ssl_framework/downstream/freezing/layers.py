"""Policies by depth: upper layers learn more than lower ones, or before them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ssl_framework.downstream.freezing.policy import Moment, Place, Policy, positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class LastN(Policy):
    """The last n layers learn, and what comes after them (a final norm). Lower features serve many tasks as they are.

    Yosinski et al., 2014, https://arxiv.org/abs/1411.1792

    Args:
        n: layers (blocks of a vision transformer, stages of a CNN) that learn.
        encoder_lr: their learning rate, as a multiple of the head's.
        batch_norm: see `Policy`.
    """

    n: int = 1
    encoder_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(encoder_lr=self.encoder_lr)

    def rate(self, place: Place, stage: int) -> float:
        """`encoder_lr` at the top, 0 below."""
        return self.encoder_lr if place.depth > place.layers - self.n else 0.0

    def check(self, places: Sequence[Place], layers: int) -> None:
        """Between one and all layers."""
        if not 1 <= self.n <= layers:
            raise ValueError(
                f"freezing.n={self.n}: the encoder has {layers} layers, so 1 to {layers} of them can learn. "
                "For none take freezing=frozen, for all and the stem freezing=full."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerDecay(Policy):
    """Everything learns, each layer at a lower rate than the one above it.

    Clark et al., 2020, https://arxiv.org/abs/2003.10555, section 3.2, and BEiT's and MAE's fine-tuning: of L layers the one at
    depth d has ``decay ** (L + 1 - d)`` of the head's rate. What comes after the last layer goes with it, as in timm's
    ``param_groups_layer_decay``; MAE's code gives it the head's rate.

    Args:
        decay: from one layer to the next lower one; 0.75 in MAE's appendix A.1 for ViT-L, 0.65 for ViT-B.
        batch_norm: see `Policy`.
    """

    decay: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay={self.decay} must be above 0 and at most 1, where all layers learn at one rate.")

    def rate(self, place: Place, stage: int) -> float:
        """`decay` for the last layer, the least for the stem."""
        return self.decay ** (place.layers + 1 - min(place.depth, place.layers))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradual(Policy):
    """First the head, then one more layer from the top every few epochs, the stem last; lower layers at lower rates.

    ULMFiT: Howard and Ruder, 2018, https://arxiv.org/abs/1801.06146, sections 3.2 (discriminative rates) and 3.3.

    Args:
        every_epochs: passes over the labels between two layers; one in the paper.
        decay: of the rate from one layer to the next lower one; 1 / 2.6 in the paper.
        batch_norm: see `Policy`.
    """

    every_epochs: float = 1.0
    decay: float = 1 / 2.6

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(every_epochs=self.every_epochs)
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay={self.decay} must be above 0 and at most 1, where all layers learn at one rate.")

    def rate(self, place: Place, stage: int) -> float:
        """Zero until it is the layer's turn."""
        order = place.layers + 1 - place.depth  # 0 after the last layer, 1 for the last, layers + 1 for the stem
        return self.decay**order if stage >= max(order, 1) else 0.0

    def stage(self, moment: Moment) -> int:
        """Layers that learn, counted from the top."""
        return int(moment.epoch / self.every_epochs + 1e-9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surgical(Policy):
    """Only the layers that are named learn: which ones pay depends on how the new data differ.

    Lee et al., 2023, https://arxiv.org/abs/2210.11466: the first for other pixels, the last for other labels.

    Args:
        blocks: layers by number, from 0 at the input, negative from the end; "stem" is what comes before the first, "norm" what
            comes after the last; other words are the beginnings of parameter names, such as ``model.layer1.0``.
        encoder_lr: their learning rate, as a multiple of the head's.
        batch_norm: see `Policy`.
    """

    blocks: Sequence[int | str] = (0,)
    encoder_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(encoder_lr=self.encoder_lr)
        if not self.blocks:
            raise ValueError("blocks=[]: name at least one, such as freezing.blocks=[0], or take freezing=frozen.")

    def rate(self, place: Place, stage: int) -> float:
        """`encoder_lr` where it is named."""
        return self.encoder_lr if any(self.names(block, place) for block in self.blocks) else 0.0

    def names(self, block: int | str, place: Place) -> bool:
        """Whether a word means this parameter."""
        if block == "stem":
            return place.depth == 0
        if block == "norm":
            return place.depth == place.layers + 1
        if isinstance(block, int):
            return place.depth == block % place.layers + 1
        return f"{place.name}.".startswith(f"{block}.")

    def check(self, places: Sequence[Place], layers: int) -> None:
        """Each word means something of this encoder."""
        for block in self.blocks:
            there = -layers <= block < layers if isinstance(block, int) else any(self.names(block, place) for place in places)
            if not there:
                known = sorted({".".join(place.name.split(".")[:2]) for place in places})
                raise ValueError(
                    f"freezing.blocks={list(self.blocks)}: this encoder has no {block}. Name a layer by its number "
                    f"({-layers} to {layers - 1}), stem, norm, or the beginning of a parameter's name: {', '.join(known[:12])}."
                )

    def state(self) -> dict[str, Any]:
        """Its words as a plain list."""
        return {**super().state(), "blocks": list(self.blocks)}
