"""R10: every bad input ends before training in one sentence, or is skipped, counted and named; a check names it beforehand."""

import csv
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torchvision.datasets
from PIL import Image
from torch import Tensor

import bad_inputs as bad
from ssl_framework.commands import errors
from ssl_framework.data import CocoBoxes, DataModule, FolderSource, Masks, Table, arrays, folder, parquet
from ssl_framework.data.decode import decode, kind_of
from ssl_framework.data.findings import Finding, findings
from ssl_framework.data.survey import survey
from ssl_framework.paths import printable
from ssl_framework.types import BadSampleError, Batch
from ssl_framework.views import two_crops
from support import in_a_child

Record = Callable[[str, object], None]

FACTS = {"size": [12, 14], "mean": [0.5] * 3, "std": [0.3] * 3, "val_share": 0, "test_share": 0.0, "batch_size": 40}


@pytest.fixture
def proves(record_property: Record) -> None:
    record_property("promise", "R10")
    record_property("kind", "bad input")


@pytest.fixture
def control(record_property: Record) -> None:
    record_property("promise", "R10")
    record_property("kind", "control")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bad.good(tmp_path_factory.mktemp("whole") / "photos")


@pytest.fixture
def photos(whole: Path, tmp_path: Path) -> Path:
    """The good images; their files are shared."""
    return Path(shutil.copytree(whole, tmp_path / "photos", copy_function=os.link))


