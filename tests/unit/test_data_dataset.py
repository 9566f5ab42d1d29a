"""`ClipDataset`, `collate` and `LabelEncoder` on real files."""

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from avex._core.errors import AudioError, ConfigError
from avex.audio import resample
from avex.data import Clip, ClipDataset, LabelEncoder, collate

RATE = 8000


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """10 s of stereo; the left channel counts frames, so every crop shows where it is from."""
    path = tmp_path_factory.mktemp("audio") / "ramp.wav"
    left = np.arange(10 * RATE, dtype=np.float32) / (10 * RATE)
    soundfile.write(path, np.stack([left, -left / 2], 1), RATE, subtype="FLOAT")
    return path


def ramp(start, stop):
    return torch.arange(start, stop, dtype=torch.float32) / (10 * RATE)


def test_crops_are_exact_to_the_frame(recording):
    clips = [Clip(recording, 1.0, 2.5), Clip(recording, 9.99990), Clip(recording, 0.00006, 0.00019)]
    items = list(ClipDataset(clips, RATE, channel=1))
    torch.testing.assert_close(items[0]["raw_wav"], ramp(8000, 20000), rtol=0, atol=0)
    assert not items[0]["padding_mask"].any()
    torch.testing.assert_close(items[1]["raw_wav"], ramp(79999, 80000), rtol=0, atol=0)
    torch.testing.assert_close(items[2]["raw_wav"], ramp(0, 2), rtol=0, atol=0)
    assert items[0]["id"] == clips[0].id
    assert "label" not in items[0]


def test_channels_are_mixed_or_chosen(recording):
    clip = [Clip(recording, 1.0, 2.0)]
    mean = ClipDataset(clip, RATE)[0]["raw_wav"]
    second = ClipDataset(clip, RATE, channel="2")[0]["raw_wav"]
    torch.testing.assert_close(mean, ramp(8000, 16000) / 4)
    torch.testing.assert_close(second, -ramp(8000, 16000) / 2)
    with pytest.raises(ConfigError, match="one waveform"):
        ClipDataset(clip, RATE, channel="each")


def test_target_length_pads_and_trims(recording):
    clips = [
        Clip(recording, 9.0),
        Clip(recording, 1.0, 2.0),
        Clip(recording, 0.0, 8.0),
        Clip(recording, 9.0, 30.0),
    ]
    dataset = ClipDataset(clips, RATE, target_seconds=2.0, channel=1)
    for item, heard, first in zip(dataset, (8000, 8000, 16000, 8000), (72000, 8000, 0, 72000), strict=True):
        assert item["raw_wav"].shape == item["padding_mask"].shape == (16000,)
        torch.testing.assert_close(item["raw_wav"][:heard], ramp(first, first + heard), rtol=0, atol=0)
        assert (item["raw_wav"][heard:] == 0).all()
        assert item["padding_mask"].tolist() == [False] * heard + [True] * (16000 - heard)


def test_center_and_random_windows(recording):
    clips = [
        Clip(recording, 2.0, 8.0),
        Clip(recording),
        Clip(recording, 8.0, 20.0),
        Clip(recording, 0.0, 0.5),
    ]
    center = ClipDataset(clips, RATE, target_seconds=1.0, window_selection="center", channel=1)
    starts = [round(float(item["raw_wav"][0]) * 10 * RATE) for item in center]
    assert starts == [36000, 36000, 68000, 0]  # the third clip ends with the recording, at 10 s
    dataset = ClipDataset(clips, RATE, target_seconds=1.0, window_selection="random", channel=1, seed=3)
    first = [item["raw_wav"] for item in dataset]
    again = [item["raw_wav"] for item in dataset]
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    dataset.set_epoch(1)
    assert not torch.equal(dataset[0]["raw_wav"], first[0])
    positions = [float(dataset[0]["raw_wav"][0]) * 10 for dataset.epoch in range(200)]
    assert 2.0 <= min(positions) < 2.5
    assert 6.5 < max(positions) <= 7.0


def test_resampling_is_that_of_the_stretch(recording):
    samples, _ = soundfile.read(recording, dtype="float32")
    for method in ("soxr_hq", "kaiser_best"):
        item = ClipDataset([Clip(recording, 1.0, 2.0)], 16000, channel=1, resampler=method)[0]
        expected = resample(samples[8000:16000, 0], RATE, 16000, method)
        np.testing.assert_allclose(item["raw_wav"], expected, atol=1e-6)


def test_only_the_stretch_is_decoded(recording, monkeypatch):
    from avex.audio import decode

    wanted = []
    original = decode.open_reader

    def watch(path):
        reader = original(path)
        read = reader.read
        reader.read = lambda frames: wanted.append(frames) or read(frames)
        return reader

    monkeypatch.setattr(decode, "open_reader", watch)
    _ = ClipDataset([Clip(recording, 8.0)], RATE, target_seconds=0.5)[0]
    assert sum(wanted) == 4000


