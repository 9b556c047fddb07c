"""The audit stops what was found in the wild: each mistake is planted once, and named."""

import copy
import logging
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from ssl_framework import run
from ssl_framework.checkpoint import load_encoder, save_encoder
from ssl_framework.data import Labelled
from ssl_framework.downstream import AuditError, Frozen, Full, Gradual, LabelledData, LastN
from ssl_framework.downstream.freezing import Freezer
from ssl_framework.guards.agreement import RankAgreement
from ssl_framework.views import affine

from .conftest import PREPROCESSING, make_module, make_split, small_vit


def fit(module: Any, *callbacks: pl.Callback, steps: int = 4, **options: Any) -> None:
    trainer = run.trainer(
        steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=list(callbacks), **options
    )
    trainer.fit(module, datamodule=LabelledData(make_split(12), batch_size=4))


class At(pl.Callback):
    """Does something to the module once, at the end of the first step."""

    def __init__(self, mistake: Any) -> None:
        self.mistake = mistake

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == 1:
            self.mistake(pl_module)


def drifting(module: Any) -> None:
    for part in module.encoder.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean += 1e-7


def written_into(module: Any) -> None:
    with torch.no_grad():
        module.encoder.model.layer1[0].conv1.weight.mul_(1 + 1e-6)


def woken(module: Any) -> None:
    module.encoder.train()


def held(module: Any) -> None:
    """A second optimiser of all parameters: weight decay moves what has a gradient of zero too."""
    for parameter in module.encoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(module.encoder.parameters(), lr=1e-3, weight_decay=0.1).step()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (drifting, r"frozen tensors of the encoder changed while freezing=frozen trained: model.bn1.running_mean"),
        (written_into, r"1 frozen tensors of the encoder changed .* model.layer1.0.conv1.weight"),
        (woken, r"the encoder itself, model, .* should evaluate and are in training mode"),
        (held, r"\d\d frozen tensors of the encoder changed .* model.conv1.weight"),
    ],
)
def test_a_frozen_encoder_that_is_not(encoder, mistake, message):
    with pytest.raises(AuditError, match=message):
        fit(make_module(encoder, freezing=Frozen()), At(mistake))


def test_train_that_undoes_eval(encoder, monkeypatch):
    """A module whose ``train()`` forgets the policy, and a callback that calls it after a validation of its own."""
    module = make_module(encoder, freezing=Frozen())
    monkeypatch.setattr(module.freezer, "mode", module.encoder.train)
    with pytest.raises(AuditError, match="should evaluate and are in training mode"):
        fit(module, At(lambda module: module.eval().train()))


def test_train_that_keeps_the_policy(encoder):
    fit(make_module(encoder, freezing=Frozen()), At(lambda module: module.eval().train()))


def test_dropout_in_a_frozen_vision_transformer_leaves_no_hash_and_is_seen():
    module = make_module(small_vit(), freezing=Frozen())
    with pytest.raises(AuditError, match="should evaluate"):
        fit(module, At(woken))


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (lambda name: 1.0, r"encoder.model.layer4\S* .* have another learning rate than the policy says"),  # the head's rate
        (lambda name: 0.3 if "layer4" in name else 1.0, None),
        (
            lambda name: 1.0 if name.startswith("head.weight") else 0.3,
            r"head.task.linear.weight, head.task.linear.bias have another",
        ),
    ],
)
def test_the_rate_of_the_head_on_the_encoder(encoder, monkeypatch, rate, message):
    module = make_module(encoder, freezing=LastN(n=1, encoder_lr=0.3))
    monkeypatch.setattr(module, "_lr_scale", rate)
    if message is None:
        fit(module)
        return
    with pytest.raises(AuditError, match=message):
        fit(module)


def test_the_optimiser_holds_what_is_frozen_and_lacks_what_should_learn(encoder):
    module = make_module(encoder, freezing=LastN(n=1))
    module.encoder.model.conv1.weight.requires_grad_(True)
    with pytest.raises(AuditError, match=r"encoder.model.conv1.weight are frozen and in the optimiser"):
        fit(module)
    module = make_module(encoder, freezing=LastN(n=1))
    module.encoder.model.layer4[0].conv1.weight.requires_grad_(False)
    with pytest.raises(AuditError, match=r"encoder.model.layer4.0.conv1.weight should learn and are not in the optimiser"):
        fit(module)


def test_a_stranger_in_the_optimiser(encoder):
    module = make_module(encoder)
    groups = [{"params": [*module.head.parameters(), nn.Parameter(torch.zeros(2))], "lr_scale": 1.0}]
    with pytest.raises(AuditError, match=r"1 unknown tensors are in the optimiser and in neither encoder nor head"):
        module.audit.optimizer(groups)


