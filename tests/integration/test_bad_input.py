"""What is wrong with the user's files and wishes ends early, in one sentence with the remedy."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_framework import cli
from ssl_framework.checkpoint import save_encoder
from ssl_framework.encoders import resnet_micro

QUICK = ["debug=short", "trainer=cpu", "trainer.progress_bar=false", "logger=none", "monitors=none"]
NORMAL = {"mean": [0.3], "std": [0.4], "size": [8, 8], "channels": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    pixels = np.random.default_rng(0).integers(0, 255, size=(40, 12, 12, 3), dtype=np.uint8)
    (folder / "empty").mkdir()
    for number, image in enumerate(pixels):
        for target in ("some/a", "rotten/a", "nested/deep/er", "single/a"):
            (folder / target).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / target / f"{number}.png")
    (folder / "some" / "b").mkdir()  # a class with no images
    for number in range(5):
        (folder / "rotten" / "a" / f"rotten{number}.png").write_bytes(b"\x89PNG half")
    np.savez(folder / "unlabelled.npz", images=pixels)
    save_encoder(resnet_micro(in_chans=1, img_size=8), folder / "narrow", preprocessing=NORMAL, history={})
    save_encoder(resnet_micro(in_chans=1, img_size=8), folder / "other", preprocessing=NORMAL, history={})
    text = (folder / "other" / "encoder.yaml").read_text()
    (folder / "other" / "encoder.yaml").write_text(text.replace("name: resnet_micro", "name: vit_micro"))
    colour = {"mean": [0.5] * 3, "std": [0.3] * 3, "size": [12, 12], "channels": 3}
    save_encoder(resnet_micro(in_chans=3, img_size=12), folder / "colour", preprocessing=colour, history={})
    for number, image in enumerate(pixels):
        for turned, split in enumerate(("train", "val", "test")):  # images of their own
            street = np.roll(image, turned, axis=0)
            for kind in ("images", "masks"):
                (folder / "streets" / split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(street).save(folder / "streets" / split / "images" / f"{number}.png")
            rows = 10 if number == 7 else 12
            Image.fromarray(street[:rows, :, 0] % 3).save(folder / "streets" / split / "masks" / f"{number}.png")
    (folder / "gap.csv").write_text("image,ink\n" + "".join(f"{row},{'' if row == 3 else row / 10}\n" for row in range(1797)))
    (folder / "damaged").mkdir()
    for name in ("encoder.yaml", "encoder.safetensors"):
        (folder / "damaged" / name).write_bytes((folder / "narrow" / name).read_bytes())
    raw = bytearray((folder / "damaged" / "encoder.safetensors").read_bytes())
    raw[-100] ^= 1
    (folder / "damaged" / "encoder.safetensors").write_bytes(bytes(raw))
    return folder


CASES = {
    "a folder that is not there": ("pretrain data=folder data.path={place}/nowhere data.size=[8,8]", "nowhere"),
    "an empty folder": ("pretrain data=folder data.path={place}/empty data.size=[8,8]", "empty"),
    "a class with no images": ("pretrain data=folder data.path={place}/some data.size=[8,8]", "some/b"),
    "an image folder without a size": ("pretrain data=folder data.path={place}/nested data.size=null", "data.size"),
    "more than 1 % unreadable": (
        "pretrain pretext=rotation data=folder data.path={place}/rotten data.size=[8,8] data.batch_size=16 trainer.max_steps=6",
        "more than 1%",
    ),
    "mae with a resnet": ("pretrain pretext=mae encoder=resnet_micro", "vit_micro"),
    "a batch larger than the data": ("pretrain data.batch_size=5000", "batch_size"),
    "an encoder for other channels": (
        "evaluate encoder_file={place}/narrow data=arrays data.path={place}/unlabelled.npz",
        "channels",
    ),
    "an encoder beside an encoder file": ("pretrain encoder=resnet18 encoder_file={place}/narrow", "encoder=resnet18"),
    "a cut beyond the depth": ("downstream encoder_file={place}/narrow cut=4", "cut=4"),
    "an evaluation cut beyond the depth": ("evaluate encoder_file={place}/narrow cut=9", "cut=9"),
    "no labels where they are needed": (
        "evaluate encoder_file={place}/colour data=arrays data.path={place}/unlabelled.npz",
        "labels",
    ),
    "a budget that is none": ("downstream encoder_file={place}/narrow labels_per_class=few", "labels_per_class=few"),
    "an encoder file of another architecture": ("evaluate encoder_file={place}/other", "vit_micro"),
    "a damaged encoder file": ("evaluate encoder_file={place}/damaged", "sha256"),
    "an encoder file that is not there": ("downstream encoder_file={place}/nothing", "nothing"),
    "more labels than there are": ("evaluate encoder_file={place}/narrow labels_per_class=[900]", "900"),
    "a patch that does not divide the image": ("pretrain encoder=vit_micro encoder.patch_size=3", "patch_size"),
    "labels beyond the head": ("downstream encoder_file={place}/narrow task.num_classes=3", "labels run from 0 to 9"),
    "masks of another size": (
        "downstream encoder_file={place}/colour data=folder data.path={place}/streets data.within=images data.labels=false "
        "data.size=[12,12] data.batch_size=8 task=segmentation task.num_classes=3 labels.masks=masks",
        "masks/7.png",
    ),
    "an empty class": (
        "downstream encoder_file={place}/colour data=folder data.path={place}/some data.size=[12,12] data.batch_size=8",
        "some/b",
    ),
    "a single class": (
        "downstream encoder_file={place}/colour data=folder data.path={place}/single data.size=[12,12] data.batch_size=8",
        "num_classes=1",
    ),
    "a number that is missing": (
        "downstream encoder_file={place}/narrow task=regression task.columns=[ink] labels.path={place}/gap.csv",
        "digits[3]",
    ),
    "one label a class to compare depths by": (
        "downstream encoder_file={place}/narrow labels_per_class=1 cut=auto",
        "labels_per_class=2",
    ),
    "three channels for an encoder of one": (
        "downstream encoder_file={place}/narrow data=folder data.path={place}/streets data.labels=false data.size=[12,12]",
        "channels",
    ),
    "LoRA without linear layers": ("downstream encoder_file={place}/narrow freezing=lora", "norm_only"),
    "more labels than a study has": ("transfer encoder_file={place}/narrow budgets=[1,250]", "fewer than the 250 per class"),
    "a study without scratch": ("transfer encoder_file={place}/narrow methods=[frozen,full]", "scratch"),
    "a study of a method that is none": ("transfer encoder_file={place}/narrow methods=[scratch,frozn]", "there is no frozn"),
    "a share of more than everything": ("transfer encoder_file={place}/narrow budgets=[1.5]", "budgets=1.5"),
    "a budget twice": ("transfer encoder_file={place}/narrow budgets=[1,10,10]", "10 once"),
    "a rate below nothing": ("transfer encoder_file={place}/narrow rates=[-1]", "rates=-1"),
    "an attack beyond all pixels": ("transfer encoder_file={place}/narrow attacks=[2]", "attacks=2"),
    "no seed": ("transfer encoder_file={place}/narrow seeds=0", "seeds=0"),
    "a part that is none": ("transfer encoder_file={place}/narrow part=2 parts=2", "part=2"),
    "a study without an encoder": ("transfer encoder_file={place}/nothing", "nothing"),
    "a study of one class": (
        "transfer encoder_file={place}/colour data=folder data.path={place}/single data.size=[12,12] data.test_share=0.2",
        "single class",
    ),
    "a report of no study": ("report {place}/narrow", "rows.jsonl"),
    "a row of no study": ("reproduce {place}/narrow:full/1/0", "rows.jsonl"),
    "a row without a study": ("reproduce full/1/0", "RUN:full/1/0"),
    "too short for a warm-up": ("pretrain optimizer.warmup_steps=50", "warmup_steps"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_said_in_one_sentence(case: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line, named = CASES[case]
    words = line.format(place=place).split()
    quick = {"pretrain": QUICK, "report": [], "reproduce": []}.get(words[0], ["seeds=1"])
    if words[0] == "downstream":
        quick = [*QUICK[:3], "logger=none"]
    user = [word.split("=")[0] for word in words]
    code = cli.run([*words, *(word for word in quick if word.split("=")[0] not in user), f"run.dir={tmp_path / 'run'}"])
    said = capsys.readouterr().err
    assert code == 2, said
    errors = [text for text in said.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert named in errors[0]
    assert "Traceback" not in said
