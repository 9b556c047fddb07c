"""The configuration of a stranger's run folder runs no code, reads no secret, and is never silently believed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml

from ssl_framework.checkpoint import store
from ssl_framework.commands import compose, folder, pretrain, strangers


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run folder as ours are."""
    home = tmp_path / "run"
    folder.begin(compose.compose("pretrain", ["seed=1", "pretext.temperature=0.3"], folder=str(home)))
    return home


def changed(home: Path, change: Callable[[Any], None]) -> None:
    file = home / "config.yaml"
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content))


def test_ours_are_read_as_they_are(saved: Path):
    assert compose.saved_settings(saved) == yaml.safe_load((saved / "config.yaml").read_text())
    for verb in ("downstream", "transfer", "evaluate", "demo"):
        words = [] if verb == "demo" else [f"encoder_file={saved}"]
        settings = compose.compose(verb, words)
        (saved / "config.yaml").write_text(yaml.safe_dump(settings))
        assert strangers.read(saved / "config.yaml") == settings


HOSTILE: dict[str, Callable[[Any], Any]] = {
    "a node that calls a shell": lambda c: c["pretext"].update(_target_="os.system"),
    "one that is new": lambda c: c.update(extra={"deep": [{"_target_": "builtins.eval", "_args_": ["1"]}]}),
    "an unsafe loader": lambda c: c["encoder"].update(_target_="torch.load", weights_only=False),
    "a module by a class in it": lambda c: c["data"].update(_target_="antigravity.Anything"),
    "a target that is no name": lambda c: c["views"].update(_target_=["os.system"]),
    "an environment variable": lambda c: c["data"].update(path="${oc.env:HOME}"),
    "a resolver": lambda c: c.update(seed="${eval:1+1}"),
    "one within a list": lambda c: c["views"].update(size=["${oc.env:HOME}", 8]),
    "a word that calls": lambda c: c["run"]["words"].append("pretext._target_=os.system"),
    "one within a dictionary": lambda c: c["run"]["words"].append("pretext={_target_: os.system}"),
    "one with quotes": lambda c: c["run"]["words"].append("pretext={_target_: 'os.system'}"),
    "one that hides": lambda c: c["run"]["words"].append("pretext={_target_\t: os.system}"),
    "a word that looks up": lambda c: c["run"]["words"].append("seed=${oc.env:HOME}"),
    "a word of Hydra": lambda c: c["run"]["words"].append("hydra/launcher=evil"),
    "one that adds to Hydra": lambda c: c["run"]["words"].append("++hydra.searchpath=[/tmp]"),
    "a word that is an option": lambda c: c["run"]["words"].append("--config-dir=/tmp"),
    "a word that is none": lambda c: c["run"]["words"].append({"a": 1}),
    "a choice elsewhere": lambda c: c["run"]["choices"].update(data="../../tmp/evil"),
    "one of ours in the wrong place": lambda c: c["data"].update(_target_="pytorch_lightning.loggers.TensorBoardLogger"),
    "one of ours too deep": lambda c: c["data"].update(path={"_target_": "ssl_framework.data.digits"}),
    "arguments by place": lambda c: c["data"].update(_args_=["x"]),
    "a word whose escapes look up": lambda c: c["run"]["words"].append(r"data_root=$\{oc.env\:HOME\}"),
    "a word that puts a file of theirs in a node": lambda c: c["run"]["words"].append("+data@pretext=../../../../tmp/evil"),
    "one that replaces a choice so": lambda c: c["run"]["words"].append("data@labelled_data=../../../../tmp/evil"),
    "one that calls one of ours elsewhere": lambda c: c["run"]["words"].append(
        "data._target_=pytorch_lightning.loggers.TensorBoardLogger"
    ),
    "words that are none": lambda c: c["run"].update(words="seed=1"),
    "choices that are none": lambda c: c["run"].update(choices=["data"]),
    "a key elsewhere": lambda c: c["run"]["words"].append("data/../../tmp=evil"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_none_of_ours_is_refused_by_name(name: str, saved: Path):
    changed(saved, HOSTILE[name])
    with pytest.raises(ValueError, match=r"config\.yaml: (run\.)?\w+"):
        compose.saved_settings(saved)
    for words in ([f"resume={saved}"], [f"from_run={saved}"]):
        with pytest.raises(ValueError, match=r"config\.yaml: "):
            compose.compose("pretrain", words)


def test_undefended_hydra_calls_it(saved: Path, tmp_path: Path):
    """The control: what is refused above would have run."""
    changed(
        saved,
        lambda c: c.update(
            pretext={
                "_target_": "pathlib.Path.touch",
                "_args_": [{"_target_": "pathlib.Path", "_args_": [str(tmp_path / "trace")]}],
            }
        ),
    )
    hydra.utils.instantiate(yaml.safe_load((saved / "config.yaml").read_text())["pretext"])
    assert (tmp_path / "trace").exists()
    with pytest.raises(ValueError, match=r"pretext\._args_ says how something is called"):
        compose.saved_settings(saved)


def test_the_user_may_trust_a_name(saved: Path):
    changed(saved, lambda c: c["pretext"].update(_target_="mine.Task"))
    with pytest.raises(ValueError, match=r"If you know it and trust it, give allow_target=\[mine.Task\]"):
        compose.saved_settings(saved)
    assert compose.saved_settings(saved, allowed=["mine.Task"])["pretext"]["_target_"] == "mine.Task"
    changed(saved, lambda c: c["pretext"].update(_target_="ssl_framework.pretext.SimCLR"))
    changed(saved, lambda c: c["run"]["words"].append("pretext._target_=mine.Task"))
    trusted = compose.compose("pretrain", [f"from_run={saved}", "allow_target=[mine.Task]"])
    assert trusted["pretext"]["_target_"] == "mine.Task"
    assert compose.compose("pretrain", [f"from_run={saved}", "allow_target=mine.Task"])["pretext"]["_target_"] == "mine.Task"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [1]\nb: [*x, *x]\n", "has references"),
        ("a: !!python/object/apply:os.system [true]\n", "not plain YAML"),
        ("a: [" * 5000, "not plain YAML"),
        ("a: b: c", "not plain YAML"),
        ("\x00", "not plain YAML"),
        ("a: " + "x" * 1_000_001, "1,000,000 bytes"),
        ("[]", "not written by this program"),
    ],
)
def test_what_is_no_plain_configuration_is_refused(text: str, said: str, saved: Path):
    (saved / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        compose.saved_settings(saved)


def test_a_folder_of_shards_is_not_read(saved: Path):
    shards = store.checkpoint_dir(saved) / "step-000000001.ckpt"
    shards.mkdir(parents=True)
    (shards / ".metadata").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    store.seal(shards, {})
    with pytest.raises(ValueError, match=r"a folder of shards, whose \.metadata is a pickle"):
        pretrain.run(compose.compose("pretrain", [f"resume={saved}"], folder=str(saved)))


def test_a_resumed_run_writes_its_logs_into_its_own_folder(saved: Path):
    words = [f"resume={saved}"]
    ours = compose.compose("pretrain", words, folder=str(saved))["logger"]
    assert any(str(saved) in node.values() for node in ours.values())
    changed(
        saved,
        lambda c: [node.update({key: "/else" for key in node if node[key] == str(saved)}) for node in c["logger"].values()],
    )
    assert "/else" in (saved / "config.yaml").read_text()
    assert folder.go_on(compose.compose("pretrain", words, folder=str(saved)))["logger"] == ours


OUTWARD = {
    "logger=wandb": "logger=default",
    "logger.csv.folder=/else": "logger=default",
    "+logger.more.folder=/else": "logger=default",
    "data.cache_dir=/else": "data.cache_dir=null",
}


@pytest.mark.parametrize("word", OUTWARD)
def test_what_reaches_beyond_the_folder_is_asked_of_the_user(word: str, saved: Path):
    changed(saved, lambda c: c["run"]["words"].append(word))
    for key in ("resume", "from_run"):
        with pytest.raises(ValueError, match=re.escape(f"{key}={saved} has {word}, which reaches beyond the run folder")):
            compose.compose("pretrain", [f"{key}={saved}"])
        compose.compose("pretrain", [f"{key}={saved}", OUTWARD[word]])  # the remedy that it names
        compose.compose("pretrain", [f"{key}={saved}", word.lstrip("+")] if "more" not in word else [f"{key}={saved}", word])


WITHIN = ["~logger.tensorboard", "logger=csv", "logger.csv=null", "data.cache_dir=null", "data.download=false"]


@pytest.mark.parametrize("word", WITHIN)
def test_what_stays_in_the_folder_is_taken_over(word: str, saved: Path):
    kept = [] if word == "data.download=false" else [word]  # what is there need not be fetched
    assert strangers.lent(["seed=1", word], "resume", str(saved), []) == ["seed=1", *kept]


@pytest.mark.parametrize("verb", ["evaluate", "downstream", "embed", "transfer"])
@pytest.mark.parametrize("words", [["logger=wandb"], ["encoder=timm", "encoder.name=resnet18", "encoder.pretrained=true"]])
def test_other_verbs_are_lent_the_data_alone(verb: str, words: list[str], saved: Path):
    """What else a run of the user's had said is none of their business, and cannot be said again to them."""
    folder.write_yaml(saved / "config.yaml", compose.compose("pretrain", [*words, "data.batch_size=64"], folder=str(saved)))
    assert compose.compose(verb, [f"from_run={saved}"])["data"]["batch_size"] == 64


def test_nothing_is_fetched_because_a_run_folder_says_so(saved: Path):
    changed(saved, lambda c: c["data"].update(download=True, cache_dir="/else"))
    changed(saved, lambda c: c["encoder"].update(pretrained=True))
    believed = compose.saved_settings(saved)
    assert (believed["data"]["download"], believed["data"]["cache_dir"], believed["encoder"]["pretrained"]) == (
        False,
        None,
        False,
    )
    for words in (["data=cifar100", "data.path=x", "data.download=true"], ["encoder=timm", "encoder.pretrained=true"]):
        folder.write_yaml(saved / "config.yaml", compose.compose("pretrain", words, folder=str(saved)))
        again = compose.compose("pretrain", [f"resume={saved}"])
        assert not again["data"].get("download")
        assert not again["encoder"].get("pretrained")
    with pytest.raises(ValueError, match=r"has encoder\.pretrained=true, .* or encoder\.pretrained=false\."):
        compose.compose("pretrain", [f"from_run={saved}"])
    assert compose.compose("pretrain", [f"from_run={saved}", "encoder.pretrained=true"])["encoder"]["pretrained"]


def test_a_link_out_of_the_folder_is_not_written_through(saved: Path, tmp_path: Path):
    (saved / "metrics.csv").symlink_to(tmp_path / "else.csv")
    with pytest.raises(ValueError, match=r"metrics\.csv is a link to .*else\.csv, outside of the run folder"):
        folder.go_on(compose.compose("pretrain", [f"resume={saved}"], folder=str(saved)))
    (saved / "metrics.csv").unlink()
    (saved / "newest").symlink_to("config.yaml")  # one that stays inside is no matter
    folder.go_on(compose.compose("pretrain", [f"resume={saved}"], folder=str(saved)))
