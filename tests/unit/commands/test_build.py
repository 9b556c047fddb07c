"""Objects from settings: what is left open is filled from the data, and the schema of the Trainer is its file."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml

from ssl_framework.checkpoint import save_encoder
from ssl_framework.commands import build, compose, folder, pretrain
from ssl_framework.encoders import resnet_micro
from ssl_framework.paths import conf_dir
from support import light


def test_views_and_encoder_follow_the_data() -> None:
    settings = compose.compose("pretrain", [])
    data = build.data(settings)
    views = build.views(settings["views"], data.facts)
    assert (views.size, views.mean, views.std) == ((8, 8), data.facts.mean, data.facts.std)
    encoder = build.encoder(settings, data.facts, views)
    assert encoder.spec["args"]["in_chans"] == 1
    larger = build.views({**settings["views"], "size": [16, 16]}, data.facts)
    assert build.encoder(settings, data.facts, larger).spec["args"]["img_size"] == [16, 16]


@pytest.mark.parametrize(
    ("words", "expected"),
    [("pretext=mae", "cls sincos"), ("pretext=ijepa", "mean sincos"), ("pretext=simmim", "mean learn"),
     ("pretext=simclr encoder=vit_tiny", "cls learn"), ("pretext=ijepa encoder.pos_embed=learn", "mean learn"),
     ("pretext=mae encoder.pool=mean", "mean sincos")],
)  # fmt: skip
def test_a_vision_transformer_is_as_the_task_wants_it(words: str, expected: str) -> None:
    settings = compose.compose("pretrain", words.split())
    facts = build.data(settings).facts
    encoder = build.encoder(settings, facts, build.views(settings["views"], facts))
    arguments = encoder.spec["args"]
    assert [arguments["pool"], arguments["pos_embed"]] == expected.split()


def test_a_class_token_that_is_not_trained_is_refused() -> None:
    settings = compose.compose("pretrain", ["pretext=ijepa", "encoder.pool=cls", *light("ijepa")])
    with pytest.raises(ValueError, match=r"IJEPA does not train the class token, .* take encoder.pool=mean"):
        pretrain.pretext(settings, build.data(settings))


def test_every_key_of_the_trainer_file_is_used() -> None:
    keys = set(yaml.safe_load((conf_dir() / "trainer" / "default.yaml").read_text()))
    taken = {name for name, p in inspect.signature(build.trainer).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keys == taken | {"compile", "channels_last", "checkpoint_every_n_steps", "keep_checkpoints"}


@pytest.mark.filterwarnings("ignore:GPU available but not used")
def test_max_steps_win_over_epochs_and_validation_counts_steps(tmp_path: Path) -> None:
    words = [
        "logger=none",
        "trainer=cpu",
        "trainer.progress_bar=false",
        "trainer.accumulate_grad_batches=2",
        "trainer.val_check_interval=3",
    ]
    settings = compose.compose("pretrain", words)
    data = build.data(settings)
    epochs = build.trainer(settings, data, tmp_path, [], **build.trainer_keys(settings))
    assert epochs.max_steps == -(-100 * data.num_samples // (256 * 2))
    assert epochs.val_check_interval == 6  # batches
    settings["trainer"]["max_steps"] = 7
    assert build.trainer(settings, data, tmp_path, [], **build.trainer_keys(settings)).max_steps == 7


def test_an_encoder_for_other_channels_is_refused(tmp_path: Path) -> None:
    facts = build.data(compose.compose("pretrain", [])).facts
    preprocessing = {"mean": [0.5] * 3, "std": [0.2] * 3, "size": [8, 8], "channels": 3}
    save_encoder(resnet_micro(in_chans=3), tmp_path, preprocessing=preprocessing, history={})
    with pytest.raises(ValueError, match="trained on images of 3 channels, and these have 1"):
        build.load(str(tmp_path), facts)


def test_a_logger_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"ssl-framework\[wandb\]"):
        build.loggers(compose.compose("pretrain", ["logger=wandb"]))


def resumed(tmp_path: Path, first: list[str], then: list[str]) -> compose.Settings:
    home = tmp_path / "run"
    folder.begin(compose.compose("pretrain", [*first, f"run.dir={home}"]))
    return folder.go_on(compose.compose("pretrain", [f"resume={home}", *then]))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["pretext=mae"], "pretext._target_"),
        (["data=cifar10", "data.path=x"], "data._target_"),
        (["seed=2"], "seed"),
        (["pretext.temperature=0.7"], r"pretext.temperature \(was 0.3, now 0.7\)"),
        (["data.batch_size=32"], "data.batch_size"),
        (["trainer.channels_last=false"], r"trainer.channels_last \(was True, now False\)"),
    ],
)
def test_a_resumed_run_is_not_another_run(tmp_path: Path, words: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        resumed(tmp_path, ["pretext.temperature=0.3", "seed=1"], words)


def test_a_run_that_was_begun_before_there_was_a_key_goes_on_as_it_was(tmp_path: Path) -> None:
    home = tmp_path / "run"
    begun = compose.compose("pretrain", [f"run.dir={home}"])
    del begun["keep_freed_memory"], begun["trainer"]["channels_last"]
    folder.begin(begun)
    again = folder.go_on(compose.compose("pretrain", [f"resume={home}", "trainer.max_epochs=9"]))
    assert again["keep_freed_memory"] is True
    assert again["trainer"]["channels_last"] is False
    assert again["trainer"]["max_epochs"] == 9


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("words", [["trainer=gpu"], ["trainer.accelerator=mps"], ["trainer=gpu", "precision=32"]])
def test_a_gpu_that_is_not_there(words: list[str]) -> None:
    settings = compose.compose("pretrain", words)
    with pytest.raises(ValueError, match=r"accelerator=(gpu|mps): there is no CUDA GPU here"):
        build.on_this_machine(settings, settings["trainer"]["accelerator"])


def test_nothing_is_said_to_turn_off_where_nothing_was_turned_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = compose.compose("pretrain", ["keep_freed_memory=false"])
    for name, hint in (("bf16-mixed", True), ("32-true", False)):
        monkeypatch.setattr(build.machine, "precision", lambda device, name=name: build.machine.Precision(name, "because"))
        build.on_this_machine(settings, "cpu")
        assert ("precision=32 turns it off" in capsys.readouterr().out) is hint


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(build.machine, "limit_threads", lambda processes: 8 // processes)
    monkeypatch.setattr(build.os, "environ", environment := {})
    settings = compose.compose("pretrain", ["trainer=ddp_cpu", "trainer.devices=4", "keep_freed_memory=false"])
    build.on_this_machine(settings, "cpu")
    assert environment == {"OMP_NUM_THREADS": "2"}  # else Lightning shares out the cores of the host
    assert "2 threads in each of 4 processes" in capsys.readouterr().out


def test_embeddings_in_float64_are_refused_before_anything_is_loaded() -> None:
    for verb in ("evaluate", "embed"):
        settings = compose.compose(verb, ["encoder_file=x", "precision=64"])
        with pytest.raises(ValueError, match="precision=64: embeddings are computed in auto, 32, bf16-mixed or 16-mixed"):
            build.encoding_precision(settings)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("data@labelled_data=digits", "data@labelled_data=cifar10"),
        ("data@labelled_data=folder labelled_data.path=a", "data@labelled_data=parquet labelled_data.path=b"),
        ("data@labelled_data=digits", "~data@labelled_data"),
        ("seed=3", "data@labelled_data=digits"),
        ("~data@labelled_data", "data@labelled_data=digits"),
        ("~monitors", "monitors=default"),
        ("monitors.knn.k=5", "monitors.knn=null"),
        ("monitors.knn.k=5", "monitors=none"),
        ("trainer=fsdp2", "trainer=cpu"),
        ("trainer=cpu", "trainer=fsdp2 trainer.accelerator=cpu"),
    ],
)
def test_a_resumed_run_may_be_watched_and_run_otherwise(first: str, then: str, tmp_path: Path) -> None:
    """Of the keys of what it was before none stays behind."""
    found = resumed(tmp_path, ["seed=3", *first.split()], ["seed=3", *then.split()])
    expected = compose.compose("pretrain", ["seed=3", *then.split()])
    for node in ("labelled_data", "monitors", "trainer", "data"):
        assert found.get(node) == expected.get(node)


def test_what_was_written_down_stays_where_no_word_changes_it(tmp_path: Path) -> None:
    home = tmp_path / "run"
    begun = compose.compose("pretrain", [f"run.dir={home}"])
    folder.begin(begun | {"precision": "bf16-mixed", "data": begun["data"] | {"mean": [0.25], "noted": 1}})
    again = folder.go_on(compose.compose("pretrain", [f"resume={home}", "data.workers=3"]))
    assert again["precision"] == "bf16-mixed"
    assert again["data"] == begun["data"] | {"mean": [0.25], "noted": 1, "workers": 3}


def test_a_resumed_run_may_be_longer_and_say_the_same_again(tmp_path: Path) -> None:
    settings = resumed(tmp_path, ["pretext.temperature=0.3", "seed=1"], ["trainer.max_epochs=9", "seed=1", "pretext=simclr"])
    assert (settings["pretext"]["temperature"], settings["seed"], settings["trainer"]["max_epochs"]) == (0.3, 1, 9)
    folder.note_resumption(settings)
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (kept["trainer"]["max_epochs"], kept["resume"]) == (9, None)
    # and once more from there
    again = folder.go_on(compose.compose("pretrain", [f"resume={tmp_path / 'run'}"]))
    assert again["trainer"]["max_epochs"] == 9


def test_a_run_may_have_no_logger_and_no_monitors() -> None:
    settings = compose.compose("pretrain", ["~logger", "~monitors"])
    assert not {"logger", "monitors"} & settings.keys()
    assert build.loggers(settings) == build.loggers(compose.compose("pretrain", ["logger=none"]))
    data = build.data(settings)
    assert build.monitors(settings, data) == build.monitors(compose.compose("pretrain", ["monitors=none"]), data)
