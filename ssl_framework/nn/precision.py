"""A loss that compares in full precision, whatever the encoder computed in."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def widen(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class FullPrecision(nn.Module):
    """Run a criterion outside of autocast, in float32 or better.

    Cosine similarities over a temperature of 0.1 lose their third digit in bf16, and `normalize` overflows in fp16
    (https://github.com/facebookresearch/dino/issues/58 is one of several threads).

    Args:
        criterion: a function or module that maps tensors to a scalar.
    """

    def __init__(self, criterion: Callable[..., Tensor]) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, *tensors: Tensor) -> Tensor:
        """The criterion of `tensors`; what is a float among them is float32 or wider, labels stay what they are."""
        wide = (widen(t) if t.is_floating_point() else t for t in tensors)
        with torch.autocast(tensors[0].device.type, enabled=False):
            return self.criterion(*wide)
