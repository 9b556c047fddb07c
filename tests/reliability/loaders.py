"""Everything public that opens a file which may be a stranger's, and the good files that hostile ones take the place of."""

import importlib
import inspect
import io
import json
import pkgutil
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

import ssl_framework
from ssl_framework import cli, reading
from ssl_framework.checkpoint import last_checkpoint, load_encoder, load_model, save_encoder, store
from ssl_framework.checkpoint.encoder_file import encoder_digest
from ssl_framework.checkpoint.io import WholeFiles
from ssl_framework.commands import compose, early, folder, replay, report
from ssl_framework.commands.metrics_file import MetricsFile
from ssl_framework.data import CocoBoxes, FolderSource, Masks, Table, arrays, cifar10, parquet, torchvision_dataset
from ssl_framework.data import folder as image_folder
from ssl_framework.data.cache import CachedSource
from ssl_framework.data.decode import decode, kind_of, size_of
from ssl_framework.downstream import DownstreamModule
from ssl_framework.encoders import resnet_micro
from ssl_framework.encoders.timm import timm_encoder
from ssl_framework.encoders.weights import read_tensors
from ssl_framework.report import read_metrics
from ssl_framework.transfer import rows

STEP = "run/checkpoints/step-000000002"


class Loader(NamedTuple):
    """What opens files.

    Attributes:
        call: opens those of a folder of trials, made by `good_files`.
        default: the file that is exchanged, from that folder.
        slots: others, by the kind of the hostile file.
        covers: names of public functions that this one goes through, `module.function`, from the package.
        seals: the manifest of the checkpoint speaks of the hostile file, as a stranger's would.
    """

    call: Callable[[Path], Any]
    default: str
    slots: Mapping[str, str] = MappingProxyType({})
    covers: tuple[str, ...] = ()
    seals: bool = False

    def slot(self, kind: str) -> str:
        return self.slots.get(kind, self.default)


def picture(size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 7 if mode == "L" else (7, 8, 9)).save(file, "PNG")
    return file.getvalue()


def good_files(home: Path) -> None:
    """Small files of every kind, as a run, a study, a model and data leave them."""
    run = home / "run"
    folder.begin(compose.compose("pretrain", ["seed=1", "trainer.max_steps=4", "data.batch_size=32"], folder=str(run)))
    torch.manual_seed(0)
    encoder = resnet_micro(in_chans=1, img_size=8)
    preprocessing = {"mean": [0.3], "std": [0.4], "size": [8, 8], "channels": 1}
    save_encoder(encoder, run, preprocessing=preprocessing, history={"pretext": "SimCLR", "steps": 2})
    DownstreamModule(encoder, _task(), preprocessing=preprocessing, freezing=_frozen(), optimizer=_adamw()).save(run)
    (run / "metrics.csv").write_text("step,train/loss\n0,2.5\n10,1.5\n")
    ckpt = home / f"{STEP}.ckpt"
    ckpt.parent.mkdir()
    torch.save({"state_dict": encoder.state_dict(), "loops": {}, "callbacks": {}, "optimizer_states": []}, ckpt)
    seal(home)
    (run / "failure").mkdir()
    shutil.copy(ckpt, run / "failure" / "state.ckpt")
    facts = {"step": 2, "max_steps": 4, "positions": [1], "ranks": [0], "processes": 1}
    (run / "failure" / "failure.json").write_text(json.dumps(facts))
    _study(home)
    _data(home / "data", encoder)
    _cached(home)


def seal(home: Path) -> None:
    if (home / f"{STEP}.ckpt").is_file():
        facts = {"step": 2, "max_steps": 4, **store.environment(torch.device("cpu"), 1)}
        store.seal(home / f"{STEP}.ckpt", facts)


def _task() -> Any:
    return importlib.import_module("ssl_framework.downstream").Classification(num_classes=10)


def _frozen() -> Any:
    return importlib.import_module("ssl_framework.downstream").Frozen()


def _adamw() -> Any:
    return importlib.import_module("ssl_framework.optim").adamw()


def _study(home: Path) -> None:
    study = home / "study"
    words = [f"encoder_file={home / 'run'}", "budgets=[1]", "seeds=5", "steps=2"]
    folder.begin(compose.compose("transfer", words, folder=str(study)))
    recipe = {"config_hash": "a", "code": "b", "data_fingerprint": "c", "torch": "2", "device": "cpu", "threads": 1}
    row = {"method": "full", "budget": 1, "labels": 10, "seed": 1, "recipe": recipe, "accuracy": 0.5, "correct": ""}
    rows.append(study / rows.FILE, [row])


