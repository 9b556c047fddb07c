"""What every pretext task must keep, for each YAML found on disk."""

import ast
import copy
import inspect
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from ssl_framework.checkpoint import SaveRun, last_checkpoint, load_encoder
from ssl_framework.encoders import vit_micro
from ssl_framework.nn import Follower, Teacher
from ssl_framework.optim import adamw
from ssl_framework.pretext import PretextModule
from ssl_framework.types import Batch, Step
from ssl_framework.views import affine
from support import (
    KINDS_FIRST,
    TASKS,
    MapEncoder,
    accepts,
    bits,
    channels,
    digits_data,
    fit,
    in_a_child,
    narrow,
    pretext_yaml,
    small,
    some_views,
    task_class,
)

every_task = pytest.mark.parametrize("task", TASKS)


def test_there_are_tasks():
    assert {"simclr", "byol", "mae", "rotation"} <= set(TASKS)


@every_task
def test_yaml_lists_every_plain_argument_with_the_same_default(task: str):
    listed = {name: value for name, value in pretext_yaml(task)["pretext"].items() if name != "_target_"}
    assert listed == {name: parameter.default for name, parameter in accepts(task_class(task).__init__).items()}


@every_task
def test_yaml_selects_groups_and_sets_keys_only_under_pretext(task: str):
    config = pretext_yaml(task)
    assert set(config) == {"defaults", "pretext"}
    assert all(key.startswith("override /") for entry in config["defaults"] for key in entry)


@every_task
def test_loss_is_a_finite_scalar(task: str):
    step = small(task)(some_views(task))
    assert isinstance(step, Step)
    assert step.loss.shape == ()
    assert step.loss.isfinite()
    assert step.embedding.shape[1] == small(task).encoder.embed_dim
    assert step.embedding.shape[0] % 8 == 0


