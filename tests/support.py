"""What several test suites need: every pretext task on disk, small, and a few processes that talk over gloo."""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ssl_framework import keyed, run
from ssl_framework.data import ArraySource, DataModule, digits
from ssl_framework.encoders import resnet_micro, vit_micro
from ssl_framework.optim import OptimizerSpec, adamw
from ssl_framework.pretext import PretextModule
from ssl_framework.types import BadSampleError, Batch, Encoding, Views
from ssl_framework.views import ImageViews, affine

CONF = Path(__file__).resolve().parent.parent / "conf"
TASKS = sorted(path.stem for path in (CONF / "pretext").glob("*.yaml"))
# what a task carries along: a teacher, clusters, a centre, a decoder, a queue, a bank of samples, a head of classes, nothing
KINDS = ("byol", "deepcluster_v2", "dino", "mae", "moco_v2", "npid", "rotation", "simclr")
KINDS_FIRST = [pytest.param(task, marks=() if task in KINDS else pytest.mark.slow) for task in TASKS]


def pretext_yaml(task: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / "pretext" / f"{task}.yaml").read_text())


def target(node: dict[str, Any]) -> Any:
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def task_class(task: str) -> type[PretextModule]:
    return target(pretext_yaml(task)["pretext"])


def narrow(task: str) -> dict[str, Any]:
    """The numbers of the task's YAML, with heads, queues and prototypes that a test has time for."""
    numbers = {name: value for name, value in pretext_yaml(task)["pretext"].items() if name != "_target_"}
    for name, value in numbers.items():
        if name.endswith("_dim"):
            numbers[name] = min(value, 32)
        elif name.endswith(("_depth", "_heads")):
            numbers[name] = 1 if name.endswith("_depth") else 2
        elif name in {"prototypes", "queue_size", "directions", "permutations", "negatives"}:
            numbers[name] = min(value, 64)
    if "whitening_size" in numbers:  # whose samples span the projection
        numbers |= {"projection_dim": 4, "whitening_size": 8}
    return numbers


def light(task: str) -> list[str]:
    """What `narrow` says, as words of the command line."""
    whole = pretext_yaml(task)["pretext"]
    return [f"pretext.{name}={value}" for name, value in narrow(task).items() if value != whole[name]]


def small(
    task: str, *, seed: int = 0, optimizer: OptimizerSpec | None = None, encoder: Any = None, **more: Any
) -> PretextModule:
    """The task as its YAML has it but for what is told, with narrow heads on a micro encoder for 8x8 digits, or on another
    that is no ViT."""
    config, numbers = pretext_yaml(task), narrow(task) | more
    torch.manual_seed(seed)
    overrides = {key: str(choice) for entry in config["defaults"] for key, choice in entry.items()}
    encoder = resnet_micro(in_chans=channels(task), img_size=8) if encoder is None else encoder
    if "vit" in overrides.get("override /encoder", ""):
        pool = "cls" if task_class(task).card.class_token else "mean"
        encoder = vit_micro(in_chans=channels(task), img_size=8, patch_size=2, pool=pool).cut(4)
    cls, views = target(config["pretext"]), digit_views(task, seed)
    optimizer = optimizer or adamw(lr=1e-3, scale_lr="none")
    return cls(encoder, **numbers, views=views, optimizer=optimizer, seed=seed)


def channels(task: str) -> int:
    """Of the digits that the task can learn from."""
    return 3 if task_class(task).card.needs_colour else 1


def digit_views(task: str, seed: int) -> ImageViews:
    mean, std = (0.3,) * channels(task), (0.37,) * channels(task)
    return affine(size=(8, 8), mean=mean, std=std, seed=seed, views=task_class(task).card.views)


def digits_data(task: str = "simclr", batch_size: int = 64, **options: Any) -> DataModule:
    """Grey digits, or tinted ones for a task that needs colour."""
    return (digits if channels(task) == 1 else tinted_digits)(batch_size=batch_size, **options)


def tinted_digits(**options: Any) -> DataModule:
    """The digits, each between two colours of its own: one of the paper and one of the ink."""
    grey, targets = load_digits(return_X_y=True)
    ink = np.asarray(grey).reshape(-1, 8, 8, 1) / 16
    paint = keyed.uniform(torch.arange(len(ink)), 0, 6).numpy().reshape(-1, 2, 1, 1, 3)
    return DataModule(ArraySource(ink * paint[:, 0] + (1 - ink) * paint[:, 1], np.asarray(targets)), name="tinted", **options)


def fit(
    module: PretextModule, data: DataModule, steps: int, folder: Path, *, resume: Path | None = None, **options: Any
) -> pl.Trainer:
    """Train without bars and loggers; returns the Trainer."""
    defaults: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "val_every": 0}
    trainer = run.trainer(steps=steps, data=data, default_root_dir=folder, **{**defaults, **options})
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    return trainer


