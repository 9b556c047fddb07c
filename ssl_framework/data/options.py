"""What every data set can be told."""

from collections.abc import Sequence
from typing import TypedDict


class Options(TypedDict, total=False):
    """The arguments that every data set shares; `DataModule` has their meanings and defaults."""

    batch_size: int
    val_share: float
    workers: int | None
    cache: bool
    cache_size: int | Sequence[int] | None
    cache_dir: str | None
    resident: bool | None
    on_bad_sample: str
    seed: int
    split_seed: int
    channels: int | None
    size: int | Sequence[int] | None
    classes: int | None
    mean: Sequence[float] | None
    std: Sequence[float] | None


def read_as(options: Options) -> int:
    """Channels that files are decoded to: 3, RGB, unless the options say 1, grey.

    Raises:
        ValueError: another number.
    """
    channels = options.get("channels") or 3
    if channels not in {1, 3}:
        raise ValueError(f"channels={channels}: images are read as 3 (RGB) or 1 (grey).")
    return channels
