"""What moves without a gradient, and what is hidden: teachers, queues, banks and masks of every task on disk.

Centres, banks and clusters by their formulas are in `tests/parity`, teachers and masks by themselves in `tests/unit/nn`.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from invariants import build, difference, exact_views, followers
from ssl_framework.encoders import vit_micro
from ssl_framework.nn import Follower, Queue, Teacher
from ssl_framework.optim import adamw
from support import TASKS, MapEncoder, channels, digits_data, fit, pretext_yaml, small, task_class

PARTS = {task: {type(follower) for follower in followers(small(task, encoder=MapEncoder(6, channels(task))))} for task in TASKS}
WITH_FOLLOWERS = [task for task in TASKS if PARTS[task]]
WITH_TEACHER = [task for task in TASKS if Teacher in PARTS[task]]
WITH_QUEUE = [task for task in TASKS if Queue in PARTS[task]]
PAINTED = [task for task in TASKS if task_class(task).card.family == "generative" and task_class(task).card.group == "masked"]
HIDDEN = [task for task in TASKS if "mask_ratio" in pretext_yaml(task)["pretext"]]
LOOKS_AROUND = {"maskfeat": "the gradient at the border of a patch looks at the patch beside it"}


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def teachers(module: nn.Module) -> list[Any]:
    return [child for child in module.modules() if isinstance(child, Teacher)]


# Nothing flows back


def kept(value: object) -> Iterator[Tensor]:
    """Every tensor in lists of tuples of tensors."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from kept(item)


def attached(follower: Follower) -> list[str]:
    """Of what it holds and what it staged: what hangs on a gradient."""
    held = {
        **dict(follower.named_parameters()),
        **dict(follower.named_buffers()),
        **{k: v for k, v in vars(follower).items() if k[0] == "_"},
    }
    skipped = {"_student", "_parameters", "_buffers", "_modules"}  # the student learns; the others hold what is named already
    return [k for k, v in held.items() if k not in skipped and any(x.requires_grad or x.grad is not None for x in kept(v))]


@pytest.mark.parametrize("task", WITH_FOLLOWERS)
def test_what_follows_hangs_on_no_gradient(task: str):
    module, views = build(task), exact_views(task)
    for _ in range(2):
        module(views).loss.backward()
        assert {type(follower).__name__: attached(follower) for follower in followers(module) if attached(follower)} == {}
        for follower in followers(module):
            follower.follow(0.5)
    assert {type(follower).__name__: attached(follower) for follower in followers(module) if attached(follower)} == {}


