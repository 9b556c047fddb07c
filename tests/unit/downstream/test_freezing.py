"""What each policy trains, at which rate and when; what it does to norms; and that a resumed run is the uninterrupted one."""

import copy
import sys
from typing import Any

import pytest
import pytorch_lightning as pl
import timm
import torch
import torchvision
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.optim.swa_utils import update_bn

from ssl_framework import run
from ssl_framework.checkpoint import load_encoder, save_encoder
from ssl_framework.downstream import (
    BiasOnly,
    Frozen,
    Full,
    Gradual,
    LabelledData,
    LastN,
    LayerDecay,
    Lora,
    LpFt,
    Moment,
    NormOnly,
    Surgical,
    fingerprint,
)
from ssl_framework.downstream.freezing import Freezer
from ssl_framework.encoders import Adapter, resnet_micro
from ssl_framework.optim import sgd

from .conftest import PREPROCESSING, VIT, make_module, make_split, small_vit

POLICIES: dict[str, Any] = {
    "frozen": Frozen(),
    "adapted": Frozen(batch_norm="adapt"),
    "recomputed": Frozen(batch_norm="recompute"),
    "full": Full(encoder_lr=0.5),
    "full with still norms": Full(batch_norm="frozen"),
    "last_n": LastN(n=1),
    "gradual": Gradual(every_epochs=0.6),
    "lp_ft": LpFt(probe_share=0.4),
    "layer_decay": LayerDecay(),
    "bias_only": BiasOnly(),
    "norm_only": NormOnly(),
    "lora": Lora(rank=2),
    "surgical": Surgical(blocks=(0, -1)),
}


def _fit(module, steps=3, **options):
    trainer = run.trainer(steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, **options)
    trainer.fit(module, datamodule=LabelledData(make_split(24), batch_size=8))


@pytest.mark.parametrize("cut", [0, 1])
def test_frozen_is_the_same_to_the_bit_and_the_head_learns(encoder, cut):
    module = make_module(encoder, freezing=Frozen(), cut=cut)
    before, head = fingerprint(module.encoder), fingerprint(module.head)
    _fit(module)
    assert fingerprint(module.encoder) == before
    assert fingerprint(module.head) != head
    held = {id(p) for group in module.trainer.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in module.head.parameters()}


def test_full_moves_everything(encoder):
    module = make_module(encoder, freezing=Full())
    before = copy.deepcopy(module.encoder)
    _fit(module)
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), module.encoder.parameters(), strict=True)]
    assert all(moved)
    assert fingerprint(before) != fingerprint(module.encoder)


def test_the_given_encoder_is_left_alone(encoder):
    before = fingerprint(encoder)
    _fit(make_module(encoder, freezing=Full()))
    make_module(encoder, freezing=Frozen())
    assert fingerprint(encoder) == before
    assert all(p.requires_grad for p in encoder.parameters())


def test_train_does_not_wake_a_frozen_encoder(encoder):
    module = make_module(encoder, freezing=Frozen())
    assert module.train().training
    assert module.head.training
    assert not any(part.training for part in module.encoder.modules())
    module = make_module(encoder, freezing=Full())
    assert all(part.training for part in module.train().encoder.modules())
    assert not any(part.training for part in module.eval().encoder.modules())


