"""What was done to images before a pretrained encoder saw them, without any augmentation."""

from collections.abc import Sequence

from ssl_framework.views.draw import ViewSpec
from ssl_framework.views.image import ImageViews, Size


def plain(size: Size, mean: Sequence[float], std: Sequence[float], channels: int | None = None) -> ImageViews:
    """Views that change nothing: `ImageViews.center` resizes and normalises as an encoder file says.

    Args:
        size: height and width the encoder works at.
        mean: per channel, of inputs in [0, 1].
        std: per channel.
        channels: as recorded in the file; the same as there are means.

    Raises:
        ValueError: the numbers do not belong together.
    """
    if channels is not None and channels != len(mean):
        raise ValueError(f"channels={channels}, and mean has {len(mean)} numbers: give one for every channel.")
    return ImageViews([ViewSpec()], size, mean, std)
