"""What every encoder shares: it can be described, rebuilt, asked for layers, and cut."""

import copy
from collections.abc import Mapping, Sequence
from typing import Self, TypeAlias, TypedDict

from torch import Tensor, nn

Plain: TypeAlias = "bool | int | float | str | Sequence[Plain] | Mapping[str, Plain] | None"


class Spec(TypedDict):
    """What it takes to build an encoder again, without its weights.

    Attributes:
        name: a factory of `ssl_framework.encoders`, or ``package.function`` of the user.
        args: what it was called with; plain values.
        cut: layers removed from the end.
    """

    name: str
    args: dict[str, Plain]
    cut: int


class EncoderModule(nn.Module):
    """Base of the encoders of this package; satisfies the protocol `Encoder`.

    Args:
        embed_dim: width ``D`` of the pooled vectors.
        num_layers: layers that `cut` and ``layers=`` count.
    """

    def __init__(self, embed_dim: int, num_layers: int) -> None:
        super().__init__()
        self._embed_dim = embed_dim
        self._num_layers = num_layers
        self._spec: Spec | None = None

    @property
    def embed_dim(self) -> int:
        """Width ``D`` of `Encoding.pooled`."""
        return self._embed_dim

    @property
    def num_layers(self) -> int:
        """Layers that `cut` and ``layers=`` count."""
        return self._num_layers

    @property
    def layer_modules(self) -> tuple[str, ...]:
        """Names of the submodules whose outputs are the layers, where there are such."""
        return ()

    @property
    def spec(self) -> Spec:
        """How to build this encoder again: a plain dictionary, a copy.

        Raises:
            ValueError: it was made of a module whose origin is unknown.
        """
        if self._spec is None:
            raise ValueError(
                f"This {type(self).__name__} does not know how it was made, so it cannot be saved or drawn anew: "
                'name the function that makes it, encoder.named("my_package.my_encoder", width=64).'
            )
        return copy.deepcopy(self._spec)

    def named(self, name: str, /, **args: Plain) -> Self:
        """Note how this encoder was made.

        Args:
            name: a factory of `ssl_framework.encoders`, or ``package.function`` of your own, which returns an `EncoderModule`.
            args: its arguments, plain values (numbers, strings, lists, dictionaries).

        Returns:
            The encoder itself.
        """
        self._spec = {"name": name, "args": dict(args), "cut": 0}
        return self

    def cut(self, k: int) -> Self:
        """A new, independent encoder without its last `k` layers; ``cut(0)`` is itself.

        Raises:
            ValueError: `k` is negative, or no layer would be left.
        """
        if k == 0:
            return self
        if not 0 < k < self.num_layers:
            raise ValueError(
                f"cut={k}: {type(self).__name__} has {self.num_layers} layers, and one must be left: "
                f"cut 0 to {max(self.num_layers - 1, 0)}."
            )
        shorter = copy.deepcopy(self)
        shorter._embed_dim = shorter._drop(k)
        shorter._num_layers -= k
        if shorter._spec is not None:
            shorter._spec["cut"] += k
        return shorter

    def _drop(self, k: int) -> int:
        """Remove the last `k` layers in place and return the new `embed_dim`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how {k} layers are taken off it: define _drop(k).")

    def _positions(self, layers: Sequence[int]) -> list[int]:
        """The layers asked for, counted from 0.

        Raises:
            ValueError: one of them does not exist.
        """
        n = self.num_layers
        for layer in layers:
            if not -n <= layer < n:
                which = f"it has {n}: {-n} to {n - 1}" if n else "it has none"
                raise ValueError(f"layers={list(layers)}: {type(self).__name__} has no layer {layer}; {which}.")
        return [layer % n for layer in layers]


def height_width(img_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width from one number or two.

    Raises:
        ValueError: it is neither.
    """
    both = [img_size, img_size] if isinstance(img_size, int) else list(img_size or ())
    if len(both) != 2 or any(type(n) is not int or n < 1 for n in both):
        raise ValueError(f"img_size={img_size}: give one positive number, or two: [height, width].")
    return both[0], both[1]


def as_tokens(feature_map: Tensor) -> Tensor:
    """``(B, D, H, W)`` to ``(B, H * W, D)``."""
    return feature_map.flatten(2).transpose(1, 2)
