import pytest
import torch
from pytorch_lightning.callbacks import Callback

from ssl_framework import run
from ssl_framework.data import digits
from ssl_framework.downstream import Classification, Frozen, Full, LabelledData, fingerprint
from ssl_framework.downstream.heads import Standardization
from ssl_framework.encoders import RawPixels, resnet_micro
from ssl_framework.views import affine
from support import LinearEncoder

from .conftest import PREPROCESSING, make_module, make_split


def _trainer(steps, **options):
    return run.trainer(steps=steps, accelerator="cpu", **{"logger": False, "enable_progress_bar": False, **options})


def _views():
    return affine(**{name: PREPROCESSING[name] for name in ("size", "mean", "std")}, views=1)


def test_it_learns_and_reports_each_split(encoder):
    module = make_module(encoder, freezing=Full())
    data = LabelledData(make_split(30), make_split(9, name="val", seed=1), make_split(21, name="test", seed=2), batch_size=15)
    trainer = _trainer(30, val_every=15)
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["val/accuracy"] > 0.9
    assert data.position == 30
    result = trainer.test(module, datamodule=data, verbose=False)[0]
    assert result["test/accuracy"] > 0.9
    measured = module.measure(data.test, batch_size=4)
    assert measured["accuracy"] == pytest.approx(result["test/accuracy"], abs=1e-6)
    assert measured["loss"] == pytest.approx(result["test/loss"], rel=1e-5)


@pytest.mark.parametrize("asked", [True, False])
def test_the_layout_is_the_one_that_was_asked_for(asked: bool):
    module = make_module(resnet_micro(in_chans=1, img_size=8), freezing=Full(), channels_last=asked)
    _trainer(1, val_every=0).fit(module, datamodule=LabelledData(make_split(8), batch_size=4))
    assert module.encoder.model.layer1[0].conv2.weight.is_contiguous(memory_format=torch.channels_last) is asked


def test_the_head_reads_what_is_standardised_over_the_labels_to_learn_from(encoder):
    module, split = make_module(encoder), make_split(24)
    with torch.no_grad():
        x = module.encoder.eval()(module.views.center(split.images(range(24)))).pooled
    module.train()
    _trainer(2).fit(module, datamodule=LabelledData(split, batch_size=8))
    std = x.std(0, correction=0)
    torch.testing.assert_close(module.head.standard.mean, x.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        module.head.standard.std, std.clamp(min=0.1 * float(std.square().mean().sqrt())), rtol=1e-3, atol=1e-5
    )
    for options in ({"standardize": False}, {"freezing": Full()}, {"freezing": Frozen(batch_norm="adapt")}):
        plain = make_module(encoder, **options)  # what was measured of an encoder that moves would not hold
        _trainer(2).fit(plain, datamodule=LabelledData(split, batch_size=8))
        assert torch.equal(plain.head.standard.std, torch.ones(encoder.embed_dim))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_an_encoder_s_vectors_does_not_matter(scale):
    def read(factor: float) -> torch.Tensor:
        torch.manual_seed(0)
        x = factor * torch.randn(50, 6)
        x[:, 2] = factor  # a dimension that never moves
        standard = Standardization(6)
        standard.measure(x.split(16))
        assert torch.equal(standard(x)[:, 2], torch.zeros(50)) or float(standard(x)[:, 2].abs().max()) < 1e-4
        return standard(x)

    torch.testing.assert_close(read(scale), read(1.0), rtol=1e-3, atol=1e-4)
    standard = Standardization(3)
    standard.measure([torch.full((1, 3), scale)])  # one image has no deviation
    assert torch.equal(standard.std, torch.ones(3))


