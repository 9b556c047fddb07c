import importlib
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ssl_framework.checkpoint import files, load_encoder, save_encoder
from ssl_framework.encoders import PCA, resnet_micro, torchvision_encoder, vit_micro

PREPROCESSING = {"mean": (0.5,), "std": (0.25,), "size": (8, 8), "channels": 1}
HISTORY = {
    "pretext": "SimCLR",
    "steps": 3,
    "data": {"name": "digits", "val_share": 0.1},
    "version": "2026-01-01",
    "same": [1, 2],
}


@pytest.fixture(autouse=True)
def _quiet():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def saved(tmp_path):
    encoder = resnet_micro(in_chans=1, img_size=8)
    encoder(torch.randn(4, 1, 8, 8))  # moves the statistics of the norms
    save_encoder(encoder.cut(1), tmp_path, preprocessing=PREPROCESSING, history=HISTORY)
    return tmp_path


def edit(folder, **changes):
    file = folder / "encoder.yaml"
    content = yaml.safe_load(file.read_text())
    content.update(changes)
    file.write_text(yaml.safe_dump(content))


MAKERS = [
    lambda: resnet_micro(in_chans=1, img_size=(8, 8)).cut(2),
    lambda: vit_micro(in_chans=1, img_size=(8, 8), pool="mean", pos_embed="sincos").cut(4),
    lambda: torchvision_encoder("resnet18", in_chans=1, img_size=8).cut(1),
    lambda: PCA(3, 1, 8).fit(torch.randn(9, 1, 8, 8)),
]


@pytest.mark.parametrize("make", MAKERS, ids=["resnet", "vit", "torchvision", "pca"])
def test_what_is_saved_comes_back_to_the_bit(make, tmp_path):
    encoder, x = make(), torch.randn(3, 1, 8, 8)
    path = save_encoder(encoder, tmp_path / "new" / "run", preprocessing=PREPROCESSING, history=HISTORY)
    assert path == tmp_path / "new" / "run" / "encoder.yaml"
    for given in (path, path.parent, str(path.with_suffix(".safetensors"))):
        loaded = load_encoder(given)
        assert torch.equal(loaded.encoder.eval()(x).pooled, encoder.eval()(x).pooled)
        assert loaded.encoder.spec == encoder.spec
        assert loaded.preprocessing == {"mean": [0.5], "std": [0.25], "size": [8, 8], "channels": 1}
        assert loaded.history == HISTORY
    assert loaded.encoder.train().training
    assert sorted(file.name for file in path.parent.iterdir()) == ["encoder.safetensors", "encoder.yaml"]


def test_one_trained_in_double_precision_comes_back_in_single(tmp_path):
    encoder = MAKERS[0]().double()
    with torch.no_grad():
        next(encoder.parameters()).add_(1e-12)  # which float32 does not hold
    save_encoder(encoder, tmp_path, preprocessing=PREPROCESSING, history=HISTORY)
    loaded = load_encoder(tmp_path).encoder.state_dict()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in encoder.state_dict().items())
    assert next(iter(loaded.values())).dtype == torch.float32


def test_a_gathered_state_is_written_in_place_of_the_encoders_own(tmp_path):
    encoder, other = resnet_micro(in_chans=1), resnet_micro(in_chans=1)
    save_encoder(encoder, tmp_path, preprocessing=PREPROCESSING, history={}, state=other.state_dict())
    weight = load_encoder(tmp_path).encoder.model.conv1.weight
    assert torch.equal(weight, other.model.conv1.weight)
    state = other.state_dict()
    del state["model.bn1.bias"]
    with pytest.raises(ValueError, match=r"not that of this TimmEncoder; it differs in model\.bn1\.bias"):
        save_encoder(encoder, tmp_path, preprocessing=PREPROCESSING, history={}, state=state)


def test_an_encoder_that_was_compiled_in_place_is_saved_like_any(tmp_path):
    encoder = resnet_micro(in_chans=1)
    encoder.compile(backend="eager")
    save_encoder(encoder, tmp_path, preprocessing=PREPROCESSING, history={})
    assert load_encoder(tmp_path).encoder.spec == encoder.spec


