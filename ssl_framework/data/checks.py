"""Facts that a user gives of a data set, held against the data.

All raise ValueError, with what does not fit and the remedy.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ssl_framework.types import Source


def check_begun(train: Source, batch_size: int, workers: int | None, name: str) -> None:
    """Refuse numbers out of range, and data without samples."""
    if batch_size < 1 or (workers or 0) < 0:
        raise ValueError(f"batch_size={batch_size} must be at least 1 and workers={workers} at least 0.")
    if len(train) == 0:
        raise ValueError(f"{name} has no training samples: check data.path.")


def checked_size(source: Source, size: int | Sequence[int] | None, name: str, *, free: bool) -> tuple[int, int]:
    """Height and width to work at; `free`: images of one size may be given another, for it is their cache's."""
    given = (size, size) if isinstance(size, int) else None if size is None else tuple(int(n) for n in size)
    if given is not None and (len(given) != 2 or min(given) < 1):
        raise ValueError(f"size={list(given)} is no height and width: give data.size=[HEIGHT,WIDTH].")
    if source.size is None:
        if given is None:
            raise ValueError(
                f"The images of {name} may differ in size: give the one to work at, for example data.size=[96,96]."
            )
        return given[0], given[1]
    if given is not None and free:
        return given[0], given[1]
    if given is not None and given != tuple(source.size):
        raise ValueError(
            f"The images of {name} are {list(source.size)}, not size={list(given)}: leave data.size=null, and give the size "
            "that the encoder should see to the views (views.size)."
        )
    return source.size


def check_facts(source: Source, channels: int | None, classes: int | None, name: str) -> None:
    """Refuse channels and classes that the data have not."""
    if channels is not None and channels != source.channels:
        raise ValueError(
            f"The images of {name} have {source.channels} channels, not channels={channels}: correct data.channels."
        )
    found = None if source.targets is None else len(source.classes or np.unique(source.targets))
    if classes is not None and found != classes:
        has = "no labels" if found is None else f"{found} classes"
        raise ValueError(f"{name} has {has}, not classes={classes}: correct data.classes, or give null for what is there.")


def checked_statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std as they were given, or None."""
    if mean is None or std is None:
        if mean is not std:
            raise ValueError(
                f"mean={mean} and std={std} belong together: give both, or null for both (then they are measured)."
            )
        return None
    centre, spread = tuple(float(x) for x in mean), tuple(float(x) for x in std)
    if len(centre) != channels or len(spread) != channels or min(spread) <= 0:
        raise ValueError(
            f"mean={list(centre)} and std={list(spread)} do not fit {channels} channels of values in 0..1: give {channels} "
            "of each, std above 0."
        )
    return centre, spread


def check_alike(train: Source, others: Mapping[str, Source | None], name: str) -> None:
    """Refuse splits whose images are not like those of training: an encoder of the one would not fit the other."""
    for split, source in others.items():
        if source is None:
            continue
        for what in ("channels", "size"):
            one, other = getattr(train, what), getattr(source, what)
            if one is not None and other is not None and one != other:
                raise ValueError(
                    f"The images of {name} have the {what} {one} in train and {other} in {split}: make them alike."
                )
