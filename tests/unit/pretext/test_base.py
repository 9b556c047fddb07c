import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import nn
from torch.utils.data import DataLoader

from ssl_framework import run
from ssl_framework.checkpoint import load_encoder
from ssl_framework.data import ArraySource, DataModule
from ssl_framework.encoders import resnet_micro, vit_micro
from ssl_framework.nn import Teacher
from ssl_framework.optim import adamw
from ssl_framework.pretext import BYOL, MAE, Card, PretextModule, Rotation, SimCLR
from ssl_framework.types import Batch, Step, Views
from ssl_framework.views import affine
from support import LinearEncoder, digits_data, fit, some_views, views_of


def digit_views(count: int = 2) -> Any:
    return affine(size=(8, 8), mean=(0.3,), std=(0.37,), views=count)


def simclr(**training: Any) -> SimCLR:
    torch.manual_seed(0)
    encoder = training.pop("encoder", None) or resnet_micro(in_chans=1, img_size=8)
    defaults = {"views": digit_views(), "optimizer": adamw(lr=1e-3)}
    return SimCLR(encoder, 16, 8, **{**defaults, **training})


class Unsaved(Checkpoint):
    """Nothing is saved, so any encoder will do."""


def quiet(**options: Any) -> dict[str, Any]:
    return {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", **options}


def test_a_task_works_without_a_trainer():
    step = SimCLR(resnet_micro(in_chans=1, img_size=8))(some_views("simclr"))
    assert step.loss.isfinite()


def test_a_trainer_that_counts_epochs_is_refused_with_the_remedy(tmp_path: Path):
    trainer = pl.Trainer(max_epochs=2, default_root_dir=tmp_path, enable_checkpointing=False, **quiet())
    with pytest.raises(ValueError, match=r"ssl_framework\.run\.trainer\(epochs="):
        trainer.fit(simclr(), digits_data())


def test_another_branch_than_the_card_names_is_refused(tmp_path: Path):
    class Astray(BYOL):
        def exported(self) -> nn.Module:
            return next(part for part in self.modules() if isinstance(part, Teacher)).module.get_submodule("encoder")

    encoder = resnet_micro(in_chans=1, img_size=8)
    task = Astray(encoder, hidden_dim=16, projection_dim=8, views=digit_views(), optimizer=adamw(lr=1e-3))
    with pytest.raises(ValueError, match=r"Astray.exported\(\) gives the teacher's encoder, .* exports='student'"):
        fit(task, digits_data(), 1, tmp_path)


@pytest.mark.parametrize("missing", ["views", "optimizer"])
def test_what_is_missing_is_named(missing: str, tmp_path: Path):
    with pytest.raises(ValueError, match=rf"SimCLR needs .*{missing}"):
        fit(simclr(**{missing: None}), digits_data(), 1, tmp_path)


def test_mae_of_a_resnet_is_refused_at_construction_with_encoders_that_can():
    with pytest.raises(ValueError, match=r"MAE hides tokens .*=vit_micro"):
        MAE(resnet_micro(in_chans=1, img_size=8))


def test_too_few_views_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"SimCLR compares 2 views .* make 1"):
        fit(simclr(views=digit_views(1)), digits_data(), 1, tmp_path)


def test_a_base_class_alone_says_what_is_missing():
    with pytest.raises(TypeError, match=r"forward\(views\)"):
        PretextModule(LinearEncoder(4, 2))(views_of(torch.zeros(1, 2, 4)))


def test_a_plain_loader_trains_and_says_that_it_is_not_exactly_resumable(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    images = digits_data().split("train").images(range(32))
    batches = [Batch(images[i : i + 8], None, torch.arange(i, i + 8)) for i in range(0, 32, 8)]
    loader: Any = DataLoader(batches, batch_size=None)
    module = simclr()
    trainer = run.trainer(steps=6, default_root_dir=tmp_path, **quiet())
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice about workers and validation
        trainer.fit(module, loader)
    assert trainer.global_step == 6
    assert "not exactly resumable" in caplog.text


class Noisy(PretextModule):
    """Its loss is a dropout mask: it shows which random numbers a step got."""

    card = Card("generative", "test", "noise", "nothing", "nobody", "none", views=1)

    def __init__(self, **training: Any) -> None:
        super().__init__(resnet_micro(in_chans=1, img_size=8), **training)
        self.seen: list[torch.Tensor] = []

    def forward(self, views: Views) -> Step:
        h = self.encoder(views.global_crops[0]).pooled
        self.seen.append(torch.rand(3))
        return Step(nn.functional.dropout(h, 0.5, self.training).square().mean(), embedding=h)


def noise(folder: Path, steps: int, resume: Path | None = None) -> Noisy:
    module = Noisy(views=digit_views(1), optimizer=adamw(lr=1e-3), seed=3)
    fit(module, digits_data(), steps, folder, resume=resume)
    return module


def test_dropout_is_drawn_anew_each_step_and_the_same_after_a_resume(tmp_path: Path):
    whole = noise(tmp_path / "a", 6).seen
    noise(tmp_path / "b", 3)
    torch.manual_seed(999)  # the global generator's past does not matter
    rest = noise(tmp_path / "b", 6, resume=tmp_path / "b" / "checkpoints" / "step-000000003.ckpt").seen
    assert len({tuple(x.tolist()) for x in whole}) == 6
    assert torch.equal(torch.stack(rest), torch.stack(whole[3:]))


def test_micro_batches_of_one_step_draw_different_dropout(tmp_path: Path):
    module = Noisy(views=digit_views(1), optimizer=adamw(lr=1e-3))
    fit(module, digits_data(), 2, tmp_path, accumulate=2)
    assert len({tuple(x.tolist()) for x in module.seen}) == 4


def test_targets_never_reach_a_task(tmp_path: Path):
    data, seen = digits_data(), []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Batch, batch_idx: int) -> None:
            seen.append(batch.target)

    fit(simclr(), data, 2, tmp_path, callbacks=[Look()])
    assert seen == [None, None]