def _data(home: Path, encoder: torch.nn.Module) -> None:
    home.mkdir()
    images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    np.save(home / "images.npy", images)
    np.save(home / "labels.npy", labels)
    np.savez(home / "images.npz", images=images, targets=labels)
    pq.write_table(pa.table({"img": [picture()] * 20, "label": labels}), home / "images.parquet")
    (home / "table.csv").write_text("name,weight\n" + "".join(f"{n}.png,{n}\n" for n in range(3)))
    pq.write_table(pa.table({"name": ["0.png", "1.png"], "weight": [0.5, 1.5]}), home / "table.parquet")
    for n in range(4):
        for where, content in (
            (f"photos/{'ab'[n % 2]}", picture()),
            ("scene/images", picture()),
            ("scene/masks", picture(mode="L")),
        ):
            (home / where).mkdir(parents=True, exist_ok=True)
            (home / where / f"{n}.png").write_bytes(content)
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}]
    listed = [{"id": 1, "file_name": "0.png", "width": 8, "height": 8}]
    coco = {"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (home / "boxes.json").write_text(json.dumps(coco))
    for split in ("train", "test"):
        (home / "cifar").mkdir(exist_ok=True)
        pq.write_table(
            pa.table({"img": [{"bytes": picture((32, 32)), "path": None}] * 20, "label": labels}),
            home / "cifar" / f"{split}-0.parquet",
        )
    _torchvision(home)
    theirs = home / "theirs"
    theirs.mkdir()
    model = timm_encoder("resnet18", in_chans=1, img_size=32).state_dict()
    torch.save({"model": {key.removeprefix("model."): value for key, value in model.items()}}, theirs / "pytorch_model.bin")
    shutil.copy(theirs / "pytorch_model.bin", home / "theirs.pth")
    (theirs / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5], "image_std": [0.5]}))


def _torchvision(home: Path) -> None:
    """What torchvision looks for of MNIST and CIFAR-10, in its old form of pickles too."""
    for where in ("MNIST/raw/train-images-idx3-ubyte", "MNIST/processed/training.pt", "MNIST/processed/test.pt"):
        (home / "vision" / where).parent.mkdir(parents=True, exist_ok=True)
        (home / "vision" / where).write_bytes(b"x")
    batches = home / "vision" / "cifar-10-batches-py"
    batches.mkdir()
    for file in ("data_batch_1", "batches.meta", "test_batch"):
        (batches / file).write_bytes(b"x")


OPTIONS: dict[str, Any] = {"size": [8, 8], "batch_size": 4}


def _metrics(home: Path) -> None:
    MetricsFile(home / "run").go_on_from(5)


def _checkpoint(home: Path) -> Any:
    """The newest one, whatever its manifest says, as a resumed run reads it."""
    store.read_manifest(home / f"{STEP}.ckpt")
    return WholeFiles().load_checkpoint(last_checkpoint(home / "run"))


def _cached(home: Path) -> Any:
    source = FolderSource(home / "data/photos", channels=3, labels=True)
    cached = CachedSource(source, (8, 8), home / "cache")
    return [cached.read(n) for n in range(len(cached))]


