"""An encoder that stands still is asked once for each image, and the head learns what it would learn otherwise."""

import pytest
import torch

from ssl_framework import run
from ssl_framework.downstream import Augmentation, Classification, Frozen, Full, LabelledData, kept
from ssl_framework.downstream.pooling import AttentionPooling, LastLayers, TokenMean

from .conftest import make_module, make_split, small_vit


def fit(module, steps: int = 9, *, images: int = 24, batch_size: int = 8, seen: list[int] | None = None, **options):
    """The module, trained; `seen` has the images of each call of its encoder."""
    handle = module.encoder.register_forward_pre_hook(lambda _, args: None if seen is None else seen.append(len(args[0])))
    trainer = run.trainer(steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, **options)
    trainer.fit(module, datamodule=LabelledData(make_split(images), batch_size=batch_size))
    handle.remove()
    return module


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
@pytest.mark.parametrize("pooling", [None, TokenMean(), LastLayers(n=2)])
def test_the_head_is_what_it_is_without(precision, pooling):
    once, always = (make_module(small_vit(), pooling=pooling, task=Classification(3, head_kind="mlp")) for _ in "ab")
    always.kept.possible = False
    counts: list[list[int]] = [[], []]
    for module, seen in zip((once, always), counts, strict=True):
        fit(module, precision=precision, seen=seen)
    assert counts == [[24], [24] + 9 * [8]]  # the second one measures what it standardises by
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if precision != "bf16-mixed" else {"rtol": 0.02, "atol": 0.02}
    for (name, a), b in zip(once.head.named_parameters(), always.head.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name, **tolerance)
    assert once.kept.vectors is None  # and no memory is held


MOVING = {
    "an encoder that learns": {"freezing": Full()},
    "statistics that move": {"freezing": Frozen(batch_norm="adapt")},
    "a pooling that learns": {"pooling": AttentionPooling(heads=2)},
    "new pixels in each pass": {"augmentation": Augmentation(erasing=1.0)},
}


@pytest.mark.parametrize("what", MOVING)
def test_what_a_step_or_a_pass_changes_is_computed_anew(encoder, what):
    seen: list[int] = []
    fit(make_module(encoder if "statistics" in what else small_vit(), **MOVING[what]), seen=seen)
    assert seen[-9:] == 9 * [8]


def test_it_is_not_done_where_it_does_not_pay_or_does_not_fit(monkeypatch):
    seen: list[int] = []
    fit(make_module(small_vit(), standardize=False), 2, seen=seen)
    assert seen == [8, 8]  # of 24 images
    monkeypatch.setattr(kept, "LIMIT", 24 * 4 * small_vit().embed_dim - 1)
    fit(make_module(small_vit(), standardize=False), seen=seen)
    assert seen == 11 * [8]


def test_images_are_not_even_read(monkeypatch):
    module, split = make_module(small_vit()), make_split(24)
    data, read = LabelledData(split, batch_size=8), []
    images = split.images
    monkeypatch.setattr(split, "images", lambda rows: (read.append(len(rows)), images(rows))[1])
    run.trainer(steps=9, accelerator="cpu", logger=False, enable_progress_bar=False).fit(module, datamodule=data)
    assert read.count(8) == 0
    assert read.count(24) >= 1


def test_more_images_than_are_encoded_at_once(monkeypatch):
    monkeypatch.setattr(kept, "_AT_ONCE", 7)
    seen: list[int] = []
    some = fit(make_module(small_vit()), seen=seen)
    assert seen == [7, 7, 7, 3]
    monkeypatch.undo()
    for a, b in zip(some.head.parameters(), fit(make_module(small_vit())).head.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