def test_teacher_moves_inside_the_optimizer_step(tmp_path: Path):
    """After step k the teacher is what the closed form says, already when callbacks look."""
    torch.manual_seed(0)
    module = BYOL(LinearEncoder(64, 4), 8, 4, momentum=0.5, views=digit_views(), optimizer=adamw(lr=1e-2, scale_lr="none"))
    expected = [module.teacher.module.encoder.linear.weight.detach().clone()]
    differences = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            student = pl_module.encoder.linear.weight.detach()
            momentum = 1 - 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (trainer.global_step - 1) / 4)).item()) / 2
            expected.append(momentum * expected[-1] + (1 - momentum) * student)
            differences.append((expected[-1] - pl_module.teacher.module.encoder.linear.weight).abs().max().item())

    fit(module, digits_data(), 4, tmp_path, callbacks=[Look(), Unsaved()])
    assert len(differences) == 4
    assert max(differences) < 1e-6


def test_teacher_is_in_no_parameter_group(tmp_path: Path):
    module = BYOL(LinearEncoder(64, 4), 8, 4, views=digit_views(), optimizer=adamw(lr=1e-3))
    trainer = fit(module, digits_data(), 1, tmp_path, callbacks=[Unsaved()])
    optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert optimised == {id(p) for p in module.parameters() if p.requires_grad}
    assert not optimised & {id(p) for p in module.teacher.parameters()}


def test_the_card_says_whose_encoder_is_exported():
    module = BYOL(LinearEncoder(64, 4), 8, 4)
    assert module.exported() is module.encoder

    class TeacherOut(BYOL):
        card = Card("predictive", "test", "x", "x", "x", "x", views=2, exports="teacher")

    module = TeacherOut(LinearEncoder(64, 4), 8, 4)
    assert module.exported() is module.teacher.module.encoder
    assert isinstance(module.teacher, Teacher)


def test_validation_loss_is_logged_and_always_the_same_views(tmp_path: Path):
    values, trained = [], []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
            trained.append(outputs["loss"].item())

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            values.append(trainer.callback_metrics["val/loss"].item())

    module = simclr(encoder=LinearEncoder(64, 4), optimizer=adamw(lr=1e-12, weight_decay=0.0))
    module.projector = nn.Linear(4, 4)  # without BatchNorm nothing moves at this rate
    fit(module, digits_data(), 3, tmp_path, val_every=1, callbacks=[Look(), Unsaved()])
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)
    assert len({round(loss, 4) for loss in trained}) == 3


def test_the_learning_rate_logged_is_the_one_used(tmp_path: Path):
    used, logged = [], []

    class Look(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            used.append(optimizer.param_groups[0]["lr"])

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            logged.append(trainer.callback_metrics["lr"].item())

    fit(simclr(), digits_data(), 5, tmp_path, callbacks=[Look()], log_every_n_steps=1)
    assert logged == pytest.approx(used, rel=1e-6)
    assert len(set(used)) == 5


def test_compile_keeps_the_names_of_the_weights():
    module = Rotation(vit_micro(in_chans=1, img_size=8, patch_size=2), compile=True)
    assert not any("_orig_mod" in name for name in module.state_dict())


@pytest.mark.parametrize("asked", [True, False])
def test_convolutions_are_stored_channels_last_and_saved_as_usual(asked: bool, tmp_path: Path):
    module = simclr(channels_last=asked)
    fit(module, digits_data(), 1, tmp_path)
    convolution = module.encoder.model.layer1[0].conv2.weight
    assert convolution.is_contiguous(memory_format=torch.channels_last) is asked
    assert convolution.is_contiguous() is not asked
    again = load_encoder(tmp_path).encoder
    assert torch.equal(again.model.layer1[0].conv2.weight, convolution)


@pytest.mark.parametrize("asked", [True, False])
def test_views_have_the_layout_of_the_weights(asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    views = affine(size=(8, 8), mean=(0.3,) * 3, std=(0.4,) * 3)
    module, seen = SimCLR(resnet_micro(3, 8), 32, 16, views=views, optimizer=adamw(), channels_last=asked), []
    forward = module.forward
    monkeypatch.setattr(module, "forward", lambda views: seen.append(views.global_crops[0]) or forward(views))
    images = np.random.default_rng(0).integers(0, 255, (64, 8, 8, 3), np.uint8)
    fit(module, DataModule(ArraySource(images), batch_size=32, name="noise"), 1, tmp_path)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) is asked
    assert seen[0].is_contiguous() is not asked


def test_tensors_of_five_dimensions_keep_their_layout():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.Conv3d(3, 4, 2))
    module.trainer = SimpleNamespace(strategy=None)
    run.keep_channels_last(module)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert module[1].weight.is_contiguous()


def test_only_steps_that_reach_the_loggers_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module, steps = simclr(), []
    monkeypatch.setattr(
        module, "log", lambda name, *_, **__: steps.append(module.trainer.global_step) if name == "lr" else None
    )
    fit(module, digits_data(), 7, tmp_path, log_every_n_steps=3)
    assert steps == [0, 2, 5, 6]


def test_the_fused_optimiser_is_left_out_where_gradients_are_scaled(tmp_path: Path):
    module = simclr()
    fit(module, digits_data(), 1, tmp_path)
    assert all(group["fused"] for group in module.trainer.optimizers[0].param_groups)
    module.trainer.strategy.precision_plugin.precision = "16-mixed"
    assert not any(group["fused"] for group in module.configure_optimizers()["optimizer"].param_groups)
