"""Tasks that train nothing, against naive loops and scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ssl_framework.downstream import DownstreamModule, Neighbours, Retrieval, Verification
from ssl_framework.downstream.heads import NeighbourHead
from ssl_framework.probes import knn
from ssl_framework.types import Encoding

from .conftest import make_module, make_split


def vectors(count: int = 60, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(classes, (count,), generator=generator)
    y[-1] = classes  # a class with one image, which asks for nothing
    return torch.randn(count, 8, generator=generator) + 1.2 * torch.nn.functional.one_hot(y, 8), y


def test_neighbours_are_told_apart_in_full_precision():
    """Embeddings have much in common: in bfloat16 all similarities would be 1."""
    x, y = vectors()
    x = x + 60
    head = NeighbourHead(8, 5, 60, 1, 0.07)
    head.remember(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        votes = head(Encoding(x, x[:, None], (1,), (), (), ()))
    assert torch.equal(votes.argmax(1), y)


def measured(task, x, y) -> dict[str, float]:
    metrics = task.metrics()
    for metric in metrics.values():
        for part in range(0, len(x), 7):
            metric.update(x[part : part + 7], y[part : part + 7])
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def test_what_is_found_is_what_a_loop_finds():
    x, y = vectors()
    unit = torch.nn.functional.normalize(x, dim=1).double()
    recall: dict[int, list[bool]] = {1: [], 5: []}
    precision: list[float] = []
    for query in range(len(x)):
        others = [i for i in range(len(x)) if i != query]
        right = (y[others] == y[query]).numpy()
        if not right.any():
            continue
        similarity = (unit[others] @ unit[query]).numpy()
        order = np.argsort(-similarity)
        for k, found in recall.items():
            found.append(bool(right[order[:k]].any()))
        precision.append(average_precision_score(right, similarity))
    found = measured(Retrieval(at=(1, 5)), x, y)
    assert found["recall_at_1"] == pytest.approx(np.mean(recall[1]))
    assert found["recall_at_5"] == pytest.approx(np.mean(recall[5]))
    assert found["mean_average_precision"] == pytest.approx(np.mean(precision), abs=1e-6)


def test_pairs_are_told_apart_as_scikit_learn_says():
    x, y = vectors()
    unit = torch.nn.functional.normalize(x, dim=1)
    first, second = torch.triu_indices(len(x), len(x), offset=1)
    same, similarity = (y[first] == y[second]).numpy(), (unit[first] * unit[second]).sum(1).numpy()
    found = measured(Verification(), x, y)
    assert found["auroc"] == pytest.approx(roc_auc_score(same, similarity), abs=1e-4)
    taken, right, _ = roc_curve(same, similarity)
    place = np.abs(1 - right - taken).argmin()
    assert found["equal_error_rate"] == pytest.approx((1 - right[place] + taken[place]) / 2, abs=0.01)


def test_vectors_of_one_class_are_found_before_all_others():
    x = torch.eye(4).repeat_interleave(3, dim=0)
    y = torch.arange(4).repeat_interleave(3)
    assert measured(Retrieval(), x, y) == {f"recall_at_{k}": 1.0 for k in (1, 5, 10)} | {"mean_average_precision": 1.0}
    assert measured(Verification(), x, y) == {"auroc": 1.0, "equal_error_rate": 0.0}


def test_neighbours_vote_as_the_probe_has_it(encoder, tmp_path: Path):
    train, test = make_split(60), make_split(30, name="test", seed=1)
    module = make_module(encoder, task=Neighbours(3, k=5).prepared(train.targets))
    with pytest.raises(ValueError, match=r"call module\.remember"):
        module.predict(test.images(range(3)))
    module.remember(train)
    embed = lambda split: module.eval().encoder(module.views.center(split.images(range(len(split))))).pooled  # noqa: E731
    with torch.no_grad():
        expected = knn(embed(train), train.targets, embed(test), num_classes=3, k=5)
    assert torch.equal(module.predict(test.images(range(30))).value, expected)
    module.save(tmp_path)
    again = DownstreamModule.load(tmp_path)
    assert torch.equal(again.predict(test.images(range(30))).value, expected)
    assert module.measure(test)["accuracy"] == pytest.approx(float((expected == test.targets).float().mean()))


def test_bad_questions_are_refused():
    with pytest.raises(ValueError, match=r"task\.at=\[\]"):
        Retrieval(at=())
    with pytest.raises(ValueError, match="nothing to find"):
        Retrieval().check(torch.arange(5))
    with pytest.raises(ValueError, match=r"task\.k=0"):
        Neighbours(3, k=0)
    with pytest.raises(ValueError, match="ssl-framework embed"):
        Retrieval().as_table(Retrieval().predicted(torch.zeros(1, 2)), None)
