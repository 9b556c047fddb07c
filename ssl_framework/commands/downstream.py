"""``ssl-framework downstream``: an encoder, cut, with a task head, trained on labels and measured on test."""

import math
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from torch import nn

from ssl_framework import report
from ssl_framework.checkpoint import Loaded, SaveRun
from ssl_framework.commands import build, folder
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.commands.errors import StoppedError
from ssl_framework.data import DataModule, Labelled, Masks, Table
from ssl_framework.downstream import Auto, DownstreamModule, KeepBest, LabelledData, Policy, Several, Task, choose_freezing
from ssl_framework.encoders import random_like
from ssl_framework.evaluation import depth_curve
from ssl_framework.run import compile_in_place
from ssl_framework.types import Facts, ViewMaker
from ssl_framework.views.preprocessing import plain

Row = dict[str, Any]


def run(settings: Settings) -> dict[str, Any]:
    """Transfer once for each seed.

    Args:
        settings: of `compose("downstream", ...)`.

    Returns:
        ``run``, the folder; ``rows``, one a seed with method, budget, seed and the metrics of test; ``unreadable``, names of
        samples that were replaced; ``accuracy``, the mean of the rows where the task has one.

    Raises:
        ValueError: what the user asked for does not fit together; nothing was trained.
        StoppedError: Ctrl-C.
    """
    if settings["seeds"] < 1:
        raise ValueError(f"seeds={settings['seeds']}: give at least 1.")
    _check_budget(settings["labels_per_class"])
    _check_cut(settings)
    _check_freezing(settings)
    _chooses(settings)
    settings = build.on_this_machine(settings, settings["trainer"]["accelerator"])
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    if settings["size"] is not None and "size" in settings["data"]:
        settings = {**settings, "data": {**settings["data"], "size": _size(settings["size"])}}  # and not enlarged from another
    data = build.data(settings)
    loaded = build.load(settings["encoder_file"], data.facts)
    preprocessing_of(settings, loaded)
    home = data.bad_samples.folder = folder.begin(settings)
    rows: list[Row] = []
    for seed in range(settings["seed"], settings["seed"] + settings["seeds"]):
        rows.append(_transfer(settings, loaded, data, seed, home))
        folder.write_results(home, {"encoder_file": settings["encoder_file"], "run": str(home), "rows": rows})
        say(f"seed {seed}: " + ", ".join(f"{k} {v:.4f}" for k, v in rows[-1].items() if isinstance(v, float)))
    result: dict[str, Any] = {"run": str(home), "rows": rows, "unreadable": data.bad_samples.names()}
    say(*data.bad_samples.lines())
    if all("accuracy" in row for row in rows):
        result["accuracy"] = sum(row["accuracy"] for row in rows) / len(rows)
        say("", report.text(rows))
    folder.write_results(home, {"encoder_file": settings["encoder_file"], **result})
    return result


def _transfer(settings: Settings, loaded: Loaded, data: DataModule, seed: int, home: Path) -> Row:
    asked, budget, options = settings, settings["labels_per_class"], settings["trainer"]
    inside = home if settings["seeds"] == 1 else home / f"seed-{seed}"
    labelled = split(settings, data, seed)
    cut = _cut(settings, loaded, data.facts, labelled.train, seed, inside)
    settings = {**settings, "cut": cut}
    policy, made = _made(settings, loaded, data, labelled, seed)
    compile_in_place(cast(nn.Module, made.encoder), options["compile"])
    saver = SaveRun(
        options["checkpoint_every_n_steps"], options["keep_checkpoints"], {**loaded.history, "transferred_to": data.name}
    )
    best = (
        [KeepBest(f"val/{made.task.judged_by[0]}", made.task.judged_by[1], settings["patience"])] if _chooses(settings) else []
    )
    trainer = build.trainer(build.moved(settings, inside), labelled, inside, [saver, *best], **build.trainer_keys(settings))
    try:
        if made.task.trains:
            trainer.fit(made, datamodule=labelled)
        else:
            made.remember(labelled.train)
            made.save(inside, saver.history)
        if best:
            saver.export(trainer, made)
        measured = cast(list[dict[str, float]], trainer.test(made, datamodule=labelled, verbose=False))[0]
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise StoppedError(f"stopped by Ctrl-C at seed {seed}; the seeds before it are in {home / 'results.json'}.") from None
    metrics: Row = {name.removeprefix("test/"): float(value) for name, value in measured.items()}
    metrics |= {f"{name}_interval": found for name, found in made.intervals.items()}
    if best:
        metrics["best_step"] = best[0].best_step
    chosen: dict[str, Any] = {"cut": cut} if asked["cut"] == "auto" else {}
    if isinstance(build.make(asked["freezing"]), Auto):
        chosen["freezing"] = policy.kind
    budget = settings["labels"]["count"] or budget
    if made.task.trains:
        folder.write_audit(inside, made.audit.report())
        say(made.audit.line())
    if folder.is_first():
        made.save_head(inside)
    return {"method": _method(asked), "budget": "all" if budget is None else budget, "seed": seed, **metrics, **chosen}


