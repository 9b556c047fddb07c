"""Libraries that are too old, or missing, are named before they are imported."""

import subprocess
import sys
from importlib import metadata

import pytest

from ssl_framework import cli
from ssl_framework.commands import installed


def test_what_is_installed_here_will_do():
    installed.require()


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("torch", "2.9.1", "error: torch 2.9.1 is installed, and ssl-framework needs torch>=2.11: pip install 'torch>=2.11'."),
        ("lightly", "2.0", "error: lightly 2.0 is installed, and ssl-framework needs lightly<2,>=1.6"),
        ("timm", None, "error: timm is not installed, and ssl-framework needs timm>="),
    ],
)
@pytest.mark.promise("R11", "library that is too old, too new or missing")
def test_another_version_is_named(
    name: str, version: str | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    known = metadata.version

    def asked(package: str) -> str:
        if package == name:
            if version is None:
                raise metadata.PackageNotFoundError(package)
            return version
        return known(package)

    monkeypatch.setattr(metadata, "version", asked)
    assert cli.run(["pretrain", "trainer.max_steps=1"]) == 2
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("version", ["2.11.0a0+nv26.2", "2.11.0rc1", "2.12.0.dev20260401+cu130", "2.11.0+cu130", "git-f3a9"])
def test_builds_of_vendors_and_of_the_night_will_do(version: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=2.11"])
    monkeypatch.setattr(metadata, "version", lambda _: version)
    installed.require()


@pytest.mark.parametrize("version", ["2.10.0a0+nv25.12", "2.10.1.dev20260101"])
def test_builds_below_the_floor_will_not(version: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=2.11"])
    monkeypatch.setattr(metadata, "version", lambda _: version)
    with pytest.raises(ValueError, match=r"torch>=2\.11"):
        installed.require()


def test_it_is_said_before_torch_is_imported():
    program = (
        "import sys; from importlib import metadata; known = metadata.version; "
        "metadata.version = lambda name: '2.0' if name == 'torch' else known(name); "
        "from ssl_framework import cli; code = cli.run(['pretrain']); sys.exit(10 * code + ('torch' in sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, "torch 2.0 is installed" in ended.stderr) == (20, True), ended.stderr


def test_optional_libraries_are_not_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["nothing-that-exists>=1; extra == 'wandb'", "torch>=2"])
    installed.require()


def test_a_folder_without_an_installation_is_let_be(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    installed.require()
