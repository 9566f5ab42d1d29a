"""Embeddings of clips: what the model gives, once, and nothing else in its place."""

import importlib.util
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avex._core.errors import AudioError, StoreError
from avex.audio import read
from avex.data.tasks import open_task
from avex.evaluation import cache as cache_module
from avex.evaluation import contents as contents_module
from avex.evaluation.cache import EmbeddingCache
from avex.evaluation.contents import FileContents
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
    half, newer = (entry.folder / f".avex-1-{n}123456789abcdef.tmp" for n in "01")
    for path in (half, newer):
        path.write_bytes(b"half")
    os.utime(half, (1, 1))
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, task)
    with pytest.raises(StoreError, match="10 of 24 clips are not in"):
        entry.vectors("last_layer")
    use = entry.ensure(encoder, ["last_layer"])
    assert (use.computed, use.found) == (10, 14)
    np.testing.assert_array_equal(entry.vectors("last_layer"), vectors)
    assert list(entry.folder.rglob("*.tmp")) == [newer]  # another process may be writing it


def test_other_weights_or_settings_are_another_folder(task, model, tmp_path):
    cache = EmbeddingCache(tmp_path)
    plan = ClipEncoder(model, "tiny").plan
    known = cache.entry(plan, task).folder
    assert EmbeddingCache(tmp_path).entry(ClipEncoder(model, "tiny").plan, task).folder == known
    other_weights = ClipEncoder(tiny_model("beats", seed=1, num_classes=None), "tiny").plan
    others = [
        other_weights,
        ClipEncoder(model, "tiny", pooling="max").plan,
        ClipEncoder(model, "tiny", "kaiser_best").plan,
        ClipEncoder(model, "tiny", settings={"eat_norm_mean": 0.0}).plan,
        replace(plan, hop_s=0.5),
    ]
    folders = {cache.entry(other, task).folder for other in others}
    assert len(folders) == len(others)
    assert known not in folders


def test_a_recording_that_was_replaced_is_another_clip_even_with_its_times_restored(task, model, tmp_path):
    encoder = Counting(model, "tiny")
    folder = tmp_path / "audio"
    shutil.copytree(task.clips[0].path.parent, folder)
    moved = replace(task, clips=tuple(replace(c, path=folder / c.path.name) for c in task.clips))
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, moved)
    entry.ensure(encoder, ["last_layer"])
    before = entry.vectors("last_layer")
    target, other = folder / "frog_0.wav", folder / "newt_0.wav"
    status = target.stat()
    target.write_bytes(other.read_bytes())
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert target.stat().st_size == status.st_size
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, moved)
    # It is what another file of the task is, which is known.
    assert entry.ensure(encoder, ["last_layer"]).computed == 0
    after = entry.vectors("last_layer")
    number = [c.path.name for c in moved.clips].index
    np.testing.assert_array_equal(after[number("frog_0.wav")], before[number("newt_0.wav")])
    target.write_bytes(other.read_bytes()[:-2] + b"\x01\x01")
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, moved)
    assert entry.ensure(encoder, ["last_layer"]).computed == 1


def test_the_same_content_elsewhere_is_found(task, model, tmp_path):
    encoder = Counting(model, "tiny")
    EmbeddingCache(tmp_path / "cache").entry(encoder.plan, task).ensure(encoder, ["last_layer"])
    shutil.copytree(task.clips[0].path.parent, tmp_path / "Gewässer")
    moved = tuple(
        replace(c, path=tmp_path / "Gewässer" / c.path.name, labels=(), id=f"{i}")
        for i, c in enumerate(task.clips)
    )
    entry = EmbeddingCache(tmp_path / "cache").entry(encoder.plan, replace(task, clips=moved))
    assert entry.ensure(encoder, ["last_layer"]).computed == 0


