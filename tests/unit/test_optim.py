import copy
import inspect
import io
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from lightly.utils.lars import LARS as TheirLARS  # noqa: N811
from torch import Tensor, nn

from ssl_framework import optim
from ssl_framework.optim import LARS, OptimizerSpec, adamw, lars, parameter_groups, sgd

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
FACTORIES: dict[str, Callable[..., OptimizerSpec]] = {"sgd": sgd, "adamw": adamw, "lars": lars}


class Model(nn.Module):
    """One of everything that is treated differently."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 1, 5)  # its weight is (1, 3, 5), as a token's would be
        self.norm = nn.LayerNorm((4, 4))  # its weight has two dimensions
        self.linear = nn.Linear(4, 6)
        self.tied = nn.Linear(4, 6)
        self.tied.weight = self.linear.weight
        self.names = nn.Embedding(5, 4)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.position = nn.Parameter(torch.zeros(1, 9, 4))
        self.scale = nn.Parameter(torch.ones(()))
        self.mixing = nn.Parameter(torch.ones(3, 3))
        self.named = Named()
        self.teacher = nn.Linear(4, 6).requires_grad_(False)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias_table = nn.Parameter(torch.zeros(7, 2))
        self.inner = nn.Linear(2, 2)

    def no_weight_decay(self) -> set[str]:
        return {"bias_table", "inner.weight"}


def names(model: nn.Module, groups: list[dict[str, Any]], decay: bool) -> set[str]:
    of = {parameter: name for name, parameter in model.named_parameters()}
    return {of[p] for group in groups if (group["weight_decay"] > 0) is decay for p in group["params"]}


def test_only_weights_decay() -> None:
    model = Model()
    groups = parameter_groups(model, 0.1)
    assert names(model, groups, decay=True) == {"conv.weight", "linear.weight", "mixing"}
    assert all(group["adapt"] is (group["weight_decay"] > 0) for group in groups)


@pytest.mark.parametrize("make", [Model, lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1)])
def test_each_trainable_parameter_is_in_one_group_once_and_no_frozen_one(make: Callable[[], nn.Module]) -> None:
    model = make()
    inside = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert len(inside) == len(set(inside))
    assert set(inside) == {p for p in model.parameters() if p.requires_grad}


def test_timm_names_are_honoured_below_the_module_that_names_them() -> None:
    model = nn.ModuleDict({"encoder": timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1)})
    free = names(model, parameter_groups(model, 0.1), decay=False)
    assert {"encoder.pos_embed", "encoder.cls_token", "encoder.norm.weight", "encoder.blocks.0.attn.qkv.bias"} <= free
    assert "encoder.patch_embed.proj.weight" not in free


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="unfreeze"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)
    assert len(parameter_groups(nn.LayerNorm(3), 0.1)) == 1


def problem(seed: int = 0) -> tuple[list[Tensor], list[list[Tensor]]]:
    """A matrix, a bias and an all-zero matrix in float64, and gradients for 12 steps, one of them zero."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 3), (4,), (2, 2)]
    start = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    start[2].zero_()
    grads = [[torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(12)]
    grads[5][0].zero_()
    return start, grads


def naive(
    start: list[Tensor],
    grads: list[list[Tensor]],
    *,
    lr: Callable[[int], float],
    momentum: float,
    weight_decay: float,
    nesterov: bool,
    eta: float,
    clip_lr: bool,
    exclude_bias_and_norm: bool,
) -> list[list[list[float]]]:
    """Numbers in lists, one at a time: solo-learn's formula, biases without decay."""
    flat = [p.flatten().tolist() for p in start]
    speed: list[list[float] | None] = [None] * len(flat)
    history = []
    for step, gradient in enumerate(grads):
        for i, g in enumerate(g.flatten().tolist() for g in gradient):
            w, decay = flat[i], 0.0 if start[i].ndim == 1 else weight_decay
            update = g
            if start[i].ndim != 1 or not exclude_bias_and_norm:
                w_norm, g_norm = math.sqrt(sum(x * x for x in w)), math.sqrt(sum(x * x for x in g))
                if w_norm != 0 and g_norm != 0:
                    rate = eta * w_norm / (g_norm + w_norm * decay + 1e-8)
                    if clip_lr:
                        rate = min(rate / lr(step), 1)
                    update = [rate * (b + decay * a) for a, b in zip(w, g, strict=True)]
            if momentum:
                old = speed[i]
                v = list(update) if old is None else [momentum * a + b for a, b in zip(old, update, strict=True)]
                speed[i] = v
                update = [b + momentum * a for a, b in zip(v, update, strict=True)] if nesterov else v
            flat[i] = [a - lr(step) * b for a, b in zip(w, update, strict=True)]
        history.append([list(w) for w in flat])
    return history


def trajectory(make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer], weight_decay: float, lr: Callable[[int], float]):
    start, grads = problem()
    parameters = [nn.Parameter(p.clone()) for p in start]
    groups = [
        {"params": [parameters[0], parameters[2]], "weight_decay": weight_decay, "adapt": True},
        {"params": [parameters[1]], "weight_decay": 0.0, "adapt": False},
    ]
    optimizer = make(groups)
    history = []
    for step, gradient in enumerate(grads):
        for p, g in zip(parameters, gradient, strict=True):
            p.grad = g.clone()
        for group in optimizer.param_groups:
            group["lr"] = lr(step)
        optimizer.step()
        history.append([p.detach().flatten().tolist() for p in parameters])
    return history


