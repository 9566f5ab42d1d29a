"""`avex datasets` and `avex benchmark new`, as a user runs them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from avex._core.errors import ConfigError
from avex.cli import app
from avex.data import open_task
from avex.data.building import Shares, build_benchmark, group_by_name
from avex.data.manifest import read_manifest
from avex.data.streaming import read_shards
from avex.detection.table_windows import TableWindows, clips_from_tables


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    for name in ("AVEX_DATA", "AVEX_TEST_DATA"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def record(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(seconds * 1000), np.float32), 1000)


def test_the_list_says_what_there_is_and_what_is_here(tmp_path):
    done = run("datasets", "list", "--json")
    listed = json.loads(done.stdout)
    assert listed["tasks"]["dog_classification"]["num_classes"] == 10
    assert not any(facts["here"] for facts in listed["tasks"].values())
    assert listed["benchmarks"]["small"]["tasks"] == ["animals11", "birds10", "esc50_animals"]
    (tmp_path / "esc50" / "meta").mkdir(parents=True)
    (tmp_path / "esc50" / "meta" / "esc50.csv").touch()
    lines = run("datasets", "list", "--data", tmp_path).stdout.splitlines()
    here = {line.split()[0] for line in lines if " yes " in line}
    assert here == {"esc50"}
    assert any(line.split()[:3] == ["beans", "11", "tasks"] for line in lines)


def test_paths_and_what_to_do(tmp_path, monkeypatch):
    assert "AVEX_DATA is not set" in run("datasets", "path").stdout
    monkeypatch.setenv("AVEX_DATA", str(tmp_path))
    assert run("datasets", "path").stdout.strip() == str(tmp_path)
    shown = run("datasets", "path", "bat_classification").stdout
    assert f"{tmp_path / 'beans'} (not there, or not complete)" in shown
    assert "scripts/download_data.sh" in shown
    assert "data/egyptian_fruit_bats/annotations.test.csv" in shown


def test_checking_what_is_not_there(tmp_path):
    done = run("datasets", "check", "esc50", "birdset_hsn_detection", "--data", tmp_path)
    assert done.exit_code == 1
    assert "esc50: FAILED" in done.stdout
    assert "'meta/esc50.csv' is missing" in done.stderr
    assert "DBD-research-group/BirdSet" in done.stderr
    nowhere = run("datasets", "check", "esc50")
    assert nowhere.exit_code == 1
    assert "AVEX_DATA" in nowhere.stderr
    assert "Download https://github.com" in nowhere.stderr


def test_a_folder_of_classes_becomes_a_benchmark(tmp_path):
    for label in ("frog", "newt"):
        for i in range(6):
            record(tmp_path / "ponds" / label / f"{i}.wav")
    done = run("benchmark", "new", tmp_path / "ponds", "--folds", 3, "--license", "CC0")
    assert done.exit_code == 0, done.output
    assert "12 clips, 2 classes" in done.stdout
    card = tmp_path / "ponds" / "ponds.yml"
    assert len(list(open_task(str(card)).rounds())) == 3
    checked = run("datasets", "check", card)
    assert checked.exit_code == 0, checked.output
    assert "ponds: OK  12 clips in 3 folds, 2 classes" in checked.stdout
    assert run("benchmark", "new", tmp_path / "ponds").exit_code == 1
    again = run("benchmark", "new", tmp_path / "ponds", "--test", 0.34, "--validation", 0, "--overwrite")
    assert again.exit_code == 0, again.output
    assert {clip.split for clip in read_manifest(tmp_path / "ponds" / "manifest.csv")} == {"train", "test"}


def test_selection_tables_become_windows(tmp_path):
    folder = tmp_path / "dawn"
    for i in range(4):
        record(folder / f"site{i}.wav", 9.0)
        table = (
            "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
        )
        table += "1\tSpectrogram 1\t1\t0.5\t1.5\t0\t500\twren\n2\tSpectrogram 1\t1\t3.5\t5.5\t0\t500\trobin\n"
        (folder / f"site{i}.Table.1.selections.txt").write_text(table)
    done = run(
        "benchmark", "new", folder, "--tables", "*.txt", "--window", 3, "--folds", 2, "-o", tmp_path / "out"
    )
    assert done.exit_code == 0, done.output
    clips = read_manifest(tmp_path / "out" / "manifest.csv")
    assert [clip.labels for clip in clips[:3]] == [("wren",), ("robin",), ()]
    assert [(clip.start_s, clip.end_s) for clip in clips[:3]] == [(0, 3), (3, 6), (6, 9)]
    task = open_task(str(tmp_path / "out" / "dawn.yml"))
    assert task.multi_label
    assert all(len({clip.fold for clip in clips if clip.path.name == f"site{i}.wav"}) == 1 for i in range(4))
    (folder / "site0.wav").unlink()
    lost = run("benchmark", "new", folder, "--tables", "*.txt", "--overwrite", "-o", tmp_path / "out")
    assert "speaks of" in str(lost.exception)


def test_options_of_a_benchmark_are_those_of_python(tmp_path):
    folder = tmp_path / "dawn"
    for i in range(8):
        record(folder / f"site{i // 2}_{i}.wav", 6.0)
        events = f"0.5\t{1.1 + i % 2}\twren\n3.5\t5.5\trobin\n"
        (folder / f"site{i // 2}_{i}.txt").write_text(events)
    options = "--tables *.txt --window 2 --hop 1.5 --min-overlap 0.5 --group ^([^_]+)_ --name rise"
    options += " --test 0.3 --validation 0.25 --seed 7 --license CC0"
    done = run("benchmark", "new", folder, "-o", tmp_path / "out", *options.split())
    assert done.exit_code == 0, done.output
    clips = group_by_name(clips_from_tables(folder, "*.txt", TableWindows(2, 1.5, 0.5)), "^([^_]+)_")
    shares = Shares(None, 0.3, 0.25, 7)
    built = build_benchmark(clips, tmp_path / "same", "rise", shares=shares, license="CC0")
    for file in ("manifest.csv", "rise.yml"):
        assert (tmp_path / "out" / file).read_text() == (tmp_path / "same" / file).read_text(), file
    assert set(built.counts) == {"train", "validation", "test"}
    with_others = {**vars(shares), "seed": 8}, {**vars(shares), "validation": 0.5}
    for number, other in enumerate(with_others):
        changed = build_benchmark(clips, tmp_path / f"{number}", "rise", shares=Shares(**other))
        assert changed.manifest.read_text() != built.manifest.read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--window 2", "--window"),
        ("--min-overlap 0.2", "--min-overlap"),
        ("--validation 0.1", "--validation"),
        ("--test 0.2 --folds 3", "--folds"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, options, named):
    done = run("benchmark", "new", tmp_path, *options.split())
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(f"{named} does nothing here")


RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tName\tSpecies\n"
)


def test_recordings_of_one_name_in_two_folders_dots_views_points_and_silence(tmp_path):
    """Recorders number their files from the start again, so tables speak of what lies beside them."""
    folder = tmp_path / "dawn"
    for site in ("north", "south"):
        for name in ("R.2024.wav", "S.wav"):
            record(folder / site / name, 6.0)
        views = "".join(f"1\t{v} 1\t1\t0.5\t1.5\t0\t9\tx\twren\n" for v in ("Waveform", "Spectrogram"))
        (folder / site / "R.2024.Table.1.selections.txt").write_text(RAVEN + views)
    (folder / "north" / "S.txt").write_text("4\t4\twren\n\\\t1000\t2000\n")
    (folder / "south" / "S.txt").write_text("")
    record(folder / "none.v2.wav", 3.0)
    (folder / "none.v2.Table.1.selections.txt").write_text(RAVEN)
    out = tmp_path / "out"
    arguments = ("benchmark", "new", folder, "--tables", "*.txt", "--window", 3, "--folds", 2, "-o", out)
    done = run(*arguments, "--label-column", "Species")
    assert done.exit_code == 0, done.output
    rows = {
        (clip.path.parent.name, clip.path.name, clip.start_s): clip.labels
        for clip in read_manifest(out / "manifest.csv")
    }
    heard = {key for key, labels in rows.items() if labels}
    assert heard == {("north", "R.2024.wav", 0), ("south", "R.2024.wav", 0), ("north", "S.wav", 3)}
    assert len(rows) == 9
    (folder / "else.txt").write_text("1\t2\twren\n")
    assert "speaks of 'else', which is not in" in str(run(*arguments, "--overwrite").exception)
    record(folder / "east" / "else.wav", 3.0)
    record(folder / "west" / "else.wav", 3.0)
    assert "could be 'east/else.wav' or 'west/else.wav'" in str(run(*arguments, "--overwrite").exception)


def test_a_benchmark_does_not_replace_the_table_it_is_made_of(tmp_path):
    for i in range(4):
        record(tmp_path / f"{i}.wav")
    table = tmp_path / "manifest.csv"
    table.write_text("path,label\n" + "".join(f"{i}.wav,{'ab'[i % 2]}\n" for i in range(4)))
    before = table.read_bytes()
    refused = run("benchmark", "new", table, "--name", "own", "--folds", 2, "--overwrite")
    assert "would be replaced" in str(refused.exception)
    assert table.read_bytes() == before
    assert (
        run("benchmark", "new", table, "--name", "own", "--folds", 2, "-o", tmp_path / "out").exit_code == 0
    )


def test_checks_and_paths_of_benchmarks_and_files(tmp_path):
    for label in ("frog", "newt"):
        for i in range(2):
            record(tmp_path / "ponds" / label / f"{i}.wav")
    assert run("benchmark", "new", tmp_path / "ponds", "--folds", 2).exit_code == 0
    sets = tmp_path / "sets.yml"
    sets.write_text(
        "benchmark_name: ours\nevaluation_sets:\n  - ponds/ponds.yml\n  - name: again\n"
        "    folds: {dataset_name: manifest, data_root: ponds/manifest.csv, split: all}\n"
    )
    done = run("datasets", "check", sets)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"{name}: OK  4 clips in 2 folds, 2 classes" for name in ("ponds", "again")
    ]
    (tmp_path / "ponds" / "frog" / "0.wav").write_bytes(b"RIFF")
    failed = run("datasets", "check", sets)
    assert failed.exit_code == 1
    assert failed.output.count("1 recordings cannot be read") == 2
    places = run("datasets", "path", "small", "--data", tmp_path).output.splitlines()
    assert places[0] == "animals11"
    assert f"{tmp_path / 'birds10'} (not there, or not complete)" in places


def test_shards_of_a_manifest(tmp_path):
    for i in range(5):
        record(tmp_path / f"{i}.wav")
    rows = "".join(f"{i}.wav,frog,train\n" for i in range(5))
    (tmp_path / "clips.csv").write_text("path,label,split\n" + rows)
    command = ["datasets", "shard", tmp_path / "clips.csv", "-o", tmp_path / "shards", "--sample-rate", 500]
    done = run(*command, "--clips-per-shard", 2)
    assert done.exit_code == 0, done.output
    assert "5 clips into 3 shards" in done.output
    stored = read_shards(tmp_path / "shards")
    assert [(clip.labels, clip.split, clip.piece.frames) for clip in stored] == [
        (("frog",), "train", 500)
    ] * 5
    assert "holds shards already" in str(run(*command).exception)
    (tmp_path / "3.wav").unlink()
    command[4] = tmp_path / "others"
    assert "1 recordings" in str(run(*command).exception)
    assert not (tmp_path / "others").exists()


def test_the_list_is_light():
    code = (
        "import sys; sys.argv = ['avex', 'datasets', 'list']\n"
        "from avex.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_commands_say_what_is_wrong(tmp_path):
    assert "Did you mean 'esc50'" in str(run("datasets", "path", "esc5").exception)
    assert "no recordings" in str(run("benchmark", "new", tmp_path).exception)
    assert "No file in" in str(run("benchmark", "new", tmp_path, "--tables", "*.txt").exception)