def _made(
    settings: Settings, loaded: Loaded, data: DataModule, labelled: LabelledData, seed: int
) -> tuple[Policy, DownstreamModule]:
    """The module, and the policy that it has; if that is to be chosen, what either choice reaches is measured first."""
    policy: Policy | Auto = build.make(settings["freezing"])
    if isinstance(policy, Auto):
        options = settings["trainer"]
        epochs = math.ceil((options["max_epochs"] or 0) * labelled.batches_per_epoch)
        choice = choose_freezing(
            policy,
            lambda one, train: module(settings, loaded, data.facts, seed, train, one),
            labelled.train,
            labelled.val,
            steps=options["max_steps"] or epochs,
            batch_size=labelled.batch_size,
            balanced=labelled.balanced,
            seed=seed,
            accelerator="cpu" if build.device(options["accelerator"]).type == "cpu" else "gpu",
            precision=build.precision(settings, options["accelerator"]),
        )
        say(choice.reason)
        policy = choice.policy
    return policy, module(settings, loaded, data.facts, seed, labelled.train, policy)


def _check_budget(budget: Any) -> None:
    if budget not in (None, "all") and (not isinstance(budget, int) or budget < 1):
        raise ValueError(f"labels_per_class={budget}: give a whole number from 1, or all.")


def _chooses(settings: Settings) -> bool:
    """Whether the best validation decides.

    Raises:
        ValueError: the words contradict each other, or there is nothing to choose on.
    """
    choose, patience = settings["choose"], settings["patience"]
    if choose not in ("last", "best"):
        raise ValueError(f"choose={choose}: give last or best.")
    if patience is not None and choose != "best":
        raise ValueError(f"patience={patience} ends training by the best validation: give choose=best with it.")
    if choose == "best" and (settings["data"].get("val_share", 1) == 0 or settings["trainer"]["val_check_interval"] == 0):
        raise ValueError("choose=best needs validations: leave data.val_share and trainer.val_check_interval above 0.")
    return choose == "best"


def _check_cut(settings: Settings) -> None:
    cut = settings["cut"]
    if cut == "auto" and settings["scratch"]:
        raise ValueError("cut=auto asks a pretrained encoder which of its layers to keep; with scratch=true say cut=N.")
    if cut != "auto" and (not isinstance(cut, int) or cut < 0):
        raise ValueError(f"cut={cut}: give a number of layers from 0, or auto.")


def _check_freezing(settings: Settings) -> None:
    devices = build.processes(settings, settings["trainer"]["accelerator"])
    if isinstance(build.make(settings["freezing"]), Auto) and devices > 1:
        raise ValueError(
            f"freezing=auto measures in one process, and there would be {devices}, which might choose differently: run it with "
            "trainer.devices=1 once, and give what it says."
        )


def _cut(settings: Settings, loaded: Loaded, facts: Facts, train: Labelled, seed: int, home: Path) -> int:
    """Layers to take off; chosen by what the training labels say, with a picture of it in the run folder."""
    if settings["cut"] != "auto":
        return settings["cut"]
    encoder, accelerator = loaded.encoder, settings["trainer"]["accelerator"]
    task = task_of(settings, facts, train)
    if task.on_tokens:
        raise ValueError(f"cut=auto compares vectors of images, and {task.kind} labels their places: say cut=N.")
    if isinstance(task, Several):
        raise ValueError(
            "cut=auto asks one task which layers to keep, and these are several: ask with one of them, or say cut=N."
        )
    targets = task.targets(train)
    curve = depth_curve(
        encoder, train, plain(**preprocessing_of(settings, loaded)).center, targets, seed=seed, device=build.device(accelerator)
    )
    say(curve.reason)
    if folder.is_first():
        picture = report.depth_curve(
            curve.mean, curve.standard_error, bar=curve.bar, chosen=curve.chosen, measure=curve.measure
        )
        report.save(picture, home / "cut.png")
    folder.write_depths(home, {"cut": curve.cut, "measure": curve.measure, "folds": curve.scores.tolist(), "bar": curve.bar})
    return curve.cut


