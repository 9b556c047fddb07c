"""Our contestants: what `ssl-framework pretrain` does, and the bare loop that it is measured against."""

import ctypes
import gc
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from throughput_cases import case_of
from throughput_window import Windows, claim_pipes, specification
from torch import Tensor, nn

from ssl_framework import cli
from ssl_framework.commands import build, compose, pretrain
from ssl_framework.data import DataModule
from ssl_framework.encoders import EncoderModule
from ssl_framework.pretext import PretextModule
from ssl_framework.types import Batch, Encoding, Views

_FOREVER = 10_000_000  # steps: a race ends before its training does


class Gate(pl.Callback):
    """Lets the Trainer step when a window is due, and holds it in between.

    Args:
        orders: file descriptor, see `Windows`.
        replies: file descriptor.
    """

    def __init__(self, orders: int, replies: int) -> None:
        self.windows = Windows(orders, replies, wait_for_device)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Everything is built."""
        data: Any = getattr(trainer, "datamodule", None)
        self.windows.begin(precision=str(trainer.precision), workers=data.workers, threads=torch.get_num_threads())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step is done."""
        self.windows.step(outputs["loss"])


class Linear(EncoderModule):
    """One linear layer over the pixels: a step that takes no time of its own.

    Args:
        in_chans: channels of the images.
        img_size: height and width.
        drop_path: taken and not used, as the configuration of a small encoder has it.
    """

    def __init__(self, in_chans: int, img_size: Sequence[int], drop_path: float = 0.0) -> None:
        super().__init__(embed_dim=16, num_layers=0)
        self.layer = nn.Linear(in_chans * img_size[0] * img_size[1], 16)
        self.named("throughput_ours.Linear", in_chans=in_chans, img_size=list(img_size), drop_path=drop_path)

    def forward(self, x: Tensor, *, layers: Sequence[int] = ()) -> Encoding:
        """Encode ``(B, C, H, W)`` floats."""
        return Encoding(self.layer(x.flatten(1)))


def words(spec: dict[str, Any]) -> list[str]:
    """The command line that trains a case: defaults, but for what the case is, and no end.

    Args:
        spec: ``case``, ``data`` (what `throughput_data` made), ``precision``, ``words`` (more of them).
    """
    case = case_of(spec)
    data = ["data=folder", "data.labels=false", f"data.size=[{case.size},{case.size}]"] if case.files else ["data=arrays"]
    encoder = [f"encoder={case.encoder}"]
    if case.encoder == "linear":
        encoder = ["encoder=resnet_micro", "encoder._target_=throughput_ours.Linear", "pretext.hidden_dim=32"]
    stem = ["encoder.small_stem=false"] if case.encoder == "resnet18" and case.files else []
    return [
        *data,
        f"data.path={compose.quoted(spec['data'])}",
        f"data.batch_size={case.batch}",
        *([] if case.held else ["data.resident=false"]),
        *encoder,
        *stem,
        f"views.strength={case.strength}",
        f"views.blur_p={case.blur}",
        f"precision={spec['precision']}",
        f"trainer.max_steps={_FOREVER}",
        "trainer.val_check_interval=0",  # nobody validates or saves while time is taken
        "trainer.checkpoint_every_n_steps=0",
        "run.dir=run",
        *spec["words"],
    ]


def ours(spec: dict[str, Any], orders: int, replies: int) -> None:
    """The command itself, with one monitor more: the gate."""
    gate = [
        "+monitors.gate._target_=throughput_ours.Gate",
        f"+monitors.gate.orders={orders}",
        f"+monitors.gate.replies={replies}",
    ]
    sys.exit(cli.run(["pretrain", *words(spec), *gate]))


def bare(spec: dict[str, Any], orders: int, replies: int) -> None:
    """Forward, backward and optimiser step of the same model on one batch of views that is there already."""
    settings, data, module = _built(spec)
    loader = iter(data.train_dataloader())
    views = _views(module, next(loader))
    del loader, data
    _give_back()
    _train(spec, settings, module, lambda: views, Windows(orders, replies, wait_for_device))


def _give_back() -> None:
    """What the data took is not part of the loop's memory."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def bare_with_data(spec: dict[str, Any], orders: int, replies: int) -> None:
    """The same steps as the command's, batches and views included, in a loop of a few lines."""
    settings, data, module = _built(spec)
    loader: Iterator[Batch] = iter(data.train_dataloader())
    _train(spec, settings, module, lambda: _views(module, next(loader)), Windows(orders, replies, wait_for_device))


def wait_for_device() -> None:
    """A GPU works behind the host's back."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _built(spec: dict[str, Any]) -> tuple[compose.Settings, DataModule, PretextModule]:
    """The command's objects."""
    settings = compose.compose("pretrain", words(spec))
    settings = build.on_this_machine(settings, settings["trainer"]["accelerator"])
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    data = build.data(settings)
    module = pretrain.pretext(settings, data).to(_device())
    if module.channels_last:
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (missing in torch's types)
    assert module.views is not None
    data.attach(module.views)
    return settings, data, module


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _views(module: PretextModule, batch: Batch) -> Views:
    assert module.views is not None
    assert batch.epoch is not None
    draw = batch.draw if batch.draw is not None else module.views.draw(batch.index, batch.epoch)
    return module.views.apply(batch.to(_device()), draw)


def _train(
    spec: dict[str, Any], settings: compose.Settings, module: PretextModule, views: Callable[[], Views], windows: Windows
) -> None:
    assert module.optimizer is not None
    assert settings["precision"] in ("bf16-mixed", "32-true"), f"the bare loop has no {settings['precision']}"
    half = settings["precision"] == "bf16-mixed"
    optimizer, schedule = module.optimizer.build(module, total_steps=_FOREVER, global_batch=case_of(spec).batch, fused=True)
    windows.begin(precision=settings["precision"], threads=torch.get_num_threads())
    while True:
        with torch.autocast(_device().type, torch.bfloat16, enabled=half):
            loss = module(views()).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        windows.step(loss.detach())


KINDS = {"ours": ours, "bare": bare, "bare_with_data": bare_with_data}

if __name__ == "__main__":
    _SPEC = specification()
    KINDS[_SPEC["kind"]](_SPEC, *claim_pipes())
