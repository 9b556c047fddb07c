"""The transfer audit: what was loaded, what learnt, and proof that what was frozen is the same to the bit."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_framework.data import Labelled
from ssl_framework.downstream.freezing import Freezer
from ssl_framework.types import ViewMaker

_SHOWN = 5  # names in an error
_SAMPLES = 1024  # images that the statistics are measured on
_FAR = 1.0  # a mean that is so many of pretraining's standard deviations away is told loudly


class AuditError(RuntimeError):
    """What training did is not what was asked for; the message names the tensors."""


class Audit:
    """Looks at a transfer before, while and after it trains, and stops it where it is not what was asked for.

    Args:
        freezer: the encoder and its policy.
        head: learns always.
    """

    def __init__(self, freezer: Freezer, head: nn.Module) -> None:
        self.freezer, self.head = freezer, head
        self.hashes: dict[str, str] = {}
        self.stages: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def watch(self, step: int) -> None:
        """Note every frozen tensor as it is, and what learns from this step on."""
        self.hashes = {name: fingerprint([(name, tensor)]) for name, tensor in self.freezer.frozen()}
        learning = [p for p in (*self.freezer.encoder.parameters(), *self.head.parameters()) if p.requires_grad]
        every = [*self.freezer.encoder.parameters(), *self.head.parameters()]
        trained, total = (sum(p.numel() for p in group) for group in (learning, every))
        self.stages.append({
            "from_step": step,
            "trainable_parameters": trained,
            "trainable_share": round(trained / max(total, 1), 6),
            "frozen_tensors": len(self.hashes),
        })  # fmt: skip

    def unchanged(self) -> None:
        """Frozen tensors are what they were when they were noted.

        Raises:
            AuditError: names those that are not.
        """
        kind = self.freezer.policy.kind
        now = {name: fingerprint([(name, tensor)]) for name, tensor in self.freezer.frozen()}
        other = sorted(now.keys() ^ self.hashes.keys())
        if other:
            raise AuditError(
                f"freezing={kind} froze other tensors when this stage began than it does now: {_listed(other)}. Somebody set "
                "requires_grad, or the run was resumed in another stage."
            )
        moved = [name for name, digest in self.hashes.items() if now[name] != digest]
        if moved:
            raise AuditError(
                f"{len(moved)} frozen tensors of the encoder changed while freezing={kind} trained: {_listed(moved)}. "
                "Something writes into them (a norm in training mode, a callback, an optimiser of its own); the result is not "
                "that of a frozen encoder."
            )

    def modes(self) -> None:
        """What is frozen evaluates: no statistics move there, and no path or unit is dropped.

        Raises:
            AuditError: names the modules that train.
        """
        wakeful = self.freezer.wakeful()
        if wakeful:
            raise AuditError(
                f"freezing={self.freezer.policy.kind}: {_listed(wakeful)} should evaluate and are in training mode. Something "
                "called encoder.train(); call train() on the DownstreamModule, which keeps what is frozen asleep."
            )

    def optimizer(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """The optimiser holds what learns, all of it and nothing else, each at the rate that the policy says.

        Args:
            groups: of the optimiser; ``lr_scale`` is the multiple of the base rate.

        Raises:
            AuditError: names what is missing, too much, or at another rate.
        """
        held = {id(p): float(group["lr_scale"]) for group in groups for p in group["params"]}
        wanted = {f"encoder.{name}": self.freezer.rate(name) for name in self.freezer.places}
        wanted |= {f"head.{name}": self.freezer.head_rate for name, _ in self.head.named_parameters()}
        named = {f"encoder.{name}": p for name, p in self.freezer.encoder.named_parameters(remove_duplicate=False)}
        named |= {f"head.{name}": p for name, p in self.head.named_parameters()}
        frozen = [name for name, rate in wanted.items() if rate == 0 and id(named[name]) in held]
        absent = [name for name, rate in wanted.items() if rate > 0 and id(named[name]) not in held]
        asleep = [name for name, rate in wanted.items() if named[name].requires_grad != (rate > 0)]
        other = [name for name, rate in wanted.items() if rate > 0 and abs(held.get(id(named[name]), rate) - rate) > 1e-9]
        strangers = held.keys() - {id(p) for p in named.values()}
        for names, said in (
            (frozen, "are frozen and in the optimiser"),
            (absent, "should learn and are not in the optimiser"),
            (asleep, "have a requires_grad that the policy does not say"),
            (other, "have another learning rate than the policy says"),
            (
                [f"{len(strangers)} unknown tensors"] if strangers else [],
                "are in the optimiser and in neither encoder nor head",
            ),
        ):
            if names:
                raise AuditError(f"freezing={self.freezer.policy.kind}: {_listed(names)} {said}.")

    def images(self, split: Labelled, views: ViewMaker) -> None:
        """How the images of the task differ from those of pretraining: mean and deviation by channel, size, channels."""
        rows = torch.linspace(0, len(split) - 1, min(_SAMPLES, len(split))).long()
        images = split.images(rows).float() / 255
        mean, std = images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3)).tolist()
        away = max(abs(own - seen) / scale for own, seen, scale in zip(mean, views.mean, views.std, strict=True))
        self.facts["images"] = {
            "mean": _rounded(mean), "pretraining_mean": _rounded(views.mean),
            "std": _rounded(std), "pretraining_std": _rounded(views.std),
            "mean_differs_by_stds": round(away, 3),
            "size": list(images.shape[-2:]), "pretraining_size": list(views.size),
            "channels": images.shape[1],
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain containers."""
        return {"hashes": dict(self.hashes), "stages": [dict(stage) for stage in self.stages]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: what was frozen then is compared with what is there now."""
        self.hashes, self.stages = dict(state["hashes"]), list(state["stages"])

    def report(self) -> dict[str, Any]:
        """All of it as plain values: a section of the run folder."""
        digest = hashlib.sha256("".join(f"{name}{value}" for name, value in sorted(self.hashes.items())).encode())
        return {
            "freezing": self.freezer.policy.state(),
            **self.facts,
            "stages": self.stages,
            "frozen_sha256": digest.hexdigest() if self.hashes else None,
        }

    def line(self) -> str:
        """All of it in one line of the log."""
        last = self.stages[-1] if self.stages else {"trainable_parameters": 0, "trainable_share": 0.0}
        said = [f"{last['trainable_parameters']:,} parameters learn ({last['trainable_share']:.1%})"]
        loaded = self.facts.get("encoder", {})
        if "tensors" in loaded:
            said.insert(0, f"{loaded['tensors']} of {loaded['tensors_expected']} tensors loaded")
        said.append(f"{len(self.hashes)} frozen tensors" if self.hashes else "nothing is frozen")
        images = self.facts.get("images")
        if images:
            if images["size"] != images["pretraining_size"]:
                said.append(f"images of {_by(images['size'])} brought to {_by(images['pretraining_size'])}")
            away = images["mean_differs_by_stds"]
            said.append(f"their mean is {away:.2f} standard deviations from pretraining's" + (": FAR" if away > _FAR else ""))
        return "audit: " + "; ".join(said)


def fingerprint(tensors: nn.Module | Sequence[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors with types and shapes: equal only if all are equal to the bit.

    Args:
        tensors: or a module: every parameter and buffer of it, those that are not saved too.
    """
    if isinstance(tensors, nn.Module):
        tensors = [*tensors.named_parameters(remove_duplicate=False), *tensors.named_buffers(remove_duplicate=False)]
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
