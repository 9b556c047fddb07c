"""The verbs, run for real on the digits: in this process where that is enough, through the console script where it is not."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from ssl_framework.checkpoint import checkpoints, load_encoder
from ssl_framework.commands import compose, demo, detect, downstream, embed, evaluate, predict, pretrain
from ssl_framework.commands.explain import choices_in
from ssl_framework.commands.quiet import quiet
from ssl_framework.data import FolderSource, digits, fit
from ssl_framework.downstream import DownstreamModule
from ssl_framework.metrics import paired_interval
from support import light

SHORT = ["debug=short", "trainer.progress_bar=false", "data.batch_size=32", "trainer=cpu", "monitors=none"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

pytestmark = [
    # Lightning's advice, which the command line hides as well (ssl_framework.commands.quiet says why)
    pytest.mark.filterwarnings("ignore:You have overridden `on_before_batch_transfer`"),
    pytest.mark.filterwarnings("ignore:The '.*' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
]


def command(*words: str, folder: Path, timeout: float = 150) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ssl_framework", *words]
    return subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False)


def pretrained(folder: Path, *words: str) -> dict[str, Any]:
    settings = compose.compose("pretrain", [*SHORT, *words], folder=str(folder))
    return pretrain.run(settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("integration") / "run"
    with warnings.catch_warnings():  # marks do not reach fixtures of a module
        quiet()
        pretrained(folder, "pretext=simclr")
    return folder


@pytest.mark.parametrize("pretext", ["moco_v2", "mae", "dino"])  # one of each family; all run in test_tasks_and_data
def test_a_pretext_trains_and_leaves_a_whole_run_folder(pretext: str, tmp_path: Path) -> None:
    result = pretrained(tmp_path / "run", f"pretext={pretext}", "logger=csv", *light(pretext))
    assert result["steps"] == 4
    assert np.isfinite(result["train/loss"])
    files = {file.name for file in (tmp_path / "run").iterdir()}
    assert files == {
        ".lock",  # the run belongs to one live process
        "checkpoints",
        "config.yaml",
        "encoder.safetensors",
        "encoder.yaml",
        "environment.json",
        "facts.yaml",
        "metrics.csv",
        "monitors.json",
    }
    assert load_encoder(tmp_path / "run").history["steps"] == 4


def test_the_settings_of_a_run_make_it_again(run: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["run"]["dir"] = str(tmp_path / "again")
    settings["logger"] = None
    pretrain.run(settings)
    first, second = (load_encoder(folder).encoder.state_dict() for folder in (run, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_evaluate_measures_the_encoder_beside_its_floors(run: Path, tmp_path: Path) -> None:
    words = [f"from_run={run}", "labels_per_class=[1,3]", "seeds=2", "floors=[random,pixels]", "accelerator=cpu"]
    rows = evaluate.run(compose.compose("evaluate", words, folder=str(tmp_path / "e")))["rows"]
    assert {row["method"] for row in rows if row["classifier"] == "linear"} == {
        "frozen encoder",
        "random encoder",
        "raw pixels",
    }
    assert len(rows) == 3 * 2 * 2 * 2
    assert json.loads((tmp_path / "e" / "results.json").read_text())["rows"] == rows
    assert (tmp_path / "e" / "labels.png").stat().st_size > 1000


def test_embed_writes_ids_labels_and_embeddings(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "digits.npz"
    words = [f"from_run={run}", "split=test", f"output={output}", "accelerator=cpu"]
    result = embed.run(compose.compose("embed", words, folder=str(tmp_path / "e")))
    with np.load(output) as arrays:
        assert list(arrays["embedding"].shape) == result["shape"]
        assert len(set(arrays["id"].tolist())) == len(arrays["label"]) == result["shape"][0]


def test_downstream_keeps_the_best_validation(run: Path, tmp_path: Path) -> None:
    words = [f"from_run={run}", "labels_per_class=5", "debug=short", "trainer.progress_bar=false", "trainer=cpu"]
    said = [*words, "choose=best", "patience=2", "freezing=full", "trainer.val_check_interval=1", "augmentation=strong"]
    rows = downstream.run(compose.compose("downstream", said, folder=str(tmp_path / "d")))["rows"]
    for row in rows:
        assert 1 <= row["best_step"] <= 4
        model = DownstreamModule.load(tmp_path / "d" / f"seed-{row['seed']}")
        assert 0 <= model.measure(digits().test_split())["accuracy"] == pytest.approx(row["accuracy"], abs=1e-6)
    for wrong, says in (
        ("choose=first", "give last or best"),
        ("patience=3", "give choose=best with it"),
        ("choose=best data.val_share=0", "needs validations"),
    ):
        with pytest.raises(ValueError, match=says):
            downstream.run(compose.compose("downstream", [*words, *wrong.split()], folder=str(tmp_path / "e")))


@pytest.mark.parametrize(
    ("task", "metric"), [("neighbours", "accuracy"), ("retrieval", "recall_at_1"), ("verification", "auroc")]
)
def test_downstream_measures_what_learns_nothing(run: Path, tmp_path: Path, task: str, metric: str) -> None:
    words = [
        f"from_run={run}",
        f"task={task}",
        "labels_per_class=5",
        "debug=short",
        "trainer.progress_bar=false",
        "trainer=cpu",
    ]
    rows = downstream.run(compose.compose("downstream", words, folder=str(tmp_path / "d")))["rows"]
    assert all(0 < row[metric] <= 1 for row in rows)
    assert (f"{metric}_interval" in rows[0]) == (task == "neighbours")
    assert DownstreamModule.load(tmp_path / "d" / "seed-0").task.kind == task


@pytest.mark.data
@pytest.mark.skipif("SSL_FRAMEWORK_DATA" not in os.environ, reason="SSL_FRAMEWORK_DATA is not set")
def test_downstream_labels_the_pixels_of_camvid(tmp_path: Path) -> None:
    camvid = Path(os.environ["SSL_FRAMEWORK_DATA"]) / "camvid"
    data = ["data=folder", f"data.path={camvid}", "data.labels=false", "data.within=images", "data.size=[48,64]"]
    words = [*data, "pretext=simclr", "encoder=resnet_micro", "views.size=[32,32]"]
    settings = compose.compose("pretrain", [*SHORT, *words], folder=str(tmp_path / "run"))
    pretrain.run(settings)
    said = [f"from_run={tmp_path / 'run'}", "task=segmentation", "task.num_classes=11", "task.ignore_index=11", "size=[48,64]"]
    said += ["labels.masks=masks", "labels.count=40", "debug=short", "trainer.progress_bar=false", "trainer=cpu", "cut=1"]
    row = downstream.run(compose.compose("downstream", [*said, "seeds=1"], folder=str(tmp_path / "d")))["rows"][0]
    assert 0 < row["mean_iou"] < 1
    assert 0 < row["pixel_accuracy"] < 1
    with pytest.raises(ValueError, match=r"cut=auto compares vectors of images"):
        downstream.run(compose.compose("downstream", [*said, "cut=auto"], folder=str(tmp_path / "e")))
    with pytest.raises(ValueError, match=r"size=\[1, 2, 3\]: give height and width"):
        downstream.run(compose.compose("downstream", [*said, "size=[1,2,3]"], folder=str(tmp_path / "f")))
    assert not (tmp_path / "f").exists()


@pytest.mark.filterwarnings("ignore")  # of torchmetrics and pycocotools
def test_detect_trains_and_measures(tmp_path: Path) -> None:
    words = ["data=digits", "pretext=simclr", "encoder=resnet_micro"]
    pretrain.run(compose.compose("pretrain", [*SHORT, *words], folder=str(tmp_path / "run")))
    (tmp_path / "images").mkdir()
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "digit"}]}
    for number, image in enumerate(load_digits().images[:6]):
        page = np.zeros((48, 64), np.uint8)
        page[8:24, 16:32] = np.kron(image * 15, np.ones((2, 2))).astype(np.uint8)
        Image.fromarray(page).save(tmp_path / "images" / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
        content["annotations"].append({"id": number, "image_id": number, "category_id": 1, "bbox": [16, 8, 16, 16]})
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    where = [f"images={tmp_path / 'images'}", f"annotations={tmp_path / 'boxes.json'}"]
    said = [f"encoder_file={tmp_path / 'run'}", *(f"{split}.{word}" for split in ("train", "test") for word in where)]
    said += [
        "shorter=48",
        "longer=64",
        "channels=16",
        "batch_size=2",
        "trainer.max_steps=2",
        "trainer=cpu",
        "trainer.progress_bar=false",
    ]
    result = detect.run(compose.compose("detect", said, folder=str(tmp_path / "d")))
    assert 0 <= result["metrics"]["mean_average_precision"] <= 1
    assert load_encoder(tmp_path / "d").encoder.num_layers == load_encoder(tmp_path / "run").encoder.num_layers
    assert json.loads((tmp_path / "d" / "audit.json").read_text())["freezing"]["kind"] == "full"
    with pytest.raises(ValueError, match=r"val.images=a, val.annotations=None: give both, or neither"):
        detect.run(compose.compose("detect", [*said, "val.images=a"], folder=str(tmp_path / "e")))


def test_low_rank_corrections_need_linear_layers(run: Path, tmp_path: Path) -> None:
    words = [f"from_run={run}", "freezing=lora", "labels_per_class=3", "debug=short", "trainer=cpu"]
    with pytest.raises(ValueError, match=r"freezing=lora: this TimmEncoder has no linear layer"):
        downstream.run(compose.compose("downstream", words, folder=str(tmp_path / "d")))


def test_downstream_chooses_its_freezing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"from_run={run}", "freezing=auto", "freezing.steps=3", "debug=short", "trainer.progress_bar=false", "trainer=cpu"]
    rows = downstream.run(compose.compose("downstream", [*words, "labels_per_class=5"], folder=str(tmp_path / "d")))["rows"]
    said = capsys.readouterr().out
    for row in rows:
        audit = json.loads((tmp_path / "d" / f"seed-{row['seed']}" / "audit.json").read_text())
        assert row["freezing"] == audit["freezing"]["kind"]
        assert row["freezing"] in ("frozen", "lp_ft")
        assert row["method"] == "pretrained, auto"
        assert f"freezing=auto: {row['freezing']}, because after 3 steps on 50 labels" in said
    with pytest.raises(ValueError, match=r"freezing=auto measures in one process, and there would be 2"):
        downstream.run(compose.compose("downstream", [*words, "trainer.devices=2"], folder=str(tmp_path / "e")))


@pytest.mark.parametrize("freezing", [name for name in choices_in("freezing") if name not in ("auto", "lora")])
def test_downstream_learns_from_few_labels_for_each_seed(run: Path, tmp_path: Path, freezing: str) -> None:
    words = [
        f"from_run={run}",
        f"freezing={freezing}",
        "labels_per_class=3",
        "cut=1",
        "debug=short",
        "trainer.progress_bar=false",
    ]
    result = downstream.run(compose.compose("downstream", [*words, "trainer=cpu"], folder=str(tmp_path / "d")))
    assert [(row["seed"], row["budget"]) for row in result["rows"]] == [(0, 3), (1, 3)]
    assert 0 <= result["accuracy"] <= 1
    assert (tmp_path / "d" / "seed-1" / "metrics.csv").is_file()
    audit = json.loads((tmp_path / "d" / "seed-1" / "audit.json").read_text())
    assert audit["freezing"]["kind"] == freezing
    assert audit["encoder"]["tensors"] == audit["encoder"]["tensors_expected"] > 0
    assert audit["stages"][0]["trainable_parameters"] > 0


def test_predict_writes_a_line_for_each_image(run: Path, tmp_path: Path) -> None:
    words = [f"from_run={run}", "labels_per_class=5", "debug=short", "trainer.progress_bar=false", "trainer=cpu"]
    downstream.run(compose.compose("downstream", [*words, "seeds=1"], folder=str(tmp_path / "d")))
    images = tmp_path / "images" / "new"
    images.mkdir(parents=True)
    for number, image in enumerate(load_digits().images[:5]):
        Image.fromarray((image * 15).astype(np.uint8)).resize((8 + number, 9)).save(images / f"{number}.png")
    (images / "9.png").write_bytes(b"no image")
    said = [f"model={tmp_path / 'd'}", f"input={tmp_path / 'images'}", "batch_size=4", "accelerator=cpu"]
    result = predict.run(compose.compose("predict", said, folder=str(tmp_path / "p")))
    assert (result["images"], result["unreadable"]) == (5, 1)
    with Path(result["output"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == [*(f"{n}.png" for n in range(5)), "9.png"]
    model = DownstreamModule.load(tmp_path / "d")
    for number, row in enumerate(rows[:5]):
        shares = [float(row[f"p({digit})"]) for digit in range(10)]
        assert row["predicted"] == str(np.argmax(shares))
        assert not row["error"]
        image = fit(FolderSource(images, channels=1, labels=False).read(number), model.views.size)
        assert model.predict(image[None]).probability[0].tolist() == pytest.approx(shares, abs=1e-5)
    assert "9.png" in rows[5]["error"] or "image" in rows[5]["error"]
    assert not rows[5]["predicted"]
    output = tmp_path / "table.parquet"
    predict.run(compose.compose("predict", [*said, f"output={output}"], folder=str(tmp_path / "q")))
    assert pq.read_table(output).column("predicted").to_pylist() == [row["predicted"] or None for row in rows]
    for word, says in (
        ("input=nowhere", "does not exist"),
        ("output=a.txt", r"must end in \.csv"),
        (f"model={run}", "head.yaml is missing"),
    ):
        with pytest.raises(ValueError, match=says):
            predict.run(compose.compose("predict", [*said, word], folder=str(tmp_path / "r")))


@pytest.mark.slow
def test_downstream_chooses_its_cut(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"from_run={run}", "cut=auto", "labels_per_class=5", "debug=short", "trainer.progress_bar=false", "trainer=cpu"]
    rows = downstream.run(compose.compose("downstream", words, folder=str(tmp_path / "d")))["rows"]
    said = capsys.readouterr().out
    for row in rows:
        inside = tmp_path / "d" / f"seed-{row['seed']}"
        chosen = json.loads((inside / "cut.json").read_text())
        assert row["cut"] == chosen["cut"]
        assert len(chosen["folds"]) == 5
        assert (inside / "cut.png").stat().st_size > 1000
        assert f"cut={chosen['cut']}: " in said
    with pytest.raises(ValueError, match=r"with scratch=true say cut=N"):
        downstream.run(compose.compose("downstream", [*words, "scratch=true"], folder=str(tmp_path / "e")))
    with pytest.raises(ValueError, match=r"cut=-1: give a number of layers from 0, or auto"):
        downstream.run(compose.compose("downstream", [*words, "cut=-1"], folder=str(tmp_path / "e")))


@pytest.mark.parametrize(
    ("words", "metrics"),
    [
        ("task=regression task.columns=[ink]", {"mean_absolute_error", "r2"}),
        ("task=ordinal task.column=tenth task.steps=10", {"mean_absolute_error", "weighted_kappa"}),
        ("task=multi_label task.columns=[dark,wide]", {"mean_average_precision", "auroc", "f1"}),
        (
            "task=several task.tasks={what:{kind:classification},ink:{kind:regression,columns:[ink]}} task.weights={ink:0.5}",
            {"what/accuracy", "ink/r2"},
        ),
        ("task.class_weights=effective task.head_kind=mlp", {"accuracy", "balanced_accuracy"}),
    ],
)
def test_downstream_learns_tasks_of_a_table(run: Path, tmp_path: Path, words: str, metrics: set[str]) -> None:
    """How much ink a digit has, in three ways."""
    images = load_digits().images
    ink = images.sum((1, 2))
    wide = (images > 8).any(1).sum(1) > 4
    lines = [
        f"{i},{x:.1f},{min(9, int(x // 60))},{int(x > 310)},{int(w)}" for i, (x, w) in enumerate(zip(ink, wide, strict=True))
    ]
    (tmp_path / "ink.csv").write_text("\n".join(["row,ink,tenth,dark,wide", *lines]) + "\n")
    said = [f"from_run={run}", f"labels.path={tmp_path / 'ink.csv'}", "labels.count=200", *words.split()]
    said += ["debug=short", "trainer.progress_bar=false", "trainer=cpu"]
    rows = downstream.run(compose.compose("downstream", said, folder=str(tmp_path / "d")))["rows"]
    assert [(row["seed"], row["budget"]) for row in rows] == [(0, 200), (1, 200)]
    assert all(metrics <= row.keys() for row in rows)
    for row in rows:
        for name in metrics - {"mean_absolute_error"}:
            low, high = row[f"{name}_interval"]
            assert low <= row[name] <= high or np.isnan(low)


def test_the_demo_makes_its_table_and_pictures(tmp_path: Path) -> None:
    words = ["max_steps=3", "seeds=2", "labels_per_class=[1]", "finetune_steps=2"]
    result = demo.run(compose.compose("demo", words, folder=str(tmp_path / "demo")))
    assert list(dict.fromkeys(row["method"] for row in result["rows"])) == [
        "scratch",
        "random encoder",
        "raw pixels",
        "frozen",
        "fine-tuned",
    ]
    assert all(Path(picture).stat().st_size > 1000 for picture in result["pictures"])


@pytest.mark.slow
def test_the_demo_shows_that_transfer_pays(tmp_path: Path) -> None:
    """The frozen encoder beats both floors by more than the paired interval, at one label a class and at ten."""
    rows = demo.run(compose.compose("demo", [], folder=str(tmp_path / "demo")))["rows"]
    for budget in (1, 10):
        found = {
            method: [row["accuracy"] for row in rows if row["method"] == method and row["budget"] == budget]
            for method in ("frozen", "random encoder", "raw pixels")
        }
        for floor in ("random encoder", "raw pixels"):
            gain = paired_interval(found["frozen"], found[floor])
            assert gain.mean > gain.half_width, (budget, floor, gain)


def test_ctrl_c_keeps_a_checkpoint_and_resume_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    words = [
        "pretrain",
        *SHORT,
        "logger=csv",
        "trainer.max_steps=100",  # more than a busy machine does before the signal comes
        "trainer.checkpoint_every_n_steps=5",
        "trainer.val_check_interval=0",
    ]
    line = [sys.executable, "-m", "ssl_framework", *words, "run.dir=killed"]
    process = subprocess.Popen(
        line,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # as at a terminal: a shell has SIGINT ignored by what it runs in the background
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no thread is running here)
    )
    deadline = time.monotonic() + 120
    while len(checkpoints(tmp_path / "killed")) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75, told
    assert "stopped after step" in told
    assert "resume=killed" in told
    assert len(checkpoints(tmp_path / "killed")) == 2
    step = int(checkpoints(tmp_path / "killed")[-1].stem.split("-")[-1])
    done = command(*words, "run.dir=killed", "resume=auto", folder=tmp_path)  # the same command again
    assert done.returncode == 0, done.stderr
    pretrain.run(compose.compose("pretrain", words[1:], folder=str(tmp_path / "whole")))
    first, second = (load_encoder(tmp_path / name).encoder.state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = {}
    for name in ("killed", "whole"):
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            rows[name] = [int(row["step"]) for row in csv.DictReader(file)]
    assert rows["whole"] == list(range(100))
    # Lightning logs a step after the callbacks that save it: stopped in between, the row of that one step is lost
    assert rows["killed"] in (list(range(100)), [n for n in range(100) if n != step - 1])


TWO = ["trainer=ddp_cpu", "debug=short", "trainer.progress_bar=false", "data.batch_size=32"]


def test_two_processes_pretrain(tmp_path: Path) -> None:
    done = command("pretrain", *TWO, "monitors=none", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (home,) = (tmp_path / "runs" / "pretrain").iterdir()  # one folder for both processes
    assert done.stdout.count("encoder: ") == 1
    assert load_encoder(home).history["steps"] == 4


@pytest.mark.slow
def test_two_processes_transfer(run: Path, tmp_path: Path) -> None:
    done = command("downstream", f"encoder_file={run}", *TWO, "run.dir=d", "labels_per_class=2", "seeds=1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "d" / "results.json").read_text())["rows"]) == 1


def test_a_sweep_gives_every_combination_a_folder(tmp_path: Path) -> None:
    words = ["pretrain", *SHORT, "logger=csv", "pretext=simclr,rotation", "trainer.max_steps=1", "run.dir=sweep", "--multirun"]
    done = command(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for number, pretext in enumerate(("SimCLR", "Rotation")):
        assert load_encoder(tmp_path / "sweep" / str(number)).history["pretext"] == pretext
    views = [yaml.safe_load((tmp_path / "sweep" / str(n) / "config.yaml").read_text())["views"]["views"] for n in range(2)]
    assert views == [2, 1]  # each with the views that suit digits


def test_the_console_script_ends_with_the_right_code(tmp_path: Path) -> None:
    wrong = command("pretrain", *SHORT, "data.batch_size=5000", folder=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert "Traceback" not in wrong.stderr
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").rglob("*.yaml"))
