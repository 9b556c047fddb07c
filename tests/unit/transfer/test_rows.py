import pytest

from ssl_framework.transfer import rows

ROWS = [{"method": "full", "budget": 10, "seed": 0}, {"method": "full", "budget": "all", "seed": 1, "label_noise": 0.2}]


def test_what_a_kill_left_of_a_line_is_dropped_and_repaired(tmp_path):
    path = tmp_path / rows.FILE
    assert rows.read(path) == []
    rows.append(path, ROWS)
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines()[1]) + 1):
        path.write_bytes(whole[:-cut])
        assert rows.read(path)[:1] == ROWS[:1]
        rows.repair(path)
        rows.append(path, ROWS[1:])
        assert rows.read(path) == ROWS
        assert path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / rows.FILE
    rows.append(path, ROWS)
    path.write_text("{oops\n" + path.read_text())
    with pytest.raises(ValueError, match="line 1 is no row"):
        rows.read(path)


def test_parts_of_a_study_are_put_together_each_once(tmp_path):
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    rows.append(a, ROWS[:1])
    rows.append(b, ROWS[1:])
    assert rows.gathered([a, b]) == ROWS
    rows.append(b, ROWS[:1])
    with pytest.raises(ValueError, match="full/10/0 stands in"):
        rows.gathered([a, b])


def test_names_tell_rows_apart():
    assert [rows.name(row) for row in ROWS] == ["full/10/0", "full/all/1/noise-0.2"]
