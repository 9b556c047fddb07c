"""Augmentation for fine-tuning: drawn from the keys of the samples, and labels blended as images are."""

import pytest
import torch
import torch.nn.functional as F

from ssl_framework.downstream import Augmentation, Classification, Full, Regression
from ssl_framework.types import Batch

from .conftest import make_module, make_split

KEYS = torch.arange(6) + 100


def images(channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (6, channels, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_nothing_is_done_by_default():
    x, y = images(), torch.arange(6)
    none = Augmentation()
    assert none.raw(x, KEYS) is x
    assert none.normalised(x, KEYS) is x
    assert none.mixed(x, y, KEYS, 6) == (x, y)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_changed_by_its_own_key_alone(channels: int):
    x, strong = images(channels), Augmentation(operations=2, magnitude=9, erasing=0.9)
    whole = strong.raw(x, KEYS)
    assert whole.shape == x.shape
    assert whole.dtype == torch.uint8
    assert not torch.equal(whole, x)
    assert torch.equal(strong.raw(x[3:], KEYS[3:]), whole[3:])
    same = strong.raw(x[:1].expand(6, -1, -1, -1), KEYS)
    assert len(torch.unique(same.flatten(1), dim=0)) > 1  # another key, other operations
    floats = x.float()
    erased = strong.normalised(floats, KEYS)
    assert torch.equal(strong.normalised(floats[3:], KEYS[3:]), erased[3:])
    hidden = (erased == 0) & (floats != 0)
    assert 0 < hidden.float().mean() < 0.5
    assert torch.equal(erased[~hidden], floats[~hidden])


def test_the_state_of_torchs_generator_is_left_alone():
    before = torch.get_rng_state()
    strong = Augmentation(operations=1, mixup=1.0, cutmix=1.0, erasing=1.0)
    strong.raw(images(), KEYS)
    strong.normalised(images().float(), KEYS)
    strong.mixed(images().float(), torch.arange(6), KEYS, 6)
    assert torch.equal(torch.get_rng_state(), before)


def test_mixup_blends_labels_as_it_blends_images():
    x = F.one_hot(torch.arange(6), 6).float()[:, None, None, :].expand(6, 1, 4, 6)  # an image of its own label
    mixed, shares = Augmentation(mixup=0.8).mixed(x, torch.arange(6), KEYS, 6)
    assert torch.allclose(mixed[:, 0, 0], shares)
    assert torch.allclose(shares.sum(1), torch.ones(6))
    assert ((shares > 0).sum(1) == 2).all()


def test_cutmix_gives_labels_the_share_of_their_pixels():
    x = torch.arange(6.0)[:, None, None, None].expand(6, 1, 32, 32).contiguous()  # every pixel says whose it is
    for seed in range(5):
        mixed, shares = Augmentation(cutmix=1.0).mixed(x, torch.arange(6), KEYS + seed, 6)
        for image, share in zip(mixed, shares, strict=True):
            pixels = image.long().flatten().bincount(minlength=6) / image.numel()
            assert torch.allclose(pixels, share, atol=1e-6)


def test_both_take_turns():
    x = torch.arange(6.0)[:, None, None, None].expand(6, 1, 32, 32).contiguous()
    blends = [
        bool((mixed != mixed.round()).any())
        for mixed, _ in (Augmentation(mixup=1.0, cutmix=1.0).mixed(x, torch.arange(6), KEYS + s, 6) for s in range(20))
    ]
    assert 3 < sum(blends) < 17


def test_the_loss_takes_shares_of_labels():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 0])
    hard = F.one_hot(labels, 3).float()
    for task in (
        Classification(3),
        Classification(3, label_smoothing=0.1),
        Classification(3, class_weights="inverse", frequencies=(4, 2, 1)),
    ):
        assert torch.allclose(task.loss(logits, labels), task.loss(logits, hard))


def test_a_step_learns_from_augmented_samples(encoder):
    module = make_module(encoder, freezing=Full(), augmentation=Augmentation(operations=2, erasing=0.5, mixup=0.8, cutmix=1.0))
    split = make_split(12)
    batch = Batch(split.images(range(12)), split.targets, split.index, torch.zeros(12, dtype=torch.int64))
    x, shares = module._train_samples(batch)
    again, _ = module._train_samples(batch)
    assert torch.equal(x, again)
    other, _ = module._train_samples(batch._replace(epoch=batch.epoch + 1))
    assert not torch.equal(x, other)
    assert shares.shape == (12, 3)
    assert not torch.equal(x, module.views.center(batch.input))


def test_only_classes_can_be_blended(encoder):
    task = Regression(columns=("a",), mean=(0.0,), std=(1.0,))
    with pytest.raises(ValueError, match="mixup and cutmix blend labels of classes, and this is regression"):
        make_module(encoder, task=task, augmentation=Augmentation(mixup=0.2))
    make_module(encoder, task=task, augmentation=Augmentation(operations=1))


def test_numbers_that_make_no_sense_are_refused():
    for wrong in ({"operations": -1}, {"magnitude": 31}, {"mixup": -0.1}, {"erasing": 1.5}):
        with pytest.raises(ValueError, match="augmentation"):
            Augmentation(**wrong)
