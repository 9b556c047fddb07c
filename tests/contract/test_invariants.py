"""What a loss must not depend on, and what it must, for every task on disk: in float64, where equality is claimed.

Exceptions stand in tables with their reason, and are tested, too: what is listed must differ. What moves without a gradient is
in `test_invariants_of_followers.py`; formulas, and the rows and columns of Sinkhorn's assignment, are in `tests/parity`.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invariants import BATCH, build, crops_of, difference, every_joint_task, every_task, exact_views, followers, samples_of
from ssl_framework.nn import DINOHead
from ssl_framework.probes import knn
from ssl_framework.types import Batch
from ssl_framework.views import ImageViews, multi_crop
from support import TASKS, channels, digits_data, small, task_class

ONE_WAY = {
    "deepcluster_v2": "the first view is clustered",
    "densecl": "the second view is the key of the first",
    "dinov2": "every view has a mask of its own",
    "ibot": "every view has a mask of its own",
    "moco_v2": "the second view is the key of the first",
    "msn": "the first view is the target of the second",
    "ressl": "the second view is the target of the first",
    "swav": "every view has a queue of its own",
}
MORE_VIEWS = {
    "frossl": "compares any number of views alike",
    "mmcr": "compares any number of views alike",
    "pirl": "cuts its tiles out of a second view",
    "w_mse": "compares every pair of views",
}
NO_LOCAL_CROPS = {
    "densecl": "its positives are the places of two maps; the paper has no local crops",
}
NOT_NORMALISED = {
    "lejepa": "projections shall have variance 1",
    "vicreg": "projections shall have variance 1 or more",
    "vicregl": "projections shall have variance 1 or more",
}
ALMOST_NORMALISED = {"barlow_twins": "1e-5 is added to variances, as in BatchNorm"}
STOPPED = {  # (task, parameters): a finite difference sees what no gradient does
    ("msn", "heads"): "prototypes do not learn from the target",
    ("simsiam", "encoder"): "the target is the encoder's own projection",
    ("simsiam", "heads"): "the target is the projector's",
    ("swav", "encoder"): "the assignment is the encoder's own",
    ("swav", "heads"): "prototypes do not learn from the assignment",
    ("tico", "encoder"): "the covariance holds the batch itself",
    ("tico", "heads"): "the covariance holds the batch itself",
}
REFUSED = {"w_mse": "samples that are all alike span no direction that could be whitened"}


# Order


@every_task
def test_the_order_of_samples_does_not_matter(task: str):
    module, views = build(task), exact_views(task)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(3))
    expected = module(views).loss
    assert torch.equal(module(views).loss, expected)  # nothing is drawn but from the keys
    assert difference(module(samples_of(views, order)).loss, expected) < 1e-12


@every_joint_task
def test_which_view_is_first_does_not_matter(task: str):
    module, views = build(task), exact_views(task)
    moved = difference(module(crops_of(views, [1, 0], [0, 1])).loss, module(views).loss)
    assert moved > 1e-4 if task in ONE_WAY else moved < 1e-12


@every_joint_task
def test_which_local_crop_is_first_does_not_matter(task: str):
    module, views = build(task), exact_views(task)
    assert difference(module(crops_of(views, [0, 1], [1, 0])).loss, module(views).loss) < 1e-12


# How many crops


@every_task
def test_a_view_too_many_is_left_out_or_compared(task: str):
    module, views = build(task), exact_views(task)
    count = len(views.global_crops)
    more = views._replace(
        global_crops=torch.cat([views.global_crops, views.global_crops[:1].flip(-1)]),
        boxes=None if views.boxes is None else torch.cat([views.boxes[:count], views.boxes[:1], views.boxes[count:]]),
    )
    moved = difference(module(more).loss, module(views).loss)
    assert moved > 1e-4 if task in MORE_VIEWS else moved < 1e-12, f"the loss moved by {moved}: MORE_VIEWS lists who may"


@every_joint_task
def test_local_crops_are_used_and_learnt_from(task: str):
    module, views = build(task), exact_views(task)
    assert views.local_crops is not None
    local = views.local_crops.clone().requires_grad_()
    step = module(views._replace(local_crops=local))
    (gradient,) = torch.autograd.grad(step.loss, local, allow_unused=True)
    if task in NO_LOCAL_CROPS:
        assert gradient is None
    else:
        assert gradient is not None, f"{task} does not learn from local crops: encode_crops takes them"
        assert (gradient.flatten(2).abs().amax(2) > 0).all()  # of every sample in every crop
    assert len(step.embedding) % BATCH == 0


def digit_crops(task: str, local_crops: int) -> ImageViews:
    mean, std = (0.3,) * channels(task), (0.37,) * channels(task)
    return multi_crop((8, 8), mean, std, local_crops=local_crops, local_size=(4, 4), strength=0.0)


@every_joint_task
def test_multi_crop_without_local_crops_is_two_crops(task: str):
    module: Any = small(task)
    batch = Batch(digits_data(task).split("train").images(range(BATCH)), None, torch.arange(BATCH))
    with_local, without = (
        made.apply(batch, made.draw(batch.index, 0)) for made in (digit_crops(task, 2), digit_crops(task, 0))
    )
    assert without.local_crops is None
    assert with_local.local_crops is not None
    loss = module(without).loss
    assert torch.equal(module(crops_of(with_local, [0, 1], [])).loss, loss)
    assert task in NO_LOCAL_CROPS or difference(module(with_local).loss, loss) > 1e-5


# Scale


LAST = ("head", "projector", "token_head", "dense_head", "local_projector", "joint_projector")


def last_layers(module: nn.Module) -> list[nn.Module]:
    """What ends in projections: of the task, of its branches and of its teacher."""
    found: list[nn.Module] = []
    for child in module.modules():
        parts = dict(child.named_children())
        if "encoder" in parts:
            found += [parts[name] for name in (("predictor",) if "predictor" in parts else LAST) if name in parts]
    return list({id(head): head.layers if isinstance(head, DINOHead) else head for head in found}.values())


@every_task
def test_the_scale_of_projections_does_not_matter_to_those_that_normalise(task: str):
    module, views = build(task), exact_views(task)
    step, called = module(views), []

    def scale(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        called.append(output)
        return 7 * output

    for head in last_layers(module):
        head.register_forward_hook(scale)
    moved = difference(module(views).loss, step.loss)
    if step.projection is None:
        return  # it compares no projections
    assert called, f"say in LAST which layer of {task} is the last"
    if task in NOT_NORMALISED:
        assert moved > 1e-2
    else:
        assert moved < (1e-3 if task in ALMOST_NORMALISED else 1e-12)


# Gradients


@pytest.mark.parametrize("which", ["encoder", "heads"])
@every_task
def test_gradients_are_finite_differences(task: str, which: str):
    """Along a random direction of the weights, behind a first step, so that banks, centres and constants hold something."""
    module, views = build(task), exact_views(task, side=8)  # timm interpolates positions in float32
    module(views)
    for follower in followers(module):
        follower.follow(0.5)
    encoder = {id(p) for p in module.encoder.parameters()}
    weights = [p for p in module.parameters() if p.requires_grad and (id(p) in encoder) == (which == "encoder")]
    generator = torch.Generator().manual_seed(5)
    ahead = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in weights]
    size = sum(float(d.square().sum()) for d in ahead) ** 0.5
    gradients = torch.autograd.grad(module(views).loss, weights)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, ahead, strict=True)) / size

    def loss_at(distance: float) -> float:
        with torch.no_grad():
            for weight, d in zip(weights, ahead, strict=True):
                weight.add_(d, alpha=distance / size)
            loss = float(module(views).loss)
            for weight, d in zip(weights, ahead, strict=True):
                weight.sub_(d, alpha=distance / size)
        return loss

    measured = (loss_at(2e-6) - loss_at(-2e-6)) / 4e-6
    scale, rounding = max(abs(measured), abs(slope)), 3e-10 * abs(loss_at(0.0))
    assert scale > 100 * rounding
    missed = abs(measured - slope)
    assert missed > 1e-2 * scale if (task, which) in STOPPED else missed < 1e-5 * scale + rounding


# Inputs that a training meets on a bad day

INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": lambda x: torch.full_like(x, 0.7),
    "zero": torch.zeros_like,
    "large": lambda x: 1e4 * x,
}


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("kind", INPUTS)
@every_task
def test_losses_and_gradients_are_finite(task: str, kind: str, bf16: bool):
    """In the second step, too, which reads what the first has left in queues, banks and centres."""
    module, views, change = small(task), exact_views(task), INPUTS[kind]
    module.progress = 0.5
    local = None if views.local_crops is None else change(views.local_crops.float())
    boxes = None if views.boxes is None else views.boxes.float()
    views = views._replace(global_crops=change(views.global_crops.float()), local_crops=local, boxes=boxes)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        if task in REFUSED and kind != "large":
            with pytest.raises(ValueError, match="take"):
                module(views)
            return
        first = module(views).loss
        for follower in followers(module):
            follower.follow(0.5)
        loss = module(views).loss
    assert first.isfinite()
    assert loss.isfinite()
    assert loss.dtype == torch.float32
    loss.backward()
    assert [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()] == []
    assert [name for name, b in module.named_buffers() if b.is_floating_point() and not b.isfinite().all()] == []


# All samples alike


def contrasts(count: float) -> float:
    """Of one right and `count` wrong answers that all look alike: the right one taken, the wrong ones left."""
    return math.log(1 + count) + count * math.log(1 + 1 / count)


def contrasts_without_own(task: Any) -> float:
    """Where a sample that is drawn is no negative of itself."""
    views = exact_views("pirl")
    assert views.index is not None
    drawn, _ = task.bank.draw(views.key, task.negatives)
    own = (views.index[:, None] == drawn).sum(dim=1)
    return sum(contrasts(task.negatives - int(count)) for count in own) / BATCH


COLLAPSED: dict[str, tuple[str, Callable[[Any], float]]] = {  # term of the step, and what it must be
    "barlow_twins": ("loss", lambda task: task.projector.layers[-1].out_features),
    "dcl": ("loss", lambda _: math.log(2 * BATCH - 2)),
    "deepcluster_v2": ("loss", lambda task: math.log(task.clusters.centroids.shape[1])),
    "densecl": ("loss", lambda task: math.log(1 + len(task.queue.rows))),
    "dino": ("loss", lambda task: math.log(len(task.centre.value))),
    "dinov2": ("crops", lambda task: math.log(len(task.head.prototypes.weight))),
    "frossl": ("loss", lambda _: 0.0),
    "ibot": ("crops", lambda task: math.log(len(task.centre.value))),
    "lejepa": ("prediction", lambda _: 0.0),
    "mmcr": ("loss", lambda _: -math.sqrt(BATCH)),
    "moco_v2": ("loss", lambda task: math.log(1 + len(task.queue.rows))),
    "moco_v3": ("loss", lambda task: 4 * task.temperature * math.log(BATCH)),
    "msn": ("prediction", lambda task: math.log(len(task.prototypes.weight))),
    "nnclr": ("loss", lambda _: math.log(BATCH)),
    "npid": ("loss", lambda task: contrasts(task.negatives)),
    "pirl": ("loss", contrasts_without_own),
    "ressl": ("loss", lambda task: math.log(len(task.queue.rows))),
    "simclr": ("loss", lambda _: math.log(2 * BATCH - 1)),
    "swav": ("loss", lambda task: math.log(len(task.prototypes.weight))),
    "tico": ("crowding", lambda task: 1 - task.covariance.memory**2),  # of two steps
    "vicreg": ("loss", lambda _: 25 * (1 - 1e-2)),
    "vicregl": ("loss", lambda _: (0.75 + 2 * 0.25) * 25 * (1 - 1e-2)),  # four ways to match, halved
}
NO_VALUE = {
    "byol": "targets that are alike are found by any predictor that has learnt them: 0, but not at once",
    "data2vec": "the head says of equal samples what it likes",
    "ijepa": "the predictor says of equal samples what it likes",
    "simsiam": "targets that are alike are found by any predictor that has learnt them: -1, but not at once",
    "w_mse": "it refuses them",
}


def say_one(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return torch.ones_like(output)


@pytest.mark.parametrize("task", COLLAPSED)
def test_samples_that_are_all_alike_cost_what_they_must(task: str):
    """Every projection is the same vector, and so are all prototypes and what is remembered."""
    module, views = build(task), exact_views(task)
    for head in last_layers(module):
        head.register_forward_hook(say_one)
    for follower in followers(module):
        follower.begin(BATCH)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if name.endswith((".rows", "prototypes.weight")):
                value.fill_(value.shape[-1] ** -0.5)  # unit vectors
    module(views)
    for follower in followers(module):
        follower.follow(0.5)
    step, (term, value) = module(views), COLLAPSED[task]
    found = step.loss.detach() if term == "loss" else step.logs[term]
    assert float(found) == pytest.approx(value(module), rel=1e-9, abs=1e-9)


@every_task
def test_of_every_task_that_could_collapse_it_is_known_what_that_costs(task: str):
    could = not task_class(task).card.prevents_collapse.startswith("nothing to prevent")
    assert could == (task in COLLAPSED or task in NO_VALUE), f"add {task} to COLLAPSED (what it costs) or NO_VALUE (why not)"


def test_exceptions_are_tasks():
    stopped = {task for task, _ in STOPPED}
    named = {
        *ONE_WAY,
        *MORE_VIEWS,
        *NO_LOCAL_CROPS,
        *NOT_NORMALISED,
        *ALMOST_NORMALISED,
        *REFUSED,
        *stopped,
        *COLLAPSED,
        *NO_VALUE,
    }
    assert named <= set(TASKS)


# Probes: linear ones are in tests/unit/test_probes.py


def test_neighbours_find_planted_clusters_and_shuffled_labels_give_chance():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    x = torch.eye(16)[labels] + 0.1 * torch.randn(400, 16, generator=generator)
    train, test = slice(0, 200), slice(200, 400)
    assert torch.equal(knn(x[train], labels[train], x[test], num_classes=4), labels[test])
    shuffled = labels[torch.randperm(400, generator=generator)]
    right = (knn(x[train], shuffled[train], x[test], num_classes=4) == shuffled[test]).float().mean()
    assert right.item() == pytest.approx(0.25, abs=0.1)
