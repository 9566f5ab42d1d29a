"""`avex bench` as a user runs it. What it prints is checked, never how fast it was."""

import json
import subprocess
import sys

import pytest

PLUGIN = '''
from torch import nn

from avex.configs import AudioConfig
from avex.models.base_model import ModelBase
from avex.models.utils.registry import register_model_class


@register_model_class
class BenchTiny(ModelBase):
    """Windows of 8 samples to 12 numbers."""

    name = "bench_tiny"

    def __init__(self, device="cpu", num_classes=2, **kwargs):
        audio = AudioConfig(sample_rate=800, representation="raw", normalize=False, target_length_seconds=1.0)
        super().__init__(device=device, audio_config=audio)
        self.body = nn.Linear(8, 12)
        self.classifier = nn.Linear(12, num_classes)

    def forward(self, x, padding_mask=None):
        return self.classifier(self.body(x.unfold(1, 8, 8)).mean(1))
'''


@pytest.fixture
def plugin(tmp_path, clean_registry):
    path = tmp_path / "bench_plugin.py"
    path.write_text(PLUGIN)
    return str(path)


@pytest.fixture
def bench(monkeypatch, capsys):
    """Run the command in this process: exit code, standard output, standard error."""
    from avex.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["avex", "bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        output = capsys.readouterr()
        return left.value.code or 0, output.out, output.err

    return run


def test_a_table_and_a_file(bench, plugin, tmp_path):
    target = tmp_path / "speed.json"
    options = (
        "--precision",
        "fp32",
        "bf16",
        "--batch-size",
        "1",
        "3",
        "--rounds",
        "2",
        "--json",
        target,
        "-v",
    )
    code, out, _ = bench("bench_tiny", "--plugin", plugin, *options)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "bench_tiny"
    assert any("windows of 1 s" in line for line in lines)
    assert any("random weights" in line and "states no checkpoint" in line for line in lines)
    rows = [line.split()[:2] for line in lines if line.split()[:1] in (["fp32"], ["bf16"])]
    assert rows == [["fp32", "1"], ["fp32", "3"], ["bf16", "1"], ["bf16", "3"]]
    assert any("product 300 x 8 by 8 x 12 (bfloat16" in line for line in lines)
    assert max(map(len, lines)) <= 80
    results = json.loads(target.read_text())["results"]
    assert [(r["model"], r["precision"], r["batch_size"]) for r in results] == [
        ("bench_tiny", *pair) for pair in (("fp32", 1), ("fp32", 3), ("bf16", 1), ("bf16", 3))
    ]
    assert all(len(result["bound_seconds"]) == 2 for result in results)


def test_several_models_share_a_file(bench, plugin, tmp_path):
    target = tmp_path / "speed.json"
    options = ("--batch-size", "1", "--rounds", "1", "--seconds", "0.5", "--json", target)
    code, out, _ = bench("--plugin", plugin, *options, "bench_tiny", "bench_tiny")
    assert code == 0
    assert out.splitlines().count("bench_tiny") == 2
    assert "±" not in out  # one round says nothing about how rounds differ
    assert [r["window_s"] for r in json.loads(target.read_text())["results"]] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["birdnte"], 2, "Did you mean 'birdnet'"),
        (["beats", "birdnte"], 2, "Unknown model 'birdnte'"),  # before the first is measured
        (["beats", "--random", "--download"], 2, "contradict"),
        (["beats", "--batch-size", "0"], 2, "batch-size"),
        (["beats", "--backend", "onnx"], 2, "no backend 'onnx'"),
        (["bench_tiny", "--precision", "fp64"], 2, "Unknown precision 'fp64'"),
        (["bench_tiny", "--device", "abacus"], 2, "Unknown device 'abacus'"),
        (["perch_v2", "--random"], 1, "cannot have random weights"),
        (["beats", "--download"], 1, "states no checkpoint"),
        ([], 2, "MODEL"),
    ],
)
def test_wrong_usage(bench, plugin, arguments, code, message):
    actual, out, err = bench(*arguments, "--plugin", plugin)
    assert actual == code
    assert message in err
    assert "×" not in out


def test_as_a_program(plugin):
    command = [sys.executable, "-m", "avex", "bench", "bench_tiny", "--plugin", plugin, "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "of bound" in done.stdout
