"""Shards give back what was put in, and an epoch goes through them a few at a time."""

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avex._core.errors import AudioError, ConfigError
from avex.configs.data import DatasetConfig
from avex.data import ClipDataset, LabelEncoder, load_clips
from avex.data.clips import Clip, missing_recordings
from avex.data.sampling import EpochBatches, ShardOrder
from avex.data.streaming import read_piece, read_shards, write_shards


@pytest.fixture
def clips(tmp_path):
    made = []
    for i in range(10):
        samples = np.random.default_rng(i).uniform(-0.5, 0.5, 800 + 10 * i)
        soundfile.write(tmp_path / f"{i}.wav", samples, 8000, subtype="FLOAT")
        split = "train" if i < 6 else "validation"
        clip = Clip(tmp_path / f"{i}.wav", labels=(f"class{i % 2}",), id=f"clip {i}", split=split)
        made.append(replace(clip, extra={"text_label": f"a frög {i}", "count": i}))
    return made


def test_what_comes_out_is_what_went_in(clips, tmp_path):
    write_shards(clips, tmp_path / "shards", sample_rate=8000, clips_per_shard=4)
    stored = read_shards(tmp_path / "shards")
    names = sorted(p.name for p in (tmp_path / "shards").glob("*.tar"))
    assert names == [f"shard-00000{i}.tar" for i in range(3)]
    assert len(stored) == 10
    for clip, found in zip(clips, stored, strict=True):
        original, _ = soundfile.read(clip.path, dtype="float32")
        np.testing.assert_allclose(read_piece(found, sample_rate=8000), original, atol=2**-23)
        part = read_piece(found, 100 / 8000, 300 / 8000, sample_rate=8000)
        np.testing.assert_allclose(part, original[100:300], atol=2**-23)
        assert (found.id, found.labels, found.split, found.extra) == (
            clip.id,
            clip.labels,
            clip.split,
            clip.extra,
        )
        assert found.group == clip.path.as_posix()
        assert found.duration_s == len(original) / 8000
    assert len({clip.path for clip in stored}) == 10


def test_any_text_comes_back(clips, tmp_path):
    """Line ends of Unicode in a text, and the name of a file that is not UTF-8."""
    odd = replace(clips[0], id="caf\udce9.wav", labels=("a\u2028b",), extra={"text_label": "one\x85two"})
    write_shards([odd], tmp_path / "shards", sample_rate=8000)
    (found,) = read_shards(tmp_path / "shards")
    assert (found.id, found.labels, found.extra) == (odd.id, odd.labels, odd.extra)


def test_a_dataset_reads_shards_as_it_reads_files(clips, tmp_path):
    """The same samples, windows and labels, at another rate too."""
    write_shards(clips, tmp_path / "shards", sample_rate=8000, clips_per_shard=4)
    config = {"dataset_name": "shards", "data_root": str(tmp_path / "shards")}
    stored = load_clips(DatasetConfig(split="all", **config)).clips
    encoder = LabelEncoder.fit(clips)
    for rate in (8000, 4000):
        options = {"target_seconds": 0.05, "window_selection": "random", "seed": 3}
        from_files = ClipDataset(clips, rate, encoder, **options)
        from_shards = ClipDataset(stored, rate, encoder, **options)
        for a, b in zip(from_files, from_shards, strict=True):
            np.testing.assert_allclose(a["raw_wav"], b["raw_wav"], atol=2**-22)
            assert (a["label"], a["id"]) == (b["label"], b["id"])
    assert len(load_clips(DatasetConfig(split="validation", **config)).clips) == 4
    with pytest.raises(
        ConfigError, match="no clips of the split 'test'. There are: train, validation, and 'all'"
    ):
        load_clips(DatasetConfig(split="test", **config))


def test_shards_are_plain_archives(clips, tmp_path):
    write_shards(clips, tmp_path / "shards", sample_rate=8000, clips_per_shard=4)
    with tarfile.open(tmp_path / "shards" / "shard-000002.tar") as archive:
        assert archive.getnames() == ["000000008.flac", "000000009.flac"]


def test_an_epoch_opens_few_shards_at_a_time():
    archives = [f"shard{i // 4}" for i in range(24)]
    order = ShardOrder(archives, seed=0, window=2)
    taken = [archives[i] for i in order(0)]
    assert sorted(order(0)) == list(range(24))
    assert [len(set(taken[i : i + 8])) for i in (0, 8, 16)] == [2, 2, 2]
    assert any(taken[i] != taken[i + 1] for i in range(7))
    assert (order(0) != order(1)).any()
    assert (order(1) == ShardOrder(archives, seed=0, window=2)(1)).all()
    keys = [key for batch in EpochBatches(order, 5) for key in batch]
    assert sorted(i for _, i, n in keys if n == 0) == list(range(24))


def test_what_is_wrong_is_said(clips, tmp_path):
    with pytest.raises(ConfigError, match=r"no 'index.jsonl'"):
        read_shards(tmp_path)
    index = write_shards(clips, tmp_path / "shards", sample_rate=8000)
    with pytest.raises(ConfigError, match="already"):
        write_shards(clips, tmp_path / "shards", sample_rate=8000)
    shard = tmp_path / "shards" / "shard-000000.tar"
    shard.write_bytes(b"")
    with pytest.raises(AudioError, match="clip 0"):
        read_piece(read_shards(tmp_path / "shards")[0], sample_rate=8000)
    shard.unlink()
    assert missing_recordings(read_shards(tmp_path / "shards")) == [Path(shard)]
    lines = index.read_text().splitlines()
    index.write_text("\n".join(lines[:-1]))
    with pytest.raises(ConfigError, match="9 of 10"):
        read_shards(tmp_path / "shards")
    index.write_text(lines[0] + "\n" + lines[1].replace('"offset"', '"offsit"'))
    with pytest.raises(ConfigError, match="damaged"):
        read_shards(tmp_path / "shards")
