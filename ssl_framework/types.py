"""The records that flow through the package and the protocols that its parts ask of each other.

Nothing here computes. Views come before the batch in every shape: ``V`` global crops, ``L`` local crops, ``B`` samples,
``N`` tokens, ``D`` width.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor


class Views(NamedTuple):
    """What a pretext task learns from: augmented crops of one batch, without labels.

    Attributes:
        global_crops: ``(V, B, ...)`` float crops (uint8 while they travel from a loader's worker, see `Batch.crops`).
        local_crops: ``(L, B, ...)`` smaller crops of multi-crop, or None.
        index: ``(B,)`` int64 position of each sample in its source, for memory banks and clusters, or None.
        key: ``(B,)`` int64 hash of (seed, epoch, index); masks and permutations are drawn from it, so they do not depend on
            the number of processes, or None.
        boxes: ``(V + L, B, 5)`` float: top, left, height, width (pixels of the source image) and flipped (0 or 1), or None.
    """

    global_crops: Tensor
    local_crops: Tensor | None = None
    index: Tensor | None = None  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.index: the design's name)
    key: Tensor | None = None
    boxes: Tensor | None = None


class Batch(NamedTuple):
    """One batch as the data module yields it: nothing random has happened to it, except the crop of mixed-size sources.

    Attributes:
        input: ``(B, C, H, W)`` uint8 images. Empty ``(B, 0)`` when `crops` stands in its place.
        target: ``(B,)`` int64 labels, or None. Pretraining never reads it.
        index: ``(B,)`` int64 position of each sample in its source.
        epoch: ``(B,)`` int64 pass over the data that each sample belongs to, or None (a plain loader).
        crops: uint8 `Views`, cropped, flipped and resized in the worker because the source's images differ in size; only
            colour and normalisation remain to be applied. None for sources of one size.
        bad: ``(K,)`` int64 samples of this batch that could not be read and were replaced by others, or None.
        draw: what the module drew for it before the batch went to its device, or None.
    """

    input: Tensor
    target: Tensor | None
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.index: the design's name)
    epoch: Tensor | None = None
    crops: Views | None = None
    bad: Tensor | None = None
    draw: "Draw | None" = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device, copied behind the host's back where memory is pinned. The draw stays: the CPU reads it."""
        if self.input.device == self.index.device == device:
            return self

        def move(values: tuple[object, ...]) -> Iterator[Any]:
            return (value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for value in values)

        crops = None if self.crops is None else Views(*move(self.crops))
        return Batch(*move(self))._replace(crops=crops, bad=self.bad)


class Encoding(NamedTuple):
    """What an encoder says of a batch.

    Attributes:
        pooled: ``(B, D)``, one vector a sample.
        tokens: ``(B, N, D)``: ViT patches without prefix tokens, the last feature map of a CNN flattened, None for floors.
        grid: the layout of the tokens, with product ``N`` (rows, columns for images), or None. With `keep` the grid is None.
        layers: the layers asked for, each ``(B, N_i, D_i)``, in the order asked.
        grids: their layouts.
        pooled_layers: one vector a sample of each layer asked for, ``(B, D_i)``: what `pooled` would be if it were the last.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    grid: tuple[int, ...] | None = None
    layers: tuple[Tensor, ...] = ()
    grids: tuple[tuple[int, ...], ...] = ()
    pooled_layers: tuple[Tensor, ...] = ()


class Step(NamedTuple):
    """What a pretext task says of a batch of views.

    Attributes:
        loss: ``()``, to be minimised.
        embedding: ``(k * B, D)`` of the encoder; monitors read it detached.
        projection: ``(k * B, P)``, where the loss compares, view after view, or None.
        logs: scalars worth a curve.
        chance: what the loss is where all samples look alike, ``log K`` of K that are as likely; None where nobody knows, or
            where training goes there (DINO's loss rises to ``log K``: its targets become less sharp).
        target: what is predicted, for monitors: ``(n, K)`` probabilities, or ``(n,)`` numbers of clusters, or None.
        mask: ``(n, N)`` bool, true where a token is hidden, for monitors, or None.
    """

    loss: Tensor
    embedding: Tensor
    projection: Tensor | None = None
    logs: Mapping[str, Tensor | float] = {}
    chance: float | None = None
    target: Tensor | None = None
    mask: Tensor | None = None


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns a batch into vectors and can be cut.

    A layer is a ViT block or a CNN stage. `layers` counts from 0 at the input; negative numbers count from the end.
    """

    @property
    def embed_dim(self) -> int:
        """Width ``D`` of `Encoding.pooled`."""
        ...

    @property
    def num_layers(self) -> int:
        """Layers that `cut` and `layers` count."""
        ...

    def __call__(self, x: Tensor, *, layers: Sequence[int] = ()) -> Encoding:
        """Encode ``(B, C, H, W)`` normalised floats."""
        ...

    def cut(self, k: int) -> Self:
        """A new encoder without its last `k` layers; ``cut(0)`` is itself."""
        ...


@runtime_checkable
class TokenEncoder(Encoder, Protocol):
    """An encoder that can see some tokens only, a mask token in place of others, or of each token what is before it."""

    @property
    def num_tokens(self) -> int:
        """Tokens ``N`` of an input of the size it was built for, without prefix tokens."""
        ...

    @property
    def grid(self) -> tuple[int, ...]:
        """Layout of these tokens, with product ``N``."""
        ...

    @property
    def patch_dim(self) -> int:
        """Numbers ``P`` in one patch."""
        ...

    def __call__(
        self,
        x: Tensor,
        *,
        keep: Tensor | None = None,
        mask: Tensor | None = None,
        prefix: Tensor | None = None,
        layers: Sequence[int] = (),
    ) -> Encoding:
        """Encode ``(B, C, H, W)``: only the tokens `keep` ``(B, K)``, or with the mask token where `mask` ``(B, N)`` is set.

        With `prefix` ``(B,)`` that many tokens at the front see each other, and each later one only what is before it.
        """
        ...

    def learn_mask_token(self) -> None:
        """Make the mask token trainable; a task that hides tokens behind it says so in its constructor."""
        ...

    def patchify(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, N, P)``, in the order of the tokens."""
        ...


class Draw(Protocol):
    """Every random parameter of every view of a batch; what is in it is known to the `ViewMaker` that drew it."""

    @property
    def key(self) -> Tensor:
        """``(B,)`` int64 hash of (seed, epoch, index)."""
        ...


@runtime_checkable
class ViewMaker(Protocol):
    """Augmentation as data: first everything is drawn, on the CPU, then applied without randomness, on any device."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Per-channel mean that `apply` subtracts, inputs in [0, 1]."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Per-channel standard deviation that `apply` divides by."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the global crops."""
        ...

    def draw(self, index: Tensor, epoch: Tensor | int) -> Draw:
        """Parameters for the samples `index` ``(B,)`` in pass `epoch` (``(B,)`` or one number): a pure function of both."""
        ...

    def reduction(self, size: tuple[int, int], draw: Draw) -> int:
        """How many times smaller (1, 2, 4 or 8, per side) an image of this height and width may be decoded for `crop`."""
        ...

    def crop(self, image: Tensor, draw: Draw, size: tuple[int, int] | None = None) -> Views:
        """The geometric part for one ``(C, H, W)`` uint8 image of any size (a draw of one sample): uint8 `Views`, B = 1.

        `size` is height and width of the whole image, if it was decoded smaller by a `reduction`.
        """
        ...

    def apply(self, batch: Batch, draw: Draw) -> Views:
        """What is left to do: float32 or bfloat16 views, normalised, on the batch's device."""
        ...

    def center(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 to normalised floats of `size`, without randomness: what evaluation encodes."""
        ...


class Facts(NamedTuple):
    """What the rest of a run needs to know of a data set.

    Attributes:
        channels: ``C``.
        size: height and width of an image; for sources of mixed sizes, what the user works at.
        mean: per channel, of inputs in [0, 1].
        std: per channel.
        classes: names in the order of their numbers; None without labels.
    """

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] | None = None


@runtime_checkable
class Source(Protocol):
    """A finite, indexable set of samples. Reading is deterministic and safe in several processes."""

    @property
    def targets(self) -> np.ndarray | None:
        """``(N,)`` int64 labels, or None."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, or None."""
        ...

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of every image; None where they differ."""
        ...

    @property
    def channels(self) -> int:
        """Channels that `read` returns."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def read(self, index: int) -> Tensor:
        """One ``(C, H, W)`` uint8 image.

        Raises:
            BadSampleError: it cannot be decoded.
        """
        ...

    def name(self, index: int) -> str:
        """What a person calls the sample: its path, or its number in a file."""
        ...


class BadSampleError(Exception):
    """A sample that cannot be decoded; the message says why."""
