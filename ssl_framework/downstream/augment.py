"""What fine-tuning does to images beside crops and colours: RandAugment, erasing, and blends of two images and their labels.

All of it is drawn from the keys of the samples, (seed, epoch, index), so that it is the same on any number of workers and after
a resume. The operations are torchvision's.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from ssl_framework import keyed

_OPERATIONS, _ERASING, _MIXING = 0xA06, 0xE8A5E, 0x313  # name the uses of a key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """None of it by default.

    Args:
        operations: of RandAugment on each image, before it is normalised; 2 in Cubuk et al., 2020,
            https://arxiv.org/abs/1909.13719.
        magnitude: of those, 0 to 30; 9 there, and in MAE's fine-tuning.
        mixup: alpha of Beta(alpha, alpha), by which two images and their labels are blended; 0.8 in MAE's fine-tuning. Zhang et
            al., 2018, https://arxiv.org/abs/1710.09412.
        cutmix: alpha likewise, for a rectangle of another image and its share of the labels; 1.0 in MAE's fine-tuning. Yun et
            al., 2019, https://arxiv.org/abs/1905.04899. With both, each batch takes one or the other.
        erasing: probability that a rectangle of an image becomes zeros, the mean; 0.25 in MAE's fine-tuning. Zhong et al.,
            2020, https://arxiv.org/abs/1708.04896.
    """

    operations: int = 0
    magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        if self.operations < 0 or not 0 <= self.magnitude <= 30:
            raise ValueError(
                f"augmentation.operations={self.operations}, augmentation.magnitude={self.magnitude}: give 0 operations or "
                "more, and a magnitude from 0 to 30."
            )
        if min(self.mixup, self.cutmix) < 0 or not 0 <= self.erasing <= 1:
            raise ValueError(
                f"augmentation.mixup={self.mixup}, cutmix={self.cutmix}, erasing={self.erasing}: alphas are 0 or more, and "
                "erasing is a probability."
            )

    @property
    def mixes(self) -> bool:
        """Whether labels are blended."""
        return self.mixup > 0 or self.cutmix > 0

    def raw(self, images: Tensor, keys: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 images by RandAugment, each with operations of its own.

        Args:
            images: on any device.
            keys: ``(B,)`` int64 on the CPU.
        """
        if self.operations == 0:
            return images
        changed = v2.RandAugment(self.operations, self.magnitude)
        grey = images.shape[1] == 1
        with torch.random.fork_rng(devices=[]):
            made: list[Tensor] = []
            for image, key in zip(images.expand(-1, 3, -1, -1) if grey else images, keys, strict=True):
                torch.manual_seed(int(keyed.mix(key, _OPERATIONS)))
                made.append(changed(image.contiguous()))
        return torch.stack(made)[:, :1] if grey else torch.stack(made)

    def normalised(self, x: Tensor, keys: Tensor) -> Tensor:
        """``(B, C, H, W)`` floats, with rectangles of zeros."""
        if self.erasing == 0:
            return x
        erase = v2.RandomErasing(self.erasing)
        with torch.random.fork_rng(devices=[]):
            made: list[Tensor] = []
            for image, key in zip(x, keys, strict=True):
                torch.manual_seed(int(keyed.mix(key, _ERASING)))
                made.append(erase(image))
        return torch.stack(made)

    def mixed(self, x: Tensor, targets: Tensor, keys: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Images ``(B, C, H, W)`` and labels ``(B,)`` to blended images and ``(B, num_classes)`` shares of labels."""
        if not self.mixes:
            return x, targets
        kinds = [v2.MixUp(alpha=self.mixup, num_classes=num_classes)] if self.mixup > 0 else []
        kinds += [v2.CutMix(alpha=self.cutmix, num_classes=num_classes)] if self.cutmix > 0 else []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(keyed.mix(keys[0], _MIXING)))
            kind = kinds[int(torch.randint(len(kinds), ()))]
            if len(x) < 2:
                return x, F.one_hot(targets, num_classes).to(x.dtype)
            return kind(x, targets)


def cropped(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels of pixels as a view has the pixels: cut, brought to its size without blending, flipped.

    Args:
        masks: ``(B, H, W)``.
        boxes: ``(B, 5)``, `Views.boxes` of one view: top, left, height, width and flipped.
        size: of the view.

    Returns:
        ``(B, *size)``.
    """
    made: list[Tensor] = []
    for mask, (top, left, height, width, flipped) in zip(masks, boxes.tolist(), strict=True):
        part = mask[None, None, int(top) : int(top + height), int(left) : int(left + width)]
        part = F.interpolate(part.to(torch.float32), size, mode="nearest-exact")[0, 0].to(masks.dtype)
        made.append(part.flip(-1) if flipped else part)
    return torch.stack(made)
