from ssl_framework.transfer import recipe

from .conftest import bars


def test_comments_docstrings_and_layout_are_no_code():
    code = 'def f(x):\n    """What."""\n    return x + 1\n'
    assert recipe.meaning(code) == recipe.meaning("def f( x ):  # how\n\n    return x+1\n")
    assert recipe.meaning(code) != recipe.meaning("def f(x):\n    return x + 2\n")
    assert recipe.meaning('class A:\n    """A."""\n') == recipe.meaning('class A:\n    """B."""\n')


def test_the_code_of_cells_counts_and_that_of_reports_does_not(tmp_path, monkeypatch):
    (tmp_path / "report").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(recipe, "_HOME", tmp_path)

    def digest(report: str, data: str) -> str:
        (tmp_path / "report" / "a.py").write_text(report)
        (tmp_path / "data" / "a.py").write_text(data)
        return recipe.code_digest.__wrapped__()

    first = digest("a = 1", "b = 1")
    assert digest("a = 2", "b = 1  # the same") == first
    assert digest("a = 1", "b = 2") != first


def test_data_are_known_by_samples_labels_and_pixels():
    def digest(**changes):
        splits = {"train": bars(9, "train", 0), "test": bars(6, "test", 1)}
        for name, change in changes.items():
            change(splits[name])
        return recipe.data_digest(splits)

    def relabel(split):
        split.targets[0] = 2

    def repaint(split):
        images = split.images
        split.images = lambda rows: images(rows) ^ 1

    found = [digest(), digest(train=relabel), digest(test=repaint)]
    assert digest() == found[0]
    assert len(set(found)) == 3


def test_a_digest_does_not_know_the_order_of_keys():
    assert recipe.digest({"a": 1, "b": [2]}) == recipe.digest({"b": [2], "a": 1}) != recipe.digest({"a": 1, "b": [3]})
