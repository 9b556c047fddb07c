"""``ssl-framework replay RUN``: the batch at which a pretraining stopped being finite, once more."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_framework import reading
from ssl_framework.checkpoint import store
from ssl_framework.checkpoint.training import FAILURE
from ssl_framework.commands import build, compose, early, pretrain
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.data import DataModule
from ssl_framework.encoders import load_strictly
from ssl_framework.encoders.weights import read_plain
from ssl_framework.pretext import PretextModule

_NAMED = 10  # samples and parameters
_NEEDED = ("seed", "precision", "data", "encoder", "encoder_file", "views", "pretext", "optimizer", "trainer")


def run(settings: Settings) -> dict[str, Any]:
    """Replay batches: a position in the data says which samples, views and dropout there were, and the dump has the weights.

    Args:
        settings: of `compose("replay", ...)`.

    Returns:
        ``batches``: of each its ``position``, ``loss``, ``gradient_norm``, the ``first`` place that was not finite or None, and
        ``samples`` whose embedding was not.

    Raises:
        ValueError: there is no such run, or it did not stop so and no batch is named.
    """
    home = Path(settings["run_folder"])
    saved = compose.saved_settings(home, "run_folder", settings["allow_target"])
    if saved["run"]["verb"] != "pretrain":
        raise ValueError(
            f"run_folder={home}: that is a run of `{saved['run']['verb']}`, and pretraining is what can be replayed."
        )
    lacking = [key for key in _NEEDED if key not in saved]
    if lacking:
        raise ValueError(f"run_folder={home}: its config.yaml lacks {lacking[0]}, so it is not as this program wrote it.")
    early.check_saved({key: saved[key] for key in _NEEDED}, home)
    facts, weights = _failure(home, settings)
    data = build.data(saved)
    module = pretrain.pretext(saved, data).to(build.device(settings["accelerator"])).train()
    load_strictly(module, _state(weights), str(weights))
    module.progress = min(1.0, facts["step"] / facts["max_steps"])
    assert module.views is not None
    data.attach(module.views)
    world = facts["processes"]
    rank = settings["rank"] if settings["rank"] is not None else (facts["ranks"] or [0])[0]
    if not 0 <= rank < world:
        raise ValueError(f"rank={rank}: the run had {world} processes, numbered from 0.")
    half = build.precision(saved, "cpu" if module.device.type == "cpu" else "gpu") == "bf16-mixed"
    told = [_replayed(module, data, position, rank, world, half) for position in facts["positions"]]
    for one in told:
        say(_sentence(one, data))
    return {"batches": told}


def _failure(home: Path, settings: Settings) -> tuple[dict[str, Any], Path]:
    """What is to be replayed, and the file of the weights."""
    asked, given = settings["positions"], settings["checkpoint"]
    file, weights = home / FAILURE / "failure.json", home / FAILURE / "state.ckpt" if given is None else Path(given)
    if not file.is_file() and (asked is None or given is None):
        raise ValueError(
            f"run_folder={home}: this run did not stop because its numbers were not finite. To look at any batch give "
            "positions=[N] and checkpoint=FILE."
        )
    manifests = [weights, *reversed(store.checkpoints(home))]
    known = next((store.read_manifest(path) for path in manifests if path.with_suffix(".json").is_file()), {"processes": 1})
    facts = {"ranks": [], **known} if given is not None or not file.is_file() else {**known, **_dump(file)}
    if "max_steps" not in facts:
        raise ValueError(f"checkpoint={weights} has no manifest beside it: give one of {store.checkpoint_dir(home)}.")
    if asked is not None:
        facts["positions"] = asked if isinstance(asked, list) else [asked]
    elif "positions" not in facts:
        facts["positions"] = _dump(file).get("positions", [])
    return _checked(facts, file if asked is None else weights), weights


def _dump(file: Path) -> dict[str, Any]:
    return reading.json_of(file, dict[str, Any])


def _checked(facts: dict[str, Any], source: Path) -> dict[str, Any]:
    """Facts that may be a stranger's.

    Raises:
        ValueError: they are not what a run of ours writes.
    """
    counts = {name: facts.get(name) for name in ("step", "max_steps", "processes")}
    lists = {name: facts.get(name) for name in ("positions", "ranks")}
    good = all(_is_count(one) for one in counts.values()) and min(facts["max_steps"], facts["processes"]) > 0
    if not good or not all(isinstance(one, list) and all(map(_is_count, one)) for one in lists.values()):
        raise ValueError(f"{source} says {str({**counts, **lists})[:300]}: these are no numbers of a run of ours.")
    return facts


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _state(weights: Path) -> dict[str, Tensor]:
    """The state of the module in a checkpoint."""
    held = read_plain(weights)
    state = held.get("state_dict") if isinstance(held, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{weights} is no checkpoint of a pretraining: it has no state_dict of tensors.")
    return dict(state)


def _replayed(module: PretextModule, data: DataModule, position: int, rank: int, world: int, half: bool) -> dict[str, Any]:
    batch = data.batch_at(position, rank, world).to(module.device)
    places = _Places(module)
    with torch.autocast(module.device.type, torch.bfloat16, enabled=half):
        step = module.replay(batch, position, rank)
    places.close()
    module.zero_grad()
    step.loss.backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    bad = [name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())]
    finite = step.embedding.detach().flatten(1).isfinite().all(dim=1)  # (V * B,)
    return {
        "position": position,
        "loss": float(step.loss.detach()),
        "gradient_norm": float(torch.nn.utils.get_total_norm(list(gradients.values()))),
        "first": places.first or (f"the gradient of {bad[0]}" if bad else None),
        "samples": batch.index[~finite.view(-1, len(batch.index)).all(dim=0)].tolist(),
    }


class _Places:
    """Watches what every part of a module gives; the first that is not finite, though what it got was, is where it began."""

    def __init__(self, module: nn.Module) -> None:
        self.first: str | None = None
        self._hooks = [
            part.register_forward_hook(self._watching(name))
            for name, part in module.named_modules()
            if not list(part.children())
        ]

    def _watching(self, name: str) -> Any:
        def look(part: nn.Module, got: Any, gave: Any) -> None:
            if self.first is None and _any_bad(gave):
                kind = type(part).__name__
                self.first = f"the input of {name} ({kind})" if _any_bad(got) else f"the output of {name} ({kind})"

        return look

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _any_bad(values: Any) -> bool:
    if isinstance(values, Tensor):
        return values.is_floating_point() and not bool(values.isfinite().all())
    return isinstance(values, tuple | list) and any(map(_any_bad, values))


def _sentence(one: dict[str, Any], data: DataModule) -> str:
    head = f"batch {one['position']}: loss {one['loss']:g}, gradient norm {one['gradient_norm']:g}"
    if one["first"] is None:
        return f"{head}. It is finite here: another device, precision or number of processes may be why it was not."
    names = [data.train.name(index) for index in one["samples"][:_NAMED]]
    more = f" and {len(one['samples']) - _NAMED} more" if len(one["samples"]) > _NAMED else ""
    samples = f" Samples: {', '.join(names)}{more}." if names else ""
    return f"{head}. Not finite first: {one['first']}.{samples}"
