"""Encoders from their descriptions: only what is listed here, and only plain arguments that fit its signature."""

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ssl_framework import hints
from ssl_framework.encoders import presets
from ssl_framework.encoders.adapter import torchvision_encoder
from ssl_framework.encoders.base import EncoderModule, Spec
from ssl_framework.encoders.depth import depths
from ssl_framework.encoders.floors import PCA, RawPixels
from ssl_framework.encoders.timm import timm_encoder

E = TypeVar("E", bound=EncoderModule)

_FACTORIES: dict[str, Callable[..., EncoderModule]] = {
    "resnet_micro": presets.resnet_micro,
    "resnet18": presets.resnet18,
    "resnet50": presets.resnet50,
    "convnext_tiny": presets.convnext_tiny,
    "vit_micro": presets.vit_micro,
    "vit_tiny": presets.vit_tiny,
    "vit_small": presets.vit_small,
    "timm_encoder": timm_encoder,
    "torchvision_encoder": torchvision_encoder,
    "RawPixels": RawPixels,
    "PCA": PCA,
}
_NEVER = ("weights", "pretrained")  # they read files and addresses; a description has neither


def build(spec: Spec, allow_target: Sequence[str] = ()) -> EncoderModule:
    """A fresh encoder as described; its weights are drawn from torch's global generator.

    Args:
        spec: from `EncoderModule.spec`, or from a file that is not trusted.
        allow_target: functions of your own, ``package.function``, that may be imported and called.

    Raises:
        ValueError: a name that is neither listed nor allowed, arguments that do not fit, or numbers that cannot be built.
    """
    name, args, cut = _parted(spec)
    factory = _factory(name, allow_target)
    for key in _NEVER:
        if key in args:
            raise ValueError(f"The description of {name} has {key}: it may not, because descriptions never load anything.")
    _check_args(name, factory, args, types_too=name in _FACTORIES)
    try:
        encoder = factory(**args)
    except (AssertionError, TypeError, RuntimeError, ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"{name} cannot be built with {args}: {error}") from error
    if not isinstance(encoder, EncoderModule):
        raise ValueError(f"{name} returned a {type(encoder).__name__}: let it return an Adapter or another EncoderModule.")
    if name not in _FACTORIES:
        encoder.named(name, **args)
    return encoder.cut(cut)


def random_like(encoder: E, seed: int = 0) -> E:
    """The same architecture with fresh weights: the floor that shows what pretraining added.

    Args:
        encoder: any encoder that knows how it was made.
        seed: of the weights; the global generators stay as they are.
    """
    spec = encoder.spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build(spec, allow_target=[spec["name"]])
    assert isinstance(fresh, type(encoder))
    return fresh


def refresh(encoder: EncoderModule, n: int, seed: int, example: Tensor) -> None:
    """Give the last layers, and what comes after them, the weights of a new encoder; it is changed in place.

    Args:
        encoder: any encoder that knows how it was made.
        n: layers; 0 changes nothing.
        seed: of the weights.
        example: ``(1, C, H, W)`` of any content, see `depths`.

    Raises:
        ValueError: there are not as many layers.
    """
    if not 0 <= n <= encoder.num_layers:
        raise ValueError(f"reinit={n}: the encoder has {encoder.num_layers} layers; take 0 to {encoder.num_layers}.")
    if n == 0:
        return
    like = next((p for p in encoder.parameters() if p.is_floating_point()), example)
    level = depths(encoder, example.to(like))
    chosen = {name for name, depth in level.items() if depth > encoder.num_layers - n}
    owners = {name.rpartition(".")[0] for name in chosen}
    fresh = random_like(encoder, seed).state_dict()
    with torch.no_grad():
        for name, value in encoder.state_dict().items():
            if name in chosen or (name not in level and name.rpartition(".")[0] in owners):  # buffers go with their module
                value.copy_(fresh[name])


def describe(spec: Spec) -> str:
    """One line for people: ``resnet_micro(in_chans=1, img_size=8x8), last 1 layers cut``."""
    shown = [f"{key}={_short(value)}" for key, value in spec["args"].items() if value is not None]
    cut = f", last {spec['cut']} layers cut" if spec["cut"] else ""
    return f"{spec['name']}({', '.join(shown)}){cut}"


def _short(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _parted(spec: Mapping[str, Any]) -> tuple[str, dict[str, Any], int]:
    """Name, arguments and cut, each of the right kind."""
    name, args, cut = spec.get("name"), spec.get("args"), spec.get("cut", 0)
    if not isinstance(name, str) or not isinstance(args, dict) or type(cut) is not int or set(spec) - {"name", "args", "cut"}:
        raise ValueError(f"The description has {sorted(map(str, spec))}: it must have a name, args and cut, and nothing else.")
    return name, args, cut


def _factory(name: str, allow_target: Sequence[str]) -> Callable[..., object]:
    if name in _FACTORIES:
        return _FACTORIES[name]
    if name not in allow_target:
        near = difflib.get_close_matches(name, _FACTORIES, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(_FACTORIES)}."
        own = f' If it is your own code: allow_target=["{name}"].' if "." in name else ""
        raise ValueError(f"No encoder is called {name!r}. {hint}{own}")
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} cannot be imported ({error}): is its package installed?") from error


def _check_args(name: str, factory: Callable[..., object], args: Mapping[str, Any], *, types_too: bool) -> None:
    """Every argument exists, and, of our own factories, has the type that the signature says."""
    kinds, names = hints.of(factory), hints.takes(factory)
    for key, value in args.items():
        if names is not None and key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(names))}."
            raise ValueError(f"{name} takes no argument {key!r}: {hint}")
        if types_too and not hints.fits(value, kinds[key], strict=True):
            raise ValueError(f"{name}({key}={value!r}): that is not {hints.said(kinds[key])}.")
