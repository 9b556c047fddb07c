"""``ssl-framework pretrain``: an encoder from unlabelled data."""

import traceback
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

from ssl_framework import __version__
from ssl_framework.checkpoint import SaveRun, checkpoints, last_checkpoint
from ssl_framework.commands import build, early, folder
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import is_first, say
from ssl_framework.commands.errors import StoppedError, sentence
from ssl_framework.commands.metrics_file import MetricsFile
from ssl_framework.data import DataModule
from ssl_framework.guards.preemption import EXIT_CODE, Preempted
from ssl_framework.monitors import alarms, summary
from ssl_framework.pretext import PretextModule
from ssl_framework.views.image import ImageViews

_OTHER_STATE = (KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError, AssertionError, OverflowError)


def run(settings: Settings) -> dict[str, Any]:
    """Pretrain and save the encoder.

    Args:
        settings: of `compose("pretrain", ...)`.

    Returns:
        ``run``, the folder; ``steps``; ``unreadable``, names of the samples that were replaced; ``alarms`` of the monitors,
        each with ``step``, ``kind`` and ``message``; and the last value of everything that was logged.

    Raises:
        ValueError: what the user asked for does not fit together; nothing was trained.
        StoppedError: a signal.
    """
    resume = settings["resume"]
    if resume is not None:
        settings = early.go_on(settings)
    checkpoint = None if resume is None else _last(resume)
    settings = build.on_this_machine(settings, settings["trainer"]["accelerator"])
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    data = build.data(settings)
    labelled = build.labelled(settings, data)
    data.require_apart()  # before monitors take its splits
    labelled.require_apart()
    data.require_unseen(labelled)
    module = pretext(settings, data)
    home = Path(settings["run"]["dir"])
    trainer = _trainer(settings, data, labelled, home)
    if resume is None:  # only now: what does not fit together leaves no folder behind
        folder.begin(settings)
    with folder.claimed(home):
        _note_facts(home, data)
        say(_headline(module, data, trainer, home))
        _fit(settings, trainer, module, data, checkpoint, home)
        found = [alarm._asdict() for alarm in alarms(trainer)]
        folder.write_alarms(home, {"steps": trainer.global_step, "alarms": found})
    say(summary(trainer))
    say(
        *data.bad_samples.lines(),
        f"encoder: {home / 'encoder.safetensors'}",
        f"next:    ssl-framework evaluate from_run={home}",
    )
    told = {"steps": trainer.global_step, "unreadable": data.bad_samples.names(), "alarms": found}
    return {"run": str(home), **told, **{name: float(value) for name, value in trainer.callback_metrics.items()}}


def pretext(settings: Settings, data: DataModule) -> PretextModule:
    """The task, its encoder inside, ready to be fitted on the data."""
    views = build.views(settings["views"], data.facts)
    if settings["trainer"]["compile"] and isinstance(views, ImageViews):
        views.compile()
    encoder = build.encoder(settings, data.facts, views)
    return build.make(
        settings["pretext"],
        encoder=encoder,
        views=views,
        optimizer=build.optimizer(settings),
        seed=settings["seed"],
        compile=settings["trainer"]["compile"],
        channels_last=settings["trainer"]["channels_last"],
    )


def _last(resume: str) -> Path:
    """What to go on from.

    Raises:
        ValueError: it is a folder of shards, or all are damaged.
    """
    found = last_checkpoint(resume, on_damage=rank_zero_warn if is_first() else None)
    if found.is_dir():
        raise ValueError(
            f"{found} is a folder of shards, whose .metadata is a pickle that could run code: it is not read. Runs with "
            "trainer.strategy.save_distributed_checkpoint=false write one file."
        )
    return found


def _trainer(settings: Settings, data: DataModule, labelled: DataModule, home: Path) -> pl.Trainer:
    options = settings["trainer"]
    history = {"data": data.name, "seed": settings["seed"], "version": __version__, "began_from": settings["encoder_file"]}
    saver = SaveRun(options["checkpoint_every_n_steps"], options["keep_checkpoints"], history)
    callbacks = [*build.monitors(settings, labelled), saver]
    return build.trainer(settings, data, home, callbacks, **build.trainer_keys(settings))


def _fit(
    settings: Settings, trainer: pl.Trainer, module: PretextModule, data: DataModule, checkpoint: Path | None, home: Path
) -> None:
    if checkpoint is not None:
        step = int(checkpoint.stem.split("-")[-1])
        if step >= trainer.max_steps:
            raise ValueError(
                f"resume={home} is complete: {step} of {trainer.max_steps} steps are done. To train longer give "
                "trainer.max_epochs or trainer.max_steps; the learning rate then follows the longer schedule."
            )
        folder.note_resumption(settings)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.go_on_from(step)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except _OTHER_STATE as error:
        if not _while_restoring(error):
            raise
        raise ValueError(
            f"{checkpoint} cannot be gone on from ({' '.join(str(error).split())[:200]}): its state is not that of this run. "
            "It was changed, or belongs to another one; begin anew, or take one from a backup."
        ) from error
    except Preempted:
        if not trainer.is_global_zero:  # one speaks
            raise
        raise StoppedError(f"stopped after step {trainer.global_step:,}; {_how_to_go_on(home)}", EXIT_CODE) from None
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise StoppedError(f"stopped at once; {_how_to_go_on(home)}") from None


def _while_restoring(error: BaseException) -> bool:
    """Whether Lightning was putting a checkpoint's state back, and no sentence of ours says what is wrong with it."""
    frames = traceback.extract_tb(error.__traceback__)
    return any("checkpoint_connector" in frame.filename for frame in frames) and sentence(error) is None


def _how_to_go_on(home: Path) -> str:
    kept = checkpoints(home)
    if not kept:
        return f"there is no checkpoint in {home} yet, and nothing to resume."
    return f"kept {kept[-1]}. Go on with: ssl-framework pretrain resume={home}"


@rank_zero_only
def _note_facts(home: Path, data: DataModule) -> None:
    folder.write_yaml(home / "facts.yaml", data.record())


def _headline(module: PretextModule, data: DataModule, trainer: pl.Trainer, home: Path) -> str:
    return (
        f"{type(module).__name__} on {data.num_samples:,} samples of {data.name}, {trainer.max_steps:,} steps of "
        f"{data.batch_size}, encoder of {build.parameters(module.encoder):.1f} M parameters; run folder {home}"
    )