class OneWeight(pl.LightningModule):
    """Takes part in training, and notes what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = batch.input if batch.crops is None else batch.crops.global_crops[0]
        assert len(images) == len(batch.index) == 40
        self.seen += batch.index.tolist()
        return self.weight * images.float().mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """There is none, but Lightning asks for it."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def train(data: DataModule, home: Path, steps: int = 4) -> OneWeight:
    """More than one pass over 121 samples."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    module = OneWeight()
    data.attach(two_crops(size=(8, 8), mean=(0.5,) * 3, std=(0.3,) * 3))
    pl.Trainer(accelerator="cpu", max_steps=steps, max_epochs=-1, default_root_dir=home, limit_val_batches=0, **quiet).fit(
        module, datamodule=data
    )
    return module


def one_sentence(error: BaseException, named: str) -> None:
    """What the command line would say, and not a traceback."""
    said = errors.sentence(error)
    assert said is not None, repr(error)
    assert re.search(named, said), said
    assert len(said) < 700


def checked(data: DataModule) -> list[Finding]:
    return findings(survey(data.sources()), data.size)


def listed(home: Path) -> dict[str, str]:
    with (home / "bad_samples.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file)}


def add(photos: Path, name: str) -> Path:
    if name in bad.LINKS:
        return bad.LINKS[name](photos / "cat")
    file, content = bad.BYTES[name]
    (photos / "cat" / file).write_bytes(content())
    return photos / "cat" / file


@pytest.mark.parametrize("name", [*bad.BYTES, *bad.LINKS])
@pytest.mark.filterwarnings("ignore:Image size .* exceeds limit")
def test_an_unreadable_file_is_skipped_counted_and_named(name: str, photos: Path, tmp_path: Path, proves: None) -> None:
    file = add(photos, name)
    data = folder(photos, **FACTS)
    with pytest.warns(UserWarning, match="is replaced") as told:
        seen = train(data, tmp_path / "run").seen
    assert any(printable(file) in str(one.message) for one in told)
    assert list(listed(tmp_path / "run")) == [printable(file)]
    assert listed(tmp_path / "run")[printable(file)]
    assert data.bad_samples.names() == [printable(file)]
    [line] = data.bad_samples.lines()
    assert printable(file) in line
    place = next(i for i in range(121) if data.train.name(i) == str(file))
    assert set(seen) == set(range(121)) - {place}

    strict = folder(photos, on_bad_sample="error", **FACTS)
    with pytest.raises(ValueError, match="on_bad_sample=error") as error:
        train(strict, tmp_path / "strict")
    one_sentence(error.value, re.escape(printable(file)))

    [found] = [one for one in checked(data) if one.sort == "unreadable"]
    assert found.name == printable(file)


@pytest.mark.parametrize("name", bad.ODD)
def test_an_odd_file_is_read_as_documented_and_named_by_a_check(name: str, photos: Path, tmp_path: Path, proves: None) -> None:
    sort, file, content = bad.ODD[name]
    (photos / "cat" / file).write_bytes(content())
    data = folder(photos, **FACTS)
    seen = train(data, tmp_path / "run").seen
    assert set(seen) == set(range(121))
    assert data.bad_samples.rows == {}
    found = [one for one in checked(data) if one.sort == sort]
    assert any(str(photos / "cat" / file) in (one.name, *one.detail.split()) for one in found)  # of two copies either is named


@pytest.mark.parametrize("name", bad.LEFT_OUT)
def test_what_is_not_read_is_said_and_named_by_a_check(name: str, photos: Path, proves: None) -> None:
    path = bad.left_out(photos / "cat", name)
    with pytest.warns(UserWarning, match="not read") as told:
        data = folder(photos, labels=True, **FACTS)
    assert str(path) in str(told[0].message)
    assert len(data.train) == 120
    [found] = checked(data)
    assert (found.sort, found.name) == ("not read", str(path))


def _only(photos: Path, names: str) -> None:
    for file in [*photos.rglob("*")]:
        if file.is_file() and not re.search(names, file.name):
            file.unlink()


def _moved(photos: Path, *into: str) -> None:
    """The images of each class into folders of these names."""
    for part in into:
        for kind in ("cat", "dog"):
            shutil.copytree(photos / kind, photos / part / kind)
    shutil.rmtree(photos / "cat")
    shutil.rmtree(photos / "dog")


FOLDERS: dict[str, tuple[Callable[[Path], object], dict[str, object], str]] = {
    "no images": (lambda p: _only(p, "^$"), {}, "There are no images in"),
    "hidden images alone": (
        lambda p: (_only(p, "^$"), (p / "cat" / "._1.png").write_bytes(b"x")),
        {},
        "There are no images in",
    ),
    "no folder": (shutil.rmtree, {}, "There is no image folder at"),
    "a file for a folder": (lambda p: (shutil.rmtree(p), p.write_text("x")), {}, "is not a folder"),
    "an empty class": (lambda p: (p / "cow").mkdir(), {"labels": True}, "The class 'cow' has no images"),
    "an image outside the classes": (lambda p: os.link(p / "cat/000.png", p / "a.png"), {"labels": True}, "in no class folder"),
    "a class called like a split": (lambda p: shutil.copytree(p / "cat", p / "test"), {}, "called like splits"),
    "two names of a split": (lambda p: _moved(p, "train", "val", "valid"), {}, "two names of the val split"),
    "no training": (lambda p: _moved(p, "val", "test"), {}, "none called train"),
    "a class of test alone": (
        lambda p: (_moved(p, "train", "test"), shutil.copytree(p / "train" / "cat", p / "test" / "cow")),
        {},
        "'cow' .* is not among the training classes",
    ),
    "no such images within": (lambda p: None, {"within": "pictures"}, "no images in folders called pictures"),
    "four channels": (lambda p: None, {"channels": 4}, "images are read as 3"),
    "other classes": (lambda p: None, {"classes": 5}, "2 classes, not classes=5"),
    "a size of nothing": (lambda p: None, {"size": [0, 12]}, "is no height and width"),
    "a policy that is none": (lambda p: None, {"on_bad_sample": "ignore"}, "give skip .* or error"),
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.filterwarnings("ignore:not read")
def test_a_folder_that_is_wrong_ends_before_training(name: str, photos: Path, proves: None) -> None:
    change, options, named = FOLDERS[name]
    change(photos)
    with pytest.raises((ValueError, OSError)) as error:
        folder(photos, **(FACTS | options))
    one_sentence(error.value, named)


ROTTEN = {
    "2 of 122": (2, "2 of 122 train samples cannot be read, more than 1%"),
    "all of them": (None, "None of the 120 samples"),
}


@pytest.mark.parametrize("name", ROTTEN)
@pytest.mark.filterwarnings("ignore:.* is replaced")
def test_too_many_unreadable_files_end_the_run(name: str, photos: Path, tmp_path: Path, proves: None) -> None:
    count, named = ROTTEN[name]
    for file in [photos / "cat" / f"rotten{i}.png" for i in range(count)] if count else [*photos.rglob("*.png")]:
        file.unlink(missing_ok=True)
        file.write_bytes(b"\x89PNG half")
    data = folder(photos, **FACTS)
    with pytest.raises(ValueError) as error:
        train(data, tmp_path / "run")
    one_sentence(error.value, named)
    assert sum(one.mend for one in checked(data) if one.sort == "unreadable") == (count or 120)


def test_a_folder_that_cannot_be_listed_is_an_error(photos: Path, monkeypatch: pytest.MonkeyPatch, proves: None) -> None:
    """By a patch, for root may list everything."""
    real = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError) as error:
        folder(photos, **FACTS)
    one_sentence(error.value, "dog: permission denied")


def test_a_file_without_permission(photos: Path, tmp_path: Path, proves: None) -> None:
    file = photos / "cat" / "new.jpg"
    file.write_bytes(bad.JPEG)
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read every file (root?): run the suite as another user to see this case")
    with pytest.warns(UserWarning, match="is replaced"):
        train(folder(photos, **FACTS), tmp_path / "run")
    assert listed(tmp_path / "run")[str(file)] == "permission denied"


def test_a_file_without_permission_is_unreadable_for_others_than_root(proves: None) -> None:
    """Root becomes another user, in a child."""
    if os.getuid() != 0:
        pytest.skip("only root may become another user: the test before this one has shown it")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "new.jpg"
        file.write_bytes(bad.JPEG)
        file.chmod(0)
        Path(place).chmod(0o755)

        def refuse() -> None:
            os.setuid(65534)
            with pytest.raises(BadSampleError, match="permission denied"):
                decode(file, 3)

        assert in_a_child(refuse) == 0


RANDOM = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.filterwarnings("ignore")
def test_whatever_is_damaged_is_an_image_or_says_why_not(kind: str, proves: None) -> None:
    """150 files with bytes that are changed or cut off at random: nothing but `BadSampleError` leaves the decoder."""
    draw, data = random.Random(0), bad.encoded(bad.NOISE, kind)
    refused = 0
    for number in range(150):
        damaged = bytearray(data if number % 3 else data[: draw.randrange(len(data))])
        for _ in range(number % 3 * 3):
            damaged[draw.randrange(len(damaged) if number % 2 else min(200, len(damaged)))] = draw.randrange(256)
        try:
            assert decode(bytes(damaged), 3).dtype == torch.uint8
            kind_of(bytes(damaged))
        except BadSampleError as error:
            refused += bool(str(error))
    assert refused >= 40


@pytest.mark.parametrize("name", bad.ARRAYS)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_arrays_that_are_wrong_end_before_training(name: str, tmp_path: Path, proves: None) -> None:
    stored, named = bad.ARRAYS[name]
    with pytest.raises(ValueError) as error:
        arrays(bad.arrays_file(tmp_path, **stored), batch_size=8).facts  # noqa: B018  (they are measured here)
    one_sentence(error.value, named)


@pytest.mark.parametrize("name", bad.ARRAY_FILES)
def test_damaged_files_of_arrays_end_before_training(name: str, tmp_path: Path, proves: None) -> None:
    file, content, named = bad.ARRAY_FILES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError) as error:
        arrays(tmp_path / file)
    one_sentence(error.value, named)
    one_sentence(error.value, re.escape(str(tmp_path / file)))


ORDERS = {"columns first": np.asfortranarray, "bytes swapped": lambda x: (x / np.float32(255)).astype(">f4")}


@pytest.mark.parametrize("name", ORDERS)
def test_arrays_in_another_order_are_the_same_images(name: str, tmp_path: Path, proves: None) -> None:
    data = arrays(bad.arrays_file(tmp_path, images=ORDERS[name](bad.PIXELS)), test_share=0.0, val_share=0)
    assert np.array_equal(data.train.read(7).permute(1, 2, 0).numpy(), bad.PIXELS[7])


@pytest.fixture
def quiet_bars() -> Iterator[None]:
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.parametrize("name", bad.PARQUET)
@pytest.mark.filterwarnings("ignore:.* is replaced")
def test_tables_of_images_that_are_wrong_end_before_training(
    name: str, tmp_path: Path, proves: None, quiet_bars: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, named = bad.PARQUET[name]
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    path = bad.shard(tmp_path / "shards", **columns())
    with pytest.raises(ValueError) as error:
        parquet(path, size=[12, 14], batch_size=8).facts  # noqa: B018
    one_sentence(error.value, named)


@pytest.mark.parametrize("name", bad.PARQUET_FOLDERS)
def test_shards_that_are_wrong_end_before_training(
    name: str, tmp_path: Path, proves: None, quiet_bars: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, named = bad.PARQUET_FOLDERS[name]
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    change(tmp_path / "shards")
    with pytest.raises((ValueError, OSError)) as error:
        parquet(tmp_path / "shards", size=[12, 14], batch_size=8)
    one_sentence(error.value, named)


CELLS = {"nothing": None, "no bytes": b"", "text": b"hello", "half an image": bad.half(bad.PNG)}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_that_cannot_be_read_is_skipped_counted_and_named(
    name: str, tmp_path: Path, proves: None, quiet_bars: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    path = bad.shard(tmp_path / "shards", img=[*map(bad.encoded, bad.PIXELS), CELLS[name]])
    data = parquet(path, label_column=None, **FACTS)
    with pytest.warns(UserWarning, match=r"shards:train\[120\] .* is replaced"):
        train(data, tmp_path / "run")
    assert list(listed(tmp_path / "run")) == ["shards:train[120]"]
    assert [one.name for one in checked(data) if one.sort == "unreadable"] == ["shards:train[120]"]


@pytest.mark.parametrize("name", bad.TABLES)
def test_tables_of_numbers_that_are_wrong_end_before_training(name: str, tmp_path: Path, proves: None) -> None:
    file, content, named = bad.TABLES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError) as error:
        Table(tmp_path / file).numbers(["size"], ["x[0]", "x[1]", "x[2]"])
    one_sentence(error.value, named)
    one_sentence(error.value, re.escape(str(tmp_path / file)))


@pytest.mark.parametrize("name", bad.BOXES)
def test_boxes_that_are_wrong_end_in_a_sentence(name: str, tmp_path: Path, proves: None) -> None:
    change, named = bad.BOXES[name]
    images, annotations = bad.coco(tmp_path, change)
    with pytest.raises((ValueError, OSError)) as error:
        CocoBoxes(images, annotations).read(0)
    one_sentence(error.value, named)


def test_boxes_without_area_are_left_out_and_counted(tmp_path: Path, proves: None) -> None:
    boxes = CocoBoxes(*bad.coco(tmp_path, ("annotations", 0, "bbox", [3, 3, 0, 4])))
    assert boxes.empty == 1
    assert len(boxes.read(0).boxes) == 0


def test_a_damaged_image_with_boxes_ends_in_a_sentence(tmp_path: Path, proves: None) -> None:
    boxes = CocoBoxes(*bad.coco(tmp_path))
    (tmp_path / "0.png").write_bytes(b"hello")
    with pytest.raises(ValueError) as error:
        boxes.read(0)
    one_sentence(error.value, "0.png cannot be read")


@pytest.mark.parametrize("name", bad.MASKS)
def test_masks_that_are_wrong_end_in_a_sentence(name: str, tmp_path: Path, proves: None) -> None:
    change, named = bad.MASKS[name]
    for kind, pixels in (("images", bad.PIXELS[0]), ("masks", bad.PIXELS[0][:, :, 0] % 3)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "0.png").write_bytes(bad.encoded(pixels))
    assert Masks().read(str(tmp_path / "images" / "0.png")).shape == (12, 14)
    change(tmp_path / "masks" / "0.png")
    with pytest.raises(ValueError) as error:
        Masks().read(str(tmp_path / "images" / "0.png"))
    one_sentence(error.value, named)


def test_an_image_that_fills_the_memory_is_refused_before_it_does(proves: None) -> None:
    """With 200 MB more than it has now, a process says why; it would need 300 MB for RGB."""

    def refuse() -> None:
        _limit_memory(200 << 20)
        warnings.simplefilter("ignore")
        with pytest.raises(BadSampleError, match="more than 64,000,000"):
            decode(data, 3)

    data = bad.png(10_000, 10_000)
    assert in_a_child(refuse) == 0


FILL = """
import io, resource, sys
from PIL import Image