# Damage


def test_a_flipped_bit_is_named(saved):
    file = saved / "encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"encoder\.safetensors has sha256 .*changed or damaged"):
        load_encoder(saved)


@pytest.mark.parametrize("left", [0, 7, 200, -1])
def test_a_cut_file_is_named(saved, left):
    file = saved / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"encoder\.safetensors is not a whole safetensors file"):
        load_encoder(saved)


def test_other_weights_beside_the_description_are_noticed(saved, tmp_path):
    tensors = load_file(saved / "encoder.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, saved / "encoder.safetensors")
    with pytest.raises(ValueError, match="sha256"):
        load_encoder(saved)


def test_a_kill_between_the_two_files_leaves_the_new_save(saved, monkeypatch):
    old = (saved / "encoder.yaml").read_bytes()
    newer = vit_micro(in_chans=1, img_size=8)
    save_encoder(newer, saved, preprocessing=PREPROCESSING, history={"steps": 4})
    (saved / "encoder.yaml").write_bytes(old)
    loaded = load_encoder(saved)
    assert loaded.history == {"steps": 4}
    assert loaded.encoder.spec == newer.spec


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(saved, monkeypatch):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_encoder(resnet_micro(in_chans=1), saved, preprocessing=PREPROCESSING, history={})
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_an_unnamed_encoder_or_a_foreign_module_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"A Linear cannot be saved as an encoder.*Adapter"):
        save_encoder(torch.nn.Linear(1, 1), tmp_path, preprocessing=PREPROCESSING, history={})
    with pytest.raises(ValueError, match=r"history.a\[1\] is a Tensor"):
        save_encoder(resnet_micro(), tmp_path, preprocessing=PREPROCESSING, history={"a": [1, torch.ones(1)]})
    with pytest.raises(ValueError, match="key 3"):
        save_encoder(resnet_micro(), tmp_path, preprocessing=PREPROCESSING, history={3: 1})
    for wrong in ({"std": (0.0,)}, {"mean": (0.1, 0.2)}, {"size": (8,)}, {"channels": 0}, {"mean": (float("nan"),)}):
        with pytest.raises(ValueError, match=f"preprocessing: {next(iter(wrong))}="):
            save_encoder(resnet_micro(), tmp_path, preprocessing={**PREPROCESSING, **wrong}, history={})
    assert not list(tmp_path.iterdir())


# Other architectures


def test_another_architecture_names_every_tensor_that_differs(saved):
    edit(saved, encoder={"name": "resnet_micro", "args": {"in_chans": 3, "img_size": [8, 8]}, "cut": 0})
    with pytest.raises(ValueError, match="belongs to another architecture") as caught:
        load_encoder(saved)
    message = str(caught.value)
    assert "resnet_micro(in_chans=3, img_size=8x8" in message
    assert "model.conv1.weight (expected (16, 3, 3, 3) floats, found (16, 1, 3, 3) floats)" in message
    assert "model.layer4.0.conv1.weight" in message
    edit(saved, encoder={"name": "resnet_micro", "args": {"in_chans": 1}, "cut": 2})
    with pytest.raises(ValueError, match=r"not in this architecture: .*model\.layer3\.0\.conv1\.weight"):
        load_encoder(saved)


# Strangers


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            {"name": "resnet_mikro", "args": {}, "cut": 0},
            "encoder.yaml: No encoder is called 'resnet_mikro'. Did you mean resnet",
        ),
        ({"name": "os.system", "args": {"command": "true"}, "cut": 0}, "No encoder is called 'os.system'"),
        ({"name": "timm_encoder", "args": {"name": "resnet18", "weights": "/etc/passwd"}, "cut": 0}, "has weights: it may not"),
        ({"name": "timm_encoder", "args": {"name": "resnet18", "pretrained": True}, "cut": 0}, "has pretrained: it may not"),
        ({"name": "resnet_micro", "args": {"inchans": 1}, "cut": 0}, "no argument 'inchans': did you mean in_chans"),
        ({"name": "resnet_micro", "args": {"in_chans": [1]}, "cut": 0}, "that is not a whole number"),
        ({"name": "resnet_micro", "args": {}, "cut": 7}, "has 4 layers"),
        ("resnet_micro", "encoder is missing or no dict"),
    ],
)
def test_descriptions_of_strangers_build_only_what_is_ours(saved, encoder, message):
    edit(saved, encoder=encoder)
    with pytest.raises(ValueError, match=message):
        load_encoder(saved)