def difference(a: list[list[list[float]]], b: list[list[list[float]]]) -> float:
    return max(
        abs(x - y) for p, q in zip(a, b, strict=True) for v, w in zip(p, q, strict=True) for x, y in zip(v, w, strict=True)
    )


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("clip_lr", [False, True])
@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.9, True), (0.0, False)])
def test_lars_agrees_with_its_formula(
    weight_decay: float, clip_lr: bool, exclude: bool, momentum: float, nesterov: bool
) -> None:
    start, grads = problem()

    def lr(step: int) -> float:
        return 0.3 * (step + 1) / 12

    options: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "eta": 0.2, "clip_lr": clip_lr}
    options["exclude_bias_and_norm"] = exclude
    ours = trajectory(lambda groups: LARS(groups, lr=0.3, **options), weight_decay, lr)
    assert difference(ours, naive(start, grads, lr=lr, weight_decay=weight_decay, **options)) < 1e-13


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_agrees_with_lightlys_where_the_options_coincide(nesterov: bool) -> None:
    options = {"momentum": 0.9, "nesterov": nesterov}
    ours = trajectory(lambda groups: LARS(groups, lr=0.3, eta=0.02, **options), 0.05, lambda _: 0.3)
    theirs = trajectory(lambda groups: TheirLARS(groups, lr=0.3, trust_coefficient=0.02, **options), 0.05, lambda _: 0.3)
    assert difference(ours, theirs) < 1e-13


def test_lightlys_lars_is_used_where_its_options_suffice() -> None:
    def chosen(**options: Any) -> type:
        return type(lars(**options).build(nn.Linear(2, 2), total_steps=10, global_batch=256)[0])

    assert chosen(clip_lr=False) is TheirLARS
    assert chosen(clip_lr=True) is LARS
    assert chosen(clip_lr=False, exclude_bias_and_norm=False) is LARS
    assert chosen(clip_lr=False, weight_decay=0) is LARS  # lightly's would rescale nothing


def test_lars_takes_closures_survives_lr_zero_and_refuses_nonsense() -> None:
    p = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([p], lr=0.0, clip_lr=True)

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 4
    assert torch.equal(p.detach(), torch.ones(2, 2))
    for options, remedy in (
        ({"momentum": 1.0}, "below 1"),
        ({"momentum": 0.0, "nesterov": True}, "0.9"),
        ({"eta": 0.0}, "0.02"),
    ):
        with pytest.raises(ValueError, match=remedy):
            LARS([p], lr=0.1, **options)


@pytest.mark.parametrize("spec", [sgd(), adamw(), lars(), lars(clip_lr=False)])
def test_the_rate_in_the_groups_is_the_one_that_is_used(spec: OptimizerSpec) -> None:
    model = Model()
    optimizer, scheduler = spec.build(model, total_steps=100, global_batch=512)
    peak = spec.lr * 2
    assert spec.peak_lr(512) == peak
    seen = []
    for _ in range(100):
        seen.append({group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        scheduler.step()
    assert seen[0] == {peak / 5}
    assert seen[4] == seen[5] == {peak}
    assert 0 < max(seen[-1]) < 0.001 * peak


def test_scaling_follows_the_global_batch() -> None:
    assert sgd(lr=1.0, scale_lr="none").peak_lr(1024) == 1
    assert sgd(lr=1.0, scale_lr="linear").peak_lr(64) == 0.25
    assert sgd(lr=1.0, scale_lr="sqrt").peak_lr(1024) == 2


def test_warmup_steps_win_over_the_share() -> None:
    def first(**options: Any) -> float:
        return (
            sgd(lr=1.0, scale_lr="none", **options)
            .build(nn.Linear(1, 1), total_steps=20, global_batch=1)[0]
            .param_groups[0]["lr"]
        )

    assert first(warmup_share=0.5) == 0.1
    assert first(warmup_share=0.5, warmup_steps=4) == 0.25
    assert first(warmup_share=0.0) == first(warmup_steps=0) == 1


def run(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, steps: int, x: Tensor) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("spec", [sgd(), adamw(), lars(), lars(clip_lr=False)])
def test_resuming_from_plain_state_gives_the_same_bits(spec: OptimizerSpec) -> None:
    torch.manual_seed(0)
    whole, x = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)), torch.randn(16, 4)
    split = copy.deepcopy(whole)
    run(whole, *spec.build(whole, total_steps=12, global_batch=256), 12, x)
    optimizer, scheduler = spec.build(split, total_steps=12, global_batch=256)
    run(split, optimizer, scheduler, 5, x)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    optimizer, scheduler = spec.build(split, total_steps=12, global_batch=256)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    run(split, optimizer, scheduler, 7, x)
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_longer_run_goes_on_along_the_longer_curve() -> None:
    spec = sgd(lr=1.0, scale_lr="none", warmup_share=0.0)
    model = nn.Linear(1, 1)
    optimizer, scheduler = spec.build(model, total_steps=10, global_batch=1)
    run(model, optimizer, scheduler, 10, torch.ones(1, 1))
    assert optimizer.param_groups[0]["lr"] == 0
    longer, further = spec.build(model, total_steps=20, global_batch=1)
    longer.load_state_dict(optimizer.state_dict())
    further.load_state_dict(scheduler.state_dict())
    longer.step()
    further.step()
    assert longer.param_groups[0]["lr"] == pytest.approx((1 + math.cos(math.pi * 11 / 20)) / 2)


