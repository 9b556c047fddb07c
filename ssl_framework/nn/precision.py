"""A loss that compares in full precision, whatever the encoder computed in."""

import torch
from torch import Tensor, nn


class FullPrecision(nn.Module):
    """Run a criterion outside of autocast, in float32 or better.

    Cosine similarities over a temperature of 0.1 lose their third digit in bf16, and `normalize` overflows in fp16
    (https://github.com/facebookresearch/dino/issues/58 is one of several threads).

    Args:
        criterion: maps tensors to a scalar.
    """

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, *tensors: Tensor) -> Tensor:
        """The criterion of `tensors`; what is a float among them is float32 or wider, labels stay what they are."""
        wide = (t.to(torch.promote_types(t.dtype, torch.float32)) if t.is_floating_point() else t for t in tensors)
        with torch.autocast(tensors[0].device.type, enabled=False):
            return self.criterion(*wide)
