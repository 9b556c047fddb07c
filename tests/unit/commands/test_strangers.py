"""The configuration of a stranger's run folder runs no code, reads no secret, and is never silently believed."""

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
    with pytest.raises(ValueError, match="would be imported and called"):
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
