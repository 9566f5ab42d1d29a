"""Containers that need PyAV (extra `av`); skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avex._core.errors import AudioError, TruncatedAudioError
from avex.audio import AudioStream, info, read

av = pytest.importorskip("av")

RATE = 48000


def chirp(seconds: float = 4.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * (300 * time + 200 * time**2))).astype(np.float32)


def encode(path: Path, codec: str, container: str, samples: np.ndarray) -> Path:
    """Write (channels, n) float32."""
    layout = "mono" if len(samples) == 1 else "stereo"
    sample_format = "flt" if codec == "libopus" else "fltp"
    with av.open(str(path), "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=RATE)
        stream.bit_rate, stream.layout, stream.format = 192_000, layout, sample_format
        for start in range(0, samples.shape[1], 960):
            part = np.ascontiguousarray(samples[:, start : start + 960])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = RATE, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


CONTAINERS = pytest.mark.parametrize(
    ("codec", "container"), [("aac", "ipod"), ("aac", "adts"), ("aac", "matroska"), ("libopus", "webm")]
)


@CONTAINERS
def test_read(tmp_path: Path, codec: str, container: str) -> None:
    path = encode(tmp_path / "a.bin", codec, container, chirp()[None])
    found = info(path)
    assert (found.sample_rate, found.channels) == (RATE, 1)
    assert found.duration_s == pytest.approx(4.0, abs=0.3)
    samples, _ = read(path)
    delay = 1024 if container in ("adts", "matroska") else 0  # AAC priming, which only mp4 states
    middle = slice(RATE, 3 * RATE)
    errors = [np.abs(samples[delay + shift :][middle] - chirp()[middle]).max() for shift in (0, -delay)]
    assert min(errors) < 0.05


@CONTAINERS
def test_stretches_and_blocks(tmp_path: Path, codec: str, container: str) -> None:
    path = encode(tmp_path / "a.bin", codec, container, chirp()[None])
    whole, _ = read(path)
    part, _ = read(path, start_s=1.5, end_s=2.25)
    assert np.array_equal(part, whole[72000:108000])
    with AudioStream(path, block_s=0.1) as stream:
        blocks = list(stream.blocks())
    assert max(map(len, blocks)) == 4800
    assert np.array_equal(np.concatenate(blocks)[:, 0], whole)
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)


def test_stereo_keeps_its_channels_apart(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", "aac", "ipod", np.stack([chirp(), 0.25 * chirp()]))
    samples, _ = read(path, channel="each")
    left, right = samples[RATE : 3 * RATE].std(axis=0)
    assert right / left == pytest.approx(0.25, abs=0.02)


def test_cut(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mka", "aac", "matroska", chirp()[None])
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with AudioStream(path) as stream:
        with pytest.raises(TruncatedAudioError, match="cut off"):
            list(stream.blocks())
        assert 1.5 * RATE < stream.frames_read < 2.5 * RATE


def test_junk_behind_a_known_mark(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + np.random.default_rng(0).bytes(3000))
    with pytest.raises(AudioError) as caught:
        info(tmp_path / "a.m4a")
    assert caught.value.cause == "decode_error"


def test_video_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", format="matroska") as out:
        stream: Any = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(5):
            out.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24"))
            )
        out.mux(stream.encode(None))
    with pytest.raises(AudioError, match="no audio track") as caught:
        info(path)
    assert caught.value.cause == "not_audio"
