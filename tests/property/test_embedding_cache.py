"""Tasks that overlap in any way and order get the embeddings that each gets alone; nothing is computed twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.evaluation import cache as cache_module
from avex.evaluation.cache import EmbeddingCache
from avex.evaluation.encoder import ClipEncoder
from avex.evaluation.tasks import Task
from avex.testing.tiny import tiny_model

RATE, FILES = 16_000, 8
LAYERS = ["layer_0", "last_layer"]


class Counting(ClipEncoder):
    """Counts what goes through the network, one window at a time: then rounding is the same, too."""

    passes = 0

    def _forward(self, waves, layers):
        self.passes += len(waves)
        return super()._forward(waves, layers)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    found = []
    for i in range(FILES):
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.standard_normal(2 * RATE), RATE)
        found += [Clip(folder / f"{i}.wav", start, start + 0.5, ("ab"[i % 2],)) for start in (0.0, 1.25)]
    return found


@pytest.fixture(scope="module")
def model():
    return tiny_model("beats", num_classes=None)


def task_of(clips):
    """Folds by recording; names of clips differ, so that one may be there twice."""
    named = tuple(replace(clip, id=f"{i}") for i, clip in enumerate(clips))
    folds = tuple(clip.path.stem for clip in named)
    return Task("drawn", named, folds, LabelEncoder.fit(named), folds=True)


def numbers_of_clips():
    """Some clips of at least two recordings, some of them twice."""
    several = st.lists(st.integers(0, 2 * FILES - 1), min_size=2, max_size=12)
    return several.filter(lambda numbers: len({n // 2 for n in numbers}) > 1)


requests = st.lists(
    st.tuples(numbers_of_clips(), st.lists(st.sampled_from(LAYERS), min_size=1, unique=True)),
    min_size=2,
    max_size=4,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=requests, pooling=st.sampled_from(["mean", "none"]))
def test_overlapping_tasks_in_any_order(clips, model, tmp_path_factory, monkeypatch, drawn, pooling):
    monkeypatch.setattr(cache_module, "PART_CLIPS", 3)
    folder = tmp_path_factory.mktemp("cache")
    encoder = Counting(model, "tiny", pooling=pooling, batch_size=1)
    names = dict(zip(LAYERS, encoder.layer_names(LAYERS), strict=True))
    known = set()
    for numbers, layers in drawn:
        task, wanted = task_of([clips[n] for n in numbers]), [names[layer] for layer in layers]
        new = {n for n in numbers if any((n, layer) not in known for layer in layers)}
        known |= {(n, layer) for n in numbers for layer in layers}
        before = encoder.passes
        use = EmbeddingCache(folder).entry(encoder.plan, task).ensure(encoder, wanted)
        assert encoder.passes - before == use.computed == len(new)
        assert use.found == len(set(numbers)) - len(new)
        check(EmbeddingCache(folder).entry(encoder.plan, task), encoder, task, wanted)


def check(entry, encoder, task, layers):
    alone = ClipEncoder(encoder._model, "tiny", pooling=encoder.plan.pooling, batch_size=1)
    expected = alone.encode(task.clips, layers)
    for layer in layers:
        found = entry.vectors(layer) if encoder.plan.pooling == "mean" else entry.sequences(layer)
        assert len(found) == len(task.clips)
        for got, right in zip(found, expected[layer], strict=True):
            np.testing.assert_array_equal(got, right)


def test_parts_are_mapped_and_not_read(clips, model, tmp_path: Path):
    encoder = ClipEncoder(model, "tiny", pooling="none")
    task = task_of(clips)
    (layer,) = encoder.layer_names(["last_layer"])
    EmbeddingCache(tmp_path).entry(encoder.plan, task).ensure(encoder, [layer])
    mapped = EmbeddingCache(tmp_path, mapped=True).entry(encoder.plan, task).sequences(layer)
    assert all(isinstance(sequence.base, np.memmap) or isinstance(sequence, np.memmap) for sequence in mapped)
    for one, other in zip(
        mapped, EmbeddingCache(tmp_path).entry(encoder.plan, task).sequences(layer), strict=True
    ):
        np.testing.assert_array_equal(one, other)
