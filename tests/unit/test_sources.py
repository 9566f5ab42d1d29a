import os

import pytest

from avex._core.errors import AudioError, ConfigError
from avex.embedding.sources import Source, discover, file_state


def names(sources):
    return [source.name for source in sources]


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b.wav",
        "a.FLAC",
        "sub/c.mp3",
        "sub/deeper/d.ogg",
        "notes.txt",
        ".hidden.wav",
        "sub/._e.wav",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_folders_are_searched_in_order(tree):
    found = names(discover(tree))
    assert found == [str(tree / name) for name in ("a.FLAC", "b.wav", "sub/c.mp3", "sub/deeper/d.ogg")]


def test_explicit_files_are_taken_whatever_they_are(tree):
    wanted = [str(tree / "notes.txt"), str(tree / "missing.wav")]
    assert names(discover(wanted)) == wanted


def test_globs(tree):
    assert names(discover(str(tree / "**" / "*.ogg"))) == [str(tree / "sub/deeper/d.ogg")]
    with pytest.raises(ConfigError, match="Nothing matches"):
        discover(str(tree / "*.aiff"))
    # Folders and manifests that match are opened, as if they had been named.
    (tree / "list.csv").write_text("path\nb.wav\n")
    assert names(discover(str(tree / "s*b"))) == [str(tree / "sub/c.mp3"), str(tree / "sub/deeper/d.ogg")]
    assert names(discover(str(tree / "*.csv"))) == [str(tree / "b.wav")]


def test_empty_folders_are_no_recordings(tree):
    (tree / "to do").mkdir()
    (tree / "full.wav").mkdir()
    (tree / "full.wav" / "x.wav").write_bytes(b"x")
    assert len(discover(tree)) == 5


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tree):
    (tree / "x[1].wav").write_bytes(b"x")
    assert names(discover(str(tree / "x[1].wav"))) == [str(tree / "x[1].wav")]


def test_inputs_are_taken_once(tree):
    assert len(discover([tree, tree / "b.wav", str(tree)])) == 4


def test_one_recording_named_in_two_ways(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert names(discover(["b.wav", "./b.wav", str(tree / "b.wav"), "sub/../b.wav"])) == ["b.wav"]


def test_folders_without_recordings(tmp_path):
    with pytest.raises(ConfigError, match="no audio files"):
        discover(tmp_path)
    with pytest.raises(ConfigError, match="No recordings"):
        discover([])


def test_a_folder_that_calls_itself_a_recording(tree):
    (tree / "fake.wav").mkdir()
    assert str(tree / "fake.wav") in names(discover(tree))
    assert names(discover(tree / "fake.wav")) == [str(tree / "fake.wav")]
    with pytest.raises(AudioError) as caught:
        file_state(str(tree / "fake.wav"))
    assert caught.value.cause == "not_a_file"
    (tree / "fake.wav" / "inside.wav").write_bytes(b"x")
    assert names(discover(tree / "fake.wav")) == [str(tree / "fake.wav" / "inside.wav")]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may search everything")
def test_a_folder_that_may_not_be_searched(tree):
    (tree / "sub").chmod(0)
    try:
        assert str(tree / "sub") in names(discover(tree))
        with pytest.raises(AudioError, match="may not be searched") as caught:
            file_state(str(tree / "sub"))
    finally:
        (tree / "sub").chmod(0o755)
    assert caught.value.cause == "permission"


def test_links_in_a_circle(tree):
    os.symlink(tree, tree / "sub" / "up")
    assert len(discover(tree)) == 4


def test_names_that_are_not_utf8(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    with open(raw, "wb") as file:
        file.write(b"x")
    (source,) = discover(tmp_path)
    assert os.fsencode(source.path) == raw


@pytest.mark.parametrize("column", ["path", "recording", "file", "filename"])
def test_manifest(tree, column):
    manifest = tree / "list.csv"
    manifest.write_text(f"site,{column},start_s,end_s\nA,b.wav,,\nB,sub/c.mp3,1.5,4\nC,{tree}/a.FLAC,2,\n")
    sources = discover(manifest)
    assert [(s.path, s.start_s, s.end_s) for s in sources] == [
        (str(tree / "b.wav"), 0.0, None),
        (str(tree / "sub/c.mp3"), 1.5, 4.0),
        (str(tree / "a.FLAC"), 2.0, None),
    ]
    assert sources[1].name == str(tree / "sub/c.mp3") + "#t=1.5,4"
    assert sources[2].name.endswith("#t=2")


def test_paths_of_a_manifest_are_beside_it_or_else_where_the_user_stands(tree, monkeypatch):
    monkeypatch.chdir(tree)
    (tree / "tables").mkdir()
    (tree / "tables" / "a.FLAC").write_bytes(b"x")
    (tree / "tables" / "list.csv").write_text("path\na.FLAC\nsub/c.mp3\nnowhere.wav\n")
    assert names(discover("tables/list.csv")) == ["tables/a.FLAC", "sub/c.mp3", "tables/nowhere.wav"]


def test_manifest_of_a_spreadsheet(tree):
    """As Excel writes it where decimals have commas: a byte order mark, and semicolons between the cells."""
    (tree / "list.csv").write_text("\ufeffpath;start_s\nb.wav;1\n", encoding="utf-8")
    assert discover(tree / "list.csv") == [Source(str(tree / "b.wav"), 1.0)]


def test_the_name_of_a_part_holds_the_path_as_it_is():
    assert Source("site 3.0,dusk.0", 3.0, 6.0).name == "site 3.0,dusk.0#t=3,6"
    assert Source("dawn.wav", 1.5).name == "dawn.wav#t=1.5"


def test_manifest_names_stay_text(tree):
    (tree / "007").write_bytes(b"x")
    (tree / "list.csv").write_text("path\n007\n")
    assert discover(tree / "list.csv")[0].path == str(tree / "007")


def test_manifest_formats(tree):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": ["b.wav"], "end_s": [2.0]}), tree / "list.parquet")
    (tree / "list.jsonl").write_text('{"path": "b.wav", "end_s": 2.0}\n')
    (tree / "list.tsv").write_text("path\tend_s\nb.wav\t2.0\n")
    expected = Source(str(tree / "b.wav"), 0.0, 2.0)
    for name in ("list.parquet", "list.jsonl", "list.tsv"):
        assert discover(tree / name) == [expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nb.wav\n", "no column of recordings: expected 'path'"),
        ("path\n", "no rows"),
        ("path,start_s\nb.wav,-1\n", "line 2"),
        ("path,start_s,end_s\nb.wav,3,2\n", "3 to 2 s is not a part"),
        ("path,start_s\nb.wav,soon\n", "not a number"),
        ("path,site\nb.wav,A\n,B\n", "line 3, column 'path': empty"),
    ],
)
def test_manifests_that_cannot_be_used(tree, text, message):
    (tree / "bad.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        discover(tree / "bad.csv")
