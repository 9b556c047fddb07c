"""The views that people ask for by name: what the configuration and the notebooks call.

Every function takes the facts of the data (``size``, ``mean``, ``std``) and a seed first, then the numbers of its recipe, which
`ViewSpec` explains.
"""

from collections.abc import Sequence
from dataclasses import replace

from ssl_framework.views.draw import Range, ViewSpec
from ssl_framework.views.image import ImageViews, Size


def one_crop(
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    *,
    crop_scale: Sequence[float] = (0.2, 1.0),
    crop_ratio: Sequence[float] = (0.75, 1.3333333333333333),
    flip: float = 0.5,
) -> ImageViews:
    """One crop, resized and flipped, in its own colours, as MAE has it (He et al., 2021, https://arxiv.org/abs/2111.06377).

    The crop's scale is that of its ``main_pretrain.py``; interpolation is bilinear there bicubic.
    """
    view = ViewSpec(crop=True, crop_scale=_range(crop_scale), crop_ratio=_range(crop_ratio), flip=flip)
    return ImageViews([view], size, mean, std, seed=seed)


def two_crops(
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    *,
    crop_scale: Sequence[float] = (0.08, 1.0),
    crop_ratio: Sequence[float] = (0.75, 1.3333333333333333),
    flip: float = 0.5,
    strength: float = 1.0,
    brightness: float = 0.8,
    contrast: float = 0.8,
    saturation: float = 0.8,
    hue: float = 0.2,
    jitter_p: float = 0.8,
    grey_p: float = 0.2,
    blur_p: float = 0.5,
    blur_sigma: Sequence[float] = (0.1, 2.0),
    blur_kernel: float = 0.1,
    solarize_p: float = 0.0,
    solarize_threshold: float = 0.5,
) -> ImageViews:
    """Two views of the same recipe: SimCLR's (Chen et al., 2020, https://arxiv.org/abs/2002.05709, Appendix A).

    `strength` multiplies brightness, contrast, saturation and hue. For small images (CIFAR: Appendix B.9) the paper uses
    ``strength=0.5`` and ``blur_p=0``.
    """
    jitter = (strength * brightness, strength * contrast, strength * saturation, strength * hue)
    shared = _coloured(crop_ratio, flip, jitter, jitter_p, grey_p, blur_sigma, blur_kernel, solarize_threshold)
    view = replace(shared, crop_scale=_range(crop_scale), blur_p=blur_p, solarize_p=solarize_p)
    return ImageViews([view, view], size, mean, std, seed=seed)


def two_crops_asymmetric(
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    *,
    crop_scale: Sequence[float] = (0.08, 1.0),
    crop_ratio: Sequence[float] = (0.75, 1.3333333333333333),
    flip: float = 0.5,
    strength: float = 1.0,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.2,
    hue: float = 0.1,
    jitter_p: float = 0.8,
    grey_p: float = 0.2,
    blur_p: Sequence[float] = (1.0, 0.1),
    blur_sigma: Sequence[float] = (0.1, 2.0),
    blur_kernel: float = 0.1,
    solarize_p: Sequence[float] = (0.0, 0.2),
    solarize_threshold: float = 0.5,
) -> ImageViews:
    """Two views that differ in blur and solarize: BYOL's (Grill et al., 2020, https://arxiv.org/abs/2006.07733, Appendix B).

    `blur_p` and `solarize_p` hold a probability for each view; `strength` multiplies brightness, contrast, saturation and hue.
    """
    jitter = (strength * brightness, strength * contrast, strength * saturation, strength * hue)
    shared = _coloured(crop_ratio, flip, jitter, jitter_p, grey_p, blur_sigma, blur_kernel, solarize_threshold)
    blur, solarize = _probabilities("blur_p", blur_p, 2), _probabilities("solarize_p", solarize_p, 2)
    views = [replace(shared, crop_scale=_range(crop_scale), blur_p=blur[v], solarize_p=solarize[v]) for v in range(2)]
    return ImageViews(views, size, mean, std, seed=seed)


def strong_and_weak(
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    *,
    crop_scale: Sequence[float] = (0.2, 1.0),
    crop_ratio: Sequence[float] = (0.75, 1.3333333333333333),
    flip: float = 0.5,
    strength: float = 1.0,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    jitter_p: float = 0.8,
    grey_p: float = 0.2,
    blur_p: float = 0.5,
    blur_sigma: Sequence[float] = (0.1, 2.0),
    blur_kernel: float = 0.1,
) -> ImageViews:
    """A view with its colours changed, and one that is only cropped and flipped, for the teacher.

    Zheng et al., 2021, https://arxiv.org/abs/2107.09282, section 3.3: ReSSL's teacher sees weak views alone.
    """
    jitter = (strength * brightness, strength * contrast, strength * saturation, strength * hue)
    shared = _coloured(crop_ratio, flip, jitter, jitter_p, grey_p, blur_sigma, blur_kernel, solarize_threshold=0.5)
    strong = replace(shared, crop_scale=_range(crop_scale), blur_p=blur_p)
    weak = ViewSpec(crop=True, crop_scale=_range(crop_scale), crop_ratio=_range(crop_ratio), flip=flip)
    return ImageViews([strong, weak], size, mean, std, seed=seed)


