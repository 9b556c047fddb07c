"""A split with its labels: what phase 2, probes and monitors read. Pretraining never does."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ssl_framework import keyed, machine
from ssl_framework.data.bad import BadSamples
from ssl_framework.data.encoded import EncodedSource, fit
from ssl_framework.data.masks import Masks
from ssl_framework.data.split import by_class, in_bulk, origin, rooted, unreadable
from ssl_framework.data.table import Table
from ssl_framework.data.threads import spread
from ssl_framework.types import BadSampleError, Source

_SUBSET, _HELD = 0x5B5E7, 0x4E1D  # name these uses of the seed


class Labelled:
    """Images and labels of one split, in a fixed order, without randomness.

    Args:
        source: the samples of the split.
        size: height and width that images of mixed sizes are brought to; images of one size stay as they are.
        split: its name.
        bad: the list of unreadable samples.
        rows: ``(N,)`` positions in `source`; default all.
        table: numbers of the samples, for tasks whose targets are no classes.
        masks: labels of their pixels.

    Attributes:
        targets: ``(N,)`` int64 labels; all 0 where there are none, but a table or masks.
        index: ``(N,)`` int64 positions in the data as they were loaded, for files of embeddings.
        classes: names in the order of their numbers.

    Raises:
        ValueError: the source has no labels, and there is no table.
    """

    def __init__(
        self,
        source: Source,
        size: tuple[int, int],
        *,
        split: str,
        bad: BadSamples | None = None,
        rows: np.ndarray | None = None,
        table: Table | None = None,
        masks: Masks | None = None,
    ) -> None:
        if source.targets is None and table is None and masks is None:
            raise ValueError(
                f"The {split} split has no labels, and what you ask for needs them: give images in folders by class, a label "
                "column or an array of targets, or use another labelled data set."
            )
        self.source = source
        self.size = size
        self.split = split
        self.rows = np.arange(len(source), dtype=np.int64) if rows is None else rows
        self.table, self.pixels = table, masks
        labels = np.zeros(len(source), np.int64) if source.targets is None else source.targets
        self.targets = torch.from_numpy(labels[self.rows].astype(np.int64))
        self.index = torch.from_numpy(origin(source)[self.rows])
        count = int(labels.max()) + 1 if len(source) else 0
        self.classes = source.classes or tuple(str(c) for c in range(count))
        self._bad = bad if bad is not None else BadSamples()

    @property
    def num_classes(self) -> int:
        """Classes of the whole data set, also where a subset lacks some."""
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, positions: Sequence[int] | Tensor | np.ndarray) -> Tensor:
        """Images of these positions in the split: ``(B, C, H, W)`` uint8.

        One that cannot be read is reported and replaced by the next readable one of its class, so that rows and labels stay in
        step.

        Raises:
            ValueError: more than 1 % of the split cannot be read.
        """
        asked = torch.as_tensor(positions, dtype=torch.int64).numpy()
        images = in_bulk(self.source, self.rows[asked])
        if images is not None:
            for place, row in enumerate(self.rows[asked].tolist() if self._unreadable else ()):
                if row in self._unreadable:
                    images[place] = self._image(int(asked[place]))
            return images
        if len(asked) == 0:
            return torch.empty(0, self.source.channels, *self.size, dtype=torch.uint8)
        places: list[int] = asked.tolist()
        decoded = self._decoded(places)
        return torch.stack([self._image(p) if image is None else image for p, image in zip(places, decoded, strict=True)])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images ``(b, C, H, W)`` uint8 and labels ``(b,)``, in order, `size` at a time, the last one what is left."""
        for start in range(0, len(self), size):
            positions = range(start, min(start + size, len(self)))
            yield self.images(positions), self.targets[start : start + size]

    def name(self, position: int) -> str:
        """What a person calls a sample: its path, or its number in a file."""
        return self.source.name(int(self.rows[position]))

    def numbers(self, columns: Sequence[str]) -> Tensor:
        """Columns of the table, ``(N, K)`` float32; what is empty is NaN.

        Raises:
            ValueError: there is no table, or it lacks a column or a sample.
        """
        if self.table is None:
            raise ValueError(
                f"{', '.join(columns)} is to be learnt, and no table says it of the {self.split} split: give labels.path=FILE."
            )
        return torch.from_numpy(self.table.numbers(columns, [self.name(i) for i in range(len(self))]))

    def masks(self, positions: Sequence[int] | Tensor) -> Tensor:
        """Labels of the pixels of these images, ``(B, H, W)`` uint8, resized and cut as the images are.

        Raises:
            ValueError: there are no masks, or one is missing, damaged or of another size.
        """
        if self.pixels is None:
            raise ValueError(
                f"pixels are to be labelled, and nothing says the labels of the {self.split} split: give labels.masks, the "
                "name of the folder with masks."
            )
        found = [self.pixels.read(self.name(int(position)))[None] for position in positions]
        size = self.source.size or self.size
        return torch.cat([mask if mask.shape[-2:] == size else fit(mask, size, labels=True) for mask in found])

    def some(self, count: int, seed: int) -> "Labelled":
        """A budget of samples, whatever their classes; budgets of one seed are nested.

        Args:
            count: of samples.
            seed: which ones.

        Raises:
            ValueError: there are fewer.
        """
        if not 1 <= count <= len(self):
            raise ValueError(
                f"{count} labels are asked for, and the {self.split} split has {len(self)}: ask for 1 to {len(self)}."
            )
        return self._of(self.rows[np.sort(keyed.permutation(len(self), _SUBSET, seed)[:count])])

    def held_out(self, share: float, seed: int) -> tuple["Labelled", "Labelled"]:
        """Two parts without a sample in common: what is left, and a share of each class; rounded, so that it may be nothing.

        Args:
            share: between 0 and 1.
            seed: which ones.
        """
        held = np.zeros(len(self), dtype=bool)
        for c, positions in enumerate(by_class(self.targets)):
            held[positions[keyed.permutation(len(positions), _HELD, seed, c)[: round(share * len(positions))]]] = True
        return self._of(self.rows[~held]), self._of(self.rows[held])

    def _of(self, rows: np.ndarray) -> "Labelled":
        return Labelled(self.source, self.size, split=self.split, bad=self._bad, rows=rows, table=self.table, masks=self.pixels)

    def subset(self, per_class: int, seed: int) -> "Labelled":
        """A labelled budget; budgets of one seed are nested: those of 1 per class are among those of 10.

        Args:
            per_class: samples of each class.
            seed: which ones.

        Raises:
            ValueError: a class has fewer.
        """
        chosen: list[np.ndarray] = []
        for c, positions in enumerate(by_class(self.targets)):
            if len(positions) < per_class:
                raise ValueError(
                    f"Class {self.classes[c]!r} has {len(positions)} {self.split} samples, fewer than the {per_class} per "
                    f"class that you ask for: ask for {len(positions)} at most."
                )
            chosen.append(positions[keyed.permutation(len(positions), _SUBSET, seed, c)[:per_class]])
        return self._of(self.rows[np.sort(np.concatenate(chosen))])

    def share(self, share: float, seed: int) -> "Labelled":
        """A share of each class, rounded, and one sample at least; drawn as `subset` draws, so that budgets are nested.

        Args:
            share: above 0, at most 1.
            seed: which ones.

        Raises:
            ValueError: it is no share.
        """
        if not 0 < share <= 1:
            raise ValueError(f"{share} is no share of the {self.split} split: give a number above 0, at most 1.")
        chosen: list[np.ndarray] = []
        for c, positions in enumerate(by_class(self.targets)):
            count = min(len(positions), max(1, round(share * len(positions))))
            chosen.append(positions[keyed.permutation(len(positions), _SUBSET, seed, c)[:count]])
        return self._of(self.rows[np.sort(np.concatenate(chosen))])

    @cached_property
    def _unreadable(self) -> dict[int, str]:
        """Rows of an array that hold nothing, because they could not be decoded."""
        return unreadable(self.source) or {}

    def _decoded(self, positions: list[int]) -> list[Tensor | None]:
        """Images of files, decoded by all cores; None for what is left to `_image`."""
        if len(positions) == 1 or not isinstance(rooted(self.source, self.rows[:1])[0], EncodedSource):
            return [None] * len(positions)

        def read(position: int) -> Tensor | None:
            try:
                return self._fitted(self.source.read(int(self.rows[position])))
            except BadSampleError:
                return None

        with ThreadPoolExecutor(machine.cores()) as pool:
            return list(spread(pool, read, positions))

    def _fitted(self, image: Tensor) -> Tensor:
        return image if self.source.size is not None else fit(image, self.size)

    def _image(self, position: int) -> Tensor:
        own = int(self.rows[position])
        alike = self.rows[(self.targets == self.targets[position]).numpy()]
        if self.table is not None or self.pixels is not None:  # its numbers belong to no other image
            alike = alike[:0]
        for row in [own, *alike[alike > own].tolist(), *alike[alike < own].tolist()]:
            try:
                image = self.source.read(row)
            except BadSampleError as error:
                self._bad.report(self.split, self.source, row, str(error))
                continue
            return self._fitted(image)
        if self.table is not None or self.pixels is not None:
            raise ValueError(f"{self.name(position)} cannot be read, and its numbers belong to no other image: leave it out.")
        raise ValueError(f"No {self.split} sample of class {self.classes[int(self.targets[position])]!r} can be read.")
