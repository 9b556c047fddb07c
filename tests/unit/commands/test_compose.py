"""What the words of a command line come to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_framework.commands import compose
from ssl_framework.commands.explain import choices_in


def test_settings_are_plain_resolved_and_lose_no_word(tmp_path: Path) -> None:
    settings = compose.compose("pretrain", ["seed=7", "data.batch_size=32", f"run.dir={tmp_path}"])
    assert yaml.safe_load(yaml.safe_dump(settings)) == settings
    assert settings["data"]["seed"] == 7  # interpolated
    assert settings["data"]["batch_size"] == 32
    assert settings["run"]["dir"] == str(tmp_path)
    assert settings["run"]["words"] == ["seed=7", "data.batch_size=32", f"run.dir={tmp_path}"]
    assert settings["run"]["choices"]["pretext"] == "simclr"
    assert settings["logger"]["csv"]["folder"] == str(tmp_path)


def test_default_folder_names_verb_pretext_and_data() -> None:
    folder = Path(compose.compose("pretrain", ["pretext=mae"])["run"]["dir"])
    assert folder.parts[:2] == ("runs", "pretrain")
    assert folder.name.endswith("-mae-digits")


def test_tokens_are_there_for_who_needs_them_and_the_users_own_choice_wins() -> None:
    assert compose.compose("pretrain", ["pretext=mae"])["encoder"]["_target_"].endswith("vit_micro")
    mine = compose.compose("pretrain", ["pretext=mae", "encoder=vit_tiny", "views=multi_crop"])
    assert mine["encoder"]["_target_"].endswith("vit_tiny")
    assert mine["views"]["_target_"].endswith("multi_crop")
    assert compose.compose("pretrain", ["views=one_crop", "pretext=simclr"])["views"]["_target_"].endswith("one_crop")


def test_digits_are_neither_cropped_nor_flipped() -> None:
    for pretext, views in (("simclr", 2), ("byol", 2), ("mae", 1), ("rotation", 1)):
        node = compose.compose("pretrain", [f"pretext={pretext}"])["views"]
        assert (node["_target_"], node["views"], node["flip"]) == ("ssl_framework.views.affine", views, 0.0)
    on_photographs = compose.compose("pretrain", ["data=cifar10", "data.path=x"])
    assert on_photographs["views"]["_target_"].endswith("two_crops")
    # keys of the views that come to be, not of those that the pretext would have
    assert compose.compose("pretrain", ["views.degrees=3"])["views"]["degrees"] == 3


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return compose.compose("pretrain", [])


@pytest.mark.parametrize("pretext", choices_in("pretext"))
def test_a_pretext_sets_nothing_but_its_own_keys(pretext: str, plain: dict[str, Any]) -> None:
    chosen = compose.compose("pretrain", [f"pretext={pretext}"])
    for node in set(plain) - {"pretext", "views", "encoder", "run", "logger"}:
        assert plain[node] == chosen[node]


def test_data_root_comes_from_the_environment_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_FRAMEWORK_DATA", "/data/sets")
    assert compose.compose("pretrain", ["data=cifar10"])["data"]["path"] == "/data/sets/cifar10"
    assert compose.compose("pretrain", ["data=cifar10", "data_root=/other"])["data"]["path"] == "/other/cifar10"
    monkeypatch.delenv("SSL_FRAMEWORK_DATA")
    assert compose.compose("pretrain", [])["data_root"] is None  # digits need none


def test_labelled_data_is_another_set_on_request() -> None:
    assert compose.compose("pretrain", []).get("labelled_data") is None
    settings = compose.compose("pretrain", ["data@labelled_data=folder", "labelled_data.path=photos"])
    assert settings["labelled_data"]["path"] == "photos"
    assert settings["data"]["_target_"].endswith("digits")


def test_debug_is_short_and_sets_no_key_that_the_verb_has_not() -> None:
    assert compose.compose("pretrain", ["debug=short"])["trainer"]["max_steps"] == 4
    assert "seeds" not in compose.compose("pretrain", ["debug=short"])
    evaluate = compose.compose("evaluate", ["debug=short", "encoder_file=x"])
    assert evaluate["seeds"] == 2
    assert "trainer" not in evaluate
    assert compose.compose("pretrain", ["debug=short", "trainer.max_steps=9"])["trainer"]["max_steps"] == 9


def saved(folder: Path, verb: str, words: list[str]) -> str:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(compose.compose(verb, [*words, f"run.dir={folder}"])))
    return str(folder)


def test_words_are_inherited_and_the_users_own_win(tmp_path: Path) -> None:
    run = saved(tmp_path / "a", "pretrain", ["pretext=mae", "pretext.mask_ratio=0.6", "seed=3"])
    again = compose.compose("pretrain", [f"from_run={run}", "seed=4"])
    assert (again["pretext"]["mask_ratio"], again["seed"]) == (0.6, 4)
    assert again["run"]["dir"] != run
    # another choice drops the keys of the one that it replaces
    assert "mask_ratio" not in compose.compose("pretrain", [f"from_run={run}", "pretext=simclr"])["pretext"]


def test_an_evaluation_takes_encoder_and_data_of_a_run(tmp_path: Path) -> None:
    run = saved(tmp_path / "a", "pretrain", ["data=folder", "data.path=photos", "seed=3", "pretext=mae"])
    settings = compose.compose("evaluate", [f"from_run={run}"])
    assert (settings["encoder_file"], settings["data"]["path"], settings["seed"]) == (run, "photos", 0)
    assert compose.compose("evaluate", [f"from_run={run}", "data=digits"])["data"]["_target_"].endswith("digits")


def test_data_that_an_experiment_chose_are_the_runs_data_too(tmp_path: Path) -> None:
    words = ["experiment=fashion_mnist_simclr", "data_root=here", "data.val_share=0.2"]
    run = saved(tmp_path / "a", "pretrain", words)
    for verb in ("evaluate", "downstream", "embed"):
        data = compose.compose(verb, [f"from_run={run}"])["data"]
        assert (data["name"], data["path"], data["val_share"]) == ("FashionMNIST", "here/fashion_mnist", 0.2)
    assert compose.compose("evaluate", [f"from_run={run}", "data_root=there"])["data"]["path"] == "there/fashion_mnist"


def test_another_trainer_trains_for_as_long_somewhere_else(tmp_path: Path) -> None:
    words = ["trainer=ddp_cpu", "trainer.devices=3", "trainer.max_epochs=7", "trainer.gradient_clip_val=1"]
    run = saved(tmp_path / "a", "pretrain", words)
    for key in ("resume", "from_run"):
        trainer = compose.compose("pretrain", [f"{key}={run}", "trainer=cpu"])["trainer"]
        assert (trainer["max_epochs"], trainer["gradient_clip_val"], trainer["devices"]) == (7, 1, 1)


def test_views_that_suit_the_data_are_no_word_of_the_users(tmp_path: Path) -> None:
    run = saved(tmp_path / "a", "pretrain", ["pretext=simclr"])
    again = compose.compose("pretrain", [f"from_run={run}", "data=cifar10", "data_root=here"])
    assert again["views"]["_target_"].endswith("two_crops")


def test_a_run_of_another_verb_is_not_resumed(tmp_path: Path) -> None:
    run = saved(tmp_path / "a", "evaluate", ["encoder_file=x"])
    with pytest.raises(ValueError, match="that is a run of `evaluate`, not of `pretrain`"):
        compose.compose("pretrain", [f"resume={run}"])


@pytest.mark.parametrize("text", ["plain", "with space", "it's", "a=b,c", "[x]", "~/x"])
def test_quoting_comes_back_as_it_went(text: str) -> None:
    assert compose.compose("evaluate", [f"encoder_file={compose.quoted(text)}"])["encoder_file"] == text
