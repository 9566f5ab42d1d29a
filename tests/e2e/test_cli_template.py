"""`avex template` and the other commands with a JSON template, as a user runs them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from avex.cli import main
from avex.embedding.stores import open_store
from avex.models.template import trust
from avex.models.template.catalogue import skeleton

RATE = 8000


@pytest.fixture
def avex(tmp_path, monkeypatch, capsys):
    """Run a command in this process, in a folder with a recording of 2.5 s."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(2.5 * RATE)) / RATE)
    soundfile.write(tmp_path / "tone.wav", tone.astype(np.float32), RATE)

    def run(*arguments):
        monkeypatch.setattr(trust, "_trusted", set())  # as a new process starts
        monkeypatch.setattr(sys, "argv", ["avex", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


def test_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "avex", "describe", "general_purpose/log_mel_statistics.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "16000 Hz" in done.stdout


def test_from_a_new_template_to_embeddings(avex, tmp_path):
    code, out, _ = avex("template", "new", "mine.json", "--sample-rate", str(RATE))
    assert (code, "avex template validate mine.json" in out) == (0, True)
    assert avex("template", "new", "mine.json")[0] == 2  # never overwritten

    template = json.loads((tmp_path / "mine.json").read_text())
    template["install_cmds"] = ["touch installed"]
    (tmp_path / "mine.json").write_text(json.dumps(template))
    code, out, _ = avex("template", "validate", "mine.json")
    assert (code, "touch installed" in out, out.endswith("OK\n")) == (0, True, True)
    assert not (tmp_path / "installed").exists()

    code, out, err = avex("template", "run", "mine.json", "tone.wav")
    assert (code, out) == (2, "")
    assert "touch installed" in err
    assert "--trust" in err
    assert "Traceback" not in err
    code, out, _ = avex("template", "run", "mine.json", "tone.wav", "--trust")
    assert code == 0
    assert "tokens, shape [1, 48, 1]" in out  # (8000 - 400) / 160 + 1 steps
    assert not (tmp_path / "installed").exists()
    assert avex("template", "run", "mine.json", "tone.wav", "--install")[0] == 2
    assert avex("template", "run", "mine.json", "tone.wav", "--trust", "--install")[0] == 0
    assert (tmp_path / "installed").exists()

    assert avex("embed", "tone.wav", "-m", "mine.json", "-o", "e.parquet")[0] == 2
    code, _, err = avex("embed", "tone.wav", "-m", "mine.json", "-o", "e.parquet", "--trust")
    assert code == 0, err
    values = open_store(tmp_path / "e.parquet").to_numpy()
    assert values.shape == (3, 1)
    # The mean of |0.5 sin| is 1/pi; the last window is half silence.
    assert values[:2, 0] == pytest.approx(1 / np.pi, abs=5e-3)
    assert values[2, 0] == pytest.approx(0.5 / np.pi, abs=1e-2)


def test_a_declarative_template_needs_no_trust(avex, tmp_path):
    avex("template", "new", "d.json", "--declarative", "--sample-rate", str(RATE))
    code, out, err = avex("template", "run", "d.json", "tone.wav")
    assert (code, err) == (0, "")
    assert "vector, shape [1, 8]" in out
    assert avex("embed", "tone.wav", "-m", "d.json", "-o", "e.parquet")[0] == 0


def test_every_fault_is_shown(avex, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps({"sample_rate": "x", "authors": [], "embed": 1}))
    code, out, err = avex("template", "validate", "bad.json")
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert all(line.startswith("bad.json: key '") for line in lines)
    keys = {line.split("'")[1] for line in lines}
    assert keys >= {
        "sample_rate",
        "authors",
        "embed",
        "references",
        "downstream_tasks",
        "in_shape",
        "model_init",
    }
    code, out, err = avex("template", "validate", "missing.json", "speech/hubert.json")
    assert (code, "no such file" in err, out.endswith("OK\n")) == (2, True, True)


def test_other_commands(avex):
    name = "general_purpose/log_mel_statistics.json"
    code, out, _ = avex("describe", name)
    assert (code, "16000 Hz" in out, "trust=True" in out) == (0, True, True)
    assert avex("check", name)[0] == 2
    code, out, _ = avex("check", name, "--trust")
    assert (code, "shape: [128]" in out) == (0, True)
    code, _, err = avex("predict", "tone.wav", "-m", name, "--trust", "--window", "1")
    assert code == 2
    assert "no classifier with labels" in err
    code, out, _ = avex("cite", name)
    assert (code, "The avex authors" in out) == (0, True)


def test_the_list(avex):
    code, out, _ = avex("template", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["speech/resemblyzer.json"]["tested"] == "published weights"
    assert rows["encoding/dac.json"]["sample_rate"] == 44100
    table = avex("template", "list")[1]
    assert all(name in table for name in rows)
    assert max(map(len, table.splitlines())) <= 80


def evaluation_data():
    path = Path(__file__).parents[1] / "unit" / "evaluation_data.py"
    spec = importlib.util.spec_from_file_location("evaluation_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def edited(tmp_path, **changes):
    template = {**skeleton(RATE), **changes}
    (tmp_path / "t.json").write_text(json.dumps(template), encoding="utf-8")


def test_a_failing_command_shows_its_traceback(avex, tmp_path):
    edited(tmp_path, model_init=["def build():", "    return 1 / 0", "", "model = build()"])
    code, out, err = avex("template", "run", "t.json", "tone.wav", "--trust")
    assert (code, out) == (1, "")
    file = f"<model_init of {tmp_path / 't.json'}>"
    assert err.startswith(f'Traceback (most recent call last):\n  File "{file}", line 4, in <module>\n')
    assert f'File "{file}", line 2, in build\n    return 1 / 0\n' in err
    assert err.splitlines()[-1].endswith("raised ZeroDivisionError: division by zero")


@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_a_trial_refuses_what_is_no_number(avex, tmp_path, value):
    edited(tmp_path, embed_fwd=[f"y = x[:, :4] + float('{value}')"])
    code, out, err = avex("template", "run", "t.json", "tone.wav", "--trust")
    assert (code, out) == (1, "")
    assert "4 of 4 values of the embedding are NaN or infinite" in err


def test_a_folder_that_does_not_exist(avex):
    code, _, err = avex("template", "new", "no/t.json")
    assert (code, "The folder 'no' does not exist" in err) == (2, True)


def test_bench_says_where_the_weights_come_from(avex):
    avex("template", "new", "d.json", "--declarative", "--sample-rate", str(RATE))
    code, out, err = avex("bench", "d.json", "--batch-size", "1", "--rounds", "1")
    assert code == 0, err
    assert "the weights that the model's own code loads" in out
    assert "random" not in out


def test_export(avex, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra 'export'")
    layer = {"model_init": [f"model = torch.nn.Linear({RATE}, 4)"], "embed_fwd": ["y = model(x)"]}
    edited(tmp_path, **layer, pre_proc=[])
    code, _, err = avex("export", "onnx", "t.json", "-o", "t.onnx")
    assert (code, "--trust" in err) == (2, True)
    code, out, err = avex("export", "onnx", "t.json", "-o", "t.onnx", "--trust")
    assert code == 0, err
    assert "embedding (any, 4)" in out


def test_evaluate_trusts_on_demand_and_notices_an_edit(avex, tmp_path):
    data = evaluation_data()
    statistics = ["y = torch.fft.rfft(x).abs().reshape(len(x), -1)[:, :400].reshape(len(x), 20, 20).mean(-1)"]
    edited(tmp_path, window_seconds=0.5, pre_proc=[], embed_fwd=statistics)
    recipe = data.settings(tmp_path, data.write_clips(tmp_path / "folds"), "t.json", eval_modes=["knn"])
    (tmp_path / "r.yml").write_text(yaml.safe_dump(recipe))
    command = ("evaluate", "-c", "r.yml", "-o", "out", "--patch", "bootstrap_samples=20")
    code, _, err = avex(*command)
    assert (code, "--trust" in err) == (2, True)
    code, out, err = avex(*command, "--trust")
    assert code == 0, err
    assert "1 results made, 0 kept" in out
    assert "0 results made, 1 kept" in avex(*command, "--trust")[1]
    edited(tmp_path, window_seconds=0.5, pre_proc=[], embed_fwd=[*statistics, "y = y.sqrt()"])
    assert "1 results made, 0 kept" in avex(*command, "--trust")[1]


def test_trust_in_a_probe_needs_the_name_of_the_template(avex):
    code, _, err = avex("probe", "predict", "p.safetensors", "tone.wav", "--trust")
    assert (code, "Give --model" in err) == (2, True)
