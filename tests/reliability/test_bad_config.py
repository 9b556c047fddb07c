"""R11: a bad configuration ends before data or devices are touched, in a sentence with key, value and what is allowed."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
import yaml

from ssl_framework import cli
from ssl_framework.checkpoint import save_encoder
from ssl_framework.commands import build, compose, early, folder, ranges
from ssl_framework.encoders import resnet_micro
from ssl_framework.transfer import rows
from support import in_a_child


class Bad(NamedTuple):
    """A command line, what its message must name, and whether the data must be known to tell."""

    line: str
    says: tuple[str, ...]
    late: bool = False


CASES: dict[str, Bad] = {
    # Words that are none.
    "a key that is misspelt": Bad("pretrain data.batchsize=8", ("data.batchsize=8", "data.batch_size")),
    "a key at the top that is misspelt": Bad("pretrain sede=1", ("sede=1", "Did you mean seed?")),
    "a choice that is misspelt": Bad("pretrain pretext=simclrr", ("pretext=simclrr", "Did you mean simclr?")),
    "a choice of nothing near": Bad("pretrain optimizer=zzz", ("optimizer=zzz", "adamw, lars, sgd")),
    "no choice where one must be": Bad("pretrain encoder=null", ("encoder=null", "resnet18, resnet50")),
    "a choice that is left out where one must be": Bad("pretrain ~views", ("~views", "needs views", "affine")),
    "no choice where there may be none": Bad("pretrain experiment=null", ("experiment=null", "~experiment")),
    "no launcher": Bad("pretrain hydra/launcher=null", ("hydra/launcher=null", "chooses nothing")),
    "a choice that is a file": Bad("pretrain encoder=runs/mine", ("encoder=runs/mine", "encoder_file=runs/mine")),
    "a key of another task": Bad("pretrain pretext.mask_ratio=0.5", ("pretext.mask_ratio=0.5", "pretext.temperature")),
    "a word without a value": Bad("pretrain seed", ("seed", "key=value")),
    "a value for several": Bad("pretrain monitors.knn=5", ("monitors.knn=5", "every_n_steps")),
    "two runs where one is asked": Bad("pretrain seed=1,2", ("seed=1,2", "--multirun", "[a,b]")),
    "resume beside from_run": Bad("pretrain resume=a from_run=b", ("resume=", "from_run=", "one of them")),
    "resume of nothing": Bad("pretrain resume=nowhere", ("resume=nowhere", "config.yaml", "folder of a run")),
    "resume=auto of nowhere": Bad("pretrain resume=auto", ("resume=auto", "run.dir=FOLDER")),
    "data that lie nowhere": Bad("pretrain data=cifar10", ("data_root", "data.path=PATH", "SSL_FRAMEWORK_DATA")),
    "no encoder": Bad("downstream", ("encoder_file", "run folder or an encoder.yaml")),
    # Values of the wrong kind.
    "a word for a number": Bad("pretrain data.batch_size=many", ("data.batch_size=many", "a number")),
    "a word for yes or no": Bad("pretrain trainer.progress_bar=maybe", ("trainer.progress_bar=maybe", "true or false")),
    "a half for a whole number": Bad("pretrain data.batch_size=1.5", ("data.batch_size=1.5", "a whole number")),
    "nothing for a number": Bad("pretrain data.batch_size=null", ("data.batch_size=null", "a whole number")),
    "several numbers for one": Bad("pretrain seed=[1,2]", ("seed=[1, 2]", "a whole number")),
    "a number for a range": Bad("pretrain views.scale=2", ("views.scale=2", "a list of numbers")),
    "one number of two": Bad("pretrain optimizer.betas=[0.9]", ("betas", "[0.9]", "two numbers")),
    "a yes for a number": Bad("pretrain pretext.temperature=true", ("pretext.temperature=True", "a number")),
    # Values out of range.
    "an empty batch": Bad("pretrain data.batch_size=0", ("data.batch_size=0", "from 1")),
    "fewer workers than none": Bad("pretrain data.workers=-1", ("data.workers=-1", "from 0")),
    "more than all for validation": Bad("pretrain data.val_share=1.5", ("data.val_share=1.5", "0 to below 1")),
    "all for test": Bad("pretrain data.test_share=1.0", ("data.test_share=1.0", "0 to below 1")),
    "a size of one number of two": Bad("pretrain data.size=[8]", ("data.size=[8]", "height and width")),
    "a seed below nothing": Bad("pretrain seed=-1", ("seed=-1", "from 0")),
    "a rate of nothing": Bad("pretrain optimizer.lr=0", ("lr", "0", "positive")),
    "a rate below nothing": Bad("pretrain optimizer.lr=-1", ("lr", "-1", "positive")),
    "decay below nothing": Bad("pretrain optimizer.weight_decay=-1", ("weight_decay", "-1", "0 or a positive")),
    "a warm-up of twice the training": Bad("pretrain optimizer.warmup_share=2", ("warmup_share", "2", "between 0 and 1")),
    "a warm-up longer than the training": Bad(
        "pretrain optimizer.warmup_steps=50 trainer.max_steps=4", ("optimizer.warmup_steps=50", "at most trainer.max_steps=4")
    ),
    "a scale that is none": Bad("pretrain optimizer.scale_lr=square", ("scale_lr", "square", "none", "linear", "sqrt")),
    "a temperature of nothing": Bad("pretrain pretext.temperature=0", ("temperature=0", "positive")),
    "a queue of nothing": Bad("pretrain pretext=moco_v2 pretext.queue_size=0", ("queue_size=0", "at least one")),
    "a mask of more than everything": Bad(
        "pretrain pretext=mae pretext.mask_ratio=1.5", ("pretext.mask_ratio=1.5", "from 0 to below 1")
    ),
    "a momentum above one": Bad("pretrain pretext=byol pretext.momentum=1.5", ("momentum", "1.5", "1")),
    "a flip of two": Bad("pretrain views.flip=2", ("flip", "2", "[0, 1]")),
    "a crop that shrinks from large to small": Bad(
        "pretrain views=two_crops views.crop_scale=[0.9,0.1]", ("crop_scale", "0.9", "the smaller first")
    ),
    "no step": Bad("pretrain trainer.max_steps=0", ("trainer.max_steps=0", "from 1")),
    "fewer epochs than none": Bad("pretrain trainer.max_epochs=-1", ("trainer.max_epochs=-1", "above 0")),
    "neither epochs nor steps": Bad(
        "pretrain trainer.max_epochs=null", ("trainer.max_epochs=null", "trainer.max_steps=null", "above 0")
    ),
    "no batch in a step": Bad("pretrain trainer.accumulate_grad_batches=0", ("trainer.accumulate_grad_batches=0", "from 1")),
    "no checkpoint": Bad("pretrain trainer.keep_checkpoints=0", ("trainer.keep_checkpoints=0", "from 1")),
    "a norm below nothing": Bad("pretrain trainer.gradient_clip_val=-1", ("trainer.gradient_clip_val=-1", "above 0")),
    "validations between steps": Bad("pretrain trainer.val_check_interval=0.5", ("trainer.val_check_interval=0.5", "whole")),
    "no time for a batch": Bad("pretrain trainer.data_timeout=0", ("trainer.data_timeout=0", "above 0")),
    "a monitor that never looks": Bad(
        "pretrain monitors.collapse.every_n_steps=0", ("every_n_steps", "0", "at least 1"), late=True
    ),
    # What does not go together, or is not here.
    "MAE with a ResNet": Bad("pretrain pretext=mae encoder=resnet_micro", ("MAE", "TimmEncoder", "vit_micro")),
    "I-JEPA with a ResNet": Bad("pretrain pretext=ijepa encoder=resnet18", ("IJEPA", "TimmEncoder", "vit_micro")),
    "a patch that does not divide the image": Bad("pretrain encoder=vit_micro encoder.patch_size=3", ("patch_size", "3", "8")),
    "one view for a task of two": Bad("pretrain views=affine_one", ("views=affine_one", "SimCLR", "2", "views=affine")),
    "two channels": Bad("pretrain data.channels=2", ("data.channels=2", "1, 3 or null")),
    "a folder that is a number": Bad("pretrain data=folder data.path=2024", ("data.path=2024", "data.path='2024'")),
    "a task of colour with grey images": Bad("pretrain pretext=colorization", ("Colorization", "1 channel", "data.channels=3")),
    "BatchNorm of one": Bad("pretrain data.batch_size=1", ("data.batch_size=1", "BatchNorm", "at least 2")),
    "a batch that processes cannot share": Bad(
        "pretrain trainer.accelerator=cpu trainer.devices=3", ("data.batch_size=256", "trainer.devices", "255")
    ),
    "no process": Bad("pretrain trainer.devices=0", ("trainer.devices=0", "from 1")),
    "float16 on a CPU": Bad("pretrain trainer=cpu precision=16-mixed", ("precision=16-mixed", "bf16-mixed or 32")),
    "a precision that is none": Bad("pretrain precision=bf17", ("precision=bf17", "bf16")),
    "an accelerator that is none": Bad("pretrain trainer.accelerator=tpu", ("trainer.accelerator=tpu", "cpu")),
    "a strategy that is none": Bad("pretrain trainer.strategy=dpp", ("trainer.strategy=dpp", "ddp")),
    "a preset that is none": Bad("pretrain trainer.compile=fastest", ("trainer.compile=fastest", "max-autotune")),
    "an encoder beside a file": Bad(
        "pretrain encoder=resnet18 encoder_file={place}/narrow", ("encoder=resnet18", "encoder_file=", "leave one out")
    ),
    "a folder that is used": Bad("pretrain run.dir={place}/narrow", ("run.dir=", "narrow", "another folder")),
    "a folder that is a file": Bad("pretrain run.dir={place}/file", ("run.dir=", "file", "another folder")),
    "a folder below a file": Bad("pretrain run.dir={place}/file/run", ("run.dir=", "is a file", "another folder")),
    # Phase 2.
    "a choice of weights that is none": Bad("downstream {enc} choose=first", ("choose=first", "last or best")),
    "patience for nothing": Bad("downstream {enc} patience=3", ("patience=3", "choose=best")),
    "the best of no validation": Bad(
        "downstream {enc} choose=best data.val_share=0", ("choose=best", "data.val_share", "above 0")
    ),
    "a cut below nothing": Bad("downstream {enc} cut=-1", ("cut=-1", "from 0, or auto")),
    "no label": Bad("downstream {enc} labels_per_class=0", ("labels_per_class=0", "from 1, or all")),
    "no seed": Bad("downstream {enc} seeds=0", ("seeds=0", "at least 1")),
    "a size of three": Bad("downstream {enc} size=[1,2,3]", ("size=[1, 2, 3]", "height and width"), late=True),
    "smoothing above one": Bad("downstream {enc} task.label_smoothing=2", ("label_smoothing", "2", "1"), late=True),
    "a head that is none": Bad("downstream {enc} task.head_kind=deep", ("task.head_kind=deep", "linear", "mlp", "cosine")),
    "auto of two processes": Bad(
        "downstream {enc} freezing=auto trainer.accelerator=cpu trainer.devices=2", ("freezing=auto", "2", "trainer.devices=1")
    ),
    "layers below nothing": Bad("downstream {enc} freezing=last_n freezing.n=-1", ("freezing.n=-1", "1 to"), late=True),
    "an evaluation of no label": Bad("evaluate {enc} labels_per_class=[0]", ("labels_per_class=[0]", "from 1, or all")),
    "a floor that is none": Bad("evaluate {enc} floors=[rendom]", ("floors=", "rendom", "random")),
    "a split that is none": Bad("embed {enc} split=tset", ("split=tset", "test")),
    "a file of no kind": Bad("embed {enc} output=x.txt", ("output=x.txt", ".npz or .parquet")),
    "a batch of none to embed": Bad("embed {enc} batch_size=0", ("batch_size=0", "from 1")),
    "float64 for embeddings": Bad("embed {enc} precision=64", ("precision=64", "auto, 32, bf16-mixed or 16-mixed")),
    "a study without scratch": Bad("transfer {enc} methods=[full]", ("methods=", "full", "scratch"), late=True),
    "a part that is none": Bad("transfer {enc} part=2 parts=2 budgets=[1]", ("part=2", "parts=2", "from 0"), late=True),
    "a study without validation": Bad("transfer {enc} data.val_share=0", ("data.val_share", "above 0"), late=True),
    # What only the data tell.
    "a batch larger than the data": Bad("pretrain data.batch_size=5000", ("batch_size", "5000", "1295"), late=True),
    "a warm-up longer than the epochs": Bad(
        "pretrain optimizer.warmup_steps=5000 trainer.max_epochs=1", ("warmup_steps", "5000", "6"), late=True
    ),
    "a size that the images have not": Bad("pretrain data.size=[9,9]", ("size=[9, 9]", "[8, 8]", "data.size=null"), late=True),
}

REST = ("logger=none", "trainer.progress_bar=false")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("place")
    normal = {"mean": [0.3], "std": [0.4], "size": [8, 8], "channels": 1}
    save_encoder(resnet_micro(in_chans=1, img_size=8), home / "narrow", preprocessing=normal, history={})
    (home / "file").write_text("x")
    return home


def words(line: str, place: Path, run: Path) -> list[str]:
    given = line.format(place=place, enc=f"encoder_file={place}/narrow").split()
    rest = [] if any(word.startswith(("run.dir=", "resume=")) for word in given) else [f"run.dir={run}"]
    return [*given, *rest]


def untouched(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """Whatever trains, or reads data, fails; data may be read where only they tell."""

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("data or devices were touched")

    monkeypatch.delenv("SSL_FRAMEWORK_DATA", raising=False)
    monkeypatch.setattr(torch.optim.Optimizer, "step", touched)
    if not late:
        monkeypatch.setattr(build, "data", touched)
        monkeypatch.setattr(pl.Trainer, "fit", touched)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if number % 8 == 0 else pytest.mark.slow) for number, name in enumerate(CASES)]
)
def test_it_is_refused_with_key_value_and_what_is_allowed(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    case = CASES[name]
    untouched(monkeypatch, case.late)
    if case.line.endswith("resume=auto"):
        monkeypatch.chdir(tmp_path)
        code = cli.run(case.line.split())
    else:
        code = cli.run(words(case.line, place, tmp_path / "run"))
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 2, said
    assert len(errors) == 1, said
    assert [part for part in case.says if part not in errors[0]] == [], errors[0]
    assert not (tmp_path / "run").exists() or case.late
    record_property("promise", "R11")
    record_property("kind", "bad config")


def test_a_good_one_comes_to_the_data(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, Any], None]
) -> None:
    """What guards the data is reached, so that the cases above stop before it."""
    untouched(monkeypatch, late=False)
    for line in ("pretrain", "downstream {enc}", "evaluate {enc}", "embed {enc}"):
        assert cli.run(words(line, place, tmp_path / "run")) == 1
    record_property("promise", "R11")
    record_property("kind", "good config: comes to the data")


@pytest.mark.parametrize("line", ["pretrain data.batch_size=0", "pretrain trainer.strategy=dpp", "pretrain data.val_share=2"])
def test_without_the_early_look_a_bad_one_comes_to_the_data(
    line: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    untouched(monkeypatch, late=False)
    assert cli.run(words(line, place, tmp_path / "run")) == 2
    for looks in (early, ranges):
        monkeypatch.setattr(looks, "check", lambda settings: None)
    assert cli.run(words(line, place, tmp_path / "run")) == 1
    assert "data or devices were touched" in capsys.readouterr().err
    record_property("promise", "R11")
    record_property("kind", "control")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with settings, as if it had been stopped."""
    home = tmp_path_factory.mktemp("runs") / "begun"
    folder.begin(compose.compose("pretrain", ["seed=3"], folder=str(home)))
    return home


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("pretext=byol", ("pretext", "BYOL", "SimCLR")),
        ("data.batch_size=64", ("data.batch_size (was 256, now 64)",)),
        ("seed=4", ("seed (was 3, now 4)",)),
        ("encoder=vit_micro", ("encoder._target_", "resnet_micro", "vit_micro")),
        ("trainer.accumulate_grad_batches=2", ("trainer.accumulate_grad_batches (was 1, now 2)",)),
    ],
)
def test_a_resumed_run_names_what_differs(
    word: str, says: tuple[str, ...], begun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    untouched(monkeypatch, late=False)
    assert cli.run(["pretrain", f"resume={begun}", word]) == 2
    said = capsys.readouterr().err
    assert [part for part in (*says, f"resume={begun}", "Leave them out") if part not in said] == [], said
    record_property("promise", "R11")
    record_property("kind", "bad config")


@pytest.mark.parametrize("verb", ["pretrain", "transfer"])
def test_a_run_folder_whose_words_and_data_disagree_is_refused(
    verb: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    """Keys that the words add reach a data set that does not take them."""
    untouched(monkeypatch, late=False)
    home = tmp_path / "run"
    with changed(home, verb, place) as config:
        config["run"]["words"] += ["data=cifar100", "data.path=nowhere"]
    assert cli.run([verb, f"resume={home}"]) == 2
    said = capsys.readouterr().err
    assert "ssl_framework.data.digits takes no" in said
    assert f"So it stands in {home / 'config.yaml'}, or follows from it and the words of this command." in said
    record_property("promise", "R11")
    record_property("kind", "bad config")


@contextmanager
def changed(home: Path, verb: str, place: Path) -> Generator[dict[str, Any]]:
    """The settings of a run folder, which a stranger may change in the block."""
    given = [f"encoder_file={place}/narrow"] if verb == "transfer" else []
    folder.begin(compose.compose(verb, given, folder=str(home)))
    config = yaml.safe_load((home / "config.yaml").read_text())
    yield config
    (home / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("line", "key", "value", "says"),
    [
        ("pretrain resume={home}", "data.batch_size", 0, "data.batch_size=0: must be a whole number from 1"),
        ("pretrain resume={home}", "data.val_share", 2, "data.val_share=2: must be a number from 0 to below 1"),
        ("pretrain resume={home}", "trainer.keep_checkpoints", 0, "trainer.keep_checkpoints=0: must be"),
        ("pretrain resume={home}", "trainer.strategy", "ddpp", "trainer.strategy=ddpp: give"),
        ("pretrain resume={home}", "optimizer.lr", -1, "lr is -1: give a positive number. So"),
        ("pretrain resume={home}", "pretext.temperature", 0, "temperature"),
        ("pretrain resume={home}", "data", None, "data=null: must be keys"),
        ("replay run_folder={home}", "optimizer.lr", -1, "lr is -1: give a positive number. So"),
        ("replay run_folder={home}", "data", 5, "data=5: must be keys and their values"),
        ("replay run_folder={home}", "data.batch_size", "many", "data.batch_size=many: must be a whole number"),
        ("transfer resume={home}", "seed", -1, "seed=-1: must be"),
        ("report runs={home}", "data.val_share", "half", "data.val_share=half: must be a number"),
        ("reproduce row={home}:frozen/1/1", "data.val_share", 2, "data.val_share=2: must be a number"),
    ],
)
def test_a_run_folder_with_a_value_that_none_is_begun_with_is_refused(
    line: str, key: str, value: object, says: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    untouched(monkeypatch, late=False)
    home, verb = tmp_path / "run", line.split(maxsplit=1)[0]
    with changed(home, "pretrain" if verb in ("pretrain", "replay") else "transfer", place) as config:
        *nodes, last = key.split(".")
        (config[nodes[0]] if nodes else config)[last] = value
    (home / rows.FILE).touch()
    assert cli.run(line.format(home=home).split()) == 2
    said = capsys.readouterr().err
    assert "error: " in said
    assert says in said
    assert f"So it stands in {home / 'config.yaml'}" in said
    record_property("promise", "R11")
    record_property("kind", "bad config")


def test_a_folder_of_a_live_run_is_refused(
    begun: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], record_property: Callable[[str, Any], None]
) -> None:
    untouched(monkeypatch, late=False)
    with (begun / ".lock").open("a+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)  # a lock of records belongs to a process: the run is another one
        status = in_a_child(lambda: os._exit(cli.run(["pretrain", f"resume={begun}"]) + 10))
    said = capfd.readouterr().err
    assert os.waitstatus_to_exitcode(status) == 12, said
    assert f"run.dir={begun} is being written by" in said
    assert "give another folder" in said
    record_property("promise", "R11")
    record_property("kind", "bad config")


@pytest.mark.parametrize("fault", ["read-only", "full"])
def test_a_disk_that_takes_nothing_is_named_before_the_data(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    """As root everything may be written, so the system's answers stand in for a disk of that kind."""
    untouched(monkeypatch, late=False)
    if fault == "read-only":
        monkeypatch.setattr(compose.os, "access", lambda *_: False)
    else:
        monkeypatch.setattr(compose.shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    assert cli.run(["pretrain", f"run.dir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert f"run.dir={tmp_path / 'run'}" in said
    assert ("cannot be written" if fault == "read-only" else "has 5 free bytes, and a run needs 10,000,000") in said
    record_property("promise", "R11")
    record_property("kind", "bad config")


def test_a_disk_that_fills_between_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(folder, "write_yaml", full)
    assert cli.run(["pretrain", f"run.dir={tmp_path / 'run'}", "trainer.max_steps=1", *REST]) == 2
    assert "config.yaml: no space left on device." in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["pretrain data.batchsize=8", "pretrain pretext=mae encoder=resnet_micro", "pretrain data.batch_size=1.5",
             "downstream encoder_file=nowhere", "pretrain precision=16-mixed trainer=cpu"],
)  # fmt: skip
def test_the_whole_command_ends_soon(line: str, tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    """From the shell, with all imports. Seconds of the processor are reported; the limit is generous, for machines differ."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "ssl_framework", *line.split(), f"run.dir={tmp_path / 'run'}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 2, done.stderr
    assert seconds < 30
    record_property("promise", "R11")
    record_property("kind", "bad config, from the shell")
    record_property("seconds", round(seconds, 2))
