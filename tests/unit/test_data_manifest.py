"""Manifests: tables and folders to clips, and what is said about wrong ones."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avex._core.errors import ConfigError
from avex.data.clips import Clip, clip_id, missing_recordings, select
from avex.data.manifest import read_manifest

ROWS = [
    {
        "path": "a.wav",
        "start_s": 0.5,
        "end_s": 2.0,
        "label": "wren",
        "split": "train",
        "fold": 1,
        "site": "pond",
    },
    {
        "path": "sub/b.wav",
        "start_s": 0,
        "end_s": None,
        "label": "robin",
        "split": "test",
        "fold": 2,
        "site": "hill",
    },
]


def write_csv(folder, text, name="clips.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def write_table(folder, suffix):
    path = folder / f"clips.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    else:
        mark = "," if suffix == "csv" else "\t"
        lines = [mark.join(ROWS[0])]
        lines += [mark.join("" if cell is None else str(cell) for cell in row.values()) for row in ROWS]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_same_clips(tmp_path, suffix):
    first, second = read_manifest(write_table(tmp_path, suffix))
    assert first.path == tmp_path / "a.wav"
    assert (first.start_s, first.end_s, first.labels) == (0.5, 2.0, ("wren",))
    assert (first.split, first.fold, first.group, first.id) == ("train", "1", None, "a.wav#0.5-2")
    assert first.extra == {"site": "pond"}
    assert second.path == tmp_path / "sub" / "b.wav"
    assert (second.start_s, second.end_s, second.id) == (0.0, None, "sub/b.wav")


def test_rows_of_one_clip_are_joined(tmp_path):
    path = write_csv(
        tmp_path, "path,start_s,end_s,label\na.wav,0,3,wren\nb.wav,0,3,\na.wav,0,3,robin\na.wav,3,6,wren\n"
    )
    clips = read_manifest(path)
    assert [clip.labels for clip in clips] == [("wren", "robin"), (), ("wren",)]


def test_labels_in_one_cell_and_in_lists(tmp_path):
    path = tmp_path / "clips.jsonl"
    path.write_text('{"file": "a.wav", "labels": ["x", "y", "x"]}\n{"file": "b.wav", "labels": "x|z; w"}\n')
    assert [clip.labels for clip in read_manifest(path)] == [("x", "y"), ("x", "z", "w")]


def test_other_columns_and_another_root(tmp_path):
    path = write_csv(tmp_path, "where,species,label\na.wav,frog,ignored\n")
    (clip,) = read_manifest(path, path_column="where", label_column="species", audio_root=tmp_path / "audio")
    assert clip.path == tmp_path / "audio" / "a.wav"
    assert clip.labels == ("frog",)
    assert clip.extra == {"label": "ignored"}


def test_absolute_paths_stay(tmp_path):
    path = write_csv(tmp_path, f"path\n{tmp_path / 'elsewhere' / 'a.wav'}\n")
    assert read_manifest(path)[0].path == tmp_path / "elsewhere" / "a.wav"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,start_s,end_s\na.wav,0,1\nb.wav,x,1\n", ["line 3", "column 'start_s'", "'x'"]),
        ("path,start_s,end_s\na.wav,2,1\n", ["line 2", "'start_s' and 'end_s'", "2 to 1 s"]),
        ("path,start_s\na.wav,-1\n", ["line 2", "column 'start_s'"]),
        ("path,end_s\na.wav,nan\n", ["line 2", "column 'end_s'"]),
        ('path,label\n"a\nb.wav",x\n,y\n', ["line 4", "column 'path'", "empty"]),
        ("path,label\na.wav,x,y\n", ["line 2", "3 cells", "2 columns"]),
        ("pth,label\na.wav,x\n", ["no column of recordings", "pth, label"]),
        ("path,path\na,b\n", ["line 1", "two columns"]),
        ("path,label\n", ["no rows"]),
        (
            "path,label,split\na.wav,x,train\na.wav,y,test\n",
            ["line 3", "column 'split'", "'test'", "'train'"],
        ),
        ("path,id\na.wav,1\nb.wav,1\n", ["id '1'", "two clips"]),
        ('path,label\n"a.wav,x\n', ["clips.csv", "line"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text, expected):
    with pytest.raises(ConfigError) as error:
        read_manifest(write_csv(tmp_path, text))
    assert "clips.csv" in str(error.value)
    for part in expected:
        assert part in str(error.value)


def test_broken_json_and_other_files(tmp_path):
    with pytest.raises(ConfigError, match=r"line 2: not JSON .*column 2"):
        read_manifest(write_csv(tmp_path, '{"path": "a.wav"}\n{oops}\n', "clips.jsonl"))
    with pytest.raises(ConfigError, match="ending '.xlsx'"):
        read_manifest(write_csv(tmp_path, "x", "clips.xlsx"))
    with pytest.raises(ConfigError, match="no table at"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("path\nfr\u00f6sche.wav\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_manifest(tmp_path / "latin.csv")
    (tmp_path / "no.parquet").write_bytes(b"not parquet")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path / "no.parquet")


@pytest.mark.parametrize("names", ["start_s,end_s", "start,end", "start_time,end_time"])
def test_times_under_the_names_of_other_tools(tmp_path, names):
    clip = read_manifest(write_csv(tmp_path, f"file,{names},label\na.wav,1,2.5,wren\n"))[0]
    assert (clip.start_s, clip.end_s, clip.id, clip.extra) == (1.0, 2.5, "a.wav#1-2.5", {})
    lone = read_manifest(write_csv(tmp_path, "file,start,label\na.wav,spring,wren\n"))[0]
    assert (lone.end_s, lone.extra) == (None, {"start": "spring"})


def test_tables_as_spreadsheets_and_pandas_write_them(tmp_path):
    spreadsheet = write_csv(tmp_path, '\ufeffpath;label;note\r\na.wav;"wren;robin";\r\n;;\r\n')
    assert [(clip.labels, clip.extra) for clip in read_manifest(spreadsheet)] == [
        (("wren", "robin"), {"note": ""})
    ]
    index = write_csv(tmp_path, ",,path,label\n0,0,a.wav,wren\n   \n")
    assert read_manifest(index)[0].extra == {}
    ragged = write_csv(tmp_path, '{"path": "a.wav", "site": "pond"}\n{"path": "b.wav"}\n', "clips.jsonl")
    assert [clip.feature("site") for clip in read_manifest(ragged)] == ["pond", None]
    listed = write_csv(tmp_path, '{"path": ["a.wav"]}\n', "list.jsonl")
    with pytest.raises(ConfigError, match="column 'path': a list. Expected the path of a recording"):
        read_manifest(listed)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_folder_per_class(tmp_path):
    for name in (
        "wren/a.wav",
        "wren/deep/b.FLAC",
        "robin/c.ogg",
        "robin/notes.txt",
        ".hidden/d.wav",
        "robin/._c.ogg",
    ):
        touch(tmp_path / name)
    clips = read_manifest(tmp_path)
    assert [(clip.id, clip.labels, clip.split) for clip in clips] == [
        ("robin/c.ogg", ("robin",), None),
        ("wren/a.wav", ("wren",), None),
        ("wren/deep/b.FLAC", ("wren",), None),
    ]


def test_folder_with_splits(tmp_path):
    for name in ("train/wren/a.wav", "val/wren/b.wav", "test/robin/c.wav"):
        touch(tmp_path / name)
    assert [(clip.split, clip.labels) for clip in read_manifest(tmp_path)] == [
        ("test", ("robin",)),
        ("train", ("wren",)),
        ("validation", ("wren",)),
    ]
    with pytest.raises(ConfigError, match="no recordings in folders named after classes"):
        read_manifest(tmp_path / "train" / "wren")


def test_clips_refuse_impossible_times_and_unknown_columns():
    for start, end in (
        (1.0, 1.0),
        (-0.1, 1.0),
        (float("nan"), 1.0),
        (float("inf"), None),
        (0.0, float("nan")),
    ):
        with pytest.raises(ConfigError, match="Expected"):
            Clip(Path("a.wav"), start, end)
    clip = Clip(Path("a.wav"), labels=("x", "y"), extra={"site": "pond", "empty": ""})
    assert (clip.feature("site"), clip.feature("empty"), clip.feature("labels")) == ("pond", None, ("x", "y"))
    with pytest.raises(ConfigError, match=r"no column 'sit'\. Did you mean 'site'"):
        clip.feature("sit")
    with pytest.raises(ConfigError, match="has 2 labels"):
        _ = clip.label
    assert Clip(Path("a.wav"), 1.0, float("inf")).end_s is None


def test_names_of_clips():
    assert clip_id("a.wav", 0.0, 0.1) == "a.wav#0-0.1"
    assert clip_id("a.wav", 0.1 + 0.2, 1.0) != clip_id("a.wav", 0.3, 1.0)


def test_selecting_and_missing_files(tmp_path):
    touch(tmp_path / "a.wav")
    clips = [Clip(tmp_path / "a.wav", split="train"), Clip(tmp_path / "b.wav", split="test")]
    assert select(clips, split="test") == [clips[1]]
    assert missing_recordings([*clips, clips[1]]) == [tmp_path / "b.wav"]
