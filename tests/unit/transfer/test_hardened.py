"""The model whose robustness is measured is the one that the row speaks of."""

import torch

from ssl_framework.transfer import Cell, probes
from ssl_framework.transfer.bench import correctness
from ssl_framework.transfer.cells import module, trained
from ssl_framework.transfer.grid import study
from ssl_framework.transfer.hardened import Classifier, Probe, hardened
from ssl_framework.transfer.probes import Vectors, probed, start_of

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
        row, found = trained(made, asked, Cell(method, 4, 1), 1e-2)
        model = Classifier(found.encoder, found.head, made)
        assert right(model, made.judge.images.images(range(45))) == correctness(row, 45).tolist()


def test_vectors_beyond_the_limit_are_forgotten_as_soon_as_they_are_there(monkeypatch):
    vectors = Vectors(bench(), plan())
    monkeypatch.setattr(probes, "_MOST_BYTES", 2 * vectors.val("frozen", 0).x.nbytes)
    first = vectors.val("frozen", 0)
    assert vectors.val("random_frozen", 1) is vectors.val("random_frozen", 1)
    assert vectors.val("frozen", 0) is first  # there is room for both
    vectors.test("frozen", 0)  # the last, so that the other goes
    assert list(vectors._held) == [("pretrained", 0)]
    assert vectors.val("frozen", 0) is first


def test_probe_then_fine_tuning_begins_as_the_probe():
    made, asked = bench(), plan(steps=2)
    vectors, cell = Vectors(made, asked), Cell("lp_ft", 4, 1)
    start = start_of(vectors, cell, None)
    assert set(vectors._held["pretrained", 0].vectors) == {"val"}  # test is not asked
    row, encoder, _ = probed(vectors, Cell("frozen", 4, 1), start.penalty)
    before = module(made, asked, cell, 1e-3, start)
    images = made.judge.images.images(range(45))
    assert right(Classifier(before.encoder, before.head, made), images) == correctness(row, 45).tolist()
    assert all(p.requires_grad for p in before.parameters())
    row, after = trained(made, asked, cell, 1e-2, start)
    assert (row["penalty"], row["rate"]) == (start.penalty, 1e-2)
    assert row["seconds"] > start.seconds
    assert row["curve"][0][1] > start.seconds
    assert not torch.equal(next(after.encoder.parameters()), next(encoder.parameters()))
    assert start_of(vectors, cell, 0.01).penalty == 0.01


def test_measuring_leaves_the_model_as_it_was_and_finds_the_same_again():
    made, asked = bench(), plan(test_images=12, attacks=(0.1,))
    _, found = trained(made, asked, Cell("full", 4, 1), 1e-2)
    found.encoder.train()
    before = {name: tensor.clone() for name, tensor in found.state_dict().items()}
    modes = [part.training for part in found.modules()]
    first, second = (hardened(Classifier(found.encoder, found.head, made), made, asked) for _ in range(2))
    assert first == second
    assert modes == [part.training for part in found.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in found.state_dict().items())
    assert {"accuracy", "calibration_error", "pgd/0.1", "fgsm/0.1", "random/0.1", "jpeg/5"} <= set(first)
    assert "ood_auroc/energy" not in first  # there are no other images
    assert 0 <= first["accuracy"] <= 1


def test_it_is_measured_where_it_was_asked_for(tmp_path):
    asked = plan(methods=("scratch", "frozen", "last_n"), seeds=(0, 1), steps=2, test_images=6, attacks=(0.1,))
    found = study(bench, asked, tmp_path / "rows.jsonl")
    there = {(row["method"], row["budget"], row["seed"]) for row in found if "robustness" in row}
    assert there == {("scratch", 4, 1), ("frozen", 4, 1)}