LOADERS: dict[str, Loader] = {
    "load_encoder": Loader(
        lambda home: load_encoder(home / "run"),
        "run/encoder.yaml",
        dict.fromkeys(("pickle", "zip", "safetensors", "array", "table", "image"), "run/encoder.safetensors"),
        ("checkpoint.encoder_file.load_encoder", "checkpoint.pair.read_pair", "commands.build.load"),
    ),
    "encoder_digest": Loader(
        lambda home: encoder_digest(home / "run"),
        "run/encoder.safetensors",
        {"yaml": "run/encoder.yaml", "json": "run/encoder.yaml"},
        ("checkpoint.encoder_file.encoder_digest",),
    ),
    "load_model": Loader(
        lambda home: load_model(home / "run"),
        "run/head.yaml",
        dict.fromkeys(("pickle", "zip", "safetensors", "array", "table", "image"), "run/head.safetensors"),
        ("checkpoint.head_file.load_model",),
    ),
    "DownstreamModule.load": Loader(
        lambda home: DownstreamModule.load(home / "run"),
        "run/head.yaml",
        dict.fromkeys(("pickle", "zip", "safetensors"), "run/head.safetensors"),
        ("downstream.module.DownstreamModule.load",),
    ),
    "read_tensors": Loader(
        lambda home: read_tensors(home / "data/theirs.pth"),
        "data/theirs.pth",
        {},
        ("encoders.weights.read_tensors", "encoders.weights.read_plain"),
    ),
    "timm_encoder": Loader(
        lambda home: timm_encoder("resnet18", in_chans=1, img_size=32, weights=str(home / "data/theirs")),
        "data/theirs/pytorch_model.bin",
        {},
        ("encoders.timm.timm_encoder", "encoders.adapter.torchvision_encoder"),
    ),
    "last_checkpoint": Loader(
        _checkpoint,
        f"{STEP}.ckpt",
        {"json": f"{STEP}.json", "yaml": f"{STEP}.json"},
        ("checkpoint.store.last_checkpoint", "checkpoint.store.verify", "checkpoint.store.read_manifest"),
    ),
    "a sealed checkpoint": Loader(
        _checkpoint,
        f"{STEP}.ckpt",
        {},
        ("checkpoint.io.WholeFiles.load_checkpoint", "checkpoint.store.checkpoints", "checkpoint.store.seal"),
        seals=True,
    ),
    "saved_settings": Loader(
        lambda home: early.check_saved(compose.saved_settings(home / "run"), home / "run"),
        "run/config.yaml",
        {},
        ("commands.compose.saved_settings", "commands.strangers.read", "commands.early.check_saved"),
    ),
    "environment_of": Loader(
        lambda home: folder.environment_of(home / "run"), "run/environment.json", {}, ("commands.folder.environment_of",)
    ),
    "MetricsFile": Loader(_metrics, "run/metrics.csv", {}, ("commands.metrics_file.MetricsFile",)),
    "read_metrics": Loader(
        lambda home: read_metrics(home / "run"),
        "run/metrics.csv",
        {},
        ("report.figures.read_metrics", "report.figures.training_curves"),
    ),
    "rows": Loader(
        lambda home: rows.gathered([home / "study" / rows.FILE]),
        "study/rows.jsonl",
        {},
        ("transfer.rows.read", "transfer.rows.gathered", "transfer.rows.repair", "transfer.grid.study"),
    ),
    "study_of": Loader(
        lambda home: report.study_of(home / "study", "cpu"),
        "study/config.yaml",
        {"json": "study/rows.jsonl"},
        ("commands.report.study_of", "commands.report.told", "commands.story.told", "commands.strangers.refuse_links"),
    ),
    "a failure": Loader(
        lambda home: replay._failure(home / "run", {"positions": None, "checkpoint": None}), "run/failure/failure.json", {}
    ),
    "the state of a failure": Loader(lambda home: replay._state(home / "run/failure/state.ckpt"), "run/failure/state.ckpt", {}),
    "reading": Loader(
        lambda home: (
            reading.json_of(home / f"{STEP}.json", dict),
            reading.parsed_yaml(reading.text(home / f"{STEP}.json"), "x"),
        ),
        f"{STEP}.json",
        {},
        ("reading.text", "reading.json_of"),
    ),
    "arrays": Loader(
        lambda home: arrays(home / "data/images.npy", targets=home / "data/labels.npy", **OPTIONS),
        "data/images.npy",
        {},
        ("data.arrays.arrays", "data.arrays.load_arrays"),
    ),
    "labels of arrays": Loader(
        lambda home: arrays(home / "data/images.npy", targets=home / "data/labels.npy", **OPTIONS), "data/labels.npy", {}
    ),
    "packed arrays": Loader(lambda home: arrays(home / "data/images.npz", **OPTIONS), "data/images.npz", {}),
    "parquet": Loader(
        lambda home: parquet(home / "data/images.parquet", **OPTIONS),
        "data/images.parquet",
        {},
        ("data.parquet.parquet", "data.parquet.ParquetSource", "data.parquet.shards"),
    ),
    "cifar10": Loader(lambda home: cifar10(home / "data/cifar"), "data/cifar/train-0.parquet", {}, ("data.cifar10.cifar10",)),
    "cifar10 of torchvision": Loader(
        lambda home: cifar10(home / "data/vision"),
        "data/vision/cifar-10-batches-py/data_batch_1",
        {},
        ("data.torchvision.torchvision_dataset", "data.torchvision.DatasetSource"),
    ),
    "the names of cifar10": Loader(
        lambda home: cifar10(home / "data/vision"), "data/vision/cifar-10-batches-py/batches.meta", {}
    ),
    "MNIST as it was": Loader(
        lambda home: torchvision_dataset("MNIST", home / "data/vision", **OPTIONS),
        "data/vision/MNIST/processed/training.pt",
        {},
    ),
    "a folder of images": Loader(
        lambda home: image_folder(home / "data/photos", val_share=0, test_share=0, **OPTIONS).split("train").images([0]),
        "data/photos/a/0.png",
        {},
        ("data.folder.folder", "data.folder.FolderSource", "data.encoded.state_of"),
    ),
    "decode": Loader(
        lambda home: decode(home / "data/photos/a/0.png", 3),
        "data/photos/a/0.png",
        {},
        ("data.decode.decode", "data.decode.decode_reduced"),
    ),
    "size_of": Loader(lambda home: size_of(home / "data/photos/a/0.png"), "data/photos/a/0.png", {}, ("data.decode.size_of",)),
    "kind_of": Loader(lambda home: kind_of(home / "data/photos/a/0.png"), "data/photos/a/0.png", {}, ("data.decode.kind_of",)),
    "masks": Loader(
        lambda home: Masks().read(str(home / "data/scene/images/0.png")),
        "data/scene/masks/0.png",
        {},
        ("data.masks.Masks.read",),
    ),
    "a table of labels": Loader(
        lambda home: Table(home / "data/table.csv").numbers(["weight"], ["0.png"]), "data/table.csv", {}, ("data.table.Table",)
    ),
    "a parquet table of labels": Loader(
        lambda home: Table(home / "data/table.parquet").numbers(["weight"], ["0.png"]), "data/table.parquet", {}
    ),
    "boxes": Loader(
        lambda home: [CocoBoxes(home / "data/scene/images", home / "data/boxes.json").read(0)],
        "data/boxes.json",
        {},
        ("data.boxes.CocoBoxes",),
    ),
    "images with boxes": Loader(
        lambda home: [CocoBoxes(home / "data/scene/images", home / "data/boxes.json").read(0)], "data/scene/images/0.png", {}
    ),
    "a cache": Loader(
        _cached,
        "cache/*.json",
        {"array": "cache/*.npy", "link": "cache/*.npy"},
        ("data.cache.CachedSource", "data.storage.Storage", "data.cache.cache_folder"),
    ),
}
"""The functions of the package."""