def test_clips_beyond_the_end_are_an_error(recording, tmp_path):
    with pytest.raises(AudioError, match="has no samples between"):
        _ = ClipDataset([Clip(recording, 12.0, 13.0)], RATE)[0]
    with pytest.raises(AudioError) as error:
        _ = ClipDataset([Clip(tmp_path / "none.wav")], RATE)[0]
    assert error.value.cause == "missing"


def test_batches_of_several_lengths_through_workers(recording):
    clips = [
        Clip(recording, 0, length, labels, extra={"text_label": f"{length}"})
        for length, labels in ((1, ("a",)), (2, ("b",)), (3, ("a", "b")), (1, ()))
    ]
    dataset = ClipDataset(clips, RATE, LabelEncoder.fit(clips), channel=1)
    loader = DataLoader(
        dataset, batch_size=4, collate_fn=collate, num_workers=1, multiprocessing_context="spawn"
    )
    (batch,) = loader
    assert batch["raw_wav"].shape == (4, 24000)
    assert batch["padding_mask"].sum(1).tolist() == [16000, 8000, 0, 16000]
    assert (batch["raw_wav"][batch["padding_mask"]] == 0).all()
    assert batch["label"].tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]
    assert batch["id"] == [clip.id for clip in clips]
    assert batch["text_label"] == ["1", "2", "3", "1"]


def test_wrong_labels_are_found_before_the_first_item(recording):
    with pytest.raises(ConfigError, match=r"'c' of clip .*none of the 2 classes"):
        ClipDataset([Clip(recording, labels=("c",))], RATE, LabelEncoder(("a", "b")))
    with pytest.raises(ConfigError, match="has 0 labels"):
        ClipDataset([Clip(recording)], RATE, LabelEncoder(("a", "b")))


@pytest.mark.parametrize(
    "options",
    [{"sample_rate": 0}, {"target_seconds": 0.0}, {"target_seconds": 0.00001}, {"window_selection": "end"}],
)
def test_impossible_settings(options, recording):
    with pytest.raises(ConfigError, match="expected"):
        ClipDataset([Clip(recording)], **{"sample_rate": RATE, **options})
    with pytest.raises(ConfigError, match="at least one clip"):
        collate([])


def clips_with(*labels):
    return [Clip(f"{i}.wav", labels=names, id=f"{i}") for i, names in enumerate(labels)]


def test_one_label_map_for_all_parts():
    train, test = clips_with(("wren",), ("owl",)), clips_with(("ant",), ("owl",))
    encoder = LabelEncoder.fit(train, test)
    assert encoder.classes == ("ant", "owl", "wren")
    assert not encoder.multi_label
    assert encoder.encode_all(train).tolist() == [2, 1]
    assert encoder.encode_all(test).tolist() == [0, 1]
    assert encoder.decode(encoder.encode(("owl",))) == ("owl",)


def test_multi_label_is_seen_and_can_be_said():
    assert LabelEncoder.fit(clips_with(("a",), ())).multi_label
    assert LabelEncoder.fit(clips_with(("a", "b"))).multi_label
    forced = LabelEncoder.fit(clips_with(("a",), ("b",)), multi_label=True)
    assert forced.encode_all(clips_with(("a", "b"), ())).tolist() == [[1, 1], [0, 0]]
    assert forced.decode(forced.encode(("b",))) == ("b",)


def test_label_maps_must_number_without_gaps():
    encoder = LabelEncoder.fit(clips_with(("b",)), label_map={"b": 0, "a": 1})
    assert encoder.label_to_index == {"b": 0, "a": 1}
    for wrong in ({"a": 1}, {"a": 0, "b": 2}, {"a": 0, "b": 0}):
        with pytest.raises(ConfigError, match="must number them 0 to"):
            LabelEncoder.fit(clips_with(("a",)), label_map=wrong)


def test_unknown_labels_raise_or_are_dropped_on_request():
    encoder = LabelEncoder(("frog", "newt"), multi_label=True)
    with pytest.raises(ConfigError, match="Did you mean 'frog'"):
        encoder.encode(("frogs",))
    lenient = LabelEncoder(("frog", "newt"), multi_label=True, unknown="drop")
    assert lenient.encode(("frogs", "newt")).tolist() == [0, 1]
    with pytest.raises(ConfigError, match="Filter these clips out"):
        LabelEncoder(("frog",), unknown="drop")
    with pytest.raises(ConfigError, match="None of the 1 clips has a label"):
        LabelEncoder.fit(clips_with(()))
    with pytest.raises(ConfigError, match="each once"):
        LabelEncoder(("a", "a"))
