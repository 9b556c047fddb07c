"""Views of images: parameters drawn on the CPU, applied without randomness wherever the batch is.

Order of the operators, as in SimCLR, BYOL and DINO: crop and resize, flip, affine, colour jitter, greyscale, blur, solarize,
normalise. Images have one channel or three; views without colour changes take any number.
"""

from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_framework.types import Batch, Draw, Views
from ssl_framework.views.draw import ImageDraw, Plan, ViewSpec
from ssl_framework.views.kernels import cpu, device, reference

Size = int | Sequence[int]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SHRINK = 2  # how many times a view still shrinks an image that was decoded smaller


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
        dtype: of the views: "float32", or "bfloat16" for an encoder that works in it anyway; pixels are made in float32 and
            rounded once.

    Raises:
        ValueError: mean and std do not fit each other, a size is not positive, the dtype is another, or colours change in
            images that have neither one channel nor three.

    Note:
        On CPUs of one kind a view is the same to the bit for the same (seed, epoch, index), alone, in any batch and with any
        number of threads. On another device parameters and boxes are still the same to the bit, and pixels in [0, 1] agree
        within 1e-4. Solarize is a step: a pixel on its threshold may fall on either side.
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
        dtype: str = "float32",
    ) -> None:
        self._global_views, self._local_views = tuple(global_views), tuple(local_views)
        self._size = _as_size(size)
        self._local_size = self._size if local_size is None else _as_size(local_size)
        self._mean, self._std = tuple(float(m) for m in mean), tuple(float(s) for s in std)
        self._seed = seed
        if dtype not in _DTYPES:
            raise ValueError(f"dtype={dtype!r}: views are made in float32 or bfloat16.")
        self._dtype = _DTYPES[dtype]
        self._compiled = False
        self._check()

    @property
    def count(self) -> int:
        """Global views of a sample."""
        return len(self._global_views)

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
    def warps(self) -> bool:
        """Whether a global view may turn, shift or shear an image, which `Views.boxes` do not tell."""
        return any(spec.warps for spec in self._global_views)

    @property
    def num_views(self) -> tuple[int, int]:
        """How many views of a sample it makes: ``V`` global and ``L`` local ones."""
        return len(self._global_views), len(self._local_views)

    @property
    def _plan(self) -> Plan:
        return Plan(self._global_views, self._local_views, self._size, self._local_size)

    def compile(self) -> None:
        """Run the kernel of GPUs through ``torch.compile`` from now on: one pass over memory for many. CPUs have their own."""
        self._compiled = True

    def draw(self, index: Tensor, epoch: Tensor | int) -> ImageDraw:
        """Draw the parameters of every view.

        Args:
            index: ``(B,)`` int64 position of each sample in its source.
            epoch: ``(B,)`` int64, or one number for all.

        Returns:
            Tensors on the CPU: a pure function of the seed, index and epoch, sample by sample.
        """
        epoch = epoch.cpu() if isinstance(epoch, Tensor) else epoch
        return cpu.draw_views(self._global_views, self._local_views, self._seed, epoch, index.cpu())

    def reduction(self, size: tuple[int, int], draw: Draw) -> int:
        """How many times smaller, per side, one image may be decoded: a JPEG decoder that scales spares most of its work.

        Every view of the draw still shrinks the smaller image at least `_SHRINK` times, so that what the decoder averaged would
        have been averaged anyway.

        Args:
            size: height and width of the whole image.
            draw: of this one sample.

        Returns:
            1, 2, 4 or 8. Give `crop` the image of ``ceil(side / reduction)`` pixels, and `size`.
        """
        drawn = _own(draw)
        assert len(drawn.key) == 1, f"reduction takes the draw of one sample, not of {len(drawn.key)}"
        sides = cpu.boxes(drawn.crop, self._plan, size)[:, 0, 2:].tolist()  # (V + L, 2)
        outputs = [self._size] * len(self._global_views) + [self._local_size] * len(self._local_views)
        shrinks = min(min(box[0] / out[0], box[1] / out[1]) for box, out in zip(sides, outputs, strict=True))
        return max((by for by in (2, 4, 8) if shrinks >= _SHRINK * by), default=1)

    def crop(self, image: Tensor, draw: Draw, size: tuple[int, int] | None = None) -> Views:
        """Crop, resize, flip and warp one image of any size, in a loader's worker.

        Args:
            image: ``(C, H, W)`` uint8 on the CPU, with any strides.
            draw: of this one sample: ``draw(index[None], epoch)``, or `ImageDraw.at`.
            size: height and width of the whole image, if it was decoded smaller by a `reduction`.

        Returns:
            uint8 `Views` with B = 1: ``(V, 1, C, h, w)``, ``(L, 1, C, h, w)`` or None, key and boxes (of the whole image).
            Joined along B they are `Batch.crops`. Rounding to 8 bits keeps them within 0.5 / 255 of what `apply` would have cut
            out itself. They have the same bits in every process on this kind of processor.

        Raises:
            ValueError: the image is not uint8, has other channels than mean and std, or is no reduction of `size`.
        """
        drawn = _own(draw)
        assert len(drawn.key) == 1, f"crop takes the draw of one sample, not of {len(drawn.key)}"
        self._check_images(image[None])
        whole = _sides(image) if size is None else size
        cut = cpu.boxes(drawn.crop, self._plan, whole)
        views = cpu.cut(image[None], cut.double() / _reduced(whole, _sides(image)), drawn, self._plan)
        return Views(*views, key=drawn.key, boxes=_with_flip(cut, drawn))

    def apply(self, batch: Batch, draw: Draw) -> Views:
        """Make the views: everything, or what remains after `crop`.

        Args:
            batch: ``(B, C, H, W)`` uint8 images of one size, or the crops of mixed sizes.
            draw: ``draw(batch.index, batch.epoch)``.

        Returns:
            `Views` on the batch's device, normalised, of the dtype asked for, in memory channels last.

        Raises:
            ValueError: the images are not uint8 or have other channels than mean and std.
        """
        drawn = ImageDraw(*(_as_drawn(field) for field in _own(draw)))
        assert len(drawn.key) == len(batch.index), f"{len(drawn.key)} draws for {len(batch.index)} samples"
        target = (batch.input if batch.crops is None else batch.crops.global_crops).device
        make = self._make if batch.crops is None else self._finish
        # half precision belongs to the encoder: pixels are made in float32
        with torch.no_grad(), torch.autocast(target.type, enabled=False):
            (global_crops, local_crops), cut = make(batch, drawn, cpu if target.type == "cpu" else device)
        key = drawn.key.to(target, non_blocking=True)
        return Views(global_crops, local_crops, batch.index, key, None if cut is None else cut.to(target, non_blocking=True))

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
        return self.center_pixels(images.float() / 255)

    def center_pixels(self, pixels: Tensor) -> Tensor:
        """The same of pixels ``(B, C, H, W)`` in [0, 1], with a gradient: for attacks and saliency."""
        if _sides(pixels) != self._size:
            pixels = _cover(pixels, self._size)
        return reference.normalize(pixels, self._mean, self._std)

    def _make(self, batch: Batch, drawn: ImageDraw, kernel: ModuleType) -> tuple[tuple[Tensor, Tensor | None], Tensor | None]:
        """The views of whole images, and their boxes."""
        self._check_images(batch.input)
        cut = cpu.boxes(drawn.crop, self._plan, _sides(batch.input))
        how = {"compiled": self._compiled} if kernel is device else {}
        views = kernel.make_views(batch.input, cut, drawn, self._plan, self._mean, self._std, self._dtype, **how)
        return views, _with_flip(cut, drawn)

    def _finish(self, batch: Batch, drawn: ImageDraw, kernel: ModuleType) -> tuple[tuple[Tensor, Tensor | None], Tensor | None]:
        """The views that `crop` began in the workers, and their boxes."""
        crops = batch.crops
        assert crops is not None
        for views in (crops.global_crops, *(() if crops.local_crops is None else (crops.local_crops,))):
            self._check_images(views[0])
        how = {"compiled": self._compiled} if kernel is device else {}
        views = kernel.finish_crops(
            crops.global_crops, crops.local_crops, drawn, self._plan, self._mean, self._std, self._dtype, **how
        )
        return views, crops.boxes

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


