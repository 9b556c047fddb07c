"""Colorization beside its formulas, written naively in float64, a pixel at a time."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_framework.nn import ColourWeights, colour_bins, lab, nearest_bins
from ssl_framework.pretext import Colorization
from ssl_framework.types import Views
from support import MapEncoder, views_of

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def images(batch: int = 3, seed: int = 0) -> Tensor:
    """``(B, 3, 8, 8)`` sRGB in [0, 1], float64."""
    return torch.rand(batch, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def normalised(rgb: Tensor) -> Views:
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    return views_of(((rgb - mean) / std)[None])


def made(**numbers: Any) -> Colorization:
    torch.manual_seed(0)
    views: Any = SimpleNamespace(mean=MEAN, std=STD)
    return Colorization(MapEncoder(6, 3), decoder_dim=4, views=views, **numbers).double()


def naive_lab(r: float, g: float, b: float) -> tuple[float, float, float]:
    red, green, blue = (((v + 0.055) / 1.055) ** 2.4 if v > 0.04045 else v / 12.92 for v in (r, g, b))
    x = 0.4124564 * red + 0.3575761 * green + 0.1804375 * blue
    y = 0.2126729 * red + 0.7151522 * green + 0.0721750 * blue
    z = 0.0193339 * red + 0.1191920 * green + 0.9503041 * blue
    fx, fy, fz = (
        v ** (1 / 3) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in (x / 0.950470, y, z / 1.0888301)
    )
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def naive_weights(p: list[float], bins: list[list[float]], sigma: float, uniform: float) -> list[float]:
    """Section 2.2: smooth, mix, invert, and scale to a mean of 1."""
    q = len(p)
    spread = [[math.exp(-(math.dist(one, other) ** 2) / (2 * sigma**2)) for other in bins] for one in bins]
    whole = [sum(spread[i][j] for i in range(q)) for j in range(q)]
    smooth = [sum(spread[i][j] / whole[j] * p[j] for j in range(q)) for i in range(q)]
    inverse = [1 / ((1 - uniform) * smooth[i] + uniform / q) for i in range(q)]
    mean = sum(s * w for s, w in zip(smooth, inverse, strict=True))
    return [w / mean for w in inverse]


@pytest.mark.parametrize(
    ("rgb", "expected"),  # published values of the primaries under D65, two digits
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_known_colours(rgb: tuple[float, float, float], expected: tuple[float, float, float]):
    assert lab(torch.tensor(rgb, dtype=torch.float64)[:, None, None]).flatten().tolist() == pytest.approx(expected, abs=0.02)


def test_lab_of_any_colour():
    rgb = torch.cat([images(), images(seed=1) * 0.05])  # dark ones lie on the lines of both curves
    found = lab(rgb).permute(0, 2, 3, 1).reshape(-1, 3)
    for colour, value in zip(rgb.permute(0, 2, 3, 1).reshape(-1, 3).tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(naive_lab(*colour), abs=2e-4)


def test_bins_are_those_that_colours_fall_into():
    bins = colour_bins()
    assert bins.shape == (261, 2)
    known = {tuple(centre) for centre in bins.tolist()}
    assert len(known) == 261
    assert {(0.0, 0.0), (80.0, 70.0), (-90.0, 80.0), (80.0, -110.0)} <= known  # grey, red, green, blue
    some = lab(torch.rand(3, 1, 20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[1:, 0].T
    assert {(10 * round(a / 10), 10 * round(b / 10)) for a, b in some.tolist()} <= known
    assert len(colour_bins(20.0)) < 100
    with pytest.raises(ValueError, match=r"grid=0: the side of a bin"):
        colour_bins(0)


def test_a_colour_is_shared_by_its_nearest_bins():
    bins = colour_bins()
    ab = torch.tensor([[3.0, -4.0], [88.0, 61.0], [0.0, 0.0]], dtype=torch.float64)
    index, share = nearest_bins(ab, bins, 5, 5.0)
    for colour, which, part in zip(ab.tolist(), index.tolist(), share.tolist(), strict=True):
        distance = sorted((math.dist(colour, centre), number) for number, centre in enumerate(bins.tolist()))[:5]
        density = [math.exp(-(d**2) / (2 * 5.0**2)) for d, _ in distance]
        assert part == pytest.approx([d / sum(density) for d in density])
        assert [math.dist(colour, bins[i].tolist()) for i in which] == pytest.approx([d for d, _ in distance])
    assert nearest_bins(ab, bins, 1, 5.0)[1].tolist() == [[1.0]] * 3


def test_weights_of_the_running_distribution():
    bins = torch.tensor([[0.0, 0.0], [0.0, 10.0], [10.0, 10.0], [50.0, 0.0]], dtype=torch.float64)
    weights, everything = ColourWeights(bins, 5.0, 0.3).double(), torch.arange(4)
    p = [0.25] * 4  # before the first step
    steps = [[0, 0, 1, 0], [0, 2, 0, 0, 0, 0, 0, 0]], [[1, 1]]
    for number, batches in enumerate(steps, start=1):
        assert weights(everything).tolist() == pytest.approx(naive_weights(p, bins.tolist(), 5.0, 0.3))
        for batch in batches:
            weights.stage(torch.tensor(batch))
        seen = [sum(batch.count(i) / len(batch) for batch in batches) / len(batches) for i in range(4)]
        p = seen if number == 1 else [(old + new) / 2 for old, new in zip(p, seen, strict=True)]
        weights.follow(0.0)
        weights.follow(0.0)  # nothing is staged: nothing moves
        assert weights.value.tolist() == pytest.approx(p)
    assert weights(torch.tensor(3)) > weights(torch.tensor(1))  # what was not seen weighs more
    weights.eval().stage(torch.tensor([3]))
    weights.follow(0.0)
    assert weights.value.tolist() == pytest.approx(p)
    assert ColourWeights(bins, 5.0, 1.0)(everything).tolist() == pytest.approx([1.0] * 4)


def test_colorization():
    task, rgb = made(stride=4), images()
    task.weights.value.copy_(torch.rand(261, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    task.weights.value /= task.weights.value.sum()
    bins = colour_bins().tolist()
    weights = naive_weights(task.weights.value.tolist(), bins, 5.0, 0.5)
    colours = torch.tensor([[[naive_lab(*rgb[n, :, i, j].tolist()) for j in range(8)] for i in range(8)] for n in range(3)])
    grey = torch.stack([(colours[..., 0].double() / 100 - m) / s for m, s in zip(MEAN, STD, strict=True)], dim=1)
    logits = task.decoder(task.encoder(grey), (2, 2))
    total = 0.0
    for n in range(3):
        for i in range(2):
            for j in range(2):
                a, b = colours[n, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4, 1:].double().mean((0, 1)).tolist()
                near = sorted((math.dist((a, b), centre), number) for number, centre in enumerate(bins))[:5]
                density = [math.exp(-(d**2) / (2 * 5.0**2)) for d, _ in near]
                guess = logits[n, :, i, j].log_softmax(0)
                entropy = -sum(d / sum(density) * guess[q].item() for d, (_, q) in zip(density, near, strict=True))
                total += weights[near[0][1]] * entropy
    assert task(normalised(rgb)).loss.item() == pytest.approx(total / 12, rel=1e-5)


def test_the_encoder_sees_no_colour():
    """Another image of the same lightness: the encoder is given the same, and the target is another."""
    task, rgb = made(), images(1)
    seen: list[Tensor] = []
    task.encoder.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    lightness = lab(rgb)[:, :1]
    grey = ((lightness + 16) / 116) ** 3
    grey = torch.where(lightness > 8, grey, lightness / 903.2963).clamp(0, 1)
    grey = torch.where(grey > 0.0031308, 1.055 * grey ** (1 / 2.4) - 0.055, 12.92 * grey).expand(-1, 3, -1, -1)
    coloured, colourless = (task(normalised(x)).loss for x in (rgb, grey))
    assert (seen[0] - seen[1]).abs().max() < 1e-4
    assert coloured.item() != pytest.approx(colourless.item(), rel=1e-2)


def test_without_views_an_image_is_taken_as_it_is():
    torch.manual_seed(0)
    plain = Colorization(MapEncoder(6, 3), decoder_dim=4).double()
    seen: list[Tensor] = []
    plain.encoder.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    plain(views_of(images()[None]))
    assert torch.allclose(seen[0], lab(images())[:, :1].expand(-1, 3, -1, -1) / 100)


def test_places_are_a_quarter_of_the_sides_and_at_least_one():
    task, shapes = made(), []
    task.decoder.register_forward_hook(lambda _module, _inputs, output: shapes.append(output.shape[2:]))
    for size in ((8, 8), (13, 30), (3, 9)):
        task(normalised(torch.rand(2, 3, *size, dtype=torch.float64)))
    assert shapes == [(2, 2), (3, 7), (1, 2)]


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_weights_without_bounds_are_refused(share: float):
    with pytest.raises(ValueError, match=f"uniform_share={share} must lie above 0"):
        made(uniform_share=share)


def test_images_without_colour_are_refused():
    with pytest.raises(
        ValueError, match=r"Colorization learns from the colours of images, and its encoder is for images of 1 "
    ):
        Colorization(MapEncoder(6, 1))
