"""Headers of every format, and the cause named for everything that is no recording."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avex._core.errors import AudioError
from avex.audio import info

FORMATS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def write(
    path: Path, frames: int = 4800, rate: int = 48000, channels: int = 1, fmt="WAV", subtype="PCM_16"
) -> Path:
    noise = 0.1 * np.random.default_rng(0).standard_normal((frames, channels))
    with path.open("wb") as file:
        soundfile.write(file, noise, rate, format=fmt, subtype=subtype)
    return path


def cause(path: object) -> str:
    with pytest.raises(AudioError) as caught:
        info(path)  # type: ignore[arg-type]
    assert isinstance(caught.value, OSError)
    return caught.value.cause


@pytest.mark.parametrize(("fmt", "subtype"), FORMATS)
def test_header_of_every_format(tmp_path: Path, fmt: str, subtype: str) -> None:
    found = info(write(tmp_path / "a.bin", 4800, 48000, 2, fmt, subtype))
    assert (found.sample_rate, found.channels, found.format, found.subtype) == (48000, 2, fmt, subtype)
    assert 4800 <= found.frames < 4800 + 2048  # block codecs pad the last block
    assert found.duration_s == found.frames / 48000


@pytest.mark.parametrize(("rate", "channels"), [(4000, 1), (48000, 8), (384000, 1), (2_000_000, 16)])
def test_rates_and_channel_counts(tmp_path: Path, rate: int, channels: int) -> None:
    found = info(write(tmp_path / "a.wav", 100, rate, channels))
    assert (found.sample_rate, found.channels, found.frames) == (rate, channels, 100)


def test_one_sample(tmp_path: Path) -> None:
    assert info(write(tmp_path / "a.wav", 1, 4000)).duration_s == 0.00025


@pytest.mark.parametrize(
    "name", ["with space.wav", "line\nbreak.wav", "Zilpzalp-Weiß-鳥.wav", "no extension"]
)
def test_any_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert info(path) == info(str(path)) == info(os.fsencode(path))
    assert info(path).path == str(path)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode on this system")
def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    Path(path).write_bytes(write(tmp_path / "a.wav").read_bytes())
    assert info(path).frames == 4800
    Path(path).write_bytes(b"")
    with pytest.raises(AudioError, match=r"caf\\udce9\.wav"):
        info(path)


def test_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    assert info(write(tmp_path / "flac.wav", fmt="FLAC")).format == "FLAC"
    assert info(write(tmp_path / "wav.gsm")).format == "WAV"


def test_missing(tmp_path: Path) -> None:
    assert cause(tmp_path / "none.wav") == "missing"
    assert cause(write(tmp_path / "a.wav") / "below-a-file.wav") == "missing"
    assert cause("null\0byte.wav") == "missing"


def test_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    assert cause(tmp_path / "folder.wav") == "not_a_file"
    assert cause(os.devnull) == "not_a_file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert cause(tmp_path / "pipe.wav") == "not_a_file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    path.chmod(0)
    assert cause(path) == "permission"


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert cause(tmp_path / "a.wav") == "empty"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.gsm", "a.vox", "a.raw", "a.txt"])
def test_junk_under_any_extension(tmp_path: Path, name: str) -> None:
    # libsndfile takes headerless .gsm and .vox at their word when it is given the name.
    (tmp_path / name).write_bytes(np.random.default_rng(7).bytes(5000))
    assert cause(tmp_path / name) == "not_audio"


def test_text_is_not_audio(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("<html>404</html>")
    assert cause(tmp_path / "a.wav") == "not_audio"


def test_damaged_header(tmp_path: Path) -> None:
    raw = write(tmp_path / "a.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(raw[:20])
    assert cause(tmp_path / "b.wav") == "decode_error"


def test_header_without_samples(tmp_path: Path) -> None:
    assert cause(write(tmp_path / "zero.wav", frames=0)) == "no_samples"
    raw = write(tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(raw[:44])  # the header still promises 4800 frames
    assert cause(tmp_path / "cut.wav") == "no_samples"


def test_flac_without_a_length_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", fmt="FLAC")
    raw = bytearray(path.read_bytes())
    raw[21] &= 0xF0  # STREAMINFO: the 36-bit number of samples
    raw[22:26] = bytes(4)
    path.write_bytes(raw)
    assert info(path).frames == 4800


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x20ftypM4A ",
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        b"\x1a\x45\xdf\xa3",
        b"RIFF\x00\x10\x00\x00AVI ",
    ],
    ids=["m4a", "wma", "webm", "avi"],
)
def test_containers_for_pyav_name_the_extra(
    tmp_path: Path, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.m4a").write_bytes(head + bytes(100))
    monkeypatch.setattr("avex.audio.av_decode.require", _absent)  # as if PyAV were not installed
    with pytest.raises(AudioError, match=r"avex\[av\]") as caught:
        info(tmp_path / "a.m4a")
    assert caught.value.cause == "unsupported"


def _absent(module: str, extra: str, purpose: str) -> object:
    from avex._core.optional import require

    return require("a_package_that_does_not_exist", extra, purpose)


def test_import_is_light() -> None:
    code = (
        "import sys, avex.audio; "
        "heavy = {'torch', 'soundfile', 'soxr', 'av', 'librosa', 'pandas', 'pyarrow'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("rate", [1, 49, 10_000_001, 2**31 - 1])
def test_rates_that_no_recorder_has(tmp_path, rate):
    path = tmp_path / "broken.wav"
    soundfile.write(path, np.zeros(1000), 48_000)
    header = bytearray(path.read_bytes())
    header[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(header)
    with pytest.raises(AudioError, match=f"damaged header: it states {rate} samples") as caught:
        info(path)
    assert caught.value.cause == "decode_error"


@pytest.mark.parametrize("rate", [50, 250, 384_000, 10_000_000])
def test_rates_of_seismometers_and_ultrasonic_recorders(tmp_path, rate):
    soundfile.write(tmp_path / "odd.wav", np.zeros(1000), rate)
    assert info(tmp_path / "odd.wav").sample_rate == rate
