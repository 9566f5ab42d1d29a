"""Layers of different widths: the store says how wide each is, and a probe weighs them as such."""

import numpy as np
import pytest
import soundfile

import avex
from avex.embedding.engines import load_engine
from avex.testing import tiny_card

LAYERS = ("layer_1", "layer_4", "last_layer")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pond")
    rng = np.random.default_rng(3)
    for number in range(8):
        tone = np.sin(2 * np.pi * (400 + 1500 * (number % 2)) * np.arange(16000) / 16000)
        noise = 0.05 * rng.standard_normal(16000)
        soundfile.write(folder / f"{number}.wav", (0.3 * tone + noise).astype(np.float32), 16000)
    return folder


def test_a_store_knows_how_wide_its_layers_are(recordings, tmp_path):
    card = tiny_card("efficientnet")
    engine = load_engine(card, layers=LAYERS)
    widths = engine.info.layer_dims
    assert len(set(widths)) > 1
    assert sum(widths) == engine.info.embedding_dim
    store = avex.embed(recordings, engine, tmp_path / "pond.parquet")
    assert store.header.extra["layer_dims"] == list(widths)
    model = avex.load_model(card)
    assert widths == tuple(model.embed(_wave(model), [layer]).shape[1] for layer in LAYERS)

    rows = [f"{number}.wav,{('low', 'high')[number % 2]}\n" for number in range(8)]
    table = tmp_path / "labels.csv"
    table.write_text("recording,label\n" + "".join(rows))
    fit = avex.fit_probe(store, table, "weighted_linear", split=None)
    assert fit.probe.debug_info()["dims"] == list(widths)
    assert len(fit.predict(store.to_numpy())) == 8
    assert len(fit.probe.learned_weights()) == len(LAYERS)


def test_one_layer_has_no_list_of_widths(recordings):
    assert load_engine(tiny_card("efficientnet")).info.layer_dims == ()


def _wave(model):
    import torch

    return torch.zeros(1, round(model.window_seconds * model.sample_rate))