def _verb(*words: str) -> Callable[[Path], Any]:
    def call(home: Path) -> int:
        shutil.rmtree(home / "out", ignore_errors=True)
        given = [word.replace("{home}", str(home)) for word in words]
        own = [] if any(word.startswith("resume=") for word in words) else [f"run.dir={home / 'out'}"]
        return cli.run([*given, *own])

    return call


_ENCODER = dict.fromkeys(("pickle", "zip", "safetensors", "array", "table", "image"), "run/encoder.safetensors")
_SHORT = ("trainer.max_steps=4", "trainer.progress_bar=false", "monitors=none", "precision=32")
_BRIEF = ("labels_per_class=[1]", "seeds=1", "floors=null", "precision=32")

VERBS: dict[str, Loader] = {
    "pretrain resume": Loader(
        _verb("pretrain", "resume={home}/run", "precision=32", "trainer.progress_bar=false", "monitors=none"),
        f"{STEP}.ckpt",
        {"yaml": "run/config.yaml", "json": "run/environment.json", "csv": "run/metrics.csv", "link": "run/metrics.csv"},
        seals=True,
    ),
    "pretrain from_run": Loader(_verb("pretrain", "from_run={home}/run", *_SHORT), "run/config.yaml"),
    "pretrain encoder_file": Loader(_verb("pretrain", "encoder_file={home}/run", *_SHORT), "run/encoder.yaml", _ENCODER),
    "replay": Loader(
        _verb("replay", "{home}/run"),
        "run/config.yaml",
        {"json": "run/failure/failure.json", "pickle": "run/failure/state.ckpt", "zip": "run/failure/state.ckpt"},
    ),
    "check": Loader(_verb("check", "data=folder", "data.path={home}/data/photos", "data.size=[8,8]"), "data/photos/a/0.png"),
    "downstream": Loader(
        _verb("downstream", "encoder_file={home}/run", "trainer.max_steps=1", "trainer.progress_bar=false", "precision=32"),
        "run/encoder.yaml",
        _ENCODER,
    ),
    "downstream labels": Loader(
        _verb(
            "downstream",
            "encoder_file={home}/run",
            "labels.path={home}/data/table.csv",
            "task=regression",
            "task.columns=[weight]",
        ),
        "data/table.csv",
    ),
    "evaluate": Loader(_verb("evaluate", "from_run={home}/run", *_BRIEF), "run/config.yaml", _ENCODER),
    "transfer": Loader(_verb("transfer", "encoder_file={home}/run", "seeds=0"), "run/encoder.yaml", _ENCODER),
    "transfer resume": Loader(
        _verb("transfer", "resume={home}/study", "jobs=0"),
        "study/config.yaml",
        {"json": "study/rows.jsonl", "link": "study/rows.jsonl"},
    ),
    "report": Loader(
        _verb("report", "{home}/study"), "study/config.yaml", {"json": "study/rows.jsonl", "csv": "study/rows.jsonl"}
    ),
    "reproduce": Loader(
        _verb("reproduce", "{home}/study:full/1/9"),
        "study/config.yaml",
        {"json": "study/rows.jsonl", "csv": "study/rows.jsonl"},
    ),
    "embed": Loader(_verb("embed", "encoder_file={home}/run", "precision=32"), "run/encoder.yaml", _ENCODER),
    "embed arrays": Loader(
        _verb("embed", "encoder_file={home}/run", "data=arrays", "data.path={home}/data/images.npz", "precision=32"),
        "data/images.npz",
    ),
    "embed parquet": Loader(
        _verb(
            "embed",
            "encoder_file={home}/run",
            "data=parquet",
            "data.path={home}/data/images.parquet",
            "data.size=[8,8]",
            "data.channels=1",
            "precision=32",
        ),
        "data/images.parquet",
    ),
    "detect": Loader(
        _verb(
            "detect",
            "encoder_file={home}/run",
            "train.images={home}/data/scene/images",
            "train.annotations={home}/data/boxes.json",
            "trainer.max_steps=0",
        ),
        "data/boxes.json",
        _ENCODER,
    ),
    "predict": Loader(
        _verb("predict", "model={home}/run", "input={home}/data/photos", "precision=32"),
        "run/head.yaml",
        {"image": "data/photos/a/0.png", **dict.fromkeys(("pickle", "zip", "safetensors"), "run/head.safetensors")},
    ),
    "convert": Loader(
        _verb("convert", "encoder.name=resnet18", "encoder.weights={home}/data/theirs", "channels=1", "size=[32,32]"),
        "data/theirs/pytorch_model.bin",
        {"json": "data/theirs/preprocessor_config.json", "yaml": "data/theirs/preprocessor_config.json"},
    ),
}
"""The command line, with each word that names a file or a folder."""

