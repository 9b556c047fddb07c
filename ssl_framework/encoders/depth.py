"""Where in an encoder a parameter acts: what unfreezing from the top and learning rates by depth are told by."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ssl_framework.types import Encoder


def depths(encoder: Encoder, example: Tensor) -> dict[str, int]:
    """The layer that each parameter belongs to, found by what the layers' outputs depend on, whatever the architecture.

    Args:
        encoder: a module with ``n`` layers.
        example: ``(1, C, H, W)`` of any content; it goes through once, in evaluation mode.

    Returns:
        A number for each parameter by its name: 1 to ``n`` for the layers, ``n + 1`` for what comes after the last (a final
        norm), and 0 for what comes before the first (a stem, positions) or is not used. What the first layer depends on is a
        stem if it is named unlike the layers: ``conv1`` beside ``layer1``, ``patch_embed`` beside ``blocks.0``. Where one layer
        is left, a stem is what is not in its module (`EncoderModule.layer_modules`).
    """
    module, n = cast(nn.Module, encoder), encoder.num_layers
    named = dict(module.named_parameters(remove_duplicate=False))
    frozen = [p for p in named.values() if not p.requires_grad and p.is_floating_point()]
    modes = {name: part.training for name, part in module.named_modules()}
    try:
        module.eval()
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            seen = encoder(example, layers=tuple(range(n)))
        visited: set[Any] = set()
        reached = [_reached(output, visited) for output in (*seen.layers, seen.pooled)]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        module.train(modes[""])
        for name, part in module.named_modules():
            part.training = modes[name]
    level = {leaf: number for number, leaves in enumerate(reached, start=1) for leaf in leaves}
    found = {name: level.get(id(parameter), 0) for name, parameter in named.items()}
    modules: Sequence[str] = getattr(encoder, "layer_modules", ())
    for name in list(_before(found, modules[0]) if n == 1 and modules else _stem(found)):
        found[name] = 0
    return found


def _reached(output: Tensor, visited: set[Any]) -> list[int]:
    """Identities of the leaves that an output depends on and earlier ones did not."""
    leaves: list[int] = []
    todo = [output.grad_fn]
    while todo:
        node: Any = todo.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):  # a leaf's own node in the graph
            leaves.append(id(node.variable))
        todo += [before for before, _ in node.next_functions]
    return leaves


def _before(found: dict[str, int], layer: str) -> Iterator[str]:
    """Where one layer is left there is no second to compare its names with: what is not in its module comes before it."""
    first = [name for name, depth in found.items() if depth == 1]
    inside = [name for name in first if name.startswith(f"{layer}.")]
    yield from (name for name in first if inside and name not in inside)


def _stem(found: dict[str, int]) -> Iterator[str]:
    """Parameters of the first layer that are not named as the second layer is."""
    first, second = ([name for name, depth in found.items() if depth == level] for level in (1, 2))
    length = _common(name.split(".")[:-1] for name in second)
    like = {_skeleton(name, length) for name in second}
    if length and any(_skeleton(name, length) in like for name in first):
        yield from (name for name in first if _skeleton(name, length) not in like)


def _common(paths: Iterable[list[str]]) -> int:
    """How many components at the front all paths share."""
    shared = 0
    for level in zip(*paths, strict=False):  # as far as the shortest goes
        if len(set(level)) > 1:
            break
        shared += 1
    return shared


def _skeleton(name: str, length: int) -> str:
    """``model.blocks.3.norm`` to ``model.blocks.#`` at a length of 3."""
    return re.sub(r"\d+", "#", ".".join(name.split(".")[:length]))
