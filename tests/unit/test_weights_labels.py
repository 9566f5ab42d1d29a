from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from avex._core.errors import ConfigError
from avex.weights import LabelMap, split_label

NAMES = ["Turdus merula", "Fringilla coelebs", "Cuculus canorus"]


@pytest.fixture
def labels() -> LabelMap:
    return LabelMap.from_labels(NAMES)


def test_serves_both_documents(labels: LabelMap) -> None:
    assert labels["label_to_index"] == {name: index for index, name in enumerate(NAMES)}
    assert labels["index_to_label"] == dict(enumerate(NAMES))
    assert labels["index_to_label"][2] == "Cuculus canorus"
    assert labels.get("label_to_index") is labels["label_to_index"]
    assert [labels.get(str(i)) for i in range(3)] == NAMES
    assert [labels.get(i) for i in range(3)] == NAMES
    assert labels[1] == labels["1"] == NAMES[1]
    assert labels.get("3") is None
    assert labels.get(3, "unknown") == "unknown"
    assert labels.get("-1", "unknown") == "unknown"
    assert labels.get("Turdus merula") is None
    assert labels.labels == tuple(NAMES)
    assert labels.num_classes == 3
    assert list(labels) == ["label_to_index", "index_to_label"]
    assert isinstance(labels, dict)


def test_copies(labels: LabelMap) -> None:
    for other in (pickle.loads(pickle.dumps(labels)), copy.deepcopy(labels), copy.copy(labels)):
        assert type(other) is LabelMap
        assert other == labels
        assert other.get("1") == NAMES[1]
    assert repr(LabelMap("abcd")) == "LabelMap(4 labels: 'a', 'b', 'c', ...)"


@pytest.mark.parametrize(
    "value",
    [
        NAMES,
        {name: index for index, name in enumerate(NAMES)},
        {"2": NAMES[2], "0": NAMES[0], "1": NAMES[1]},
        {"label_to_index": {name: index for index, name in enumerate(NAMES)}},
        {"index_to_label": {str(index): name for index, name in enumerate(NAMES)}},
        {"index_to_label": NAMES, "label_to_index": {name: index for index, name in enumerate(NAMES)}},
    ],
)
def test_every_shape_of_json(tmp_path: Path, value: object, labels: LabelMap) -> None:
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(value))
    assert LabelMap.load(file) == labels
    assert LabelMap.load(file.as_uri()) == labels


def test_json_round_trip(tmp_path: Path, labels: LabelMap) -> None:
    (tmp_path / "labels").write_text(json.dumps(labels))
    assert LabelMap.load(tmp_path / "labels") == labels


@pytest.mark.parametrize("text", ["\ufeff{}\n{}\n{}\n\n", "{}\r\n{}\r\n{}", "{} \n{}\n{}\n"])
def test_text(tmp_path: Path, text: str, labels: LabelMap) -> None:
    for name in ("labels.txt", "labels", "LABELS.LST"):
        (tmp_path / name).write_bytes(text.format(*NAMES).encode())
        assert LabelMap.load(tmp_path / name) == labels


def test_text_that_looks_like_json(tmp_path: Path) -> None:
    (tmp_path / "labels.TXT").write_text("[noise]\nGr\u00fcnfink\u2028Chloris\n", encoding="utf-8")
    assert LabelMap.load(tmp_path / "labels.TXT").labels == ("[noise]", "Gr\u00fcnfink\u2028Chloris")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"a": 0, "b": 2}', "no label for index 1"),
        ('{"a": 1, "b": 2}', "no label for index 0"),
        ('{"a": 0, "b": 0}', "index 0 twice"),
        ('{"a": 0, "a": 1}', "key 'a' twice"),
        ('{"0": "a", "1": "a"}', "label 'a' twice"),
        ('["a", "a"]', "'a' twice, at index 0 and at index 1"),
        ('["a", 3]', "has 3 as label 1"),
        ('["a", " "]', "empty label at index 1"),
        ('{"a": 0.5}', "has 0.5 where an index"),
        ('{"a": true}', "has True where an index"),
        ('{"a": -1}', "no label for index 0"),
        ('{"a": "b"}', "has 'a' where an index"),
        ('{"label_to_index": {"a": 0, "b": 1}, "index_to_label": ["b", "a"]}', "contradicts itself"),
        ("[]", "is empty"),
        ("{}", "holds nothing"),
        ("3", "type 'int'"),
        ('{"a": 0', "not valid JSON"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str, what: str) -> None:
    file = tmp_path / "map.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=what) as caught:
        LabelMap.load(file)
    assert str(file) in str(caught.value)


