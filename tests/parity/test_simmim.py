"""SimMIM on encoders without mask token, whose pixels are hidden, beside the paper's formula written naively in float64."""

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_framework.encoders import PCA, RawPixels, resnet_micro
from ssl_framework.nn import PlaceDecoder, block_mask, patch_mask
from ssl_framework.pretext import SimMIM
from ssl_framework.types import Encoding, Views
from support import LinearEncoder, MapEncoder, on_ranks, views_of

SIZE = (10, 14)  # in patches of 4 those at the end are smaller, so samples hide different numbers of pixels


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def made() -> Any:
    """On two channels, with a mask that has learnt."""
    torch.manual_seed(0)
    task = SimMIM(MapEncoder(6, in_chans=2), mask_ratio=0.5).double()
    assert task.mask_value is not None
    nn.init.normal_(task.mask_value)
    return task


def test_the_mean_absolute_error_of_hidden_pixels():
    task, x = made(), noise(1, 5, 2, *SIZE)
    views = views_of(x)
    blocks = block_mask(views.key, (3, 4), 0.5, 2).view(5, 3, 4)  # patches of 4 pixels
    shown = x[0].clone()
    for b in range(5):
        for row in range(10):
            for column in range(14):
                if blocks[b, row // 4, column // 4]:
                    shown[b, :, row, column] = task.mask_value.detach()
    tokens = task.encoder(shown).tokens.detach()  # 5 x 7 places, each of 2 x 2 pixels
    total, count = 0.0, 0
    for b in range(5):
        for row in range(10):
            for column in range(14):
                place = task.head.predict.weight @ tokens[b, row // 2 * 7 + column // 2] + task.head.predict.bias
                for channel in range(2):
                    painted = place[4 * channel + 2 * (row % 2) + column % 2]
                    if blocks[b, row // 4, column // 4]:
                        total += abs(painted.item() - x[0, b, channel, row, column].item())
                        count += 1
    assert task(views).loss.item() == pytest.approx(total / count, rel=1e-10)


@pytest.mark.parametrize(("size", "patch"), [((8, 12), 4), ((10, 7), 3), ((5, 5), 1)])
def test_pixels_of_a_patch_are_hidden_together(size: tuple[int, int], patch: int):
    views = views_of(noise(1, 200, 1, 1, 1))
    grid = (-(-size[0] // patch), -(-size[1] // patch))
    expected = block_mask(views.key, grid, 0.6, 2).view(200, *grid)
    found = patch_mask(views.key, size, patch, 0.6, 2)
    assert found.shape == (200, *size)
    for row in range(size[0]):
        for column in range(size[1]):
            assert torch.equal(found[:, row, column], expected[:, row // patch, column // patch])
    with pytest.raises(ValueError, match=r"patch=8 cuts an image of 8x6 into fewer than two: give 1 to 7\."):
        patch_mask(views.key, (8, 6), 8, 0.6)


def test_the_same_picture_as_a_convolution_and_a_shuffle():
    """The decoder of the paper's code."""
    torch.manual_seed(0)
    decoder, tokens = PlaceDecoder(MapEncoder(6, in_chans=3), (8, 12)).double(), noise(2, 24, 6)
    convolution = nn.Conv2d(6, 12, 1).double()
    weight, bias = decoder.predict.weight[:, :, None, None], decoder.predict.bias
    convolution.load_state_dict({"weight": weight, "bias": bias})
    expected = nn.PixelShuffle(2)(convolution(tokens.transpose(1, 2).unflatten(2, (4, 6))))
    seen = Encoding(tokens.mean(1), tokens, (4, 6))
    torch.testing.assert_close(decoder(seen, (8, 12)), expected, rtol=1e-12, atol=1e-12)
    assert decoder(seen, (9, 11)).shape == (2, 3, 9, 11)


@pytest.mark.parametrize(("size", "stride"), [((32, 32), (8, 8)), ((28, 60), (7, 8)), ((8, 8), (8, 8)), ((6, 12), (6, 6))])
def test_a_place_paints_the_pixels_that_it_stands_for(size: tuple[int, int], stride: tuple[int, int]):
    encoder = resnet_micro(in_chans=1)
    before, modes = copy.deepcopy(encoder.state_dict()), [module.training for module in encoder.modules()]
    decoder = PlaceDecoder(encoder, size)
    assert decoder.stride == stride
    assert decoder(encoder(torch.randn(2, 1, *size)), size).shape == (2, 1, *size)
    encoder.load_state_dict(before)
    PlaceDecoder(encoder, size)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())  # no BatchNorm has counted
    assert [module.training for module in encoder.modules()] == modes


def test_visible_pixels_are_no_target():
    task, x = made(), noise(1, 5, 2, *SIZE)
    views = views_of(x)
    mask = patch_mask(views.key, SIZE, 4, 0.5, 2)[:, None]
    heard: list[Any] = []

    def listen(_module: nn.Module, inputs: Any) -> None:
        heard.append(inputs)

    def repeat(_module: nn.Module, _inputs: Any) -> Any:
        return heard[0]

    with task.encoder.register_forward_pre_hook(listen):
        loss = task(views).loss
    with task.encoder.register_forward_pre_hook(repeat):  # what the encoder sees is held fast
        assert torch.equal(task(views._replace(global_crops=torch.where(mask, x, x + 1))).loss, loss)
        assert not torch.equal(task(views._replace(global_crops=torch.where(mask, x + 1, x))).loss, loss)
    assert torch.equal(heard[0][0], torch.where(mask, task.mask_value[:, None, None], x[0]))


def test_a_cnn_learns_to_paint_and_its_mask_moves():
    torch.manual_seed(0)
    task: Any = SimMIM(resnet_micro(in_chans=1))
    rows = torch.arange(16.0)[:, None]
    phase = torch.arange(16.0)[:, None, None, None]
    views = views_of((rows / 3 + torch.arange(20.0) / 5 + phase).sin()[None])  # waves of 16 x 20 pixels
    optimizer = torch.optim.AdamW(task.parameters(), 2e-3, weight_decay=0.0)
    losses = []
    for _ in range(40):
        loss = task(views).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert (task.mask_value != 0).all()


def train(rank: int, world: int, joined: bool) -> dict[str, Tensor]:
    """The loss and the gradients of a process's share of six samples, averaged, or of all of them."""
    task, x = made(), noise(1, 6, 2, *SIZE)
    whole = views_of(x)
    rows = slice(0, 6) if joined else slice(rank * (6 // world), (rank + 1) * (6 // world))
    assert whole.key is not None
    loss = task(Views(x[:, rows], key=whole.key[rows])).loss
    loss.backward()
    found = {"loss": loss.detach()} | {name: p.grad for name, p in task.named_parameters()}
    for value in () if joined else found.values():
        dist.all_reduce(value)
        value.div_(world)
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_processes_that_hide_different_numbers_of_pixels_train_as_one(world: int):
    key = views_of(noise(1, 6, 2, *SIZE)).key
    counts = patch_mask(key, SIZE, 4, 0.5, 2).view(world, -1).sum(1)
    assert len(set(counts.tolist())) > 1
    expected = train(0, 1, joined=True)
    assert "mask_value" in expected
    for found in on_ranks(world, train, False):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("encoder", [RawPixels(), PCA(), LinearEncoder(16, 6)], ids=lambda encoder: type(encoder).__name__)
def test_an_encoder_without_a_map_is_refused(encoder: Any):
    with pytest.raises(ValueError, match="take a CNN or a ViT"):
        SimMIM(encoder)


@pytest.mark.parametrize("grid", [None, (16,)])
def test_an_encoder_whose_tokens_are_no_map_is_refused(grid: tuple[int, ...] | None):
    class Sequence(MapEncoder):
        def forward(self, x: Tensor, *, layers: Any = ()) -> Encoding:
            seen = super().forward(x)
            return Encoding(seen.pooled, None if grid is None else seen.tokens, grid)

    encoder: Any = Sequence(6)
    with pytest.raises(ValueError, match="Nothing can be painted without a map of tokens"):
        SimMIM(encoder)