def split(settings: Settings, data: DataModule, seed: int) -> LabelledData:
    """The splits of the data, with so many labels to learn from.

    Raises:
        ValueError: budgets of both kinds, or of classes that there are none of; test images among those of training.
    """
    table, per_class, count = settings["labels"]["path"], settings["labels_per_class"], settings["labels"]["count"]
    data.require_apart()
    known = None if table is None else Table(table, settings["labels"]["key"])
    masks = None if settings["labels"]["masks"] is None else Masks(settings["labels"]["images"], settings["labels"]["masks"])
    train = data.split("train", known, masks)
    if isinstance(per_class, int) and (count is not None or data.facts.classes is None):
        raise ValueError(
            f"labels_per_class={per_class}: "
            + (
                "labels.count asks for another budget; give one of them."
                if count
                else "there are no classes; give labels.count=."
            )
        )
    if isinstance(per_class, int):
        train = train.subset(per_class, seed)
    if count is not None:
        train = train.some(count, seed)
    val = data.split("val", known, masks) if data.val_share > 0 else None
    if settings["labels"]["balanced"] and data.facts.classes is None:
        raise ValueError("labels.balanced=true evens out classes, and these data have none.")
    return LabelledData(
        train,
        val,
        data.split("test", known, masks),
        batch_size=data.batch_size,
        workers=data.workers or 0,
        seed=seed,
        balanced=settings["labels"]["balanced"],
    )


def task_of(settings: Settings, facts: Facts, train: Labelled) -> Task:
    """The task, with what it takes from the training labels.

    Raises:
        ValueError: the labels do not belong to it.
    """
    node = settings["task"]
    if "num_classes" in node and node["num_classes"] is None:
        if facts.classes is None:
            raise ValueError("these data have no labels, and a task needs them: choose labelled data with data=.")
        node = {**node, "num_classes": len(facts.classes)}
    parts: Any = node.get("tasks")
    if isinstance(parts, dict):
        count = len(facts.classes or ())
        node = {**node, "tasks": {name: _with_classes(state, count) for name, state in parts.items()}}
    task: Task = build.make(node)
    targets = task.targets(train)
    task.check(targets)
    return task.prepared(targets)


def _with_classes(state: Any, count: int) -> Any:
    """A classification among several tasks, with the classes of the data."""
    if not isinstance(state, dict) or state.get("kind") != "classification" or state.get("num_classes") is not None:
        return state
    return {**state, "num_classes": count}


def module(settings: Settings, loaded: Loaded, facts: Facts, seed: int, train: Labelled, policy: Policy) -> DownstreamModule:
    """The encoder of the file, or its like with fresh weights, with the head of the task."""
    made = DownstreamModule(
        random_like(loaded.encoder, seed) if settings["scratch"] else loaded.encoder,
        task_of(settings, facts, train),
        freezing=policy,
        preprocessing=preprocessing_of(settings, loaded),
        optimizer=build.optimizer(settings),
        cut=settings["cut"],
        reinit=settings["reinit"],
        pooling=build.make(settings["pooling"]),
        views=_augmentation(settings, loaded, facts, seed),
        augmentation=build.make(settings["augmentation"]),
        standardize=settings["standardize"],
        seed=seed,
        channels_last=settings["trainer"]["channels_last"],
    )
    made.classes = facts.classes
    made.audit.facts["encoder"] = {
        "file": settings["encoder_file"],
        **({"scratch": True} if settings["scratch"] else loaded.facts),
    }
    return made


def preprocessing_of(settings: Settings, loaded: Loaded) -> dict[str, Any]:
    """Of the encoder file, at another size if one is asked for."""
    size = settings["size"]
    return loaded.preprocessing if size is None else {**loaded.preprocessing, "size": _size(size)}


def _size(size: Any) -> list[int]:
    numbers = [size, size] if isinstance(size, int) else list(size)
    if len(numbers) != 2 or min(numbers) < 1:
        raise ValueError(f"size={size}: give height and width, such as [180,240], or one number for both.")
    return numbers


def _augmentation(settings: Settings, loaded: Loaded, facts: Facts, seed: int) -> ViewMaker | None:
    if settings.get("views") is None:
        return None
    seen = plain(**preprocessing_of(settings, loaded))  # augmentation normalises as the encoder is used to
    return build.views({**settings["views"], "seed": seed}, facts._replace(size=seen.size, mean=seen.mean, std=seen.std))


def _method(settings: Settings) -> str:
    policy: Policy | Auto = build.make(settings["freezing"])
    kind = "auto" if isinstance(policy, Auto) else policy.kind
    words = ["scratch" if settings["scratch"] else "pretrained", "fine-tuned" if kind == "full" else kind]
    return ", ".join([*words, *(f"{name} {settings[name]}" for name in ("cut", "reinit") if settings[name])])
