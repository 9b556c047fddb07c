import numpy as np
import pytest
import torch

from ssl_framework.data import ArraySource, Labelled
from ssl_framework.data.split import Part
from ssl_framework.transfer import Judge, require_disjoint
from ssl_framework.transfer.bench import correctness

from .conftest import bars


def test_test_is_read_once_a_cell():
    judge = Judge(bars(9, "test", 0))
    prediction = torch.arange(9) % 3
    prediction[4] = 0
    said = judge.score("a", prediction)
    assert said["accuracy"] == 8 / 9
    assert correctness(said, 9).tolist() == [row != 4 for row in range(9)]
    with pytest.raises(RuntimeError, match="read before for a"):
        judge.score("a", prediction)
    assert judge.score("b", prediction)["accuracy"] == 8 / 9


def test_nobody_else_knows_the_labels_of_test():
    test = bars(9, "test", 0)
    seen = Judge(test).images
    assert seen.targets.unique().tolist() == [-1]
    assert torch.equal(seen.images(range(9)), test.images(range(9)))
    assert test.targets.unique().tolist() == [0, 1, 2]


def test_splits_that_share_a_sample_are_refused():
    source = ArraySource(np.zeros((12, 8, 8), np.uint8), np.arange(12) % 3)

    def part(rows, name):
        return Labelled(Part(source, np.array(rows)), (8, 8), split=name)

    apart = part([0, 1, 2], "train"), part([3, 4, 5], "val"), part([6, 7, 8], "test")
    require_disjoint(*apart)
    with pytest.raises(ValueError, match="train and test share 1 samples"):
        require_disjoint(apart[0], apart[1], part([2, 9], "test"))
    with pytest.raises(ValueError, match="train and val share 2"):
        require_disjoint(apart[0], part([0, 1, 3], "val"), apart[2])
    require_disjoint(*(bars(9, name, 0) for name in ("train", "val", "test")))  # of three files
