import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ssl_framework import machine
from ssl_framework.encoders import PCA, RawPixels, resnet_micro, vit_micro
from ssl_framework.evaluation import embed, write_embeddings

from .conftest import make_split, prepare


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return resnet_micro(1, 8, drop_path=0.3)


def test_rows_are_what_the_encoder_says_in_evaluation_mode(encoder):
    split = make_split(11).subset(3, seed=0)
    encoder.model.layer1.eval()  # somebody froze a part
    modes = [part.training for part in encoder.modules()]
    found = embed(encoder, split, prepare, batch_size=4, precision="32-true")
    assert [part.training for part in encoder.modules()] == modes
    assert torch.equal(found.y, split.targets)
    assert torch.equal(found.index, split.index)
    with torch.no_grad():
        expected = encoder.eval()(prepare(split.images(range(9)))).pooled
    assert torch.allclose(found.x, expected, atol=1e-6)
    assert torch.allclose(found.x, embed(encoder, split, prepare, precision="32-true").x, atol=1e-6)


def cosines(a, b):
    return torch.cosine_similarity(a.double(), b.double(), dim=1)


@pytest.mark.parametrize("make", [resnet_micro, vit_micro])
def test_bfloat16_says_the_same_but_for_rounding(make):
    torch.manual_seed(0)
    encoder, split = make(1, 8), make_split(12)
    exact = embed(encoder, split, prepare, precision="32-true", layers=(0,))
    rounded = embed(encoder, split, prepare, precision="bf16-mixed", layers=(0,))
    assert rounded.x.dtype == rounded.layers[0].dtype == torch.float32
    assert not torch.equal(rounded.x, exact.x)
    assert cosines(rounded.x, exact.x).min() > 0.999
    assert cosines(rounded.layers[0], exact.layers[0]).min() > 0.999
    again = embed(encoder, split, prepare, precision="bf16-mixed", layers=(0,))
    assert torch.equal(again.x, rounded.x)
    others = embed(encoder, split, prepare, precision="bf16-mixed", batch_size=5)
    assert cosines(others.x, exact.x).min() > 0.999


@pytest.mark.parametrize("name", ["32-true", "bf16-mixed"])
def test_auto_is_what_the_machine_is_fast_at(encoder, monkeypatch, name):
    monkeypatch.setattr(machine, "precision", lambda device: machine.Precision(name, "a test says so"))
    split = make_split(6)
    found = embed(encoder, split, prepare)
    assert torch.equal(found.x, embed(encoder, split, prepare, precision=name).x)
    with torch.autocast("cpu", torch.bfloat16):  # what surrounds the call does not count
        assert torch.equal(embed(encoder, split, prepare).x, found.x)


def test_another_precision_is_refused(encoder):
    with pytest.raises(ValueError, match=r"precision=half: .*bf16-mixed"):
        embed(encoder, make_split(2), prepare, precision="half")


def test_floors_are_not_rounded():
    split = make_split(70)
    pca = PCA(4, 1, [8, 8]).fit(prepare(split.images(range(70))))
    for floor in (pca, RawPixels(1, 8)):
        expected = floor(prepare(split.images(range(70)))).pooled
        assert torch.allclose(embed(floor, split, prepare, precision="bf16-mixed").x, expected, atol=1e-5)


def test_images_have_channels_last_and_the_encoder_is_left_as_it_was():
    encoder, seen = resnet_micro(3, 8), []
    encoder.model.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    layouts = [weight.stride() for weight in encoder.parameters()]
    embed(encoder, make_split(3), lambda images: prepare(images).repeat(1, 3, 1, 1))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert [weight.stride() for weight in encoder.parameters()] == layouts


def test_layers_are_what_an_encoder_cut_there_gives(encoder):
    found = embed(encoder, make_split(5), prepare, layers=(0, -1), precision="32-true")
    assert [tuple(layer.shape) for layer in found.layers] == [(5, 16), (5, 128)]
    assert torch.allclose(found.layers[1], found.x, atol=1e-6)  # this encoder pools its last map


def test_a_probe_can_learn_on_them(encoder):
    found = embed(encoder, make_split(4), prepare)
    weight = torch.zeros(128, requires_grad=True)
    (found.x @ weight).sum().backward()
    assert torch.allclose(weight.grad, found.x.sum(0))


def test_an_encoder_that_diverged_is_named(encoder):
    with torch.no_grad():
        encoder.model.conv1.weight.fill_(float("nan"))
    encoder.train()
    with pytest.raises(ValueError, match="4 of 4 embeddings are not finite"):
        embed(encoder, make_split(4), prepare)
    assert encoder.training


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_files_hold_ids_labels_and_embeddings(tmp_path, suffix):
    split = make_split(7).subset(2, seed=1)
    found = embed(RawPixels(1, 8), split, prepare)
    path = write_embeddings(tmp_path / "new" / f"train{suffix}", found, ("a", "b", "c"))
    assert [file.name for file in path.parent.iterdir()] == [f"train{suffix}"]
    if suffix == ".npz":
        table = dict(np.load(path, allow_pickle=False))
        assert table["class_names"].tolist() == ["a", "b", "c"]
    else:
        columns = pq.read_table(path).to_pydict()
        assert columns["class_name"] == ["abc"[label] for label in split.targets]
        table = {name: np.array(columns[name]) for name in ("id", "label", "embedding")}
    assert table["id"].tolist() == split.index.tolist()
    assert table["label"].tolist() == split.targets.tolist()
    assert np.array_equal(table["embedding"].astype(np.float32), found.x.numpy())


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.npz or \.parquet"):
        write_embeddings(tmp_path / "a.csv", embed(RawPixels(1, 8), make_split(2), prepare))