def test_fingerprint_sees_every_bit():
    class Keeper(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
            self.register_buffer("hidden", torch.zeros(1), persistent=False)
            self.register_buffer("count", torch.tensor(0))

    first = fingerprint(Keeper())
    assert fingerprint(Keeper()) == first
    for name, value in (("hidden", torch.tensor([-0.0])), ("count", torch.tensor(1))):
        changed = Keeper()
        setattr(changed, name, value)
        assert fingerprint(changed) != first, name
    changed = Keeper()
    with torch.no_grad():
        changed.weight[1] = 1e-30
    assert fingerprint(changed) != first


def test_encoder_lr_is_a_multiple_of_the_heads(encoder):
    module = make_module(encoder, freezing=Full(encoder_lr=0.1))
    _fit(module, steps=2)
    rates = {}
    for group in module.trainer.optimizers[0].param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["initial_lr"]
    assert {rates[id(p)] for p in module.head.parameters()} == {3e-3}
    assert [rates[id(p)] for p in module.encoder.parameters()] == pytest.approx([3e-4] * len([*module.encoder.parameters()]))
    assert module.trainer.optimizers[0].param_groups[0]["initial_lr"] == 3e-3  # what is logged as lr is the head's


def test_full_refuses_what_cannot_learn(encoder):
    with pytest.raises(ValueError, match="encoder_lr=0"):
        Full(encoder_lr=0)
    encoder.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match=r"freezing=full would train nothing .* somebody has frozen all of it"):
        make_module(encoder, freezing=Full())


# What learns


def learning(freezing: Any, encoder: Any, stage: int = 0) -> dict[str, float]:
    """The rates of the encoder's parameters that learn, by name."""
    module = make_module(encoder, freezing=freezing)
    module.freezer.enter(stage)
    rates = {name: module.freezer.rate(name) for name, _ in module.encoder.named_parameters()}
    assert {name: p.requires_grad for name, p in module.encoder.named_parameters()} == {n: r > 0 for n, r in rates.items()}
    return {name: rate for name, rate in rates.items() if rate > 0}


def test_the_last_layers_and_what_follows_them(encoder):
    assert {name.split(".")[1] for name in learning(LastN(n=2, encoder_lr=0.3), encoder)} == {"layer3", "layer4"}
    assert set(learning(LastN(n=2, encoder_lr=0.3), encoder).values()) == {0.3}
    names = learning(LastN(n=1), small_vit())
    assert {".".join(name.split(".")[1:3]) for name in names} == {"blocks.2", "norm.weight", "norm.bias"}


def test_named_layers(encoder):
    assert {name.split(".")[1] for name in learning(Surgical(blocks=["stem", -1]), encoder)} == {"conv1", "bn1", "layer4"}
    assert {name.split(".")[1] for name in learning(Surgical(blocks=[0, "model.layer3.0.conv1"]), encoder)} == {
        "layer1",
        "layer3",
    }
    assert set(learning(Surgical(blocks=["norm"]), small_vit())) == {"model.norm.weight", "model.norm.bias"}


def test_biases_and_norms(encoder):
    vit = small_vit()
    assert all(name.endswith("bias") for name in learning(BiasOnly(), vit))
    assert len(learning(BiasOnly(), vit)) == sum(name.endswith("bias") for name, _ in vit.named_parameters())
    assert {name.split(".")[-2] for name in learning(NormOnly(), vit)} == {"norm", "norm1", "norm2"}
    assert all(".bn" in name or ".downsample.1" in name for name in learning(NormOnly(), encoder))
    assert len(learning(NormOnly(), encoder)) == 2 * sum(isinstance(part, nn.BatchNorm2d) for part in encoder.modules())


def test_rates_by_depth_are_those_of_timm():
    ours = learning(LayerDecay(decay=0.6), small_vit())
    model = timm.create_model("vit_tiny_patch16_224", img_size=8, in_chans=1, num_classes=3, **VIT)  # with a head, as here
    names = {id(p): name for name, p in model.named_parameters()}
    theirs: dict[str, float] = {}
    for group in param_groups_layer_decay(model, layer_decay=0.6, weight_decay=0.1):
        theirs |= {f"model.{names[id(p)]}": group["lr_scale"] for p in group["params"]}
    assert {theirs.pop(f"model.head.{name}") for name in ("weight", "bias")} == {1.0}
    assert theirs == pytest.approx(ours)
    assert len(set(ours.values())) == 4  # stem, and three blocks


