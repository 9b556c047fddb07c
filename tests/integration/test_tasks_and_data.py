"""Every task on every kind of data, by the command line."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ssl_framework import cli
from ssl_framework.checkpoint import load_encoder
from support import KINDS_FIRST, channels, light

pytestmark = pytest.mark.filterwarnings("ignore:.* cannot be read .* and is replaced")  # the broken image below, on purpose
GREY = {"digits", "fashion_mnist"}
REAL = pytest.mark.skipif("SSL_FRAMEWORK_DATA" not in os.environ, reason="SSL_FRAMEWORK_DATA is not set")
DATA = [
    pytest.param("digits", id="digits"),
    pytest.param("folder", id="folder", marks=pytest.mark.slow),
    pytest.param("fashion_mnist", id="fashion_mnist", marks=[REAL, pytest.mark.data, pytest.mark.slow]),
    pytest.param("cifar10", id="cifar10", marks=[REAL, pytest.mark.data, pytest.mark.slow]),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as users have: colours and greys, several sizes, PNG and JPEG, one broken file in 240."""
    folder = tmp_path_factory.mktemp("images")
    digits = load_digits()
    sides = np.random.default_rng(0).integers(20, 40, size=(240, 2))
    for number, (image, label) in enumerate(zip(digits.images[:240], digits.target[:240], strict=True)):
        place = folder / f"digit_{label}"
        place.mkdir(exist_ok=True)
        picture = Image.fromarray((image * 15.9).astype(np.uint8)).resize(tuple(sides[number].tolist()))
        picture = picture.convert("RGB") if number % 3 else picture
        picture.save(place / f"{number:03d}.{'png' if number % 2 else 'jpg'}")
    (folder / "digit_0" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


@pytest.mark.parametrize("task", KINDS_FIRST)
@pytest.mark.parametrize("data", DATA)
def test_a_task_trains_and_its_encoder_can_be_measured(
    task: str, data: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"data={data}", "data.batch_size=16", *light(task)]
    if data == "folder":
        words += [f"data.path={images}", "data.size=[24,24]", "data.workers=1"]
    pretrain = ["pretrain", f"pretext={task}", "debug=short", "trainer=cpu", "trainer.progress_bar=false", "monitors=none"]
    if channels(task) == 3 and data in GREY:
        assert cli.run([*pretrain, *words, f"run.dir={tmp_path / 'run'}"]) == 2
        assert "take colour images, data=cifar10" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
        return
    assert cli.run([*pretrain, *words, f"run.dir={tmp_path / 'run'}"]) == 0
    assert load_encoder(tmp_path / "run").history["steps"] == 4
    embed = ["embed", f"from_run={tmp_path / 'run'}", "split=test", f"run.dir={tmp_path / 'embeddings'}", "accelerator=cpu"]
    if data in {"digits", "folder"}:
        assert cli.run(embed) == 0
        assert any(path.suffix == ".npz" for path in (tmp_path / "embeddings").iterdir())


def test_images_without_labels_pretrain_with_all_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 255, size=(60, 12, 12, 3), dtype=np.uint8))
    words = ["pretrain", "data=arrays", f"data.path={tmp_path / 'images.npy'}", "debug=short", "data.batch_size=16"]
    assert (
        cli.run([*words, "precision=bf16-mixed", "trainer=cpu", "trainer.progress_bar=false", f"run.dir={tmp_path / 'run'}"])
        == 0
    )
    assert "no labels: the online probe and neighbours are off" in capsys.readouterr().out
    assert "collapse/embedding_rankme" in (tmp_path / "run" / "metrics.csv").read_text()


def test_an_unreadable_image_is_named_in_the_run_folder(images: Path, tmp_path: Path) -> None:
    words = ["pretrain", "pretext=rotation", "data=folder", f"data.path={images}", "data.size=[24,24]", "monitors=none"]
    words += ["trainer=cpu", "trainer.max_epochs=1.2", "data.batch_size=16", "trainer.progress_bar=false", "logger=none"]
    assert cli.run([*words, f"run.dir={tmp_path / 'run'}"]) == 0
    text = (tmp_path / "run" / "bad_samples.csv").read_text()
    assert "broken.jpg" in text
