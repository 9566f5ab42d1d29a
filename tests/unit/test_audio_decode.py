"""Decoding in blocks: the same samples as at once, bounded memory, and honesty about recordings that end early."""

from __future__ import annotations

import os
import shutil
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avex._core.errors import AudioError, ConfigError, TruncatedAudioError
from avex.audio import AudioStream, info, read, resample

RATE = 16000


def noise(seconds: float = 2.0, channels: int = 1) -> np.ndarray:
    return (0.2 * np.random.default_rng(3).standard_normal((int(seconds * RATE), channels))).astype(
        np.float32
    )


def write(
    path: Path, samples: np.ndarray, rate: int = RATE, fmt: str = "WAV", subtype: str = "PCM_16"
) -> Path:
    soundfile.write(path, samples, rate, format=fmt, subtype=subtype)
    return path


def collect(blocks: Iterator[np.ndarray]) -> tuple[np.ndarray, AudioError | None]:
    """Return everything that was delivered, and the error after it."""
    delivered = [np.empty((0, 1), np.float32)]
    while True:
        try:
            delivered.append(next(blocks))
        except StopIteration:
            return np.concatenate(delivered), None
        except AudioError as error:
            return np.concatenate(delivered), error


@pytest.mark.parametrize(
    ("fmt", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 1e-7),
        ("WAV", "FLOAT", 0.0),
        ("WAV", "DOUBLE", 0.0),
        ("FLAC", "PCM_24", 2**-23),
        ("AIFF", "PCM_16", 2**-15),
        ("W64", "PCM_16", 2**-15),
        ("RF64", "PCM_16", 2**-15),
    ],
)
def test_lossless_formats_return_what_was_written(
    tmp_path: Path, fmt: str, subtype: str, tolerance: float
) -> None:
    written = noise(channels=2).clip(-0.99, 0.99)
    samples, rate = read(write(tmp_path / "a.bin", written, fmt=fmt, subtype=subtype), channel="each")
    assert rate == RATE
    assert samples.dtype == np.float32
    assert samples.shape == written.shape
    np.testing.assert_allclose(samples, written, rtol=0, atol=tolerance)


@pytest.mark.parametrize("fmt", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("block_s", [0.01, 0.37, 100.0])
def test_blocks_are_the_file(tmp_path: Path, fmt: str, block_s: float) -> None:
    # soundfile seeks after each read, which for MP3 changes the samples; the whole file at once is the reference.
    path = write(tmp_path / "a.bin", noise(3.0), fmt=fmt, subtype=soundfile.default_subtype(fmt))
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    with AudioStream(path, block_s=block_s) as stream:
        blocks = list(stream.blocks())
        assert stream.frames_read == len(whole)
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)
    assert max(map(len, blocks)) <= max(1, block_s * RATE)
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=0, atol=1e-6 if fmt == "MP3" else 0)


