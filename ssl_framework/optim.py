"""Optimisers as plain numbers: which parameters decay, how the learning rate scales, rises and falls, and LARS."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, overload, runtime_checkable

import torch
from lightly.utils import lars as lightly_lars
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ssl_framework.schedules import warmup_cosine

Scaling = Literal["none", "linear", "sqrt"]

_NO_DECAY = (nn.LayerNorm, nn.RMSNorm, nn.Embedding)  # these may have more than one dimension; batch and group norms never


@runtime_checkable
class NamesNoDecay(Protocol):
    """A module that knows which of its parameters must not decay, as timm's models do."""

    def no_weight_decay(self) -> set[str]:
        """Names of parameters, relative to the module."""
        ...


def parameter_groups(
    module: nn.Module, weight_decay: float, lr_scale: Callable[[str], float] | None = None
) -> list[dict[str, Any]]:
    """Split what is trainable into weights, and what must not decay: norms, biases, tokens, positional embeddings.

    Decay on them costs accuracy, and with LARS training diverges (Goyal et al. 2017, section 5.3; BYOL, appendix J).
    A parameter does not decay if it has at most one dimension, belongs to a norm or an `nn.Embedding`, is named by timm's
    `no_weight_decay()`, or is a bare ``(1, N, D)`` parameter of a composed module, which is how tokens and positions are kept.

    Args:
        module: its frozen parameters are left out; shared ones appear once.
        weight_decay: of the weights.
        lr_scale: the multiple of the learning rate for the parameter of this name; 1 for all by default.

    Returns:
        At most two groups for each multiple, the largest first. ``adapt`` says whether `LARS` rescales the group's steps,
        ``lr_scale`` is the multiple.

    Raises:
        ValueError: nothing is trainable.
    """
    exempt = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, child in module.named_modules()
        if isinstance(child, NamesNoDecay)
        for name in child.no_weight_decay()
    }
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for prefix, child in module.named_modules():
        for name, parameter in child.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                full_name = f"{prefix}.{name}".lstrip(".")
                free = full_name in exempt or _no_decay(child, parameter)
                scale = 1.0 if lr_scale is None else lr_scale(full_name)
                groups.setdefault((-scale, free), []).append(parameter)
    if not seen:
        raise ValueError(f"{type(module).__name__} has no trainable parameter: unfreeze some, or do not train it")
    return [
        {"params": parameters, "weight_decay": 0.0 if free else weight_decay, "adapt": not free, "lr_scale": -scale}
        for (scale, free), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def _no_decay(owner: nn.Module, parameter: Tensor) -> bool:
    if parameter.ndim <= 1 or isinstance(owner, _NO_DECAY):
        return True
    layer = type(owner).__module__.startswith("torch.nn.")  # a Conv1d with one output has a (1, C, k) weight that decays
    return not layer and parameter.ndim == 3 and parameter.shape[0] == 1


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimiser and its schedule, before the parameters and the length of training are known.

    Attributes:
        optimizer: makes the optimiser from parameter groups, with ``lr``.
        lr: base learning rate, before scaling.
        weight_decay: of weights; norms, biases and tokens never decay.
        warmup_steps: steps of the linear rise; None takes `warmup_share`.
        warmup_share: share of training that the rise takes, in [0, 1].
        final_share: share of the learning rate that is left at the end of the cosine.
        scale_lr: how the rate follows the global batch: "linear" (Goyal et al. 2017) times batch / 256, "sqrt" (SimCLR,
            appendix B.1) times its root, or "none".
        whole_tensors: the optimiser needs norms of whole tensors, so sharded parameters are refused.
        fusable: the optimiser has a faster kernel for all parameters at once, switched on by ``fused=True``.
    """

    optimizer: Callable[..., Optimizer]
    lr: float
    weight_decay: float = 0.0
    warmup_steps: int | None = None
    warmup_share: float = 0.0
    final_share: float = 0.0
    scale_lr: Scaling = "none"
    whole_tensors: bool = False
    fusable: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr is {self.lr}: give a positive number")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay is {self.weight_decay}: give 0 or a positive number")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps}: give 0 or more, or null to use warmup_share")
        for name, share in (("warmup_share", self.warmup_share), ("final_share", self.final_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}: give a share between 0 and 1")
        if self.scale_lr not in ("none", "linear", "sqrt"):
            raise ValueError(f"scale_lr is {self.scale_lr!r}: choose none, linear or sqrt")

    def peak_lr(self, global_batch: int) -> float:
        """The learning rate after warm-up, scaled to the batch of all processes and accumulated micro-batches together.

        Raises:
            ValueError: `global_batch` is not positive.
        """
        if global_batch <= 0:
            raise ValueError(f"global_batch is {global_batch}: give the number of samples of one optimiser step, at least 1")
        ratio = global_batch / 256
        return self.lr * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[self.scale_lr]

    def schedule(self, total_steps: int) -> Callable[[int], float]:
        """The multiple of the peak rate at each step.

        Raises:
            ValueError: `total_steps` is not positive, or the warm-up does not fit into it.
        """
        share = math.floor(self.warmup_share * max(total_steps, 0))
        warmup = share if self.warmup_steps is None else self.warmup_steps
        factor = partial(warmup_cosine, total_steps=total_steps, warmup_steps=warmup, end=self.final_share)
        factor(0)
        return factor

    def build(
        self,
        module: nn.Module,
        *,
        total_steps: int,
        global_batch: int,
        lr_scale: Callable[[str], float] | None = None,
        fused: bool = True,
        done: int = 0,
    ) -> tuple[Optimizer, LRScheduler]:
        """The optimiser of a module, and the scheduler to be stepped after every optimiser step.

        The rate in the parameter groups is the one that is used, and so the one that gets logged. The scheduler's state is
        where it stands, in plain containers; its length is the one given here, so a run that resumes with more steps goes on
        along the longer curve.

        Args:
            module: its trainable parameters are optimised.
            total_steps: optimiser steps of the whole training.
            global_batch: samples of one optimiser step, over all processes.
            lr_scale: the multiple of the learning rate for the parameter of this name; 1 for all by default.
            fused: take the fused kernel where there is one. Not with float16: it unscales too late for clipping.
            done: steps that the schedule has behind it.

        Raises:
            ValueError: nothing is trainable, `total_steps` is not positive, or the warm-up does not fit into it.
        """
        factor = self.schedule(total_steps)
        peak = self.peak_lr(global_batch)
        groups = [
            {"lr": peak * g["lr_scale"], "initial_lr": peak * g["lr_scale"], **g}
            for g in parameter_groups(module, self.weight_decay, lr_scale)
        ]
        optimizer = self.optimizer(groups, lr=peak, **({"fused": True} if fused and self.fusable else {}))
        return optimizer, LambdaLR(optimizer, factor, last_epoch=done - 1)


def sgd(
    lr: float = 0.12,
    weight_decay: float = 5e-4,
    momentum: float = 0.9,
    nesterov: bool = False,
    warmup_steps: int | None = None,
    warmup_share: float = 0.05,
    final_share: float = 0.0,
    scale_lr: Scaling = "linear",
) -> OptimizerSpec:
    """SGD with momentum. The defaults are lightly's for CIFAR-10 (0.06 at a batch of 128); see `OptimizerSpec`.

    Args:
        lr: base learning rate, for a batch of 256.
        weight_decay: of weights only.
        momentum: share of the last step that is kept.
        nesterov: look ahead along it.
        warmup_steps: steps of the rise, or None.
        warmup_share: share of training for the rise, where `warmup_steps` is None.
        final_share: share of the rate left at the end.
        scale_lr: "none", "linear" or "sqrt".
    """
    make = partial(SGD, momentum=momentum, nesterov=nesterov)
    return OptimizerSpec(make, lr, weight_decay, warmup_steps, warmup_share, final_share, scale_lr)


def adamw(
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    warmup_steps: int | None = None,
    warmup_share: float = 0.05,
    final_share: float = 0.0,
    scale_lr: Scaling = "linear",
) -> OptimizerSpec:
    """AdamW. The rate suits small encoders (CCT on CIFAR: 5.5e-4 at a batch of 128), the decay is MAE's; see `OptimizerSpec`.

    Args:
        lr: base learning rate, for a batch of 256.
        weight_decay: decoupled, of weights only.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        warmup_steps: steps of the rise, or None.
        warmup_share: share of training for the rise, where `warmup_steps` is None.
        final_share: share of the rate left at the end.
        scale_lr: "none", "linear" or "sqrt".

    Raises:
        ValueError: `betas` are not two numbers.
    """
    if len(betas) != 2:
        raise ValueError(f"betas are {list(betas)}: give two numbers, such as [0.9, 0.999]")
    make = partial(AdamW, betas=(float(betas[0]), float(betas[1])), eps=eps)
    # fused: a third of the time on a CPU (ResNet-18: 7 ms against 22); SGD gains nothing
    return OptimizerSpec(make, lr, weight_decay, warmup_steps, warmup_share, final_share, scale_lr, fusable=True)


def lars(
    lr: float = 0.3,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    nesterov: bool = False,
    eta: float = 0.02,
    clip_lr: bool = True,
    exclude_bias_and_norm: bool = True,
    warmup_steps: int | None = None,
    warmup_share: float = 0.05,
    final_share: float = 0.0,
    scale_lr: Scaling = "linear",
) -> OptimizerSpec:
    """LARS. The defaults are solo-learn's for CIFAR-10 (`scripts/pretrain/cifar`: eta 0.02, clip_lr); see `OptimizerSpec`.

    lightly's class is used where it says the same. It has no `clip_lr`, and it rescales exactly what decays, so without decay,
    or with biases and norms rescaled, ours steps in.

    Args:
        lr: base learning rate, for a batch of 256.
        weight_decay: of weights only.
        momentum: share of the last step that is kept.
        nesterov: look ahead along it.
        eta: trust coefficient. ImageNet recipes say 0.001.
        clip_lr: a layer's rate never exceeds `lr`.
        exclude_bias_and_norm: biases, norms and tokens take plain SGD steps.
        warmup_steps: steps of the rise, or None.
        warmup_share: share of training for the rise, where `warmup_steps` is None.
        final_share: share of the rate left at the end.
        scale_lr: "none", "linear" or "sqrt".
    """
    if clip_lr or not exclude_bias_and_norm or weight_decay == 0:
        make: Callable[..., Optimizer] = partial(
            LARS, momentum=momentum, nesterov=nesterov, eta=eta, clip_lr=clip_lr, exclude_bias_and_norm=exclude_bias_and_norm
        )
    else:
        make = partial(lightly_lars.LARS, momentum=momentum, nesterov=nesterov, trust_coefficient=eta)
    return OptimizerSpec(make, lr, weight_decay, warmup_steps, warmup_share, final_share, scale_lr, whole_tensors=True)


class LARS(Optimizer):
    """SGD whose step in each layer is proportional to the layer's weights (You et al. 2017, https://arxiv.org/abs/1708.03888).

    The layer's rate is ``eta * |w| / (|g| + weight_decay * |w| + eps)`` (equation 6). With `clip_lr` the layer's effective rate
    ``lr * rate`` becomes ``min(rate, lr)``. A layer whose weights or gradients are all zero takes a plain step without decay.

    Args:
        params: parameters or groups; a group with ``adapt=False`` is excluded.
        lr: learning rate.
        momentum: share of the last step that is kept.
        weight_decay: added to the gradient before it is rescaled.
        nesterov: look ahead along the momentum.
        eta: trust coefficient.
        eps: keeps the division finite.
        clip_lr: see above.
        exclude_bias_and_norm: excluded groups take plain steps of momentum SGD; False rescales them too.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        eta: float = 0.001,
        eps: float = 1e-8,
        clip_lr: bool = False,
        exclude_bias_and_norm: bool = True,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}: give a number from 0 to below 1")
        if nesterov and momentum == 0:
            raise ValueError("nesterov looks ahead along the momentum, which is 0: set momentum, such as 0.9")
        if eta <= 0:
            raise ValueError(f"eta is {eta}: give a positive trust coefficient, such as 0.001 or 0.02")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "eta": eta,
            "eps": eps,
            "clip_lr": clip_lr,
            "exclude_bias_and_norm": exclude_bias_and_norm,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; `closure` computes the loss and its gradients again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rescale = group["adapt"] or not group["exclude_bias_and_norm"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = _rescaled(parameter, parameter.grad, group) if rescale else parameter.grad
                    parameter.add_(self._with_momentum(parameter, update, group), alpha=-group["lr"])
        return loss

    def _with_momentum(self, parameter: Tensor, update: Tensor, group: dict[str, Any]) -> Tensor:
        momentum = group["momentum"]
        if momentum == 0:
            return update
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = update.clone()
        else:
            state["momentum_buffer"].mul_(momentum).add_(update)
        velocity: Tensor = state["momentum_buffer"]
        return update.add(velocity, alpha=momentum) if group["nesterov"] else velocity


def _rescaled(parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
    decay = group["weight_decay"]
    dtype = torch.promote_types(parameter.dtype, torch.float32)  # a norm over half precision overflows
    w = torch.linalg.vector_norm(parameter, dtype=dtype)
    g = torch.linalg.vector_norm(grad, dtype=dtype)
    rate = group["eta"] * w / (g + decay * w + group["eps"])
    if group["clip_lr"]:
        rate = (rate / group["lr"]).clamp(max=1) if group["lr"] > 0 else torch.ones_like(rate)
    # where, not if: asking the device for a number would stop it once a layer
    return torch.where((w > 0) & (g > 0), (grad + decay * parameter) * rate.to(grad.dtype), grad)
