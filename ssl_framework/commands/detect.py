"""``ssl-framework detect``: boxes around things, by a detector on a pretrained encoder."""

from typing import Any, cast

import pytorch_lightning as pl

from ssl_framework.checkpoint import SaveRun, load_encoder
from ssl_framework.commands import build, folder
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.commands.errors import StoppedError
from ssl_framework.data import CocoBoxes
from ssl_framework.downstream import Auto, DetectionData, DetectionModule


def run(settings: Settings) -> dict[str, Any]:
    """Train, and measure on test if there is one.

    Args:
        settings: of `compose("detect", ...)`.

    Returns:
        ``run``, the folder; ``metrics`` of test, by name; empty without a test split.

    Raises:
        ValueError: what the user asked for does not fit together; nothing was trained.
        StoppedError: Ctrl-C.
    """
    settings = build.on_this_machine(settings, settings["trainer"]["accelerator"])
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    loaded = load_encoder(settings["encoder_file"])
    train = CocoBoxes(**settings["train"], channels=loaded.preprocessing["channels"])
    val, test = (_split(settings, name, train) for name in ("val", "test"))
    data = DetectionData(
        train,
        val,
        test,
        batch_size=settings["batch_size"],
        flip=settings["flip"],
        workers=settings["workers"],
        seed=settings["seed"],
    )
    policy = build.make(settings["freezing"])
    if isinstance(policy, Auto):
        raise ValueError(
            "freezing=auto compares on labels of images, and detection has boxes: name a policy, such as frozen or full."
        )
    module = DetectionModule(
        loaded.encoder,
        train.classes,
        freezing=policy,
        preprocessing=loaded.preprocessing,
        optimizer=build.optimizer(settings),
        seed=settings["seed"],
        **{name: settings[name] for name in ("detector", "cut", "shorter", "longer", "channels")},
    )
    home = folder.begin(settings)
    trainer = build.trainer(settings, data, home, [_saver(settings, loaded.history)], **build.trainer_keys(settings))
    say(f"{len(train)} images, boxes: {', '.join(f'{name} {count}' for name, count in train.counts().items())}")
    if train.empty:
        say(f"{train.empty} boxes without area are left out")
    try:
        trainer.fit(module, datamodule=data)
        found = [] if test is None else cast(list[dict[str, float]], trainer.test(module, datamodule=data, verbose=False))
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise StoppedError(f"stopped by Ctrl-C; checkpoints are in {home / 'checkpoints'}.") from None
    metrics = {name.removeprefix("test/"): float(value) for one in found for name, value in one.items()}
    folder.write_audit(home, module.audit.report())
    folder.write_results(home, {"encoder_file": settings["encoder_file"], "run": str(home), "metrics": metrics})
    say(module.audit.line())
    if metrics:
        say(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return {"run": str(home), "metrics": metrics}


def _split(settings: Settings, name: str, train: CocoBoxes) -> CocoBoxes | None:
    words = settings[name]
    if words["images"] is None and words["annotations"] is None:
        return None
    if words["images"] is None or words["annotations"] is None:
        raise ValueError(f"{name}.images={words['images']}, {name}.annotations={words['annotations']}: give both, or neither.")
    return CocoBoxes(**words, channels=train.channels, classes=train.classes)


def _saver(settings: Settings, history: dict[str, Any]) -> SaveRun:
    options = settings["trainer"]
    return SaveRun(options["checkpoint_every_n_steps"], options["keep_checkpoints"], {**history, "detection": True})