@pytest.mark.parametrize(
    ("fmt", "seconds"), [("WAV", 6.3), ("FLAC", 6.3), ("OGG", 6.3), ("OGG", 45.3), ("MP3", 6.3)]
)
def test_stretches_are_exact(tmp_path: Path, fmt: str, seconds: float) -> None:
    # Vorbis: libsndfile misplaces positions in the last page, by what is trimmed from it (of 6.0 s nothing is).
    # MP3: a frame may need bits of frames before it, which bursts of noise make it do.
    t = np.arange(round(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (500 + 200 * t) * t)
    signal = tone + (np.sin(2 * np.pi * 1.7 * t) > 0) * noise(seconds)[:, 0]
    path = write(tmp_path / "a.bin", signal, fmt=fmt, subtype=soundfile.default_subtype(fmt))
    whole, _ = read(path)
    for start_s in (0.0, 0.5, 1.23456, 3.46, 4.7, *(seconds - before for before in (1.0, 0.3, 0.0001))):
        for end_s in (start_s + 0.2, None, 50.0) if seconds < 10 else (start_s + 0.2,):
            part, _ = read(path, start_s=start_s, end_s=end_s)
            end = len(whole) if end_s is None else round(end_s * RATE)
            expected = whole[round(start_s * RATE) : end]
            np.testing.assert_allclose(part, expected, rtol=0, atol=1e-6 if fmt == "MP3" else 0)


def test_many_channels_at_ultrasonic_rate(tmp_path: Path) -> None:
    samples = noise(0.5, channels=8)
    path = write(tmp_path / "a.wav", samples, rate=384000, subtype="PCM_24")
    first, rate = read(path, channel=8)
    assert rate == 384000
    np.testing.assert_allclose(first, samples[:, 7], atol=2**-23)
    mean, _ = read(path)
    np.testing.assert_allclose(mean, samples.mean(axis=1), atol=2**-22)


def test_one_sample(tmp_path: Path) -> None:
    samples, rate = read(write(tmp_path / "a.wav", np.array([0.5]), rate=4000))
    assert (samples.tolist(), rate) == ([0.5], 4000)


@pytest.mark.parametrize("method", ["soxr_hq", "kaiser_best"])
def test_read_resamples(tmp_path: Path, method: str) -> None:
    path = write(tmp_path / "a.wav", noise(2.0, channels=2), subtype="FLOAT")
    original, _ = read(path, channel=2)
    samples, rate = read(path, channel=2, sample_rate=22050, resampler=method)
    assert rate == 22050
    assert np.array_equal(samples, resample(original, RATE, 22050, method))


def test_memory_does_not_depend_on_length(tmp_path: Path) -> None:
    peaks = []
    for seconds in (20, 80):
        path = write(tmp_path / f"{seconds}.flac", noise(seconds), fmt="FLAC")
        tracemalloc.start()
        with AudioStream(path, block_s=1.0) as stream:
            for _ in stream.blocks():
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1_000_000
    assert abs(peaks[1] - peaks[0]) < 100_000


@pytest.mark.parametrize(
    ("fmt", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "IMA_ADPCM"),
        ("W64", "PCM_16"),
        ("RF64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_cut_recordings_deliver_what_decodes_and_then_raise(tmp_path: Path, fmt: str, subtype: str) -> None:
    path = write(tmp_path / "a.bin", noise(8.0), fmt=fmt, subtype=subtype)
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 6 // 10])
    with AudioStream(path, block_s=3.0) as stream:
        samples, error = collect(stream.blocks())
    assert isinstance(error, TruncatedAudioError)
    assert error.cause == "truncated"
    assert "cut off: decoded" in str(error)
    assert 0.45 < len(samples) / len(whole) < 0.65
    # A lossy codec cannot finish the frame that was cut.
    lossy = fmt in ("OGG", "MP3") or subtype == "IMA_ADPCM"
    same = slice(0, len(samples) - (4000 if lossy else 0))
    np.testing.assert_allclose(samples[same], whole[same], atol=1e-6)
    with pytest.raises(TruncatedAudioError):
        read(path)


def test_cut_wav_is_exact_and_its_intact_part_reads_without_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(2.0))
    with path.open("r+b") as file:
        file.truncate(44 + 2 * RATE + 1)  # one second and half a sample
    with AudioStream(path) as stream:
        samples, error = collect(stream.blocks())
    assert len(samples) == RATE
    assert "decoded 1.000 s of 2.000 s announced" in str(error)
    assert len(read(path, end_s=1.0)[0]) == RATE
    with pytest.raises(TruncatedAudioError):
        read(path, start_s=0.5, end_s=1.5)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_frame_that_is_missing_is_told(tmp_path: Path, channels: int) -> None:
    path = write(tmp_path / "a.wav", noise(2.0, channels))
    os.truncate(path, path.stat().st_size - 1)
    with AudioStream(path) as stream:
        assert stream.info.frames == 2 * RATE - 1
        with pytest.raises(TruncatedAudioError, match=r"decoded 2\.000 s of 2\.000 s announced"):
            list(stream.blocks())
        assert stream.frames_read == 2 * RATE - 1
    os.truncate(path, 44 + 2 * channels * RATE)
    with pytest.raises(TruncatedAudioError, match=r"decoded 1\.000 s of 2\.000 s announced"):
        read(path)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF - 36])
def test_wav_of_unknown_length_is_not_cut(tmp_path: Path, size: int) -> None:
    # What programs write that cannot seek back, and recorders whose battery died.
    written = noise(1.0)
    path = write(tmp_path / "a.wav", written)
    raw = bytearray(path.read_bytes())
    raw[40:44] = struct.pack("<I", size)
    raw[4:8] = struct.pack("<I", min(size, 0xFFFFFFFF))
    path.write_bytes(raw)
    assert info(path).frames == RATE
    samples, _ = read(path)
    np.testing.assert_allclose(samples, written[:, 0], atol=2**-15)


