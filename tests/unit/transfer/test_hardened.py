"""The model whose robustness is measured is the one that the row speaks of."""

import torch

from ssl_framework.transfer import Cell
from ssl_framework.transfer.bench import correctness
from ssl_framework.transfer.cells import trained
from ssl_framework.transfer.grid import study
from ssl_framework.transfer.hardened import Classifier, Probe, hardened
from ssl_framework.transfer.probes import Vectors, probed

from .conftest import bars, bench, plan

TARGETS = bars(45, "test", 2).targets


def right(model: Classifier, images: torch.Tensor) -> list[bool]:
    with torch.no_grad():
        return (model.eval()(images).argmax(dim=1) == TARGETS).tolist()


def test_a_probe_is_the_same_behind_its_encoder():
    made, asked = bench(), plan()
    for method in ("frozen", "raw_pixels", "random_frozen"):
        row, encoder, weights = probed(Vectors(made, asked), Cell(method, 4, 1), None)
        model = Classifier(encoder, Probe(weights), made)
        assert right(model, made.judge.images.images(range(45))) == correctness(row, 45).tolist()


def test_a_trained_model_is_the_same():
    made, asked = bench(), plan(steps=8)
    for method in ("scratch", "full", "last_n"):
        row, module = trained(made, asked, Cell(method, 4, 1), 1e-2)
        model = Classifier(module.encoder, module.head, made)
        assert right(model, made.judge.images.images(range(45))) == correctness(row, 45).tolist()


def test_measuring_leaves_the_model_as_it_was_and_finds_the_same_again():
    made, asked = bench(), plan(test_images=12, attacks=(0.1,))
    _, module = trained(made, asked, Cell("full", 4, 1), 1e-2)
    module.encoder.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    first, second = (hardened(Classifier(module.encoder, module.head, made), made, asked) for _ in range(2))
    assert first == second
    assert modes == [part.training for part in module.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert {"accuracy", "calibration_error", "pgd/0.1", "fgsm/0.1", "random/0.1", "jpeg/5"} <= set(first)
    assert "ood_auroc/energy" not in first  # there are no other images
    assert 0 <= first["accuracy"] <= 1


def test_it_is_measured_where_it_was_asked_for(tmp_path):
    asked = plan(methods=("scratch", "frozen", "last_n"), seeds=(0, 1), steps=2, test_images=6, attacks=(0.1,))
    found = study(bench, asked, tmp_path / "rows.jsonl")
    there = {(row["method"], row["budget"], row["seed"]) for row in found if "robustness" in row}
    assert there == {("scratch", 4, 1), ("frozen", 4, 1)}
