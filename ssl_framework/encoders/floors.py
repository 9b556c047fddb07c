"""Floors: encoders that have learned nothing, or next to nothing. A pretrained one has to beat them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_framework.encoders.base import EncoderModule, height_width
from ssl_framework.types import Encoding


class RawPixels(EncoderModule):
    """The image itself, flattened. It has no layers and nothing to train.

    Args:
        in_chans: channels ``C`` of the images.
        img_size: height and width, one number or two; other sizes are refused.
    """

    def __init__(self, in_chans: int = 3, img_size: int | Sequence[int] = 32) -> None:
        size = height_width(img_size)
        super().__init__(embed_dim=in_chans * size[0] * size[1], num_layers=0)
        self.shape = (in_chans, *size)
        self.named("RawPixels", in_chans=in_chans, img_size=list(size))

    def forward(self, x: Tensor, *, layers: Sequence[int] = ()) -> Encoding:
        """Flatten ``(B, C, H, W)`` to ``(B, D)``."""
        self._positions(layers)
        return Encoding(_flat(x, self.shape))


class PCA(EncoderModule):
    """The `embed_dim` directions in which training images differ most. It has no layers and no gradient.

    Args:
        embed_dim: directions ``D``.
        in_chans: channels ``C`` of the images.
        img_size: height and width, one number or two; other sizes are refused.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, embed_dim: int = 64, in_chans: int = 3, img_size: int | Sequence[int] = 32) -> None:
        size = height_width(img_size)
        pixels = in_chans * size[0] * size[1]
        if not 0 < embed_dim <= pixels:
            raise ValueError(f"PCA(embed_dim={embed_dim}): images of {pixels} numbers have 1 to {pixels} directions.")
        super().__init__(embed_dim=embed_dim, num_layers=0)
        self.shape = (in_chans, *size)
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(embed_dim, pixels))  # all zero until it is fitted
        self.named("PCA", embed_dim=embed_dim, in_chans=in_chans, img_size=list(size))

    @torch.no_grad()
    def fit(self, x: Tensor) -> "PCA":
        """Find the directions; their signs are fixed so that the same images give the same vectors.

        Args:
            x: ``(N, C, H, W)`` normalised training images, more than `embed_dim`.

        Returns:
            The encoder itself.

        Raises:
            ValueError: too few images.
        """
        rows = _flat(x, self.shape).double()  # (N, P)
        if len(rows) <= self.embed_dim:
            raise ValueError(
                f"PCA(embed_dim={self.embed_dim}) needs more than {len(rows)} images: fit it on more, or lower it."
            )
        mean = rows.mean(0)
        centred = rows - mean
        if len(rows) > rows.shape[1]:  # the smaller of the two square matrices has the same spectrum
            found = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, : self.embed_dim].T  # (D, P)
        else:
            found = torch.linalg.eigh(centred @ centred.T).eigenvectors.flip(1)[:, : self.embed_dim].T @ centred
            found = torch.nn.functional.normalize(found, dim=1)
        sign = found.gather(1, found.abs().argmax(1, keepdim=True)).sign()
        self.mean.copy_(mean)
        self.components.copy_(found * sign)
        return self

    def forward(self, x: Tensor, *, layers: Sequence[int] = ()) -> Encoding:
        """Project ``(B, C, H, W)`` to ``(B, D)``."""
        self._positions(layers)
        if not self.components.any():
            raise ValueError("This PCA has seen no images: call fit(images) first.")
        return Encoding((_flat(x, self.shape) - self.mean) @ self.components.T)


def _flat(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"Images of {tuple(x.shape[1:])} came to an encoder built for {shape}: give it in_chans and img_size.")
    return x.flatten(1)