def _as_drawn(field: Tensor) -> Tensor:
    """On the CPU, in float32: Lightning's double precision converts what is in a batch."""
    return field.cpu().float() if field.is_floating_point() else field.cpu()


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


def _with_flip(cut: Tensor, drawn: ImageDraw) -> Tensor:
    """`Views.boxes`: ``(V + L, B, 5)`` float32."""
    return torch.cat([cut.float(), drawn.flip[:, :, None].float()], dim=2)


def _reduced(whole: tuple[int, int], sides: tuple[int, int]) -> int:
    """By how much an image was decoded smaller: its sides are rounded up."""
    for by in (1, 2, 4, 8):
        if sides == (-(-whole[0] // by), -(-whole[1] // by)):
            return by
    raise ValueError(
        f"an image of {list(sides)} pixels is not one of size={list(whole)} reduced 1, 2, 4 or 8 times: give the height and "
        "width that it has when it is decoded as a whole."
    )


def _cover(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``(B, C, H, W)`` until it just covers `size`, and crop the centre."""
    height, width = images.shape[-2:]
    zoom = max(size[0] / height, size[1] / width)
    sides = (max(size[0], round(height * zoom)), max(size[1], round(width * zoom)))
    images = F.interpolate(images, sides, mode="bilinear", antialias=True)
    top, left = (sides[0] - size[0]) // 2, (sides[1] - size[1]) // 2
    return images[..., top : top + size[0], left : left + size[1]]