def test_measure_is_the_plain_mean_and_leaves_no_trace(encoder):
    module = make_module(encoder).train()
    split = make_split(11, name="test")
    with torch.no_grad():
        logits = module.eval()(split.images(range(11)))
    module.train()
    expected = (logits.argmax(1) == split.targets).float().mean()
    loss = torch.nn.functional.cross_entropy(logits, split.targets)
    for size in (3, 100):
        measured = module.measure(split, batch_size=size)
        assert measured["accuracy"] == pytest.approx(float(expected))
        assert measured["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert module.training
    assert module.head.training


def test_the_head_is_drawn_from_the_seed_alone(encoder):
    state = torch.get_rng_state()
    first, again, other = (make_module(encoder, seed=seed).head for seed in (0, 0, 1))
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    assert torch.equal(state, torch.get_rng_state())


def test_cut_takes_layers_off(encoder):
    whole, cut = make_module(encoder), make_module(encoder, cut=2)
    assert (whole.encoder.num_layers, cut.encoder.num_layers) == (4, 2)
    assert cut.head.task.linear.in_features == cut.encoder.embed_dim < whole.encoder.embed_dim
    assert cut(make_split(4).images(range(4))).shape == (4, 3)
    for k in (-1, 4):
        with pytest.raises(ValueError, match=f"cut={k}"):
            make_module(encoder, cut=k)


class _StopAt(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


@pytest.mark.parametrize("freezing", [Frozen, Full])
def test_a_resumed_run_equals_the_uninterrupted_one(encoder, freezing, tmp_path):
    def start():
        return make_module(encoder, freezing=freezing(), views=_views()), LabelledData(make_split(10), batch_size=4)

    whole, data = start()
    _trainer(6).fit(whole, datamodule=data)
    first, data = start()
    trainer = _trainer(6, callbacks=[_StopAt(3, tmp_path / "half.ckpt")])
    trainer.fit(first, datamodule=data)
    assert trainer.global_step == 3
    second, data = start()
    _trainer(6).fit(second, datamodule=data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert data.position == 6
    assert fingerprint(second.encoder) == fingerprint(whole.encoder)
    assert fingerprint(second.head) == fingerprint(whole.head) != fingerprint(first.head)


def test_the_checkpoint_of_another_run_is_refused(encoder, tmp_path):
    data = LabelledData(make_split(10), batch_size=5)
    _trainer(2, callbacks=[_StopAt(1, tmp_path / "a.ckpt")]).fit(make_module(encoder), datamodule=data)
    cases = {"freezing": {"freezing": Full()}, "cut": {"cut": 1}, "task": {"task": Classification(3, label_smoothing=0.1)}}
    for name, change in cases.items():
        module = make_module(encoder, **change)
        with pytest.raises(ValueError, match=f"trained with {name}="):
            module.on_load_checkpoint(torch.load(tmp_path / "a.ckpt", weights_only=True))
    with pytest.raises(ValueError, match="trained with"):
        _trainer(2).fit(make_module(encoder, cut=1), datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)


def test_augmentation_differs_between_passes_and_not_in_evaluation(encoder):
    seen = []

    class Spy(LinearEncoder):
        def forward(self, x, *, layers=()):
            seen.append(x.clone())
            return super().forward(x)

    module = make_module(Spy(64, 4), views=_views(), standardize=False)
    seen.clear()  # the policy had a look at the layers
    data = LabelledData(make_split(4), batch_size=4)
    _trainer(2).fit(module, datamodule=data)
    order = [
        torch.argsort(batch.index)
        for batch, _ in zip(LabelledData(make_split(4), batch_size=4).train_dataloader(), "ab", strict=False)
    ]
    first, second = (x[rows] for x, rows in zip(seen, order, strict=True))
    assert not torch.allclose(first, second)
    images = make_split(4).images(range(4))
    module(images)
    assert torch.allclose(seen[-1], (images.float() / 255 - 0.5) / 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"preprocessing": {**PREPROCESSING, "mean": [0.5] * 3, "std": [0.5] * 3, "channels": 3}},
            "3 channels and these images have 1",
        ),
        ({"task": Classification(2)}, "labels run from 0 to 2"),
        ({"optimizer": None}, "needs an optimizer"),
    ],
)
def test_what_would_train_wrongly_is_refused_early(encoder, change, message):
    colour = len(change.get("preprocessing", PREPROCESSING)["mean"]) == 3
    module = make_module(resnet_micro(3, 8) if colour else encoder, **change)
    with pytest.raises(ValueError, match=message):
        _trainer(1).fit(module, datamodule=LabelledData(make_split(6)))


def test_user_errors_have_remedies(encoder):
    colour = {**PREPROCESSING, "mean": [0.5] * 3, "std": [0.5] * 3, "channels": 3}
    with pytest.raises(ValueError, match="the encoder takes 1 channel, and preprocessing is for 3: give the one of its file"):
        make_module(encoder, preprocessing=colour)
    with pytest.raises(ValueError, match="at least 2"):
        Classification(1)
    with pytest.raises(ValueError, match="label_smoothing"):
        Classification(2, label_smoothing=1.0)
    with pytest.raises(ValueError, match="every label is 0"):
        make_module(encoder).measure(make_split(3, classes=1))
    with pytest.raises(ValueError, match="views have mean"):
        make_module(encoder, views=affine(size=8, mean=(0.1,), std=(0.25,)))
    with pytest.raises(ValueError, match="LabelledData"):
        _trainer(1).fit(make_module(encoder), datamodule=digits())


def test_a_trainer_that_counts_epochs_is_refused(encoder):
    import pytorch_lightning as pl

    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="does not count steps"):
        trainer.fit(make_module(encoder), datamodule=LabelledData(make_split(6)))


def test_an_encoder_without_weights_has_a_head_that_learns():
    module = make_module(RawPixels(1, 8), freezing=Full())
    _trainer(40).fit(module, datamodule=LabelledData(make_split(30), batch_size=30))
    assert module.measure(make_split(9, name="test", seed=5))["accuracy"] == 1.0


def test_two_processes_equal_one():
    """The mean gradient over processes is that of the whole batch, and test counts every sample once."""

    def fit(devices):
        torch.manual_seed(0)
        module = make_module(LinearEncoder(64, 5), freezing=Full())
        data = LabelledData(make_split(12), None, make_split(9, name="test", seed=4), batch_size=4, eval_batch_size=4)
        options = {"devices": 2, "strategy": "ddp_fork"} if devices == 2 else {}
        trainer = _trainer(4, **options)
        trainer.fit(module, datamodule=data)
        return module, trainer.test(module, datamodule=data, verbose=False)[0]

    (alone, one), (together, two) = fit(1), fit(2)
    for a, b in zip(alone.parameters(), together.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert one["test/accuracy"] == pytest.approx(two["test/accuracy"], abs=1e-6)
    assert one["test/loss"] == pytest.approx(two["test/loss"], rel=1e-5)