def test_impossible_training_is_refused_with_a_remedy() -> None:
    for spec, steps, batch, remedy in (
        (sgd(), 0, 256, "at least 1 step"),
        (sgd(), -1, 256, "at least 1 step"),
        (sgd(warmup_steps=11), 10, 256, "warmup_steps lower"),
        (sgd(), 10, 0, "global_batch"),
    ):
        with pytest.raises(ValueError, match=remedy):
            spec.build(nn.Linear(1, 1), total_steps=steps, global_batch=batch)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"lr": 0.0}, "positive"),
        ({"lr": float("nan")}, "positive"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"warmup_steps": -1}, "warmup_share"),
        ({"warmup_share": 1.5}, "between 0 and 1"),
        ({"final_share": -0.1}, "between 0 and 1"),
        ({"scale_lr": "cubic"}, "linear or sqrt"),
    ],
)
def test_bad_numbers_are_refused_at_once(options: dict[str, Any], remedy: str) -> None:
    for factory in FACTORIES.values():
        with pytest.raises(ValueError, match=remedy):
            factory(**options)


def test_betas_are_two() -> None:
    with pytest.raises(ValueError, match="two numbers"):
        adamw(betas=[0.9])


def test_a_spec_is_a_value() -> None:
    for factory in FACTORIES.values():
        spec = pickle.loads(pickle.dumps(factory()))
        assert spec.lr == factory().lr
        spec.build(nn.Linear(1, 1), total_steps=3, global_batch=4)
    assert [factory().whole_tensors for factory in FACTORIES.values()] == [False, False, True]


@pytest.mark.parametrize("name", FACTORIES)
def test_the_yaml_lists_every_argument_with_its_default(name: str) -> None:
    listed = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert listed.pop("_target_") == f"ssl_framework.optim.{name}"
    signature = inspect.signature(FACTORIES[name]).parameters
    defaults = {k: list(p.default) if isinstance(p.default, tuple) else p.default for k, p in signature.items()}
    assert listed == defaults
    assert {path.stem for path in CONF.glob("*.yaml")} == set(FACTORIES)


def test_building_warns_of_nothing_and_draws_nothing() -> None:
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nn.utils.skip_init(nn.Linear, 2, 2)
        optim.adamw().build(model, total_steps=5, global_batch=4)
    assert torch.equal(state, torch.get_rng_state())


def test_a_multiple_of_the_rate_by_name():
    model = Model()
    optimizer, scheduler = adamw(lr=1.0, scale_lr="none", warmup_steps=0).build(
        model, total_steps=4, global_batch=256, lr_scale=lambda name: 0.25 if name.startswith("linear") else 1.0
    )
    rate = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rate[id(p)] for p in model.linear.parameters()} == {0.25}
    assert {rate[id(p)] for p in (*model.conv.parameters(), *model.norm.parameters())} == {1.0}
    assert optimizer.param_groups[0]["initial_lr"] == 1.0  # the largest first: the one that is logged
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"] / 4)
    assert {group["weight_decay"] for group in optimizer.param_groups if group["lr_scale"] == 0.25} == {0.05, 0.0}


def test_the_fused_kernel_takes_the_same_steps() -> None:
    ends: list[Tensor] = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer, _ = adamw(lr=1e-2).build(model, total_steps=10, global_batch=256, fused=fused)
        assert all(bool(group["fused"]) is fused for group in optimizer.param_groups)
        for step in range(5):
            optimizer.zero_grad()
            model(torch.full((2, 5), float(step))).square().sum().backward()
            optimizer.step()
        ends.append(model.weight.detach())
    assert (ends[0] - ends[1]).abs().max() < 1e-6
    assert not sgd().build(nn.Linear(5, 3), total_steps=10, global_batch=256)[0].defaults["fused"]