def test_what_is_heard_is_part_of_what_a_clip_is(task, tmp_path):
    contents = FileContents(tmp_path / "files.jsonl")
    clip = task.clips[1]
    keys = contents.clip_keys(
        [clip, replace(clip, end_s=1.0), replace(clip, start_s=0.5), replace(clip, id="other")], None
    )
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]
    assert contents.clip_keys([clip], 1.0) == [keys[1]]
    longer = contents.clip_keys([replace(clip, end_s=1.25), replace(clip, end_s=9.0), clip], 2.0)
    assert set(longer) == {keys[0]}  # all of it, 1.25 s, in other words


def test_a_table_of_contents_that_was_cut_off_is_completed(task, tmp_path, monkeypatch):
    table = tmp_path / "files.jsonl"
    keys = FileContents(table).clip_keys(task.clips, None)
    table.write_bytes(table.read_bytes()[:-20])
    hashed = []
    original = contents_module.sha256_of
    monkeypatch.setattr(contents_module, "sha256_of", lambda path: hashed.append(path) or original(path))
    assert FileContents(table).clip_keys(task.clips, None) == keys
    assert hashed == [task.clips[-1].path]
    assert FileContents(table).clip_keys(task.clips, None) == keys
    assert len(hashed) == 1


def test_a_recording_that_changes_while_it_is_embedded_is_not_stored(task, model, tmp_path):
    class Changing(ClipEncoder):
        def encode(self, clips, layers, max_seconds=None):
            found = super().encode(clips, layers, max_seconds)
            path.write_bytes(path.read_bytes())
            return found

    path = tmp_path / "a.wav"
    shutil.copy(task.clips[0].path, path)
    changing = replace(task, clips=(replace(task.clips[0], path=path), *task.clips[1:]))
    encoder = Changing(model, "tiny")
    entry = EmbeddingCache(tmp_path / "cache").entry(encoder.plan, changing)
    with pytest.raises(AudioError, match="changed while it was embedded"):
        entry.ensure(encoder, ["last_layer"])
    assert not list(entry.folder.rglob("*.safetensors"))


def test_damaged_embeddings_are_named(task, model, tmp_path):
    encoder = ClipEncoder(model, "tiny")
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, task)
    entry.ensure(encoder, ["last_layer"])
    (path,) = entry.folder.rglob("*.safetensors")
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[:-4], b"\xff" * len(whole)):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=f"(?s){path.name}.*damaged.*Delete the file"):
            EmbeddingCache(tmp_path).entry(encoder.plan, task).ensure(encoder, ["last_layer"])
    path.unlink()
    assert EmbeddingCache(tmp_path).entry(encoder.plan, task).ensure(encoder, ["last_layer"]).computed == 24


def test_anew_computes_once_more_and_replaces_what_was_there(task, model, tmp_path):
    encoder = Counting(model, "tiny")
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, task)
    entry.ensure(encoder, ["last_layer"])
    (old,) = entry.folder.rglob("*.safetensors")
    anew = EmbeddingCache(tmp_path, anew=True)
    assert anew.entry(encoder.plan, task).ensure(encoder, ["last_layer"]).computed == 24
    assert anew.entry(encoder.plan, task).ensure(encoder, ["last_layer"]).computed == 0
    (new,) = entry.folder.rglob("*.safetensors")
    assert new != old
    assert EmbeddingCache(tmp_path).entry(encoder.plan, task).ensure(encoder, ["last_layer"]).computed == 0


def test_sizes_are_told_from_the_clips_that_are_there(task, model, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "PART_CLIPS", 10)
    encoder = ClipEncoder(model, "tiny")
    entry = EmbeddingCache(tmp_path).entry(encoder.plan, task)
    assert entry.nbytes("last_layer") == 0
    told = []
    entry.ensure(
        encoder, ["last_layer"], on_progress=lambda done, total: told.append(entry.nbytes("last_layer"))
    )
    assert told == [entry.vectors("last_layer").nbytes] * 3


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
