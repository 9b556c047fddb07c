"""Views of images: parameters drawn on the CPU, applied without randomness wherever the batch is.

Order of the operators, as in SimCLR, BYOL and DINO: crop and resize, flip, affine, colour jitter, greyscale, blur, solarize,
normalise. Images have one channel or three; views without colour changes take any number.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.types import Batch, Draw, Views
from ssl_framework.views.draw import ImageDraw, ViewSpec, boxes, draw_views
from ssl_framework.views.kernels import reference

Size = int | Sequence[int]


class ImageViews:
    """A `ViewMaker` for images. It holds numbers only: it is cheap to pickle, and the same on every device.

    Args:
        global_views: what may happen to each of the ``V`` global views.
        size: height and width of the global views; one number for a square.
        mean: per channel, of images in [0, 1].
        std: per channel.
        local_views: what may happen to each of the ``L`` local views of multi-crop.
        local_size: their height and width; needed only if there are any.
        seed: of every draw.

    Raises:
        ValueError: mean and std do not fit each other, a size is not positive, or colours change in images that have
            neither one channel nor three.

    Note:
        A view is the same to the bit for the same (seed, epoch, index), batch and processor. In another batch, or on another
        device, parameters and boxes are still the same to the bit; sums may be taken in another order: pixels in [0, 1] agree
        within 1e-5 (1e-2 with TF32 matrix products). Solarize is a step: a pixel on its threshold may fall on either side.
    """

    def __init__(
        self,
        global_views: Sequence[ViewSpec],
        size: Size,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        local_views: Sequence[ViewSpec] = (),
        local_size: Size | None = None,
        seed: int = 0,
    ) -> None:
        self._global_views, self._local_views = tuple(global_views), tuple(local_views)
        self._size = _as_size(size)
        self._local_size = self._size if local_size is None else _as_size(local_size)
        self._mean, self._std = tuple(float(m) for m in mean), tuple(float(s) for s in std)
        self._seed = seed
        self._check()

    def _check(self) -> None:
        if not self._global_views:
            raise ValueError("global_views is empty: give at least one ViewSpec.")
        if len(self._mean) != len(self._std) or not self._mean:
            raise ValueError(
                f"mean has {len(self._mean)} numbers and std has {len(self._std)}: give one of each for every channel."
            )
        if min(self._std) <= 0:
            raise ValueError(f"std={self._std} is not positive: give the standard deviation of each channel, pixels in [0, 1].")
        recolours = any(spec.recolours for spec in (*self._global_views, *self._local_views))
        if recolours and len(self._mean) not in (1, 3):
            raise ValueError(
                f"colour changes are defined for 1 or 3 channels, mean and std have {len(self._mean)}: "
                "set brightness, contrast, saturation, hue and grey_p to 0."
            )

    @property
    def mean(self) -> tuple[float, ...]:
        """Per-channel mean that `apply` subtracts, inputs in [0, 1]."""
        return self._mean

    @property
    def std(self) -> tuple[float, ...]:
        """Per-channel standard deviation that `apply` divides by."""
        return self._std

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the global crops."""
        return self._size

    @property
    def local_size(self) -> tuple[int, int] | None:
        """Height and width of the local crops; None without any."""
        return self._local_size if self._local_views else None

    @property
    def num_views(self) -> tuple[int, int]:
        """How many views of a sample it makes: ``V`` global and ``L`` local ones."""
        return len(self._global_views), len(self._local_views)

    @property
    def _plan(self) -> list[tuple[ViewSpec, tuple[int, int]]]:
        """Specification and size of each view, the ``V`` global ones first."""
        return [(spec, self._size) for spec in self._global_views] + [(spec, self._local_size) for spec in self._local_views]

    def draw(self, index: Tensor, epoch: Tensor | int) -> ImageDraw:
        """Draw the parameters of every view.

        Args:
            index: ``(B,)`` int64 position of each sample in its source.
            epoch: ``(B,)`` int64, or one number for all.

        Returns:
            Tensors on the CPU: a pure function of the seed, index and epoch, sample by sample.
        """
        epoch = epoch.cpu() if isinstance(epoch, Tensor) else epoch
        return draw_views(self._global_views, self._local_views, keyed.mix(self._seed, epoch, index.cpu()))

    def crop(self, image: Tensor, draw: Draw) -> Views:
        """Crop, resize, flip and warp one image of any size, in a loader's worker.

        Args:
            image: ``(C, H, W)`` uint8 on the CPU.
            draw: of this one sample: ``draw(index[None], epoch)``, or `ImageDraw.at`.

        Returns:
            uint8 `Views` with B = 1: ``(V, 1, C, h, w)``, ``(L, 1, C, h, w)`` or None, key and boxes. Joined along B they are
            `Batch.crops`. Rounding to 8 bits keeps them within 1.5 / 255 of what `apply` would have cut out itself.

        Raises:
            ValueError: the image is not uint8 or has other channels than mean and std.
        """
        drawn = _own(draw)
        assert len(drawn.key) == 1, f"crop takes the draw of one sample, not of {len(drawn.key)}"
        self._check_images(image[None])
        cut = [boxes(drawn.crop[v], spec, _sides(image), size) for v, (spec, size) in enumerate(self._plan)]
        views = [_cut(image, cut[v][0].tolist(), drawn, v, size) for v, (_, size) in enumerate(self._plan)]
        return self._views(views, drawn.key, _with_flip(cut, drawn))

    def apply(self, batch: Batch, draw: Draw) -> Views:
        """Make the views: everything, or what remains after `crop`.

        Args:
            batch: ``(B, C, H, W)`` uint8 images of one size, or the crops of mixed sizes.
            draw: ``draw(batch.index, batch.epoch)``.

        Returns:
            float32 `Views` on the batch's device, normalised.

        Raises:
            ValueError: the images are not uint8 or have other channels than mean and std.
        """
        drawn = _own(draw)
        assert len(drawn.key) == len(batch.index), f"{len(drawn.key)} draws for {len(batch.index)} samples"
        device = (batch.input if batch.crops is None else batch.crops.global_crops).device
        # half precision belongs to the encoder: pixels are made in float32
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            shaped, cut = self._shape(batch.input, drawn) if batch.crops is None else self._unpack(batch.crops)
            views = [
                self._colour(view, spec, drawn, v) for v, (view, (spec, _)) in enumerate(zip(shaped, self._plan, strict=True))
            ]
        return self._views(views, drawn.key.to(device), cut)._replace(index=batch.index)

    def center(self, images: Tensor) -> Tensor:
        """What evaluation encodes: nothing is random.

        Args:
            images: ``(B, C, H, W)`` uint8. Unless they have the size of the views they are resized, antialiased, until they
                just cover it, and their centre is cropped.

        Returns:
            ``(B, C, *size)`` float32, normalised.

        Raises:
            ValueError: the images are not uint8 or have other channels than mean and std.
        """
        self._check_images(images)
        pixels = images.float() / 255
        if _sides(images) != self._size:
            pixels = _cover(pixels, self._size)
        return reference.normalize(pixels, self._mean, self._std)

    def _shape(self, images: Tensor, drawn: ImageDraw) -> tuple[list[Tensor], Tensor]:
        """Crop, resize, flip and warp a batch: ``V + L`` times ``(B, C, h, w)`` in [0, 1], and the boxes."""
        self._check_images(images)
        pixels = images.float() / 255
        cut = [boxes(drawn.crop[v], spec, _sides(images), size) for v, (spec, size) in enumerate(self._plan)]
        views = [
            reference.affine(reference.resized_crop(pixels, cut[v], drawn.flip[v], size), drawn.affine[v])
            for v, (_, size) in enumerate(self._plan)
        ]
        return views, _with_flip(cut, drawn).to(images.device)

    def _unpack(self, crops: Views) -> tuple[list[Tensor], Tensor | None]:
        """The views that `crop` made in the workers: ``V + L`` times ``(B, C, h, w)`` in [0, 1], and the boxes."""
        views = [*crops.global_crops, *(() if crops.local_crops is None else crops.local_crops)]
        for view in views:
            self._check_images(view)
        return [view.float() / 255 for view in views], crops.boxes

    def _colour(self, view: Tensor, spec: ViewSpec, drawn: ImageDraw, v: int) -> Tensor:
        view = reference.jitter(view, drawn.jitter[v], drawn.order[v])
        view = reference.grey(view, drawn.grey[v])
        view = reference.gaussian_blur(view, drawn.blur[v], spec.blur_kernel_size(_sides(view)))
        view = reference.solarize(view, drawn.solarize[v], spec.solarize_threshold)
        return reference.normalize(view, self._mean, self._std)

    def _views(self, views: list[Tensor], key: Tensor, cut: Tensor | None) -> Views:
        num_global = len(self._global_views)
        local_crops = torch.stack(views[num_global:]) if self._local_views else None
        return Views(torch.stack(views[:num_global]), local_crops, key=key, boxes=cut)

    def _check_images(self, images: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"views are made of uint8 images (B, C, H, W), not of {images.dtype} {tuple(images.shape)}: "
                "give the pixels as they were stored, 0 to 255; normalisation happens here."
            )
        if images.shape[1] != len(self._mean):
            raise ValueError(
                f"the images have {images.shape[1]} channels, mean and std have {len(self._mean)}: "
                "give the mean and std of these data (DataModule.facts)."
            )


