import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ssl_framework.encoders import RawPixels, resnet_micro
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
    found = embed(encoder, split, prepare, batch_size=4)
    assert [part.training for part in encoder.modules()] == modes
    assert torch.equal(found.y, split.targets)
    assert torch.equal(found.index, split.index)
    with torch.no_grad():
        expected = encoder.eval()(prepare(split.images(range(9)))).pooled
    assert torch.allclose(found.x, expected, atol=1e-6)
    assert torch.allclose(found.x, embed(encoder, split, prepare).x, atol=1e-6)


def test_layers_are_averaged_over_their_tokens(encoder):
    found = embed(encoder, make_split(5), prepare, layers=(0, -1))
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