def some_views(task: str, batch: int = 8, seed: int = 0) -> Views:
    """Fixed views of real digits for calling a task without a Trainer."""
    images = digits_data(task).split("train").images(range(batch))
    index, views = torch.arange(batch), digit_views(task, seed)
    return views.apply(Batch(images, None, index), views.draw(index, 0))


def accepts(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Plain constructor arguments of a task: what stands between the encoder and ``**training``."""
    parameters = dict(inspect.signature(function).parameters)
    return {n: p for n, p in parameters.items() if n not in {"self", "encoder", "training"}}


def bits(state: Any) -> str:
    """One hash of every tensor and number of a nested state."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            flat = value.detach().contiguous().cpu().view(-1)
            digest.update(str(value.dtype).encode() + flat.view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                digest.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            digest.update(repr(value).encode())

    add(state)
    return digest.hexdigest()


def in_a_child(function: Callable[[], object]) -> int:
    """Run something in a forked child: its status, as `os.waitpid` gives it."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:  # whatever it is: a child that went on would be a second test session
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def script(file: str) -> ModuleType:
    """A file that is run by its path, ``benchmarks/NAME.py`` or ``docs/hooks.py``, as it imports what lies beside it."""
    path = CONF.parent / file
    spec = importlib.util.spec_from_file_location(file.replace("/", "_").removesuffix(".py"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


class Numbers:
    """A source whose image `i` is filled with `i`; some cannot be read."""

    targets, classes, size, channels = None, None, (2, 2), 1

    def __init__(self, n: int, bad: tuple[int, ...] = ()) -> None:
        self.n, self.bad = n, bad

    def __len__(self) -> int:
        return self.n

    def read(self, index: int) -> Tensor:
        if index in self.bad:
            raise BadSampleError("planted")
        return torch.full((1, 2, 2), index % 256, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return f"number {index}"


class LinearEncoder(nn.Module):
    """The smallest encoder there is, without BatchNorm, for tests of gradients."""

    num_layers = 1

    def __init__(self, inputs: int, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.linear = nn.Linear(inputs, embed_dim)

    def forward(self, x: Tensor, *, layers: Any = ()) -> Encoding:
        return Encoding(self.linear(x.flatten(1)))

    def cut(self, k: int) -> "LinearEncoder":
        assert k == 0
        return self


class MapEncoder(nn.Module):
    """A small map of any input, without BatchNorm: for tasks that cut inputs or look at places."""

    num_layers = 1

    def __init__(self, embed_dim: int, in_chans: int = 1) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.conv = nn.Conv2d(in_chans, embed_dim, 2, stride=2)

    def forward(self, x: Tensor, *, layers: Any = ()) -> Encoding:
        maps = self.conv(x).tanh()
        tokens = maps.flatten(2).transpose(1, 2)
        return Encoding(tokens.mean(1), tokens, tuple(maps.shape[2:]))

    def cut(self, k: int) -> "MapEncoder":
        assert k == 0
        return self


def views_of(crops: Tensor, seed: int = 0) -> Views:
    """``(V, B, ...)`` crops as `Views` of samples 0 to B - 1."""
    index = torch.arange(crops.shape[1])
    return Views(crops, index=index, key=keyed.mix(seed, 0, index))


def crops(views: int = 2, batch: int = 5, seed: int = 0) -> Tensor:
    """``(V, B, 1, 4, 4)`` noise in float64, for formulas."""
    return torch.randn(views, batch, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moved(task: Any) -> Any:
    """The task with a teacher that is no longer its student."""
    with torch.no_grad():
        for parameter in task.teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return task


class AllReduce(torch.autograd.Function):
    """The sum over processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm(nn.Module):
    """BatchNorm over the batch of all processes, by a differentiable sum: `nn.SyncBatchNorm` does not run on a CPU."""

    def __init__(self, like: nn.BatchNorm1d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = like.weight, like.bias, like.eps

    def forward(self, x: Tensor) -> Tensor:
        sums = torch.stack([x.sum(0), x.square().sum(0), torch.full_like(x[0], len(x))])
        if dist.is_initialized():
            sums = AllReduce.apply(sums)
        mean = sums[0] / sums[2]
        var = sums[1] / sums[2] - mean.square()
        out = (x - mean) / (var + self.eps).sqrt()
        return out if self.weight is None else out * self.weight + (0 if self.bias is None else self.bias)


def replace_batch_norm(module: nn.Module, make: Callable[[nn.BatchNorm1d], nn.Module]) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d):
            setattr(module, name, make(child))
        else:
            replace_batch_norm(child, make)
    return module


def on_ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Run ``function(rank, world, *args)`` in `world` gloo processes and return what each returned."""
    with tempfile.TemporaryDirectory() as folder:
        context = mp.get_context("fork")
        workers = [context.Process(target=_rank, args=(rank, world, folder, function, args)) for rank in range(world)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=120)
        for worker in workers:
            if worker.is_alive():
                worker.kill()
        assert [worker.exitcode for worker in workers] == [0] * world, "a rank failed: its traceback is above"
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, world: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.save(function(rank, world, *args), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