@pytest.mark.parametrize("task", WITH_TEACHER)
def test_another_target_is_another_loss_but_no_gradient(task: str):
    """Even of a teacher that somebody forgot to freeze."""
    module, views = build(task), exact_views(task)
    expected, shifts = module(views).loss, []

    def shift(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return type(value)(shift(item) for item in value)
        shifts.append((0.1 * torch.randn_like(value)).requires_grad_())
        return value + shifts[-1]

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return shift(output)

    for teacher in teachers(module):
        teacher.requires_grad_()
        teacher.module.register_forward_hook(hook)
    loss = module(views).loss
    loss.backward()
    assert difference(loss, expected) > 1e-6
    assert shifts
    assert all(x.grad is None for x in shifts)
    assert all(p.grad is None for teacher in teachers(module) for p in teacher.parameters())


# Teachers


@pytest.mark.parametrize("task", WITH_TEACHER)
def test_teachers_are_moving_averages_and_nothing_else(task: str, tmp_path: Path):
    """After every step of a training what the closed form says, of all weights; no optimiser knows them."""
    steps, module = 3, small(task, optimizer=adamw(lr=0.1, scale_lr="none"))
    first = [[p.clone() for p in teacher.parameters()] for teacher in teachers(module)]
    expected = [[p.clone() for p in weights] for weights in first]
    furthest = 0.0

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            nonlocal furthest
            done = (trainer.global_step - 1) / steps
            for teacher, before, mine in zip(teachers(module), first, expected, strict=True):
                share = (1 - math.cos(math.pi * done)) / 2 if teacher.rise == "cosine" else done
                momentum = teacher.momentum + share * (teacher.final_momentum - teacher.momentum)
                students = dict(teacher._student[0].named_parameters())
                for start, old, (name, p) in zip(before, mine, teacher.module.named_parameters(), strict=True):
                    old.mul_(momentum).add_(students[name].detach(), alpha=1 - momentum)
                    torch.testing.assert_close(p, old, rtol=1e-5, atol=2e-7)
                    furthest = max(furthest, (p - start).abs().max().item())

    trainer = fit(module, digits_data(task, batch_size=16), steps, tmp_path, callbacks=[Look()])
    assert furthest > 1e-5
    optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert optimised == {id(p) for p in module.parameters() if p.requires_grad}
    assert not optimised & {id(p) for teacher in teachers(module) for p in teacher.parameters()}


@pytest.mark.parametrize("task", WITH_TEACHER)
def test_teachers_normalise_by_their_batch_keep_statistics_of_their_own_and_drop_nothing(task: str):
    one, other, views = build(task, normalised=True), build(task, normalised=True), exact_views(task)
    parts = [part for teacher in teachers(other) for part in teacher.modules()]
    assert [part for part in parts if part.training and not isinstance(part, (*NORMS, Teacher))] == []
    assert all(part.training for part in parts if isinstance(part, NORMS))
    for part in other.modules():
        if isinstance(part, NORMS) and part.running_mean is not None:
            part.running_mean.fill_(3.0)
    assert torch.equal(other(views).loss, one(views).loss)
    means = {name: b for t in teachers(other) for name, b in t.named_buffers() if name.endswith("running_mean")}
    assert all((b != 3.0).any() for b in means.values())  # it kept count of its batches

    for part in other.modules():
        if isinstance(part, NORMS) and part not in parts and part.running_mean is not None:
            part.running_mean.fill_(7.0)
    before = {name: b.clone() for name, b in means.items()}
    for teacher in teachers(other):
        teacher.follow(0.5)
    assert all(torch.equal(b, before[name]) for name, b in means.items())  # it does not take its student's


# Queues


@pytest.mark.parametrize("task", WITH_QUEUE)
def test_a_queue_holds_exactly_the_last_keys_and_never_those_of_the_batch(task: str):
    """Three steps of 24 keys in a queue of 64: the third wraps around."""
    module: Any = build(task)
    queues = [child for child in module.modules() if isinstance(child, Queue)]
    staged: list[list[Tensor]] = [[] for _ in queues]

    def listen(queue: Queue, heard: list[Tensor]) -> None:
        stage = queue.stage

        def spy(keys: Tensor) -> None:
            heard.append(keys.detach().clone())
            stage(keys)

        queue.stage = spy

    for queue, keys in zip(queues, staged, strict=True):
        assert torch.allclose(queue.rows.norm(dim=1), torch.ones(()).double())  # it is read from the first step on: by then
        assert torch.linalg.matrix_rank(queue.rows) == queue.rows.shape[1]  # it holds random directions
        listen(queue, keys)
    for step in range(3):
        before = [queue.rows.clone() for queue in queues]
        module(exact_views(task, batch=24, seed=step))
        assert all(torch.equal(queue.rows, rows) for queue, rows in zip(queues, before, strict=True))
        for queue in queues:
            queue.follow(0.5)
    for queue, keys in zip(queues, staged, strict=True):
        size = len(queue.rows)
        assert int(queue.next) == 72 % size
        assert torch.equal(queue.rows.roll(-int(queue.next), 0), torch.cat(keys)[-size:])


# Masks


class Ear:
    """What the encoder is shown; `again` shows it the same once more, whatever the task gives it."""

    def __init__(self, module: Any) -> None:
        self.heard: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.again = False
        module.encoder.register_forward_pre_hook(self._hear, with_kwargs=True)

    def _hear(self, _module: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> Any:
        if self.again:
            return self.heard[0]
        self.heard.append((inputs, options))
        return None


@pytest.mark.parametrize("task", PAINTED)
def test_what_the_encoder_sees_is_no_target(task: str):
    """With its input held fast, other pixels where it sees any leave the loss alone, and others elsewhere do not."""
    module, views = build(task), exact_views(task)
    ear, x = Ear(module), views.global_crops.clone().requires_grad_()
    loss = module(views._replace(global_crops=x)).loss
    (both,) = torch.autograd.grad(loss, x, retain_graph=True)
    ear.again = True
    ear.heard = [(tuple(value.detach() for value in inputs), options) for inputs, options in ear.heard]
    again = module(views._replace(global_crops=x)).loss
    (target,) = torch.autograd.grad(again, x, allow_unused=True, materialize_grads=True)  # none reaches histograms
    seen = (both - target).abs() > 1e-12
    assert seen.any()
    assert not seen.all()
    noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    shown, hidden = (x.detach() + noise * where for where in (seen, ~seen))
    moved = difference(module(views._replace(global_crops=shown)).loss, loss)
    assert moved > 1e-4 if task in LOOKS_AROUND else moved == 0
    assert difference(module(views._replace(global_crops=hidden)).loss, loss) > 1e-4


@pytest.mark.parametrize("task", HIDDEN)
def test_the_share_of_hidden_tokens_is_exact(task: str):
    """As many in every sample, and as near to the ratio as whole blocks come."""
    module = build(task)
    ear = Ear(module)
    module(exact_views(task))
    (_, options), tokens = ear.heard[0], module.encoder.num_tokens
    mask = options.get("mask")
    if mask is None:
        keep = options["keep"]
        mask = torch.ones(len(keep), tokens, dtype=torch.bool).scatter(1, keep, False)
        assert (mask.sum(dim=1) == tokens - keep.shape[1]).all()  # none is kept twice
    counts = mask.sum(dim=1)
    assert (counts == counts[0]).all()
    assert abs(int(counts[0]) / tokens - module.mask_ratio) <= 0.5 * getattr(module, "mask_block", 1) ** 2 / tokens
    assert (mask != mask[0]).any()  # each sample its own


def test_patches_are_a_permutation_of_the_numbers_of_a_picture():
    x = torch.arange(3 * 8 * 8).view(1, 3, 8, 8).float()
    patches = vit_micro(in_chans=3, img_size=8, patch_size=2).patchify(x)
    assert torch.equal(torch.zeros(192).scatter(0, patches.flatten().long(), patches.flatten()).view_as(x), x)


def test_exceptions_are_tasks():
    assert set(LOOKS_AROUND) <= set(PAINTED)
