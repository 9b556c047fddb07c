"""The numbers together: each is what its own part says, whatever the batches; and nothing wrong gets in."""

import json

import pytest
import torch
from torch import Tensor

from ssl_framework.evaluation import CORRUPTIONS, SEVERITIES, budget_key, corrupt, robustness
from ssl_framework.evaluation.robustness import calibration_error, fgsm, ood_auroc, pgd, random_signs
from ssl_framework.metrics import accuracy

from .conftest import Learnt

BUDGETS = (2 / 255, 0.1)


@pytest.fixture(scope="module")
def others() -> Tensor:
    return torch.randint(256, (80, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def found(learnt: Learnt, others: Tensor) -> dict[str, float]:
    return measure(learnt, others=others, seed=3)


def measure(learnt: Learnt, **options) -> dict[str, float]:
    defaults = {"budgets": BUDGETS, "batch_size": 64, "steps": 5}
    return robustness(learnt.of_uint8, learnt.logits, learnt.images, learnt.targets, **{**defaults, **options})


def test_each_number_is_what_its_part_says(learnt: Learnt, others: Tensor, found: dict[str, float]):
    images, x, targets = learnt.images, learnt.x, learnt.targets
    with torch.no_grad():
        clean, outside = learnt.of_uint8(images), learnt.of_uint8(others)
    expected = {
        "accuracy": accuracy(clean, targets),
        "gradient_share": 1.0,
        "calibration_error": calibration_error(clean, targets),
    }
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            expected[f"{name}/{severity}"] = accuracy(learnt.of_uint8(corrupt(images, name, severity, seed=3)), targets)
    for eps, key in zip(BUDGETS, ("2/255", "0.1"), strict=True):
        expected[f"random/{key}"] = accuracy(learnt.logits(random_signs(x, eps, seed=3)), targets)
        expected[f"fgsm/{key}"] = accuracy(learnt.logits(fgsm(learnt.logits, x, targets, eps)), targets)
        expected[f"pgd/{key}"] = accuracy(learnt.logits(pgd(learnt.logits, x, targets, eps, steps=5, seed=3)), targets)
    bad = [value for key, value in expected.items() if key.split("/")[0] in CORRUPTIONS]
    assert len(bad) == 40
    mean = sum(bad) / 40
    expected |= {
        "corrupted": mean,
        "corrupted_drop": expected["accuracy"] - mean,
        "corrupted_kept": mean / expected["accuracy"],
        **{f"ood_auroc/{name}": value for name, value in ood_auroc(clean, outside).items()},
    }
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected)
    assert 0.5 < mean < expected["accuracy"]
    assert found["pgd/0.1"] < found["fgsm/0.1"] < found["random/0.1"]
    assert json.loads(json.dumps(found)) == found


def test_batches_do_not_matter(learnt: Learnt, others: Tensor, found: dict[str, float]):
    assert measure(learnt, others=others, seed=3, batch_size=200) == pytest.approx(found)


def test_parts_can_be_left_out(learnt: Learnt):
    found = measure(learnt, severities=(5,), budgets=())
    names = [f"{name}/5" for name in CORRUPTIONS]
    rest = ["corrupted", "corrupted_drop", "corrupted_kept", "gradient_share", "calibration_error"]
    assert list(found) == ["accuracy", *names, *rest]
    assert "corrupted" not in measure(learnt, severities=(), budgets=())


def test_progress_counts_to_the_end(learnt: Learnt):
    told: list[tuple[str, int, int]] = []
    measure(learnt, severities=(1, 2), steps=1, on_progress=lambda *news: told.append(news))
    assert [done for _, done, _ in told] == list(range(1, 24))
    assert {total for _, _, total in told} == {23}
    assert (told[0][0], told[1][0], told[-1][0]) == ("accuracy", "gaussian_noise/1", "pgd/0.1")


def test_no_accuracy_keeps_no_share(learnt: Learnt):
    wrong = learnt.logits(learnt.x).argmin(1)
    found = robustness(learnt.of_uint8, learnt.logits, learnt.images, wrong, severities=(1,), budgets=())
    assert found["accuracy"] == 0
    assert "corrupted_kept" not in found
    assert found["corrupted_drop"] <= 0


def test_budgets_have_names():
    assert [budget_key(eps) for eps in (0.0, 2 / 255, 8 / 255, 0.1, 0.3, 1.0)] == [
        "0",
        "2/255",
        "8/255",
        "0.1",
        "0.3",
        "255/255",
    ]


def test_bad_input(learnt: Learnt):
    for options, said in (
        ({"severities": (1, 6)}, "severity=6: give a whole number from 1 to 5"),
        ({"severities": (0,)}, "severity=0: give a whole number from 1 to 5"),
        ({"budgets": (-0.1,)}, "eps=-0.1: give the most"),
        ({"steps": 0}, "steps=0: give 1 or more"),
        ({"batch_size": 0}, "batch_size=0: give 1 or more"),
        ({"others": learnt.x}, "images are torch.float32"),
        ({"others": learnt.images[:0]}, r"images are torch.uint8 \(0, 1, 8, 8\)"),
    ):
        with pytest.raises(ValueError, match=said):
            measure(learnt, **options)
    for images, targets, said in (
        (learnt.x, learnt.targets, "images are torch.float32"),
        (learnt.images[:0], learnt.targets[:0], "give uint8 of"),
        (learnt.images, learnt.targets[:5], "there are 5 labels for 200 images: give one an image"),
        (learnt.images, learnt.targets + 3, "labels go from 3 to 12, and there are 10 classes"),
        (learnt.images, learnt.targets.float(), "labels are torch.float32"),
    ):
        with pytest.raises(ValueError, match=said):
            robustness(learnt.of_uint8, learnt.logits, images, targets)


def test_broken_logits_are_no_number(learnt: Learnt):
    def broken(images: Tensor) -> Tensor:
        outputs = learnt.of_uint8(images)
        return outputs.masked_fill(images.flatten(1).sum(1, keepdim=True) == 0, float("nan"))

    images = learnt.images.clone()
    images[150] = 0
    with pytest.raises(ValueError, match="1 of 200 logits are not finite"):
        robustness(broken, learnt.logits, images, learnt.targets)


def test_two_models_are_refused(learnt: Learnt):
    with pytest.raises(ValueError, match="give both ways one mean, std and size"):
        robustness(learnt.of_uint8, lambda x: learnt.logits(x * 0.9), learnt.images, learnt.targets)
