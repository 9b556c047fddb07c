"""The command line without running anything: lists, help, and one sentence for every mistake."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_framework import cli
from ssl_framework.commands import VERBS, explain, launch, usage
from ssl_framework.paths import conf_dir


def test_without_arguments_every_verb_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb, what in VERBS.items():
        assert [line.split(None, 1) for line in lines if line.startswith(f"  {verb} ")] == [[verb, what]]


def test_every_verb_has_a_module_and_a_configuration() -> None:
    modules = Path(cli.__file__).parent / "commands"
    for verb in VERBS:
        assert (modules / f"{verb}.py").is_file()
        assert (conf_dir() / f"{verb}.yaml").is_file()


MISTAKES = {
    "pretrian": "Did you mean pretrain?",
    "data=digits": "The verb comes first",
    "pretrain --multrun": "Did you mean --multirun?",
    "pretrain data=digitz": "Did you mean digits?",
    "pretrain pretext=simcrl": "Did you mean simclr?",
    "pretrain data@labelled_data=cifar": "Did you mean cifar10?",
    "pretrain trainer=xyz": "Choices: cpu, ddp, ddp_cpu, default, fsdp2, gpu.",
    "pretrain pretxt=mae": "Did you mean pretext?",
    "pretrain trainer.max_epoch=3": "Did you mean trainer.max_epochs?",
    "pretrain temperature=0.2": "Did you mean pretext.temperature?",
    "pretrain pretext=mae pretext.mask_ration=0.5": "Did you mean pretext.mask_ratio?",
    "pretrain trainer.zzz=1": "Keys of trainer: trainer.accelerator",
    "pretrain trainer.max_epochs=many": "must be a number, such as 100.",
    "pretrain trainer.progress_bar=often": "must be true or false.",
    "pretrain run=here": "run is not one value. Its keys: dir",
    "pretrain encoder=runs/a": "encoder_file=runs/a",
    "pretrain data=photos/cats": "data=folder data.path=photos/cats",
    "pretrain epochs": "write key=value.",
    "pretrain data.path=a(b": "quotes of its own",
    "pretrain data=digits,cifar10": "add --multirun",
    "pretrain seed=1,x --multirun": "must be a number",
    "pretrain resume=nowhere": "no config.yaml there",
    "pretrain resume=a from_run=b": "give one of them",
    "pretrain trainer=ddp_cpu seed=1,2 --multirun": "each process would sweep",
    "evaluate": "encoder_file has no default",
    "evaluate pretext=mae": "evaluate has no key pretext",
    "downstream encoder_fil=x": "Did you mean encoder_file?",
    "embed encoder_file=x splt=test": "Did you mean split?",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert MISTAKES[line] in told.err
    assert len(told.err.splitlines()) == 1


def test_data_that_is_nowhere_names_the_ways_to_say_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_FRAMEWORK_DATA", raising=False)
    assert cli.run(["pretrain", "data=cifar10"]) == 2
    message = capsys.readouterr().err
    assert all(remedy in message for remedy in ("data.path=PATH", "data_root=FOLDER", "SSL_FRAMEWORK_DATA"))


def test_a_folder_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert cli.run(["pretrain", f"run.dir={tmp_path}"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "tasks"])
def test_help_names_all_groups_choices_and_keys(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([verb, "--help"]) == 0
    page = capsys.readouterr().out
    for group, folder in explain.groups_of(verb).items():
        line = next(line for line in page.splitlines() if line.startswith(f"  {group} "))
        assert {word.lstrip("*") for word in line.split()[1:]} == set(explain.choices_in(folder))
    assert "  run.dir=null" in page
    assert "one number behind every random draw" in page  # comments of the files are the documentation
    if verb == "pretrain":
        assert "*simclr" in page
        assert "  trainer.max_steps=null" in page
        assert "wins over max_epochs" in page


def test_no_value_key_has_the_name_of_a_group() -> None:
    groups = {folder.name for folder in conf_dir().iterdir() if folder.is_dir()}
    for verb in VERBS:
        values = explain.nodes_of(verb) - {name.split("@")[-1] for name in explain.groups_of(verb)}
        assert not {key for key in values if key in groups and key not in explain.groups_of(verb)}


def test_help_and_mistakes_need_no_torch(tmp_path: Path) -> None:
    script = "import sys\nfrom ssl_framework import cli\ncli.run(sys.argv[1:])\nsys.exit('torch' in sys.modules)"
    for line in (
        "pretrain --help", "pretrain data=digitz", "pretrain --cfg", "pretrain data.batch_size=0", "pretrain encoder=null",
        "downstream encoder_file=nowhere",
    ):  # fmt: skip
        command = [sys.executable, "-c", script, *line.split()]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("config.yaml"))


def test_overview_fits_a_terminal() -> None:
    assert max(map(len, usage.overview().splitlines())) < 110


def test_bare_words_of_report_and_reproduce_are_their_keys() -> None:
    assert explain.keyed("report", ["runs/a b", "seed=1", "it's"]) == ["seed=1", "runs=['runs/a b','it\\'s']"]
    assert explain.keyed("reproduce", ["runs/a:full/10/0"]) == ["row='runs/a:full/10/0'"]
    assert explain.keyed("pretrain", ["epochs"]) == ["epochs"]  # whose mistake is named elsewhere
    with pytest.raises(ValueError, match="reproduce takes one row at a time"):
        explain.keyed("reproduce", ["a:b/1/0", "a:b/1/1"])


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_looked_for_again_when_a_verb_is_imported(collects: bool, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def imported(name: str) -> None:
        seen.append((name, gc.isenabled()))
        raise ImportError(name)

    monkeypatch.setattr(launch.importlib, "import_module", imported)
    if not collects:
        gc.disable()
    try:
        with pytest.raises(ImportError):
            launch._module("pretrain")
        assert gc.isenabled() is collects
    finally:
        gc.enable()
    assert seen == [("ssl_framework.commands.pretrain", False)]


def test_nothing_looks_for_garbage_when_the_command_ends(monkeypatch: pytest.MonkeyPatch):
    frozen = []
    monkeypatch.setattr(cli, "run", lambda words: 75)
    monkeypatch.setattr(cli.gc, "freeze", lambda: frozen.append(True))
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert (left.value.code, frozen) == (75, [True])
