import numpy as np
import pytest
from scipy import stats

from ssl_framework.report import gain, markdown, summarise, text


def _rows(method, budget, values, **more):
    return [{"method": method, "budget": budget, "seed": seed, "accuracy": v, **more} for seed, v in enumerate(values)]


ROWS = [
    *_rows("frozen", "all", [0.99]),
    *_rows("frozen", 10, [0.90, 0.94, 0.95]),
    *_rows("frozen", 1, [0.70, 0.80, 0.75]),
    *_rows("scratch", 1, [0.40, 0.45, 0.50]),
]


def test_cells_are_the_mean_and_the_t_interval():
    summary = summarise(ROWS)
    assert summary.methods == ("frozen", "scratch")
    assert summary.budgets == (1, 10, "all")
    values = [0.90, 0.94, 0.95]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    cell = summary.cells["frozen", 10]
    assert (cell.mean, cell.half_width, cell.seeds) == (pytest.approx(np.mean(values)), pytest.approx((high - low) / 2), 3)
    assert str(cell) == f"93.0 ± {50 * (high - low):.1f}"
    assert summary.cells["frozen", "all"] == (0.99, None, 1)


def test_the_terminal_table_is_aligned_and_says_what_it_shows():
    lines = text(ROWS).splitlines()
    assert lines[0].split() == ["accuracy", "(%)", "1", "label/class", "10", "labels/class", "all", "labels"]
    assert lines[3].rstrip().endswith("n/a")
    assert len({len(line) for line in lines[:-1]}) == 1
    assert "99.0" in lines[2]
    assert "95 % t interval over 3 seeds" in lines[-1]
    assert "without ±: one measurement" in lines[-1]
    assert text(_rows("a", 1, [0.5])).endswith("One seed: no interval.")


def test_markdown_has_a_column_for_each_budget():
    lines = markdown(ROWS).splitlines()
    assert lines[1] == "|---|---:|---:|---:|"
    assert lines[2].startswith("| frozen | 75.0 ± 12.4 |")
    assert all(line.count("|") == 5 for line in lines[:4])


def test_neighbours_stand_apart():
    rows = [*_rows("frozen", 1, [0.5, 0.6], classifier="linear"), *_rows("frozen", 1, [0.3, 0.4], classifier="knn")]
    assert summarise(rows).methods == ("frozen", "frozen, kNN")


def test_a_gain_is_paired_seed_by_seed():
    shared = [0.1, -0.2, 0.3]  # what the labels drawn do to both
    rows = [
        *_rows("frozen", 1, [0.6 + s for s in shared]),
        *_rows("raw pixels", 1, [0.5 + s + e for s, e in zip(shared, (0.01, 0.0, -0.01), strict=True)]),
        *_rows("frozen", "all", [0.9]),
        *_rows("raw pixels", "all", [0.95]),
        *_rows("scratch", 10, [0.5]),
    ]
    low, high = stats.t.interval(0.95, 2, loc=0.1, scale=stats.sem([0.09, 0.1, 0.11]))
    assert gain(rows, "frozen", "raw pixels").endswith(f"in points: +10.0 ± {50 * (high - low):.1f} at 1, -5.0 at all")
    with pytest.raises(ValueError, match="share no budget"):
        gain(rows, "frozen", "scratch")
    with pytest.raises(ValueError, match="different seeds"):
        gain([*rows, {"method": "frozen", "budget": 1, "seed": 7, "accuracy": 0.5}], "frozen", "raw pixels")


def test_rows_of_two_studies_are_not_mixed():
    with pytest.raises(ValueError, match="two rows for 'scratch', budget 1, seed 0"):
        summarise([*ROWS, *_rows("scratch", 1, [0.4])])
    with pytest.raises(ValueError, match="at least one row"):
        summarise([])