@every_task
def test_gradients_reach_the_encoder_and_everything_trainable_and_no_teacher(task: str):
    module = small(task)
    module.progress = 0.5  # past the warm-up, in which some prototypes stand still
    module(some_views(task)).loss.backward()
    without = [name for name, p in module.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # a bias before a BatchNorm has no gradient but rounding
    assert [name for name in without if not name.endswith("bias")] == []
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
    assert any(p.grad is not None and p.grad.any() for p in module.encoder.parameters())
    for follower in (m for m in module.modules() if isinstance(m, Follower)):
        assert all(p.grad is None and not p.requires_grad for p in follower.parameters())


@every_task
def test_loss_falls_on_one_batch(task: str):
    module, views = small(task), some_views(task, batch=16)
    optimizer = torch.optim.Adam((p for p in module.parameters() if p.requires_grad), lr=2e-3)
    losses: list[float] = []
    for _ in range(40):
        loss = module(views).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@every_task
def test_same_seed_same_bits_and_another_seed_others(task: str, tmp_path: Path):
    states = []
    for number, seed in enumerate((0, 0, 1)):
        module = small(task, seed=seed)
        fit(module, digits_data(task, seed=seed), 3, tmp_path / str(number))
        states.append(bits(module.state_dict()))
    assert states[0] == states[1]
    assert states[0] != states[2]


@every_task
def test_state_goes_round(task: str, tmp_path: Path):
    module = small(task)
    fit(module, digits_data(task), 3, tmp_path)
    other = small(task, seed=1).to(memory_format=torch.channels_last)  # another layout sums in another order
    other.load_state_dict(copy.deepcopy(module.state_dict()), strict=True)
    other.progress = module.progress  # the Trainer knows it
    views = some_views(task)
    assert torch.equal(module.eval()(views).loss, other.eval()(views).loss)


@pytest.mark.promise("R1", "task whose state holds all that changes")
@every_task
def test_nothing_that_changes_is_left_out_of_the_state(task: str, tmp_path: Path):
    """An attribute that moves in training and is not in `state_dict` would be lost on resume."""

    def attributes(module: torch.nn.Module) -> dict[str, str]:
        known = set(module.state_dict()) | {name for name, _ in module.named_parameters()}
        skip = {"training", "_trainer", "trainer", "_parameters", "_buffers", "_modules", "progress"}
        found = {}
        for prefix, child in module.named_modules():
            for name, value in vars(child).items():
                lightning = isinstance(child, pl.LightningModule) and name in vars(pl.LightningModule())
                if name in skip or lightning or f"{prefix}.{name}".lstrip(".") in known:
                    continue
                if isinstance(value, torch.Tensor | int | float | str | tuple | list | dict):
                    found[f"{prefix}.{name}"] = repr(value)
            for name, value in child.named_buffers(recurse=False):
                if f"{prefix}.{name}".lstrip(".") not in known:
                    found[f"{prefix}.{name} (buffer)"] = bits(value)
        return found

    module = small(task)
    before = attributes(module)
    fit(module, digits_data(task), 3, tmp_path)
    after = attributes(module)
    assert {name for name in before if before[name] != after.get(name)} == set()


@every_task
def test_the_card_says_whether_tokens_are_needed(task: str):
    cls = task_class(task)
    numbers = {name: value for name, value in pretext_yaml(task)["pretext"].items() if name != "_target_"}
    if not cls.card.needs_tokens:
        small(task, encoder=MapEncoder(6, channels(task)))
        return
    with pytest.raises(ValueError, match="take a vision transformer, encoder=vit_micro, vit_tiny or vit_small"):
        cls(MapEncoder(6), **numbers)


@every_task
def test_the_card_says_whether_colour_is_needed(task: str):
    cls = task_class(task)
    if not cls.card.needs_colour:
        assert some_views(task).global_crops.shape[2] == 1  # the other tests train it on grey images
        return
    with pytest.raises(ValueError, match=r"encoder is for images of 1 channel: take colour images, data=cifar10"):
        cls(MapEncoder(6, 1))


NOT_POSITIVE = {
    "temperature", "teacher_temperature", "final_teacher_temperature", "sharpness", "epsilon", "sigma", "negatives", "stride",
    "bins", "cells", "directions", "neighbours", "prototypes", "queue_size",
}  # fmt: skip


@every_task
def test_numbers_that_turn_a_loss_around_are_refused(task: str):
    """Zero and less, by name; a queue may be left out where 0 says so."""
    for name in NOT_POSITIVE & narrow(task).keys():
        for value in (0, -1):
            if (task, name, value) in {("swav", "queue_size", 0), ("dcl", "sigma", 0)}:
                continue
            encoder = small(task).encoder
            with pytest.raises(ValueError, match=rf"{name}={value}\b"):
                task_class(task)(encoder, **{**narrow(task), name: value}, views=small(task).views)


@every_task
def test_the_card_says_whether_the_class_token_is_trained(task: str):
    """A gradient reaches the vector of a vision transformer, or that transformer is refused."""
    cls = task_class(task)
    encoder = vit_micro(in_chans=channels(task), img_size=24, patch_size=2, pool="cls").cut(5)
    views = affine(size=(24, 24), mean=(0.3,) * channels(task), std=(0.37,) * channels(task), views=cls.card.views)
    if not cls.card.class_token:
        with pytest.raises(ValueError, match=r"does not train the class token, .* take encoder.pool=mean"):
            cls(encoder, **narrow(task), views=views)
        return
    module, pooled = cls(encoder, **narrow(task), views=views), []
    encoder.register_forward_hook(lambda _, __, seen: pooled.append(seen.pooled))
    index = torch.arange(8)
    images = torch.rand(8, channels(task), 24, 24, generator=torch.Generator().manual_seed(0)) * 255
    loss = module(views.apply(Batch(images.byte(), None, index), views.draw(index, 0))).loss
    found = torch.autograd.grad(loss, [x for x in pooled if x.requires_grad], allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in found)


class Kill(pl.Callback):
    """SIGKILL, as an out-of-memory killer or a scheduler sends it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.promise("R1", "SIGKILL, twice in a run: the same bits in the end")
@pytest.mark.parametrize("task", KINDS_FIRST)
def test_killed_in_the_middle_of_an_epoch_it_ends_on_the_same_bits(task: str, tmp_path: Path):
    """Twelve steps are over two epochs, saved every 3; killed in step 4 before the optimiser moves, and again in step 8."""

    def train(folder: Path, kill_at: int | None = None, resume: Path | None = None) -> tuple[PretextModule, Any]:
        module, data = small(task), digits_data(task, batch_size=32, val_share=0.9)
        callbacks: list[Any] = [SaveRun(every_n_steps=3)] + ([Kill(kill_at)] if kill_at else [])
        trainer = fit(module, data, 12, folder, resume=resume, callbacks=callbacks)
        state = {"model": module.state_dict(), "optimizer": trainer.optimizers[0].state_dict(), "position": data.position}
        return module, state

    _, expected = train(tmp_path / "whole")
    folder = tmp_path / "killed"
    assert in_a_child(lambda: train(folder, kill_at=4)) == signal.SIGKILL
    assert last_checkpoint(folder).name == "step-000000003.ckpt"
    assert in_a_child(lambda: train(folder, kill_at=8, resume=last_checkpoint(folder))) == signal.SIGKILL
    assert last_checkpoint(folder).name == "step-000000006.ckpt"
    _, resumed = train(folder, resume=last_checkpoint(folder))
    assert bits(resumed) == bits(expected)


@every_task
def test_saved_encoder_gives_the_same_embeddings(task: str, tmp_path: Path):
    module = small(task)
    fit(module, digits_data(task), 3, tmp_path)
    loaded, _, history, _ = load_encoder(tmp_path)
    x = some_views(task).global_crops[0]
    assert isinstance(loaded, torch.nn.Module)
    assert history["branch"] == module.card.exports
    teachers = [part.module.get_submodule("encoder") for part in module.modules() if isinstance(part, Teacher)]
    kept = module.encoder if module.card.exports == "student" else teachers[0]
    loaded.to(memory_format=torch.channels_last)  # as it was trained: another layout sums in another order
    with torch.no_grad():
        assert torch.equal(loaded.eval()(x).pooled, kept.eval()(x).pooled)


@every_task
def test_accumulated_batches_move_followers_once_a_step(task: str, tmp_path: Path):
    module = small(task)
    calls: list[float] = []
    for follower in (m for m in module.modules() if isinstance(m, Follower)):
        follower.follow = calls.append
    followers = sum(isinstance(m, Follower) for m in module.modules())
    fit(module, digits_data(task), 2, tmp_path, accumulate=3)
    assert len(calls) == 2 * followers


@every_task
def test_trains_in_bf16(task: str, tmp_path: Path):
    module = small(task, optimizer=adamw(lr=1e-3, scale_lr="none"))
    fit(module, digits_data(task, batch_size=32), 2, tmp_path, precision="bf16-mixed")
    assert all(p.isfinite().all() for p in module.parameters())
    assert all(p.dtype == torch.float32 for p in module.parameters())


@pytest.mark.slow
@every_task
def test_trains_in_double_precision(task: str, tmp_path: Path):
    module = small(task, optimizer=adamw(lr=1e-3, scale_lr="none"))
    fit(module, digits_data(task, batch_size=32), 2, tmp_path, precision="64-true")
    assert all(p.isfinite().all() and p.dtype == torch.float64 for p in module.parameters())


@every_task
def test_a_task_is_short_and_overrides_no_hook(task: str):
    cls = task_class(task)
    path = Path(inspect.getfile(cls))
    tree = ast.parse(path.read_text())
    documentation = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    code = {
        number
        for number, text in enumerate(path.read_text().splitlines(), 1)
        if text.strip() and not text.strip().startswith("#") and number not in documentation
    }
    assert len(code) < 100
    own = {name for name in vars(cls) if not name.startswith("__")}
    assert "card" in own
    assert "forward" in own
    assert own & (set(dir(PretextModule)) - {"card", "forward"} - {n for n in own if n.startswith("_abc")}) == set()
    assert path.stem == task
    assert path.parent.name == cls.card.family
