"""What pip installs from the wheel works in another folder, with its own configuration files."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def call(*command: str | Path, cwd: Path, timeout: float = 300) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "SSL_FRAMEWORK_DATA"}}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


def scripts(environment: Path) -> Path:
    return environment / ("Scripts" if os.name == "nt" else "bin")


def pretrained_somewhere_else(environment: Path, folder: Path) -> Path:
    """The encoder that the installed script wrote, after a look that the installed package is what ran."""
    folder.mkdir()
    python = scripts(environment) / "python"
    where = call(python, "-c", "import ssl_framework; print(ssl_framework.__file__)", cwd=folder)
    assert str(environment) in where
    call(scripts(environment) / "ssl-framework", "pretrain", "debug=short", "trainer=cpu", "run.dir=out", cwd=folder)
    return folder / "out" / "encoder.safetensors"


def test_the_wheel_holds_code_types_and_configuration_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    in_checkout = {
        f"ssl_framework/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")
    }
    assert in_checkout <= set(names)
    assert {"ssl_framework/py.typed", "ssl_framework/cli.py"} <= set(names)
    assert {"ssl_framework/report/page/style.css", "ssl_framework/report/page/page.js"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"ssl_framework", wheel.name.rsplit("-", 3)[0] + ".dist-info"}


@pytest.mark.slow
def test_installed_from_the_wheel_it_pretrains_in_another_folder(wheel: Path, tmp_path: Path) -> None:
    """The environment has only the wheel; its dependencies are lent by the one that runs the tests."""
    environment = tmp_path / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = scripts(environment) / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    site = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    # a .pth file adds a folder, whose own .pth files (the editable checkout) do not count
    (Path(site) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert pretrained_somewhere_else(environment, tmp_path / "elsewhere").is_file()


@pytest.mark.slow
def test_installed_with_its_dependencies_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    call(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    pip = [scripts(environment) / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    call(*pip, wheel, cwd=tmp_path, timeout=1200)
    assert pretrained_somewhere_else(environment, tmp_path / "elsewhere").is_file()