class Save(pl.Callback):
    def __init__(self, path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_a_run_that_freezes_again_when_it_is_resumed(encoder, tmp_path, monkeypatch):
    """Two layers have been woken when the run is saved; resumed, the module stands where it was built."""
    policy = Gradual(every_epochs=0.6)
    fit(make_module(encoder, freezing=policy), Save(tmp_path / "a.ckpt", 5), steps=6)
    module = make_module(encoder, freezing=policy)
    monkeypatch.setattr(module.freezer, "enter", lambda stage: None)
    trainer = run.trainer(steps=8, accelerator="cpu", logger=False, enable_progress_bar=False)
    data = LabelledData(make_split(12), batch_size=4)
    with pytest.raises((AuditError, ValueError), match=r"resumed in another stage|parameter groups"):
        trainer.fit(module, datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)


def test_an_encoder_that_was_changed_between_save_and_resume(encoder, tmp_path):
    fit(make_module(encoder), Save(tmp_path / "a.ckpt", 2))
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    content["state_dict"]["encoder.model.conv1.weight"] += 1e-4
    torch.save(content, tmp_path / "b.ckpt")
    trainer = run.trainer(steps=4, accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(AuditError, match=r"1 frozen tensors .* model.conv1.weight"):
        trainer.fit(
            make_module(encoder),
            datamodule=LabelledData(make_split(12), batch_size=4),
            ckpt_path=tmp_path / "b.ckpt",
            weights_only=True,
        )


# What is loaded


def test_a_layer_that_lands_in_another_is_seen(encoder, tmp_path, monkeypatch):
    """Layers of one shape, shifted by one: strict loading has nothing to say."""
    from ssl_framework.checkpoint import encoder_file

    vit = small_vit()
    save_encoder(vit, tmp_path, preprocessing=PREPROCESSING, history={})
    strictly = encoder_file.load_strictly

    def shifted(module: nn.Module, tensors: dict[str, Any], source: str) -> None:
        swap = {"blocks.0.": "blocks.1.", "blocks.1.": "blocks.0."}
        names = {name: next((name.replace(a, b) for a, b in swap.items() if a in name), name) for name in tensors}
        strictly(module, {name: tensors[other] for name, other in names.items()}, source)

    monkeypatch.setattr(encoder_file, "load_strictly", shifted)
    with pytest.raises(ValueError, match="does not hold what the file does"):
        load_encoder(tmp_path)


def test_a_load_that_skips_in_silence_is_seen(tmp_path, monkeypatch):
    from ssl_framework.checkpoint import encoder_file

    save_encoder(small_vit(), tmp_path, preprocessing=PREPROCESSING, history={})
    monkeypatch.setattr(encoder_file, "load_strictly", lambda module, tensors, source: module.load_state_dict({}, strict=False))
    with pytest.raises(ValueError, match="does not hold what the file does"):
        load_encoder(tmp_path)


def test_the_normalisation_of_another_data_set(encoder):
    with pytest.raises(ValueError, match=r"views have mean=.* and the encoder was pretrained with mean"):
        make_module(encoder, views=affine(size=8, mean=(0.2,), std=PREPROCESSING["std"], views=1))


# What it reports


def test_it_says_what_learns_and_what_was_frozen(encoder, caplog):
    module = make_module(encoder, freezing=LastN(n=1))
    with caplog.at_level(logging.INFO):
        fit(module)
    report = module.audit.report()
    (stage,) = report["stages"]
    learning = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert stage["trainable_parameters"] == learning
    assert stage["trainable_share"] == pytest.approx(learning / sum(p.numel() for p in module.parameters()), abs=1e-6)
    assert len(report["frozen_sha256"]) == 64
    assert f"{learning:,} parameters learn" in module.audit.line()
    assert f"{stage['frozen_tensors']} frozen tensors" in module.audit.line()


def test_it_compares_the_images_with_those_of_pretraining(encoder):
    module = make_module(encoder)
    split = make_split(12)
    module.audit.images(split, module.views)
    found = module.audit.facts["images"]
    images = split.images(range(12)).float() / 255
    assert found["mean"] == [pytest.approx(float(images.mean()), abs=1e-4)]
    assert found["std"] == [pytest.approx(float(images.std()), abs=1e-4)]
    assert found["mean_differs_by_stds"] == pytest.approx(abs(float(images.mean()) - 0.5) / 0.25, abs=1e-3)
    assert found["size"] == found["pretraining_size"] == [8, 8]
    assert "from pretraining's" in module.audit.line()
    dark = Labelled(type(split.source)(split.images(range(12))[:, 0].numpy() * 0, split.targets.numpy()), (8, 8), split="train")
    module.audit.images(dark, module.views)
    assert "FAR" in module.audit.line()


def test_nothing_frozen_is_said_so(encoder):
    module = make_module(encoder, freezing=Full())
    fit(module)
    assert "nothing is frozen" not in module.audit.line() or module.audit.report()["frozen_sha256"] is None


def test_every_process_looks(encoder, monkeypatch):
    """A mistake of the second process alone stops both."""

    class Second(At):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            if trainer.global_step == 1 and trainer.global_rank == 1:
                written_into(pl_module)  # a buffer would be overwritten with the first process's

    monkeypatch.setattr(RankAgreement, "_compare", lambda *_: None)  # which would see it, too
    with pytest.raises(Exception, match="frozen tensors of the encoder changed"):
        fit(make_module(copy.deepcopy(encoder)), Second(None), devices=2, strategy="ddp_fork")


def test_the_policy_s_freezer_is_the_module_s(encoder):
    assert isinstance(make_module(encoder).freezer, Freezer)
