"""Numbers of samples in a file: found by name, whatever a person calls a sample."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from ssl_framework.data import ArraySource, FolderSource, Labelled, Table, folder


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "ages.csv"
    path.write_text("file,age,tall,word\na/1.png,3.5,1,x\nb/2.png,,0,y\n1,7,1,z\n3,8.25,0,w\n")
    return path


def test_rows_are_found_by_path_end_of_path_and_number(csv):
    table = Table(csv)
    found = table.numbers(["age", "tall"], ["/data/a/1.png", "set[3]", "b/2.png", "some/where/1.jpg"])
    assert found.dtype == np.float32
    assert found[:, 1].tolist() == [1, 0, 0, 1]
    assert found[[0, 1, 3], 0].tolist() == [3.5, 8.25, 7]
    assert np.isnan(found[2, 0])  # empty


def test_names_are_words_and_paths_may_be_absolute(tmp_path):
    (tmp_path / "t.csv").write_text(f"name,age\n0001,1\n0002,2\n{tmp_path}/c/1.png,3\n")
    table = Table(tmp_path / "t.csv")
    assert table.numbers(["age"], ["a/0002.png", f"{tmp_path}/c/1.png", "0001.jpg"])[:, 0].tolist() == [2, 3, 1]


def test_a_row_belongs_to_one_sample(csv):
    with pytest.raises(ValueError, match=r"one row would be that of cats/1.jpg and of dogs/1.jpg: name more of the paths"):
        Table(csv).numbers(["age"], ["cats/1.jpg", "dogs/1.jpg"])


def test_parquet_is_the_same(tmp_path):
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"age": [1.0, 2.0], "name": ["x.png", "y.png"], "flag": [True, False]}), path)
    found = Table(path, "name").numbers(["flag", "age"], ["y.png", "x.png"])
    assert found.tolist() == [[0, 2], [1, 1]]


def test_what_is_wrong_is_said(csv, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such table"):
        Table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="has no column 'size'; it has file, age, tall, word"):
        Table(csv).numbers(["size"], ["1"])
    with pytest.raises(ValueError, match="the column 'word' holds string, and numbers are needed"):
        Table(csv).numbers(["word"], ["1"])
    with pytest.raises(ValueError, match=r"has no row for 2 of 3 samples \(c.png, d.png\)"):
        Table(csv).numbers(["age"], ["1", "c.png", "d.png"])
    (tmp_path / "twice.csv").write_text("file,age\na,1\na,2\n")
    with pytest.raises(ValueError, match="'a' stands twice in the column file"):
        Table(tmp_path / "twice.csv")
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(ValueError, match=r"a table is a .csv or a .parquet file"):
        Table(tmp_path / "x.txt")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="cannot be read"):
        Table(tmp_path / "bad.parquet")


def pictures(root, names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 10 * (number % 25), np.uint8)).save(root / name)


def test_a_folder_without_classes_has_numbers(tmp_path):
    pictures(tmp_path / "images", ["1.png", "2.png", "3.png"])
    (tmp_path / "t.csv").write_text("file,age\n3,30\n1,10\n2,20\n")
    table = Table(tmp_path / "t.csv")
    data = folder(tmp_path / "images", labels=False, size=(8, 8), channels=1, val_share=0.34, workers=0)
    train, test = data.split("train", table), data.split("val", table)
    ages = torch.cat([train.numbers(["age"]), test.numbers(["age"])])[:, 0].tolist()
    pixels = torch.cat([split.images(range(len(split)))[:, 0, 0, 0] for split in (train, test)]).tolist()
    assert ages == [pixel + 10 for pixel in pixels]  # each of its own image
    with pytest.raises(ValueError, match="has no labels"):
        data.split("train")


def test_budgets_without_classes_are_nested(csv, tmp_path):
    (tmp_path / "n.csv").write_text("row,y\n" + "".join(f"{i},{i}\n" for i in range(20)))
    split = Labelled(ArraySource(np.zeros((20, 4, 4), np.uint8), None), (4, 4), split="train", table=Table(tmp_path / "n.csv"))
    few, more = split.some(3, 0), split.some(10, 0)
    assert set(few.numbers(["y"])[:, 0].tolist()) < set(more.numbers(["y"])[:, 0].tolist())
    assert split.some(3, 1).numbers(["y"]).tolist() != few.numbers(["y"]).tolist()
    with pytest.raises(ValueError, match="21 labels are asked for, and the train split has 20"):
        split.some(21, 0)


def test_an_image_that_cannot_be_read_is_not_replaced_where_numbers_belong_to_it(tmp_path):
    pictures(tmp_path / "images", [f"{i}.png" for i in range(1, 151)])
    (tmp_path / "images" / "1.png").write_bytes(b"no picture")
    (tmp_path / "t.csv").write_text("file,age\n" + "".join(f"{i},{i}\n" for i in range(1, 151)))
    source = FolderSource(tmp_path / "images", labels=False, channels=1)
    split = Labelled(source, (8, 8), split="train", table=Table(tmp_path / "t.csv"))
    position = split.numbers(["age"])[:, 0].tolist().index(1)
    with pytest.warns(UserWarning, match=r"1.png"), pytest.raises(ValueError, match="its numbers belong to no other image"):
        split.images([position])
