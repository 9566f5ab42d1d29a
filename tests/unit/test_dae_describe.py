"""The dry run, and the packaged template with torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import deep_audio_embedding as dae

HOSTILE = {
    "authors": ["Eve \x1b[2K"],
    "references": ["r"],
    "downstream_tasks": ["t"],
    "install_cmds": ["touch ran", "cd a", "echo \x1b[8mhidden\u202e"],
    "import_context": "./clone/",
    "import_cmds": ["touch ran", "import os", "for i in range(2):", "    open('ran', 'w')", "cd .."],
    "model_init": ["open('ran', 'w')", "model = 1"],
    "sample_rate": 48000,
    "in_shape": 3,
    "pre_proc": ["x = open('ran', 'w')"],
    "embed_fwd": ["y = open('ran', 'w')"],
}


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_everything_is_listed_and_nothing_runs(tmp_path):
    path = list(sys.path)
    plan = dae.describe_template(HOSTILE)
    assert os.listdir(tmp_path) == []
    assert sys.path == path
    assert (plan.file, plan.sample_rate, plan.in_shape, plan.downstream_tasks) == ("<dict>", 48000, 3, ("t",))
    assert [(step.function, step.key, step.directory) for step in plan.steps] == [
        ("install_dependencies", "install_cmds", str(tmp_path)),
        ("import_pkgs", "import_cmds", str(tmp_path / "clone")),
        ("model_init", "model_init", str(tmp_path)),
        ("pre_proc", "pre_proc", str(tmp_path)),
        ("compute_embedding", "embed_fwd", str(tmp_path)),
    ]
    assert plan.steps[1].commands == (
        ("shell", "touch ran"),
        ("python", "import os"),
        ("python", "for i in range(2):\n    open('ran', 'w')"),
        ("cd", "cd .."),
    )
    for key in ("install_cmds", "import_cmds", "model_init", "pre_proc", "embed_fwd"):
        text = "\n".join(text for step in plan.steps if step.key == key for _, text in step.commands)
        assert text == "\n".join(HOSTILE[key])


def test_the_text_shows_every_command_and_no_control_characters(tmp_path):
    lines = str(dae.describe_template(HOSTILE)).splitlines()
    assert "Input       [B, C, S] at 48000 Hz" in lines
    assert "Authors     Eve \\x1b[2K" in lines
    assert f"import_pkgs would run import_cmds in {tmp_path / 'clone'}" in lines
    at = lines.index("  python  for i in range(2):")
    assert lines[at + 1] == "              open('ran', 'w')"
    assert "  shell   echo \\x1b[8mhidden\\u202e" in lines


def test_steps_without_commands_are_left_out():
    small = {key: HOSTILE[key] for key in HOSTILE if not key.startswith(("install", "import", "pre_proc"))}
    assert [step.key for step in dae.describe_template(small).steps] == ["model_init", "embed_fwd"]


@pytest.mark.parametrize("context", ["/etc", "../x"])
def test_contexts_outside_are_refused(context):
    with pytest.raises(dae.TemplateFormatError, match="key 'import_context'"):
        dae.describe_template({**HOSTILE, "import_context": context})


def test_a_path_is_described_too():
    plan = dae.describe_template(Path("general_purpose/log_mel_statistics.json"))
    assert [step.key for step in plan.steps] == ["import_cmds", "model_init", "embed_fwd"]


# ------------------------------------------------------------------------------------------ log-mel statistics


def log_mel_statistics(signal: np.ndarray) -> np.ndarray:
    """The packaged template once more, in float64, from its description: frame by frame and filter by filter."""
    padded = np.pad(signal.astype(np.float64), 256, mode="reflect")
    window = np.zeros(512)
    window[56:456] = np.sin(np.pi * np.arange(400) / 400) ** 2
    hz = np.arange(257) * 16000 / 512
    mel = 2595 * np.log10(1 + hz / 700)
    edges = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66)
    filters = [np.interp(mel, edges[i : i + 3], [0, 1, 0], left=0, right=0) for i in range(64)]
    starts = range(0, len(padded) - 511, 160)
    power = np.array([np.abs(np.fft.rfft(padded[i : i + 512] * window)) ** 2 for i in starts])
    bands = np.log(power @ np.array(filters).T + 1e-6)
    return np.concatenate([bands.mean(0), bands.std(0)])


@pytest.fixture(scope="module")
def packaged():
    template = dae.load_model_dict("log_mel_statistics.json")
    dae.install_dependencies(template)
    namespace = dae.import_pkgs(template)
    return template, dae.model_init(template, namespace), namespace


def test_log_mel_statistics_are_what_their_description_says(packaged):
    import torch

    template, model, namespace = packaged
    rng = np.random.default_rng(0)
    times = np.arange(16000) / 16000
    signals = np.stack([rng.standard_normal(16000), np.sin(2 * np.pi * 440 * times), np.zeros(16000)])
    x = dae.pre_proc(template, torch.tensor(signals, dtype=torch.float32), namespace)
    y = dae.compute_embedding(template, model, x, namespace)
    assert y.shape == (3, 128)
    assert not y.requires_grad
    expected = np.stack([log_mel_statistics(signal) for signal in signals])
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-3, atol=2e-3)
    assert y[1, :64].argmax() == round(2595 * np.log10(1 + 440 / 700) / (2840.0377 / 65)) - 1


def test_a_wrong_shape_and_a_failing_model_are_reported(packaged):
    import torch

    template, model, namespace = packaged
    with pytest.raises(
        dae.InputShapeError, match=r"expected an input of 2 dimensions \(batch, samples\), found 1 \(9,\)"
    ):
        dae.pre_proc(template, torch.zeros(9), namespace)
    with pytest.raises(dae.CommandError, match="key 'embed_fwd': item 2, `    y = model") as caught:
        dae.compute_embedding(template, model, torch.zeros(1, 9), namespace)
    assert isinstance(caught.value.__cause__, RuntimeError)