def test_layers_wake_from_the_top_at_lower_and_lower_rates(encoder):
    policy = Gradual(every_epochs=2, decay=0.5)
    assert [policy.stage(Moment(0, 100, epoch)) for epoch in (0, 1.9, 2.0, 4.1, 99)] == [0, 0, 1, 2, 49]
    found = [learning(policy, encoder, stage) for stage in range(6)]
    tops = [{name.split(".")[1]: rate for name, rate in rates.items()} for rates in found]
    assert tops[:3] == [{}, {"layer4": 0.5}, {"layer4": 0.5, "layer3": 0.25}]
    assert tops[5] == {"layer4": 0.5, "layer3": 0.25, "layer2": 0.125, "layer1": 0.0625, "conv1": 0.03125, "bn1": 0.03125}
    assert "norm" in {name.split(".")[1] for name in learning(policy, small_vit(), 1)}  # with the last layer, not before it


def test_a_probe_then_everything_with_a_rise_and_fall_for_each(encoder):
    rates = []

    class Note(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            groups = trainer.optimizers[0].param_groups
            rates.append((len(groups) > 2, groups[0]["lr"], sum(len(g["params"]) for g in groups)))

    module = make_module(encoder, freezing=LpFt(probe_share=0.5, finetune_lr=0.1))
    _fit(module, steps=8, callbacks=[Note()])
    heads, every = 2, 2 + len([*module.encoder.parameters()])
    # The callback looks before the module enters a stage: the first step of the second part still shows the old optimiser
    assert [count for *_, count in rates] == [heads] * 5 + [every] * 3
    assert rates[0][1] == pytest.approx(3e-3, rel=0.2)
    assert rates[4][1] < 0.2 * rates[0][1]
    assert max(rate for _, rate, _ in rates[5:]) <= 3e-4


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (lambda: LastN(n=9), r"freezing.n=9: the encoder has 4 layers, so 1 to 4"),
        (lambda: LastN(n=0), r"freezing.n=0: .* take freezing=frozen"),
        (lambda: Surgical(blocks=["head"]), r"this encoder has no head. Name a layer by its number \(-4 to 3\), stem, norm"),
        (lambda: Surgical(blocks=[4]), r"this encoder has no 4"),
        (lambda: Surgical(blocks=[]), r"blocks=\[\]: name at least one"),
        (lambda: Gradual(every_epochs=0), r"every_epochs=0 must be positive"),
        (lambda: Gradual(decay=2), r"decay=2 must be above 0 and at most 1"),
        (lambda: LayerDecay(decay=0), r"decay=0 must be above 0"),
        (lambda: LpFt(probe_share=1), r"probe_share=1 must lie between 0 and 1"),
        (lambda: LpFt(finetune_lr=0), r"finetune_lr=0 must be positive"),
        (lambda: Frozen(batch_norm="still"), r"batch_norm=still: choose frozen, adapt, recompute, or null"),
    ],
)
def test_numbers_that_no_encoder_has_are_refused(encoder, policy, message):
    with pytest.raises(ValueError, match=message):
        make_module(encoder, freezing=policy())


def test_rules_for_batch_norm_need_a_batch_norm():
    with pytest.raises(ValueError, match="batch_norm=adapt: this TimmViT has no BatchNorm"):
        make_module(small_vit(), freezing=Frozen(batch_norm="adapt"))


# Modes and statistics


