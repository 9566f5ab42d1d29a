"""Label tables in the forms that people have them in, and what is wrong with the others."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avex._core.errors import ConfigError
from avex._core.optional import available
from avex.data import LabelTable


def write(tmp_path, text, name="labels.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_with_times_and_further_columns(tmp_path):
    path = write(
        tmp_path, "path,label,start_s,end_s,site\npond/a.wav,frog,0.5,2,north\npond/a.wav,newt; duck,,,\n"
    )
    table = LabelTable.read(path)
    assert table.recordings == ("pond/a.wav", "pond/a.wav")
    assert table.labels == (("frog",), ("newt", "duck"))
    assert table.start_s == (0.5, 0.0)
    assert table.end_s == (2.0, math.inf)
    assert table.column("site") == ("north", "")
    assert table.classes == ("duck", "frog", "newt")
    assert table.folder == tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "file\tlabels\n007\tfrog|newt\n"),
        ("a.csv", "\ufeffrecording,labels\n007,frog|newt|frog\n\n"),
    ],
)
def test_names_stay_text_and_labels_are_not_repeated(tmp_path, name, text):
    table = LabelTable.read(write(tmp_path, text, name))
    assert table.recordings == ("007",)
    assert table.labels == (("frog", "newt"),)
    assert table.start_s is None


def test_parquet_with_lists(tmp_path):
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"recording": ["a", "b"], "labels": [["frog"], []], "fold": [1, 2]}), path)
    table = LabelTable.read(path)
    assert table.labels == (("frog",), ())
    assert table.column("fold") == ("1", "2")


@pytest.mark.skipif(not available("pandas"), reason="needs the extra 'pandas'")
def test_data_frames_with_gaps():
    import pandas as pd

    frame = pd.DataFrame(
        {"file": ["a", "b"], "label": ["frog", None], "fold": [1, None], "start_s": [1.5, None]}
    )
    table = LabelTable.read(frame)
    assert table.labels == (("frog",), ())
    assert table.column("fold") == ("1", "")
    assert table.start_s == (1.5, 0.0)


def test_another_column_of_labels():
    table = LabelTable.read({"path": ["a"], "label": ["x"], "species": ["frog"]}, label_column="species")
    assert table.labels == (("frog",),)
    assert table.column("label") == ("x",)
    assert LabelTable.read(table) is table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": ["a"], "label": ["x"]}, "no column of recordings.*'recording' or 'path'.*name, label"),
        ({"path": ["a"], "species": ["x"]}, "no column of labels: expected 'label' or 'labels'"),
        ({"path": [], "label": []}, "no rows"),
        ({"path": [""], "label": ["x"]}, "row 1, column 'path': empty"),
        ({"path": ["a"], "label": ["x"], "start_s": [3], "end_s": [2]}, "3 to 2 s is not a part"),
        ({"path": ["a"], "label": ["x"], "end_s": ["soon"]}, "row 1, column 'end_s': 'soon' is not a number"),
        ({"path": ["a", "b"], "label": ["x"]}, "differ in length"),
        ([("a", "x")], "cannot be a list"),
    ],
)
def test_tables_that_make_no_sense(table, message):
    with pytest.raises(ConfigError, match=message):
        LabelTable.read(table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("path,label\na,b,c\n", "line 2: 3 cells, but there are 2 columns"),
        ("path,path\na,b\n", "two columns have one name"),
    ],
)
def test_files_that_are_no_tables(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        LabelTable.read(write(tmp_path, text))


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(ConfigError, match="no table at"):
        LabelTable.read(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match=r"ending '\.xlsx'"):
        LabelTable.read(write(tmp_path, "x", "a.xlsx"))
    bad = tmp_path / "latin.csv"
    bad.write_bytes("path,label\na,Möwe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        LabelTable.read(bad)
    with pytest.raises(ConfigError, match=r"no column 'sit'\. Did you mean 'site'"):
        LabelTable.read({"path": ["a"], "label": ["x"], "site": ["n"]}).column("sit")
