"""A model that was saved says the same, and a damaged or exchanged one says what is wrong."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ssl_framework.downstream import (
    AttentionPooling,
    Classification,
    DownstreamModule,
    LastLayers,
    Lora,
    MultiLabel,
    Ordinal,
    Regression,
)
from ssl_framework.encoders import Adapter

from .conftest import make_module, make_split, small_vit

TASKS = [
    Classification(3, head_kind="mlp", class_weights="inverse", frequencies=(5, 3, 2)),
    Regression(columns=("a", "b"), mean=(5.0, -1.0), std=(2.0, 0.5)),
    Ordinal(column="step", steps=4),
    MultiLabel(columns=("x", "y")),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_what_was_saved_says_the_same(task, encoder, tmp_path: Path):
    module = make_module(encoder, task=task, cut=1)
    module.classes = ("a", "b", "c")
    module.save(tmp_path, {"note": 1})
    loaded, images = DownstreamModule.load(tmp_path), make_split(9).images(range(9))
    assert not loaded.training
    assert loaded.task.state() == task.state()
    assert loaded.classes == ("a", "b", "c")
    expected, found = module.predict(images), loaded.predict(images, batch_size=4)
    assert torch.allclose(found.value.double(), expected.value.double(), atol=1e-5)
    assert (found.probability is None) == (expected.probability is None)
    table = loaded.task.as_table(found, loaded.classes)
    assert {len(values) for values in table.values()} == {9}


@pytest.mark.parametrize("pooling", [AttentionPooling(heads=2), LastLayers(n=2, mean=True)], ids=lambda p: p.kind)
def test_poolings_travel_with_the_model(pooling, tmp_path: Path):
    module = make_module(small_vit(), pooling=pooling)
    module.save(tmp_path)
    images = make_split(5).images(range(5))
    assert torch.equal(DownstreamModule.load(tmp_path).predict(images).probability, module.predict(images).probability)


def test_a_low_rank_model_is_saved_merged(tmp_path: Path):
    pytest.importorskip("peft")
    module = make_module(small_vit(), freezing=Lora())
    for name, parameter in module.encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    module.save(tmp_path)
    images = make_split(5).images(range(5))
    found = DownstreamModule.load(tmp_path).predict(images).probability
    assert torch.allclose(found, module.predict(images).probability, atol=1e-5)


def test_probabilities_are_of_the_classes_by_name(encoder):
    module = make_module(encoder)
    found = module.predict(make_split(6).images(range(6)))
    table = module.task.as_table(found, ("cat", "dog", "owl"))
    assert list(table) == ["predicted", "probability", "p(cat)", "p(dog)", "p(owl)"]
    for row in range(6):
        shares = {name: table[f"p({name})"][row] for name in ("cat", "dog", "owl")}
        assert sum(shares.values()) == pytest.approx(1)
        assert table["predicted"][row] == max(shares, key=shares.__getitem__)
        assert table["probability"][row] == max(shares.values())


def test_numbers_are_in_the_units_of_the_table(encoder):
    task = Regression(columns=("metres",), mean=(100.0,), std=(10.0,))
    module = make_module(encoder, task=task)
    images = make_split(4).images(range(4))
    outputs = module.eval()(images)[:, 0]
    torch.testing.assert_close(module.predict(images).value[:, 0], 100 + 10 * outputs.double())


def test_more_classes_than_names_have_numbers(encoder):
    module = make_module(encoder, task=Classification(4))
    module.classes = ("ant", "bee", "cow")
    table = module.task.as_table(module.predict(make_split(4).images(range(4))), module.classes)
    assert [name for name in table if name.startswith("p(")] == ["p(ant)", "p(bee)", "p(cow)", "p(3)"]


def test_an_encoder_of_one_s_own_is_saved_and_loaded(tmp_path: Path):
    own = Adapter(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), ["1"], in_chans=1, img_size=8)
    make_module(own.named("test_model.own_net")).save(tmp_path)
    with pytest.raises(ValueError, match="own_net"):
        DownstreamModule.load(tmp_path)
    assert "test_model.own_net" in (tmp_path / "encoder.yaml").read_text()


def test_predicting_leaves_no_trace(encoder):
    module = make_module(encoder).train()
    modes = [part.training for part in module.modules()]
    module.predict(make_split(4).images(range(4)))
    assert [part.training for part in module.modules()] == modes


def test_what_is_no_image_is_refused(encoder):
    module = make_module(encoder)
    for wrong in (torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"give uint8 of \(N, 1, H, W\)"):
            module.predict(wrong)


def test_a_head_of_another_encoder_is_refused(encoder, tmp_path: Path):
    module = make_module(encoder)
    module.save(tmp_path / "a")
    make_module(small_vit()).save(tmp_path / "b")
    for ending in ("yaml", "safetensors"):
        (tmp_path / "b" / f"encoder.{ending}").rename(tmp_path / "a" / f"encoder.{ending}")
    with pytest.raises(ValueError, match="belongs to the encoder"):
        DownstreamModule.load(tmp_path / "a")


def test_a_damaged_or_missing_head_is_told(encoder, tmp_path: Path):
    make_module(encoder).save(tmp_path)
    file = tmp_path / "head.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="damaged or cut short"):
        DownstreamModule.load(tmp_path)
    tensors = load_file(_again(file, whole))
    save_file({name: value + 1 for name, value in tensors.items()}, file)
    with pytest.raises(ValueError, match="changed or damaged"):
        DownstreamModule.load(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="give the folder of a finished run of downstream"):
        DownstreamModule.load(tmp_path)


def test_a_run_of_several_seeds_names_them(encoder, tmp_path: Path):
    for seed in (3, 4):
        make_module(encoder).save(tmp_path / f"seed-{seed}")
    with pytest.raises(ValueError, match=r"holds 2 models, one for each seed: give one of them, such as .*seed-3"):
        DownstreamModule.load(tmp_path)


def test_a_task_that_nobody_knows_is_told(encoder, tmp_path: Path):
    make_module(encoder).save(tmp_path)
    file = tmp_path / "head.yaml"
    file.write_text(file.read_text().replace("kind: classification", "kind: os.system"))
    with pytest.raises(ValueError, match=r"'os.system' is not one of classification"):
        DownstreamModule.load(tmp_path)


def _again(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file