def test_only_what_learns_is_in_training_mode(encoder):
    module = make_module(encoder, freezing=LastN(n=1)).train()
    modes = {name: part.training for name, part in module.encoder.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert {name.split(".")[1] for name, training in modes.items() if training} == {"layer4"}
    drops = {name: part for name, part in module.encoder.named_modules() if type(part).__name__ == "DropPath"}
    assert drops
    assert {name.split(".")[1] for name, part in drops.items() if part.training} <= {"layer4"}
    assert not any(part.training for part in module.eval().encoder.modules())


@pytest.mark.parametrize(
    ("freezing", "moves"),
    [
        (Frozen(), "none"),
        (Frozen(batch_norm="adapt"), "all"),
        (Full(), "all"),
        (Full(batch_norm="frozen"), "none"),
        (LastN(n=1), "layer4"),
        (LastN(n=1, batch_norm="adapt"), "all"),
        (LastN(n=1, batch_norm="frozen"), "none"),
        (NormOnly(), "all"),
        (BiasOnly(), "all"),
    ],
)
def test_statistics_move_where_the_policy_says(encoder, freezing, moves):
    module = make_module(encoder, freezing=freezing)
    before = {name: buffer.clone() for name, buffer in module.encoder.named_buffers()}
    _fit(module)
    moved = {name.split(".")[1] for name, buffer in module.encoder.named_buffers() if not torch.equal(buffer, before[name])}
    every = {name.split(".")[1] for name in before}
    assert moved == {"none": set(), "all": every}.get(moves, {moves})


def test_recomputed_statistics_are_those_of_torch_and_stand_still():
    encoder = resnet_micro(1, 8)  # torch's function would also drop paths
    module = make_module(encoder, freezing=Frozen(batch_norm="recompute"))
    expected = copy.deepcopy(encoder)
    images = make_split(24).images(range(24))
    update_bn([module.views.center(images)], expected)
    _fit(module)
    for (name, own), (_, other) in zip(module.encoder.named_buffers(), expected.named_buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6, msg=name)


def test_every_image_counts_the_same_in_recomputed_statistics():
    module = make_module(resnet_micro(1, 8), freezing=Frozen(batch_norm="recompute"))
    x = module.views.center(make_split(40).images(range(40)))
    first = next(part for part in module.encoder.modules() if isinstance(part, nn.BatchNorm2d))
    module.freezer.recompute(iter([x[:36], x[36:]]))
    seen: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        module.encoder(x)
    torch.testing.assert_close(first.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-5, atol=1e-6)


def test_no_batch_for_statistics_is_a_single_image():
    """257 images, of which 256 would be one: the last map of one pixel has no variance then."""
    module = make_module(resnet_micro(1, 8), freezing=Frozen(batch_norm="recompute"))
    trainer = run.trainer(steps=1, accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.fit(module, datamodule=LabelledData(make_split(257), batch_size=8))
    assert module.audit.stages


def test_a_layer_that_learns_may_have_statistics_of_its_own(encoder):
    """Spectral norm's vectors move in each step."""
    encoder.model.layer4[0].conv1 = nn.utils.parametrizations.spectral_norm(encoder.model.layer4[0].conv1)
    module = make_module(encoder, freezing=LastN(n=1))
    _fit(module)
    assert not any("layer4" in name for name, _ in module.freezer.frozen())
    assert any("layer3" in name and "running" in name for name, _ in module.freezer.frozen())


@pytest.mark.parametrize("policy", [LpFt(probe_share=0.9), Full()])
def test_a_warm_up_that_a_later_stage_has_no_room_for_is_refused_at_once(encoder, policy):
    module = make_module(encoder, freezing=policy, optimizer=sgd(lr=0.1, warmup_steps=5))
    if isinstance(policy, Full):
        _fit(module, steps=20)
        return
    with pytest.raises(ValueError, match=r"freezing=lp_ft lets the rate rise anew for steps 18 to 20: .*5"):
        _fit(module, steps=20)
    assert module.audit.stages == []  # nothing has begun


# Resuming


class StopAt(pl.Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def fitting(name: str, encoder: Any) -> Any:
    """An encoder that the policy suits; a new one each time."""
    return small_vit() if name == "lora" else copy.deepcopy(encoder)


@pytest.mark.parametrize("stop", [1, 3, 4, 5])  # the stages of the policies that have some begin at 2 to 6
@pytest.mark.parametrize("name", POLICIES)
def test_a_run_resumed_in_the_middle_equals_the_uninterrupted_one(encoder, name, stop, tmp_path):
    def start():
        return make_module(fitting(name, encoder), freezing=POLICIES[name]), LabelledData(make_split(12), batch_size=4)

    def trainer(**options):
        return run.trainer(steps=8, accelerator="cpu", logger=False, enable_progress_bar=False, **options)

    whole, data = start()
    trainer().fit(whole, datamodule=data)
    first, data = start()
    trainer(callbacks=[StopAt(stop, tmp_path / "a.ckpt")]).fit(first, datamodule=data)
    second, data = start()
    trainer().fit(second, datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert second.trainer.global_step == 8
    assert second.freezer.stage == whole.freezer.stage
    assert fingerprint(second) == fingerprint(whole) != fingerprint(first)
    assert second.audit.report() == whole.audit.report()


def test_stages_begin_when_the_policy_says(encoder):
    """Twelve samples in batches of four: three steps a pass."""
    module = make_module(encoder, freezing=Gradual(every_epochs=0.6))
    run.trainer(steps=8, accelerator="cpu", logger=False, enable_progress_bar=False).fit(
        module, datamodule=LabelledData(make_split(12), batch_size=4)
    )
    assert [stage["from_step"] for stage in module.audit.stages] == [0, 2, 4, 6]
    counts = [stage["trainable_parameters"] for stage in module.audit.stages]
    assert counts == sorted(counts)
    assert len(set(counts)) == 4


@pytest.mark.parametrize("name", ["gradual", "lp_ft", "frozen", "last_n", "lora"])
def test_two_processes_equal_one(name):
    """Also after a stage that wakes more: every process has the mean gradient of all that learns."""

    def fit(devices):
        torch.manual_seed(0)
        steady = sgd(lr=0.05, scale_lr="none")  # AdamW makes steps of the rounding of gradients that are zero: a key's bias
        module = make_module(small_vit(), freezing=POLICIES[name], optimizer=steady)
        options = {"devices": 2, "strategy": "ddp_fork"} if devices == 2 else {}
        trainer = run.trainer(steps=6, accelerator="cpu", logger=False, enable_progress_bar=False, **options)
        trainer.fit(module, datamodule=LabelledData(make_split(12), batch_size=4))
        return module

    alone, together = fit(1), fit(2)
    for (key, a), (_, b) in zip(alone.named_parameters(), together.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_is_frozen_is_the_same_to_the_bit(encoder, precision, processes):
    module = make_module(encoder, freezing=LastN(n=1))
    digests = {name: fingerprint([(name, tensor)]) for name, tensor in module.freezer.frozen()}
    learning = fingerprint(module.encoder.get_submodule("model.layer4"))
    options = {"devices": 2, "strategy": "ddp_fork"} if processes == 2 else {}
    _fit(module, precision=precision, **options)
    assert {name: fingerprint([(name, tensor)]) for name, tensor in module.freezer.frozen()} == digests
    assert any(name.endswith("running_mean") for name in digests)
    assert fingerprint(module.encoder.get_submodule("model.layer4")) != learning  # weights came back from the processes


def test_paths_of_torchvision_are_dropped_where_it_learns_and_nowhere_else():
    model = torchvision.models.convnext_tiny(stochastic_depth_prob=0.9)
    encoder = Adapter(model, ["features.1", "features.3", "features.5", "features.7"], img_size=32)
    colour = {"mean": [0.5] * 3, "std": [0.3] * 3, "size": [32, 32], "channels": 3}
    module = make_module(encoder, freezing=LastN(n=1), preprocessing=colour)
    torch.manual_seed(0)
    x = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        first, second = (module.encoder(x, layers=range(4)).layers for _ in range(2))
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [True, True, True, False]


def test_depths_are_found_once_and_leave_no_trace(encoder):
    before = fingerprint(encoder)
    freezer = Freezer(Frozen(), encoder, torch.zeros(1, 1, 8, 8))
    assert fingerprint(encoder) == before
    assert freezer.places["model.conv1.weight"].depth == 0
    assert not any(p.requires_grad for p in encoder.parameters())


# Low-rank corrections


def test_lora_begins_as_the_encoder_and_learns_beside_it():
    vit = small_vit()
    module = make_module(vit, freezing=Lora(rank=2, alpha=4.0))
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(module.encoder.eval()(x).pooled, vit.eval()(x).pooled)
    learns = [name for name, p in module.encoder.named_parameters() if p.requires_grad]
    linear = [name for name, part in vit.named_modules() if isinstance(part, nn.Linear)]
    assert len(learns) == 2 * len(linear) == 24  # two factors for qkv, proj, fc1 and fc2 of three blocks
    qkv = module.encoder.model.blocks[0].attn.qkv
    assert qkv.lora_A["default"].weight.shape == (2, 24)
    _fit(module)
    factors = qkv.lora_B["default"].weight @ qkv.lora_A["default"].weight * (4.0 / 2)
    assert factors.abs().max() > 0
    weight = vit.model.blocks[0].attn.qkv.weight
    torch.testing.assert_close(module.exported().model.blocks[0].attn.qkv.weight, weight + factors)


def test_lora_is_saved_as_a_plain_encoder(tmp_path):
    module = make_module(small_vit(), freezing=Lora(rank=2))
    _fit(module)
    save_encoder(module.exported(), tmp_path, preprocessing=PREPROCESSING, history={})
    x = torch.randn(2, 1, 8, 8)
    again = load_encoder(tmp_path).encoder.eval()
    torch.testing.assert_close(again(x).pooled, module.encoder.eval()(x).pooled, rtol=1e-4, atol=1e-5)
    assert again.state_dict().keys() == small_vit().state_dict().keys()
    assert any("lora_" in name for name, _ in module.encoder.named_parameters())  # the module itself goes on with its own


def test_lora_draws_from_the_seed_alone():
    first, again, other = (make_module(small_vit(), freezing=Lora(rank=2), seed=seed).encoder for seed in (0, 0, 1))
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)


def test_lora_of_some_layers():
    module = make_module(small_vit(), freezing=Lora(rank=2, targets=["qkv"]))
    assert {name.split(".")[4] for name, p in module.encoder.named_parameters() if p.requires_grad} == {"qkv"}


def test_lora_corrects_what_is_called():
    """torchvision's attention reads the weight of its last layer, so a correction beside it would have no gradient."""
    model = torchvision.models.VisionTransformer(32, 16, 2, 2, 24, 48)
    encoder = Adapter(model, ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"], img_size=32, layout="NLC")
    colour = {"mean": [0.5] * 3, "std": [0.3] * 3, "size": [32, 32], "channels": 3}
    module = make_module(encoder, freezing=Lora(rank=2), preprocessing=colour)
    module.head(module.encoder(torch.randn(2, 3, 32, 32), layers=module.head.layers)).sum().backward()
    learning = {name: p for name, p in module.encoder.named_parameters() if p.requires_grad}
    assert learning
    assert all(p.grad is not None for p in learning.values())
    with pytest.raises(ValueError, match=r"out_proj and 1 others .* are read and never called"):
        make_module(encoder, freezing=Lora(targets=["out_proj"]), preprocessing=colour)


def test_lora_refuses_what_it_cannot_correct(encoder):
    with pytest.raises(ValueError, match="freezing=lora: this TimmEncoder has no linear layer"):
        make_module(encoder, freezing=Lora())
    with pytest.raises(ValueError, match=r"no linear layer ends in query. There are fc1, fc2, proj, qkv"):
        make_module(small_vit(), freezing=Lora(targets=["query", "qkv"]))
    with pytest.raises(ValueError, match="rank=0 must be positive"):
        Lora(rank=0)


def test_lora_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"freezing=lora needs peft: pip install"):
        make_module(small_vit(), freezing=Lora())
