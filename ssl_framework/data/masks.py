"""A label for every pixel: images of labels in a folder beside the images, under the same names."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_framework.data.decode import DAMAGE, FORMATS, size_of

_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif")


class Masks:
    """Where the mask of an image lies: in its path, the folder of images stands exchanged for that of masks.

    ``train/images/0001.jpg`` has ``train/masks/0001.png``. A mask is grey or has a palette, and its numbers are the labels.

    Args:
        images: name of the folder of images.
        masks: of that of masks.
    """

    def __init__(self, images: str = "images", masks: str = "masks") -> None:
        self.images, self.masks = images, masks

    def path(self, name: str) -> Path:
        """Of the mask of an image.

        Raises:
            ValueError: the image lies in no such folder, or has no mask.
        """
        image = Path(name)
        if self.images not in image.parts:
            raise ValueError(
                f"{name} lies in no folder called {self.images}: give labels.images, the name of the folder of images."
            )
        place = len(image.parts) - 1 - image.parts[::-1].index(self.images)
        stem = Path(*image.parts[:place], self.masks, *image.parts[place + 1 :])
        for ending in _ENDINGS:
            if stem.with_suffix(ending).is_file():
                return stem.with_suffix(ending)
        raise ValueError(f"{name} has no mask {stem.with_suffix('.png')}: add it, or leave the image out.")

    def read(self, name: str) -> Tensor:
        """The labels of an image, ``(H, W)`` uint8, as large as it is.

        Raises:
            ValueError: there is no mask, it cannot be read, holds colours, or is of another size.
        """
        path = self.path(name)
        try:
            with Image.open(path, formats=FORMATS) as mask:
                if mask.mode not in ("L", "P", "1", "I;16", "I"):
                    raise ValueError(
                        f"{path} is a picture in colours ({mask.mode}): a mask is grey or has a palette of labels."
                    )
                labels = np.asarray(mask)
        except DAMAGE as error:
            raise ValueError(
                f"{path} cannot be read ({type(error).__name__}: {error}): replace it, or leave the image out."
            ) from error
        if labels.max(initial=0) > 255:
            raise ValueError(f"{path} holds the label {labels.max()}: labels are 0 to 255.")
        height, width = size_of(Path(name))
        if labels.shape != (height, width):
            raise ValueError(
                f"{path} has {labels.shape[0]} x {labels.shape[1]} pixels, and its image {height} x {width}: "
                "a mask has a label for each pixel of its image."
            )
        return torch.from_numpy(labels.astype(np.uint8))
