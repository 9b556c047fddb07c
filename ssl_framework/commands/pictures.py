"""Pictures of the page of a transfer study: how the encoder sees test images, where it looks, and what it was trained on."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from ssl_framework import report
from ssl_framework.commands import build, compose
from ssl_framework.encoders import TimmViT
from ssl_framework.evaluation import Embeddings, embed
from ssl_framework.transfer import Bench
from ssl_framework.types import Batch
from ssl_framework.views.preprocessing import plain

Plain = dict[str, Any]

_SHOWN = 1000  # images of the map
_QUERIES, _ANSWERS = 8, 6
_LOOKED_AT, _SHOWN_SIDE = 8, 96  # images whose attention is shown, so many pixels wide
_SAMPLES, _VIEWS = 5, 6  # that are shown, with so many of their views


def seen(bench: Bench) -> Plain:
    """The map of test images with thumbnails, and the nearest neighbours of some of them."""
    test = bench.judge.images
    places = torch.linspace(0, len(test) - 1, min(_SHOWN, len(test))).round().long()
    images, targets = test.images(places), bench.judge.targets_of(places)
    found = embed(bench.encoder, _Some(images, targets), plain(**bench.preprocessing).center)
    thumbnails = report.sprite(images)._asdict()
    plane = report.plane(found.x)
    points = [
        [round(x, 3), round(y, 3), int(label), place]
        for place, ((x, y), label) in enumerate(zip(plane.tolist(), targets.tolist(), strict=True))
    ]
    return {
        "map": {"points": points, "classes": list(test.classes), "thumbnails": thumbnails},
        "neighbours": _neighbours(found),
    }


def _neighbours(seen: Embeddings) -> list[Plain]:
    """Of one image of each class first; the angle between vectors says what is near."""
    x, count = F.normalize(seen.x, dim=1), min(_ANSWERS, len(seen.x) - 1)
    first = [int((seen.y == label).nonzero()[0]) for label in seen.y.unique()]
    queries = first[:_QUERIES]
    near = (x[queries] @ x.T).scatter_(1, torch.tensor(queries)[:, None], -2.0).topk(count, dim=1).indices
    return [
        {"query": query, "answers": row.tolist(), "right": (seen.y[row] == seen.y[query]).tolist()}
        for query, row in zip(queries, near, strict=True)
    ]


def attention(bench: Bench) -> list[Plain]:
    """Images of test, and beside each the same, as bright as the last block looks there; none where there is no attention."""
    if not isinstance(bench.encoder, TimmViT) or not bench.encoder.shows_attention:
        return []
    test = bench.judge.images
    places = torch.linspace(0, len(test) - 1, _LOOKED_AT).round().long()
    images, names = test.images(places), [test.classes[int(label)] for label in bench.judge.targets_of(places)]
    prepare, encoder = plain(**bench.preprocessing).center, copy.deepcopy(bench.encoder).cpu().eval()
    with torch.no_grad():
        looks = encoder.attention(prepare(images)).mean(dim=1, keepdim=True)  # (B, 1, rows, columns)
    height, width = images.shape[2:]
    size = [round(_SHOWN_SIDE * side / max(height, width)) for side in (height, width)]
    bright = F.interpolate(looks / looks.amax(dim=(2, 3), keepdim=True), size, mode="bilinear").clamp(0, 1)
    large = F.interpolate(images.float() / 255, size, mode="nearest")
    pairs = torch.cat([large, large * (0.15 + 0.85 * bright)], dim=3)
    return [{"image": report.picture(pair, colours=64), "caption": name} for pair, name in zip(pairs, names, strict=True)]


def views(bench: Bench, folder: Path | None, allowed: Sequence[str] = ()) -> list[Plain]:
    """Images that may be learnt from, and what the views of the pretraining make of them."""
    if folder is None or not (folder / "config.yaml").is_file():
        return []
    node = compose.saved_settings(folder, "report", allowed).get("views")
    if node is None:
        return []
    fill = {key: bench.preprocessing[key] for key in ("size", "mean", "std") if node.get(key) is None}
    maker = build.make({**{key: value for key, value in node.items() if value is not None}, **fill})
    places = torch.linspace(0, len(bench.train) - 1, _SAMPLES).round().long()
    images, index = bench.train.images(places), bench.train.index[places]
    made = maker.apply(Batch(images, None, index, torch.zeros_like(index)), maker.draw(index, 0))
    mean, std = (torch.tensor(bench.preprocessing[key])[:, None, None] for key in ("mean", "std"))
    crops = [*made.global_crops, *(() if made.local_crops is None else made.local_crops)]
    shown = [(crop.float() * std + mean).clamp(0, 1) for crop in crops]
    return [
        {"original": _small(image), "views": [_small(crop[place]) for crop in shown[:_VIEWS]]}
        for place, image in enumerate(images)
    ]


def _small(image: torch.Tensor) -> str:
    return report.picture(image, side=_SHOWN_SIDE, colours=64)


class _Some:
    """Images that are at hand, as `embed` reads them."""

    def __init__(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        self._images, self.targets, self.index = images, targets, torch.arange(len(targets))

    def images(self, positions: Sequence[int]) -> torch.Tensor:
        return self._images[torch.as_tensor(positions)]

    def __len__(self) -> int:
        return len(self.targets)