def _own(draw: Draw) -> ImageDraw:
    assert isinstance(draw, ImageDraw), f"a draw of another ViewMaker: {type(draw).__name__}"
    return draw


def _as_size(size: Size) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"size={size!r}: give height and width in pixels, or one number for a square.")
    return int(sides[0]), int(sides[1])


def _sides(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _with_flip(cut: list[Tensor], drawn: ImageDraw) -> Tensor:
    """`Views.boxes`: ``(V + L, B, 5)`` float32."""
    return torch.cat([torch.stack(cut).float(), drawn.flip[:, :, None].float()], dim=2)


def _cut(image: Tensor, box: list[int], drawn: ImageDraw, view: int, size: tuple[int, int]) -> Tensor:
    """One view of one image, ``(1, C, *size)`` uint8. Pixels are summed in integers: the same bits on every processor."""
    top, left, height, width = box
    cut = image[None, :, top : top + height, left : left + width]
    cut = F.interpolate(cut, size, mode="bilinear", antialias=True)
    cut = cut.flip(-1) if drawn.flip[view, 0] else cut
    return reference.affine(cut.float(), drawn.affine[view]).round().to(torch.uint8)


def _cover(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``(B, C, H, W)`` until it just covers `size`, and crop the centre."""
    height, width = images.shape[-2:]
    zoom = max(size[0] / height, size[1] / width)
    sides = (max(size[0], round(height * zoom)), max(size[1], round(width * zoom)))
    images = F.interpolate(images, sides, mode="bilinear", antialias=True)
    top, left = (sides[0] - size[0]) // 2, (sides[1] - size[1]) // 2
    return images[..., top : top + size[0], left : left + size[1]]