data = sys.stdin.buffer.read()
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (200 << 20),) * 2)
try:
    Image.open(io.BytesIO(data)).convert("RGB")
except MemoryError:
    print("no memory")
"""


def test_control_pillow_fills_the_memory(control: None) -> None:
    """In a process of its own: one that ran other tests may have memory that it freed."""
    python = [sys.executable, "-W", "ignore", "-c", FILL]
    done = subprocess.run(python, input=bad.png(10_000, 10_000), capture_output=True, check=False)
    assert done.stdout == b"no memory\n", done.stderr


def _limit_memory(more: int) -> None:
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))


def test_control_16_bits_become_white_and_floats_black(control: None, tmp_path: Path) -> None:
    """What a loader does that asks Pillow for RGB, and no more."""
    for name, naive in (("16-bit png", 255), ("float tiff of 0 to 1", 0)):
        _, file, content = bad.ODD[name]
        (tmp_path / file).write_bytes(content())
        values = np.asarray(Image.open(tmp_path / file).convert("RGB"))
        assert (values == naive).mean() > 0.95
        ours = decode(tmp_path / file, 1)[0].numpy()
        assert np.array_equal(ours, bad.GREY)


def test_control_torchvision_dies_of_one_file(control: None, photos: Path) -> None:
    add(photos, "zero byte jpg")
    data = torchvision.datasets.ImageFolder(str(photos))
    with pytest.raises(OSError, match="cannot identify image file"):
        [data[i] for i in range(len(data))]


def test_control_torchvision_follows_a_loop(control: None, photos: Path) -> None:
    bad.left_out(photos / "cat", "loop")
    assert len(torchvision.datasets.ImageFolder(str(photos))) > 1000
    assert len(FolderSource(photos, labels=False)) == 120


def test_control_torchvision_says_nothing_of_what_it_leaves_out(control: None, photos: Path) -> None:
    (photos / "cat" / "new.gif").write_bytes(bad.encoded(bad.NOISE, "GIF"))
    assert len(torchvision.datasets.ImageFolder(str(photos))) == 120
    assert len(FolderSource(photos)) == 121


def test_there_are_as_many_as_promised() -> None:
    tables = (bad.BYTES, bad.LINKS, bad.ODD, bad.LEFT_OUT, FOLDERS, ROTTEN, bad.ARRAYS, bad.ARRAY_FILES, bad.PARQUET)
    more = (bad.PARQUET_FOLDERS, CELLS, bad.TABLES, bad.BOXES, bad.MASKS)
    assert sum(map(len, (*tables, *more))) >= 170  # 60 were promised