HOSTILE = [
    ("!!python/object/apply:os.system ['touch SENTINEL']", "not plain YAML"),
    ("!!python/name:os.system ''", "not plain YAML"),
    ("a: &a [1]\nb: [*a, *a]", "references"),
    ("[" * 100_000, "not plain YAML"),
    ("- 1\n", "has format 'list'"),
    ("format: other/9\n", "has format 'other/9'"),
    ("a: [", "not plain YAML"),
    ("a" * 2_000_000, "more than 1,000,000 bytes"),
    ("a: \x00", "not plain YAML"),
]


@pytest.mark.parametrize(("text", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_descriptions_are_refused_and_run_nothing(saved, text, message, monkeypatch):
    monkeypatch.chdir(saved)
    (saved / "encoder.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_encoder(saved)
    assert not (saved / "SENTINEL").exists()


def test_the_hostile_description_would_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yaml.unsafe_load(HOSTILE[0][0])
    assert (tmp_path / "SENTINEL").exists()


def test_a_description_that_is_not_text(saved):
    (saved / "encoder.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text"):
        load_encoder(saved)


def test_interpolations_stay_text(saved):
    edit(saved, history={"home": "${oc.env:HOME}"})
    assert load_encoder(saved).history == {"home": "${oc.env:HOME}"}


def test_a_pickle_named_safetensors_is_refused(saved):
    torch.save(resnet_micro().state_dict(), saved / "encoder.safetensors")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_encoder(saved)


# Own code


def test_own_code_is_imported_only_when_allowed(tmp_path, monkeypatch):
    (tmp_path / "my_encoders.py").write_text(
        "from ssl_framework.encoders import Adapter\n"
        "from torch import nn\n"
        "def net(width=4):\n"
        "    body = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3))\n"
        "    return Adapter(body, ['1', '2'], in_chans=1, img_size=8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    encoder = importlib.import_module("my_encoders").net(5).named("my_encoders.net", width=5)
    save_encoder(encoder, tmp_path, preprocessing=PREPROCESSING, history={})
    monkeypatch.delitem(sys.modules, "my_encoders")
    with pytest.raises(ValueError, match=r"No encoder is called 'my_encoders.net'.*allow_target=\[\"my_encoders.net\"\]"):
        load_encoder(tmp_path)
    assert "my_encoders" not in sys.modules
    loaded = load_encoder(tmp_path, allow_target=["my_encoders.net"]).encoder
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded.eval()(x).pooled, encoder.eval()(x).pooled)
    assert loaded.spec == encoder.spec


# Paths


def test_paths_that_are_no_encoder_file_say_what_to_give(saved, tmp_path):
    (saved / "step-1.ckpt").write_bytes(b"")
    (saved / "notes.txt").write_bytes(b"")
    (saved / "empty").mkdir()
    cases = {
        saved / "step-1.ckpt": "not an encoder file: a training checkpoint is for resume=",
        saved / "notes.txt": "is neither a run folder nor an encoder file",
        saved / "nowhere": "does not exist: give a run folder",
        saved / "empty": r"empty/encoder\.yaml is missing",
        "https://example.org/encoder.yaml": "is an address",
    }
    for path, message in cases.items():
        with pytest.raises(ValueError, match=message):
            load_encoder(path)
    (saved / "encoder.safetensors").unlink()
    with pytest.raises(ValueError, match=r"encoder\.safetensors is missing"):
        load_encoder(saved)
