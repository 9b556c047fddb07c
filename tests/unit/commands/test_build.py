"""Objects from settings: what is left open is filled from the data, and the schema of the Trainer is its file."""

import inspect
from pathlib import Path

import pytest
import yaml

from ssl_framework.checkpoint import save_encoder
from ssl_framework.commands import build, compose, folder
from ssl_framework.encoders import resnet_micro
from ssl_framework.paths import conf_dir


def test_views_and_encoder_follow_the_data() -> None:
    settings = compose.compose("pretrain", [])
    data = build.data(settings)
    views = build.views(settings["views"], data.facts)
    assert (views.size, views.mean, views.std) == ((8, 8), data.facts.mean, data.facts.std)
    encoder = build.encoder(settings, data.facts, views)
    assert encoder.spec["args"]["in_chans"] == 1  # pyright: ignore[reportAttributeAccessIssue]
    larger = build.views({**settings["views"], "size": [16, 16]}, data.facts)
    assert build.encoder(settings, data.facts, larger).spec["args"]["img_size"] == [16, 16]  # pyright: ignore[reportAttributeAccessIssue]


def test_every_key_of_the_trainer_file_is_used() -> None:
    keys = set(yaml.safe_load((conf_dir() / "trainer" / "default.yaml").read_text()))
    taken = {name for name, p in inspect.signature(build.trainer).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keys == taken | {"compile", "channels_last", "checkpoint_every_n_steps", "keep_checkpoints"}


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
    ],
)
def test_a_resumed_run_is_not_another_run(tmp_path: Path, words: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        resumed(tmp_path, ["pretext.temperature=0.3", "seed=1"], words)


def test_a_resumed_run_may_be_longer_and_say_the_same_again(tmp_path: Path) -> None:
    settings = resumed(tmp_path, ["pretext.temperature=0.3", "seed=1"], ["trainer.max_epochs=9", "seed=1", "pretext=simclr"])
    assert (settings["pretext"]["temperature"], settings["seed"], settings["trainer"]["max_epochs"]) == (0.3, 1, 9)
    folder.note_resumption(settings)
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (kept["trainer"]["max_epochs"], kept["resume"]) == (9, None)
    # and once more from there
    again = folder.go_on(compose.compose("pretrain", [f"resume={tmp_path / 'run'}"]))
    assert again["trainer"]["max_epochs"] == 9