def test_files_that_are_not_label_files(tmp_path: Path) -> None:
    (tmp_path / "gap.txt").write_text("a\n\nb\n")
    with pytest.raises(ConfigError, match="empty label at index 1"):
        LabelMap.load(tmp_path / "gap.txt")
    (tmp_path / "none.txt").write_text("\n\n")
    with pytest.raises(ConfigError, match="is empty"):
        LabelMap.load(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("Gr\u00fcnfink".encode("latin1"))
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 2\)"):
        LabelMap.load(tmp_path / "latin.txt")
    (tmp_path / "labels.csv").write_text("a,b\n")
    with pytest.raises(ConfigError, match=r"is a table.*class_mapping_column"):
        LabelMap.load(tmp_path / "labels.csv")
    with pytest.raises(FileNotFoundError):
        LabelMap.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("Turdus merula_Eurasian Blackbird", ("Turdus merula", "Eurasian Blackbird")),
        ("Turdus merula", ("Turdus merula", "")),
        ("Motacilla alba yarrellii", ("Motacilla alba yarrellii", "")),
        (
            "Tettigonia viridissima_Great Green Bush-Cricket",
            ("Tettigonia viridissima", "Great Green Bush-Cricket"),
        ),
        ("Engine", ("", "Engine")),
        ("Human non-vocal_Human non-vocal", ("Human non-vocal", "Human non-vocal")),
        ("eurbla", ("", "eurbla")),
        ("Eurasian Blackbird", ("", "Eurasian Blackbird")),
        ("_Dog", ("", "Dog")),
        ("A_B_c", ("A", "B_c")),
        ("chirping_birds", ("", "chirping_birds")),
        (
            "Ochthoeca oenanthoides_d'Orbigny's Chat-Tyrant",
            ("Ochthoeca oenanthoides", "d'Orbigny's Chat-Tyrant"),
        ),
        ("Drepanis coccinea_ʻIʻiwi", ("Drepanis coccinea", "ʻIʻiwi")),
    ],
)
def test_split_label(label: str, parts: tuple[str, str]) -> None:
    assert split_label(label) == parts


def test_labels_and_sources_need_no_torch() -> None:
    code = (
        "import sys, avex.weights as w\n"
        "w.LabelMap(['a']); w.WeightSource('x'); w.KeyMap([('a', 'b')]); w.LoadReport()\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert w.read_checkpoint and 'torch' in sys.modules\n"
        "missing = [name for name in w.__all__ if not hasattr(w, name)]\n"
        "assert not missing, missing\n"
        "assert not hasattr(w, 'absent')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestColumns:
    """Tables of labels, such as Perch's: one column, whose name is no label."""

    def load(self, folder, text, column, name="labels.csv"):
        (folder / name).write_text(text, encoding="utf-8")
        return LabelMap.load(folder / name, column=column).labels

    def test_the_header_is_no_label(self, tmp_path):
        text = "inat2024_fsd50k\nAbeillia abeillei\nZosterops virens\nSpeech\n"
        assert self.load(tmp_path, text, "inat2024_fsd50k") == (
            "Abeillia abeillei",
            "Zosterops virens",
            "Speech",
        )

    def test_one_of_several_columns(self, tmp_path):
        text = '\ufeffid, name\r\n7,"Wren, winter"\r\n\r\n8, Gr\u00fcnfink \r\n'
        assert self.load(tmp_path, text, "name") == ("Wren, winter", "Gr\u00fcnfink")
        assert self.load(tmp_path, "id\tname\n1\tWren, winter\n", "name", "labels.tsv") == ("Wren, winter",)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("ebird2021\nabethr1\n", "no column 'ebird2022'. Did you mean 'ebird2021'"),
            ("", "no column 'ebird2022'. Its first line names none"),
            ("ebird2022,ebird2022\na,b\n", "no column 'ebird2022'"),
            ("id,ebird2022\n1,a\n2\n", "no value for 'ebird2022' in row 3"),
            ("id,ebird2022\n1,a\n2,\n", "empty label at index 1"),
            ("ebird2022\na\na\n", "label 'a' twice"),
            ("ebird2022\n", "is empty"),
        ],
    )
    def test_tables_that_cannot_be_read(self, tmp_path, text, message):
        with pytest.raises(ConfigError) as caught:
            self.load(tmp_path, text, "ebird2022")
        assert message in str(caught.value)