def test_empty_data_chunk_before_metadata_is_not_audio(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(0.0))
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 12) + b"INFOISFT\x00\x00\x00\x00")
    with pytest.raises(AudioError) as caught:
        read(path)
    assert caught.value.cause == "no_samples"


def test_missing_pad_byte_and_trailing_chunks_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1.0)[:101], subtype="PCM_U8")
    path.write_bytes(path.read_bytes()[: 44 + 101])
    assert len(read(path)[0]) == 101


def test_corrupt_flac_in_the_middle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(8.0), fmt="FLAC")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 20_000] = bytes(20_000)
    path.write_bytes(raw)
    with AudioStream(path) as stream:
        samples, error = collect(stream.blocks())
    assert isinstance(error, TruncatedAudioError)
    assert 0.3 < len(samples) / (8 * RATE) < 0.6
    assert np.isfinite(samples).all()


def vbr(path: Path, fade: np.ndarray) -> bytes:
    soundfile.write(path, fade, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    return path.read_bytes()


def test_vbr_mp3_without_length_is_not_shortened_in_silence(tmp_path: Path) -> None:
    # The first frame, which holds the length, is gone; an estimate from the next frame's bit rate is far too high
    # for a recording that grows louder and far too low for one that falls silent.
    path = tmp_path / "a.mp3"
    fade = np.linspace(0, 1, 8 * RATE) ** 4 * noise(8.0)[:, 0]
    raw = vbr(path, fade)
    assert len(read(path)[0]) == len(fade)
    path.write_bytes(raw[raw.find(raw[:2], 4) :])
    with AudioStream(path) as stream:
        samples, error = collect(stream.blocks())
    assert len(samples) >= len(fade)
    assert isinstance(error, TruncatedAudioError), "it cannot be told from one that was cut off"
    raw = vbr(path, fade[::-1])
    path.write_bytes(raw[raw.find(raw[:2], 4) :])
    with pytest.raises(AudioError, match="no length in its header") as caught:
        read(path)
    assert not isinstance(caught.value, TruncatedAudioError)


@pytest.mark.parametrize("cover", [0, 30_000])
def test_tags_around_an_mp3_are_not_audio(tmp_path: Path, cover: int) -> None:
    path = tmp_path / "a.mp3"
    fade = np.linspace(1, 0, 8 * RATE) ** 4 * noise(8.0)[:, 0]
    raw = vbr(path, fade)
    size = bytes(cover >> shift & 127 for shift in (21, 14, 7, 0))
    picture = b"ID3\x04\0\0" + size + bytes(cover) if cover else b""
    path.write_bytes(picture + raw + b"APETAGEX" + bytes(30_000))
    assert len(read(path)[0]) == len(fade)


def test_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(4.0))
    with AudioStream(path, block_s=1.0) as stream:
        blocks = stream.blocks()
        next(blocks)
        os.truncate(path, 44 + 3 * RATE)  # 1.5 s are left
        rest, error = collect(blocks)
    assert len(rest) == RATE // 2
    assert isinstance(error, TruncatedAudioError)


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed on this system")
def test_file_removed_while_open_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(2.0))
    with AudioStream(path, block_s=0.5) as stream:
        blocks = stream.blocks()
        next(blocks)
        path.unlink()
        assert sum(map(len, blocks)) == 1.5 * RATE


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not list open descriptors")
    good = write(tmp_path / "a.wav", noise(0.1))
    (tmp_path / "b.wav").write_bytes(b"junk" * 100)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        info(good)
        with pytest.raises(AudioError):
            info(tmp_path / "b.wav")
        with pytest.raises(AudioError):
            AudioStream(good, start_s=10.0)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "stretch",
    [{"start_s": -1.0}, {"start_s": 1.0, "end_s": 1.0}, {"end_s": float("nan")}, {"block_s": 0.0}],
    ids=str,
)
def test_impossible_stretches(tmp_path: Path, stretch: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        AudioStream(write(tmp_path / "a.wav", noise()), **stretch)


def test_start_behind_the_end(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"lasts 2\.000 s") as caught:
        AudioStream(write(tmp_path / "a.wav", noise()), start_s=2.0)
    assert caught.value.cause == "no_samples"


def test_names_with_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines ö.wav"
    shutil.copy(write(tmp_path / "a.wav", noise()), path)
    assert len(read(path)[0]) == 2 * RATE