def multi_crop(
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    *,
    local_crops: int = 8,
    local_size: Size | None = None,
    global_scale: Sequence[float] = (0.4, 1.0),
    local_scale: Sequence[float] = (0.05, 0.4),
    crop_ratio: Sequence[float] = (0.75, 1.3333333333333333),
    flip: float = 0.5,
    strength: float = 1.0,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.2,
    hue: float = 0.1,
    jitter_p: float = 0.8,
    grey_p: float = 0.2,
    blur_p: Sequence[float] = (1.0, 0.1, 0.5),
    blur_sigma: Sequence[float] = (0.1, 2.0),
    blur_kernel: float = 0.1,
    solarize_p: Sequence[float] = (0.0, 0.2, 0.0),
    solarize_threshold: float = 0.5,
) -> ImageViews:
    """Two large views and several small ones: DINO's (Caron et al., 2021, https://arxiv.org/abs/2104.14294, ``main_dino.py``).

    `blur_p` and `solarize_p` hold a probability for each global view, then one for all local views. `local_size` None is 3/7
    of `size`, as 96 of 224, rounded to a multiple of 4. DINO resizes bicubically, these views bilinearly.
    """
    jitter = (strength * brightness, strength * contrast, strength * saturation, strength * hue)
    shared = _coloured(crop_ratio, flip, jitter, jitter_p, grey_p, blur_sigma, blur_kernel, solarize_threshold)
    scale = (_range(global_scale), _range(global_scale), _range(local_scale))
    blur, solarize = _probabilities("blur_p", blur_p, 3), _probabilities("solarize_p", solarize_p, 3)
    first, second, local = (replace(shared, crop_scale=scale[v], blur_p=blur[v], solarize_p=solarize[v]) for v in range(3))
    local_views = [local] * _count("local_crops", local_crops, 0)
    local_size = _local_size(size) if local_size is None else local_size
    return ImageViews([first, second], size, mean, std, local_views=local_views, local_size=local_size, seed=seed)


def affine(
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    *,
    views: int = 2,
    degrees: float = 15.0,
    translate: float = 0.1,
    scale: Sequence[float] = (0.85, 1.15),
    shear: float = 10.0,
    flip: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> ImageViews:
    """Whole images, a little rotated, shifted, magnified and sheared: for digits, which a crop or a flip would change.

    Brightness and contrast, if not 0, change in every view.
    """
    view = ViewSpec(
        degrees=degrees,
        translate=translate,
        scale=_range(scale),
        shear=shear,
        flip=flip,
        brightness=brightness,
        contrast=contrast,
        jitter_p=1.0,
    )
    return ImageViews([view] * _count("views", views, 1), size, mean, std, seed=seed)


def _coloured(
    crop_ratio: Sequence[float],
    flip: float,
    jitter: tuple[float, float, float, float],
    jitter_p: float,
    grey_p: float,
    blur_sigma: Sequence[float],
    blur_kernel: float,
    solarize_threshold: float,
) -> ViewSpec:
    """What the views of the crop recipes have in common."""
    brightness, contrast, saturation, hue = jitter
    return ViewSpec(
        crop=True,
        crop_ratio=_range(crop_ratio),
        flip=flip,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        jitter_p=jitter_p,
        grey_p=grey_p,
        blur_sigma=_range(blur_sigma),
        blur_kernel=blur_kernel,
        solarize_threshold=solarize_threshold,
    )


def _range(values: Sequence[float]) -> Range:
    if len(values) != 2:
        raise ValueError(f"{list(values)} is not a range: give two numbers, the smaller first.")
    return float(values[0]), float(values[1])


def _probabilities(name: str, values: Sequence[float], count: int) -> list[float]:
    if len(values) != count:
        raise ValueError(
            f"{name}={list(values)} has {len(values)} numbers: give {count}, one probability for each kind of view."
        )
    return [float(value) for value in values]


def _count(name: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"{name}={value}: give {least} or more.")
    return value


def _local_size(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return max(4, round(height * 3 / 28) * 4), max(4, round(width * 3 / 28) * 4)
