"""Embeddings of clips: what the model gives, once, and nothing else in its place."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avex._core.errors import AudioError, StoreError
from avex.audio import read
from avex.data.tasks import open_task
from avex.evaluation import cache as cache_module
from avex.evaluation.cache import EmbeddingCache
from avex.evaluation.encoder import ClipEncoder, model_window
from avex.evaluation.tasks import Task
from avex.testing.tiny import tiny_model

_SPEC = importlib.util.spec_from_file_location(
    "evaluation_data", Path(__file__).with_name("evaluation_data.py")
)
data = importlib.util.module_from_spec(_SPEC)
sys.modules["evaluation_data"] = data
_SPEC.loader.exec_module(data)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    manifest = data.write_clips(tmp_path_factory.mktemp("clips"))
    fields = data.settings(manifest.parent, manifest, manifest)["dataset_config"]["evaluation_sets"][0]
    from avex.configs.data import EvaluationSet

    return Task.of(open_task(EvaluationSet(**fields)))


@pytest.fixture(scope="module")
def model():
    return tiny_model("beats", num_classes=None)


class Counting(ClipEncoder):
    """Counts the clips that go through the model."""

    clips = 0
    passes = 0

    def encode(self, clips, layers, max_seconds=None):
        self.clips += len(clips)
        return super().encode(clips, layers, max_seconds)

    def _forward(self, waves, layers):
        self.passes += len(waves)
        return super()._forward(waves, layers)


def test_an_embedding_is_the_mean_over_windows_of_the_models_length(task, model):
    encoder = ClipEncoder(model, "tiny")
    clip = task.clips[1]  # 1.25 s; the model hears 1 s
    samples, _ = read(clip.path, sample_rate=16_000)
    windows = torch.from_numpy(np.stack([samples[:16_000], samples[-16_000:]]))
    expected = model.embed(windows).detach().mean(0)
    found = encoder.encode([clip], ["last_layer"])["last_layer"][0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_with_a_fixed_window_gets_one_every_third_of_it(tmp_path):
    birdnet = tiny_model("birdnet", folder=tmp_path, num_classes=None)
    seconds, fixed = model_window(birdnet)
    assert fixed
    plan = ClipEncoder(birdnet, "tiny").plan
    assert plan.hop_s == pytest.approx(seconds / 3)


def test_all_layers_come_from_one_pass_and_are_those_of_the_model(task, model):
    encoder = Counting(model, "tiny")
    layers = encoder.layer_names(["all", "last_layer"])
    found = encoder.encode(task.clips[:2], layers)
    assert encoder.passes == 3  # windows: one of 1 s, two of 1.25 s
    samples, _ = read(task.clips[0].path, sample_rate=16_000)
    expected = model.layer_features(torch.from_numpy(samples)[None], layers)
    for layer in layers:
        np.testing.assert_allclose(found[layer][0], expected[layer].pooled("mean").detach()[0], atol=1e-5)


def test_neighbours_in_a_batch_make_no_difference(task, model):
    alone = [
        ClipEncoder(model, "tiny").encode([clip], ["last_layer"])["last_layer"][0] for clip in task.clips[:5]
    ]
    together = ClipEncoder(model, "tiny", batch_size=3).encode(task.clips[:5], ["last_layer"])["last_layer"]
    np.testing.assert_allclose(np.stack(alone), np.stack(together), atol=1e-5)


def test_without_pooling_the_sequence_is_kept(task, model, tmp_path):
    encoder = ClipEncoder(model, "tiny", pooling="none")
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, task)
    entry.ensure(encoder, ["last_layer"])
    sequences = entry.sequences("last_layer")
    samples, _ = read(task.clips[0].path, sample_rate=16_000)
    expected = model.forward_features(torch.from_numpy(samples)[None]).tokens().detach()[0]
    np.testing.assert_allclose(sequences[0], expected, atol=1e-5)
    assert len(sequences[1]) == 2 * len(sequences[0])
    with pytest.raises(StoreError, match=r"sequences\(\)"):
        entry.vectors("last_layer")


def test_what_is_there_is_not_computed_again(task, model, tmp_path):
    encoder = Counting(model, "tiny")
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, task)
    first = entry.ensure(encoder, ["last_layer"])
    assert (first.computed, first.found) == (24, 0)
    vectors = entry.vectors("last_layer")
    again = EmbeddingCache(tmp_path).entry(encoder.plan, task)
    use = again.ensure(encoder, ["last_layer"])
    assert (use.computed, use.found, encoder.clips) == (0, 24, 24)
    np.testing.assert_array_equal(again.vectors("last_layer"), vectors)


def test_only_the_missing_layers_and_parts_are_computed(task, model, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "PART_CLIPS", 10)
    encoder = Counting(model, "tiny")
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, task)
    entry.ensure(encoder, ["last_layer"])
    vectors = entry.vectors("last_layer")
    parts = sorted(entry.folder.glob("last_layer*/*.safetensors"))
    assert len(parts) == 3
    parts[1].unlink()
    (parts[1].parent / ".avex-1-0123456789abcdef.tmp").write_bytes(b"half")
    with pytest.raises(StoreError, match="missing"):
        entry.vectors("last_layer")
    use = entry.ensure(encoder, ["last_layer"])
    assert (use.computed, use.found) == (10, 14)
    np.testing.assert_array_equal(entry.vectors("last_layer"), vectors)
    assert not list(entry.folder.rglob("*.tmp"))


def test_other_weights_windows_or_audio_are_another_entry(task, model, tmp_path):
    cache = EmbeddingCache(tmp_path)
    known = cache.entry(ClipEncoder(model, "tiny").plan, task).folder
    other_weights = ClipEncoder(tiny_model("beats", seed=1, num_classes=None), "tiny").plan
    assert cache.entry(other_weights, task).folder != known
    assert cache.entry(ClipEncoder(model, "tiny", pooling="max").plan, task).folder != known
    assert cache.entry(ClipEncoder(model, "tiny", "kaiser_best").plan, task).folder != known
    status = task.clips[0].path.stat()
    os.utime(task.clips[0].path, ns=(1, 1))
    try:
        assert cache.entry(ClipEncoder(model, "tiny").plan, task).folder != known
    finally:
        os.utime(task.clips[0].path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.entry(ClipEncoder(model, "tiny").plan, task).folder == known


def test_a_broken_recording_is_an_error_and_the_parts_before_stay(task, model, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "PART_CLIPS", 8)
    path = task.clips[20].path
    content = path.read_bytes()
    path.write_bytes(b"RIFF")
    try:
        encoder = ClipEncoder(model, "tiny")
        entry = EmbeddingCache(tmp_path).entry(encoder.plan, task)
        with pytest.raises(AudioError, match=path.name):
            entry.ensure(encoder, ["last_layer"])
        assert len(list(entry.folder.glob("last_layer*/*.safetensors"))) == 2
    finally:
        path.write_bytes(content)


def test_very_short_clips_are_padded(tmp_path, model):
    from avex.data.clips import Clip

    soundfile.write(tmp_path / "click.wav", np.ones(100) * 0.1, 16_000)
    found = ClipEncoder(model, "tiny").encode([Clip(tmp_path / "click.wav")], ["last_layer"])["last_layer"][0]
    assert np.isfinite(found).all()