READ_NOTHING = ("tasks", "demo")  # verbs that open no file of a user's

# Public functions with a path that open nothing of a stranger's: they write, or ask where something lies.
WRITE = {
    "checkpoint.encoder_file.save_encoder",
    "commands.folder.write_alarms",
    "report.contact.write_sheet",
    "report.page.page.write",
    "checkpoint.files.replacing",
    "checkpoint.files.replace_text",
    "checkpoint.files.sync_folder",
    "checkpoint.files.remove_leftovers",
    "checkpoint.head_file.save_head",
    "checkpoint.pair.write_pair",
    "checkpoint.store.checkpoint_dir",
    "checkpoint.store.set_aside",
    "checkpoint.store.remove",
    "checkpoint.store.remove_unfinished",
    "checkpoint.store.room_for_another",
    "commands.build.trainer",
    "commands.build.moved",
    "commands.compose.refuse_used",
    "commands.compose.require_writable",
    "commands.folder.claimed",
    "commands.folder.write_yaml",
    "commands.folder.write_json",
    "commands.folder.write_results",
    "commands.folder.write_audit",
    "commands.folder.write_depths",
    "commands.pictures.views",
    "commands.transfer.written",
    "data.paths.data_path",
    "data.paths.existing",
    "downstream.module.DownstreamModule.save",
    "downstream.module.DownstreamModule.save_head",
    "evaluation.embed.write_embeddings",
    "report.page.page.write_page",
    "report.page.page.write_comparison",
    "report.style.save",
    "transfer.rows.append",
}


def takes_a_path() -> set[str]:
    """Public functions, constructors and methods of the package one of whose parameters is a `Path`."""
    return {name for name, function in _public() if any("Path" in str(p.annotation) for p in _parameters(function))}


def _parameters(function: Any) -> Sequence[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _public() -> Iterator[tuple[str, Any]]:
    for found in pkgutil.walk_packages(ssl_framework.__path__, "ssl_framework."):
        if any(part.startswith("_") for part in found.name.split(".")):
            continue
        module = importlib.import_module(found.name)
        short = found.name.removeprefix("ssl_framework.")
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != found.name:
                continue
            if inspect.isfunction(value):
                yield f"{short}.{name}", value
            elif inspect.isclass(value):
                if inspect.isfunction(value.__init__):
                    yield f"{short}.{name}", value.__init__
                for method, own in vars(value).items():
                    function = getattr(own, "__func__", own)
                    if not method.startswith("_") and inspect.isfunction(function):
                        yield f"{short}.{name}.{method}", function
