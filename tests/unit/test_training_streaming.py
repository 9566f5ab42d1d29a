"""Shards give back what was put in, and an epoch goes through them one by one."""

import tarfile

import numpy as np
import pytest
import soundfile

from avex._core.errors import AudioError, ConfigError
from avex.data.clips import Clip
from avex.data.sampling import EpochBatches
from avex.data.streaming import ShardOrder, ShardReader, write_shards


@pytest.fixture
def clips(tmp_path):
    made = []
    for i in range(10):
        samples = np.random.default_rng(i).uniform(-0.5, 0.5, 800 + 10 * i)
        soundfile.write(tmp_path / f"{i}.wav", samples, 8000, subtype="FLOAT")
        made.append(Clip(tmp_path / f"{i}.wav", labels=(f"class{i % 2}",), id=f"clip {i}"))
    return made


def test_what_comes_out_is_what_went_in(clips, tmp_path):
    write_shards(clips, tmp_path / "shards", sample_rate=8000, clips_per_shard=4)
    reader = ShardReader(tmp_path / "shards")
    assert sorted(p.name for p in (tmp_path / "shards").glob("*.tar")) == [
        f"shard-00000{i}.tar" for i in range(3)
    ]
    assert (len(reader), reader.sample_rate) == (10, 8000)
    for i in (0, 3, 4, 9):
        original, _ = soundfile.read(clips[i].path, dtype="float32")
        np.testing.assert_allclose(reader.read(i), original, atol=2**-23)
        assert reader.entries[i].id == f"clip {i}"
        assert reader.entries[i].labels == (f"class{i % 2}",)


def test_shards_are_plain_archives(clips, tmp_path):
    write_shards(clips, tmp_path / "shards", sample_rate=8000, clips_per_shard=4)
    with tarfile.open(tmp_path / "shards" / "shard-000002.tar") as archive:
        assert archive.getnames() == ["000000008.flac", "000000009.flac"]


def test_an_epoch_opens_few_shards_at_a_time(clips, tmp_path):
    write_shards(clips, tmp_path / "shards", sample_rate=8000, clips_per_shard=2)
    reader = ShardReader(tmp_path / "shards")
    order = ShardOrder(reader, seed=0, window=1)
    taken = [reader.entries[i].shard for i in order(0)]
    assert sorted(order(0)) == list(range(10))
    assert all(taken[i] == taken[i + 1] for i in range(0, 10, 2))
    assert (order(0) != order(1)).any()
    keys = [key for batch in EpochBatches(order, 5) for key in batch]
    assert sorted(i for _, i in keys) == list(range(10))


def test_what_is_wrong_is_said(clips, tmp_path):
    with pytest.raises(ConfigError, match=r"no 'index.jsonl'"):
        ShardReader(tmp_path)
    index = write_shards(clips, tmp_path / "shards", sample_rate=8000)
    with pytest.raises(ConfigError, match="already"):
        write_shards(clips, tmp_path / "shards", sample_rate=8000)
    (tmp_path / "shards" / "shard-000000.tar").write_bytes(b"")
    with pytest.raises(AudioError, match="clip 0"):
        ShardReader(tmp_path / "shards").read(0)
    lines = index.read_text().splitlines()
    index.write_text("\n".join(lines[:-1]))
    with pytest.raises(ConfigError, match="9 of 10"):
        ShardReader(tmp_path / "shards")
