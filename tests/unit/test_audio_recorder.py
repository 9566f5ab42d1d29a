"""What recorders leave in files and file names."""

from __future__ import annotations

import os
import struct
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from avex._core.errors import AudioError, ConfigError
from avex.audio import RecordingMetadata, read_metadata
from avex.audio._embedded import parse_audiomoth, parse_guano, parse_info_list
from avex.audio._names import parse_stem

GUANO = """GUANO|Version:  1.0
Make: Wildlife Acoustics
Model: Song Meter Mini
Serial: SMA01234
Timestamp: 2024-05-03T05:15:30+02:00
Loc Position: 52.5200 13.4050
WA|Song Meter|Site: pond: north
Note: one\\ntwo
Species Auto ID:
"""


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=timezone.utc)  # type: ignore[arg-type,misc]


def chunk(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def info_list(**items: str) -> bytes:
    return chunk(b"LIST", b"INFO" + b"".join(chunk(k.encode(), v.encode() + b"\0") for k, v in items.items()))


def wav(path: Path, *chunks: bytes, kind: str = "WAV", before: bytes = b"") -> Path:
    """Write a WAV with `chunks` after the samples and `before` right behind the `fmt ` chunk."""
    soundfile.write(path, np.zeros(1000), 8000, format=kind)
    raw = path.read_bytes()
    at = raw.index(b"data")
    path.write_bytes(raw[:at] + before + raw[at:] + b"".join(chunks))
    return path


def comment(text: str, **more: str) -> RecordingMetadata:
    said = parse_audiomoth(parse_info_list(info_list(ICMT=text, **more)[8:]))
    when = said.time.replace(tzinfo=said.zone).astimezone(timezone.utc) if said.time else None
    return RecordingMetadata(datetime_utc=when, device=said.device)


@pytest.mark.parametrize("kind", ["WAV", "RF64"])
def test_guano(tmp_path: Path, kind: str) -> None:
    found = read_metadata(
        wav(tmp_path / "OTHER_20200101_000000.wav", chunk(b"guan", GUANO.encode()), kind=kind)
    )
    assert found == RecordingMetadata(
        datetime_utc=utc(2024, 5, 3, 3, 15, 30),
        lat=52.52,
        lon=13.405,
        site="pond: north",
        device="Wildlife Acoustics Song Meter Mini SMA01234",
        source=dict.fromkeys(["datetime_utc", "lat", "lon", "site", "device"], "guano"),
    )
    assert found.datetime_utc is not None
    assert found.datetime_utc.tzinfo is timezone.utc


def test_chunks_of_odd_length_are_padded(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", chunk(b"note", b"odd"), chunk(b"guan", b"Site: pond\n"))
    assert read_metadata(path).site == "pond"


def test_sources_complete_each_other(tmp_path: Path) -> None:
    moth = info_list(
        ICMT="Recorded at 19:17:30 12/09/2018 (UTC) by AudioMoth 24526B065D325963 at gain setting 2 while battery "
        "state was 4.7V",
        IART="AudioMoth 24526B065D325963",
    )
    path = wav(
        tmp_path / "CREEK_20200101_000000.wav", chunk(b"guan", b"Loc Position: -33.9 151.2\n"), before=moth
    )
    found = read_metadata(path)
    assert found == RecordingMetadata(
        datetime_utc=utc(2018, 9, 12, 19, 17, 30),
        lat=-33.9,
        lon=151.2,
        site="CREEK",
        device="AudioMoth 24526B065D325963",
        source={
            "datetime_utc": "audiomoth",
            "lat": "guano",
            "lon": "guano",
            "site": "filename",
            "device": "audiomoth",
        },
    )


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2024-05-03T05:15:30Z", (2024, 5, 3, 5, 15, 30)),
        ("2024-05-03 05:15:30", (2024, 5, 3, 5, 15, 30)),
        ("2024-05-03T05:15", (2024, 5, 3, 5, 15)),
        ("2024-05-03T05:15:30.1234567-04:00", (2024, 5, 3, 9, 15, 30, 123456)),
        ("2024-05-03T05:15:30.5+0530", (2024, 5, 2, 23, 45, 30, 500000)),
        ("2024-05-03T05:15:30-04", (2024, 5, 3, 9, 15, 30)),
    ],
)
def test_guano_timestamps(tmp_path: Path, stamp: str, expected: tuple[int, ...]) -> None:
    found = read_metadata(wav(tmp_path / "a.wav", chunk(b"guan", f"Timestamp: {stamp}\n".encode())))
    assert found.datetime_utc == utc(*expected)


@pytest.mark.parametrize(
    "line",
    [
        "Timestamp: 2024-13-03T05:15:30",
        "Timestamp: yesterday",
        "Timestamp: 2024-05-03T05:15:30+99:00",
        "Loc Position: 91 0",
        "Loc Position: 0 181",
        "Loc Position: nan nan",
        "Loc Position: 52.5",
        "Loc Position: here there",
        "Site:",
        "no colon",
        "\0\0",
    ],
)
def test_malformed_guano_fields_are_left_out_one_by_one(line: str) -> None:
    said = parse_guano(f"{line}\nModel: Echo\n".encode())
    assert said.device == "Echo"
    assert (said.time, said.lat, said.lon, said.site) == (None, None, None, None)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_chunk_content_raises(payload: bytes) -> None:
    parse_guano(payload)
    parse_audiomoth(parse_info_list(b"INFO" + payload))


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("UTC", utc(2018, 9, 12, 19, 17, 30)),
        ("UTC+1", utc(2018, 9, 12, 18, 17, 30)),
        ("UTC-3:30", utc(2018, 9, 12, 22, 47, 30)),
        ("UTC+5.5", utc(2018, 9, 12, 13, 47, 30)),
        ("UTC+10:45", utc(2018, 9, 12, 8, 32, 30)),
    ],
)
def test_audiomoth_zones(zone: str, expected: datetime) -> None:
    text = f"Recorded at 19:17:30 12/09/2018 ({zone}) by AudioMoth 24526B065D325963 at medium gain setting while "
    assert (
        comment(text + "battery state was greater than 4.9V and temperature was 15.2C.").datetime_utc
        == expected
    )


def test_audiomoth_deployment_takes_the_device_from_the_artist() -> None:
    text = "Recorded at 21:00:00 14/05/2020 (UTC) during deployment 0123456789ABCDEF at high gain setting."
    found = comment(text, IART="AudioMoth 24F3190361CBF0A5")
    assert found.datetime_utc == utc(2020, 5, 14, 21)
    assert found.device == "AudioMoth 24F3190361CBF0A5"


@pytest.mark.parametrize("text", ["Recorded at 19:17:30 42/09/2018 (UTC)", "Recorded with love", ""])
def test_other_comments_say_no_time(text: str) -> None:
    assert comment(text).datetime_utc is None


@pytest.mark.parametrize(
    ("stem", "time", "zone_hours", "site"),
    [
        ("20240503_051530", (2024, 5, 3, 5, 15, 30), None, None),
        ("POND_20240503_051530", (2024, 5, 3, 5, 15, 30), None, "POND"),
        ("SM4-01_A_20240503_051530_000", (2024, 5, 3, 5, 15, 30), None, "SM4-01_A"),
        ("20240503_051530Z", (2024, 5, 3, 5, 15, 30), 0, None),
        ("20240503T051530Z", (2024, 5, 3, 5, 15, 30), 0, None),
        ("20240503T051530+1000_REC", (2024, 5, 3, 5, 15, 30), 10, None),
        ("S2_20240503_051530-0500", (2024, 5, 3, 5, 15, 30), -5, "S2"),
        ("2024-05-03_05-15-30", (2024, 5, 3, 5, 15, 30), None, None),
        ("ridge 2024-05-03 05-15-30", (2024, 5, 3, 5, 15, 30), None, "ridge"),
        ("5B9964A2", (2018, 9, 12, 19, 10, 26), 0, None),
        ("20240503_051530T", (2024, 5, 3, 5, 15, 30), None, None),
        ("99999999_999999_20240503_051530", (2024, 5, 3, 5, 15, 30), None, "99999999_999999"),
    ],
)
def test_names(stem: str, time: tuple[int, ...], zone_hours: int | None, site: str | None) -> None:
    found_time, found_zone, found_site = parse_stem(stem)
    assert found_time == datetime(*time)  # type: ignore[arg-type,misc]
    offset = None if found_zone is None else found_zone.utcoffset(None)
    assert (None if offset is None else offset.total_seconds() / 3600) == zone_hours
    assert found_site == site


@pytest.mark.parametrize(
    "stem",
    [
        "20241303_051530",  # month 13
        "20240230_051530",  # 30 February
        "20240503_251530",
        "20240503",
        "120240503_0515301",
        "5B9964A",
        "5B9964A2X",
        "00000001",  # 1970
        "FFFFFFFF",  # 2106
        "XC123456",
        "",
    ],
)
def test_names_without_a_time(stem: str) -> None:
    assert parse_stem(stem) == (None, None, None)


@settings(deadline=None)
@given(st.text())
def test_no_name_raises(stem: str) -> None:
    parse_stem(stem)


def test_times_without_a_zone(tmp_path: Path) -> None:
    path = wav(tmp_path / "POND_20240703_051530.wav")
    plain = read_metadata(path)
    assert plain.datetime_utc == utc(2024, 7, 3, 5, 15, 30)
    assert plain.source["datetime_utc"] == "filename (no zone, taken as UTC)"
    berlin = read_metadata(path, timezone="Europe/Berlin")
    assert berlin.datetime_utc == utc(2024, 7, 3, 3, 15, 30)  # summer time
    assert berlin.source["datetime_utc"] == "filename (no zone, taken as Europe/Berlin)"
    assert read_metadata(path, timezone="-03:30").datetime_utc == utc(2024, 7, 3, 8, 45, 30)
    guano = wav(tmp_path / "a.wav", chunk(b"guan", b"Timestamp: 2024-07-03 05:15:30"))
    assert read_metadata(guano, timezone="Europe/Berlin").datetime_utc == utc(2024, 7, 3, 3, 15, 30)


def test_a_written_zone_wins(tmp_path: Path) -> None:
    path = wav(tmp_path / "20240703_051530Z.wav")
    found = read_metadata(path, timezone="Europe/Berlin")
    assert (found.datetime_utc, found.source["datetime_utc"]) == (utc(2024, 7, 3, 5, 15, 30), "filename")


@pytest.mark.parametrize("name", ["Middle/Earth", "", "+25:00", "../etc"])
def test_unknown_zone(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="IANA name"):
        read_metadata(wav(tmp_path / "a.wav"), timezone=name)


def test_other_formats_use_the_name(tmp_path: Path) -> None:
    path = tmp_path / "POND_20240503_051530.flac"
    soundfile.write(path, np.zeros(100), 8000)
    assert read_metadata(path).site == "POND"


def test_nothing_known(tmp_path: Path) -> None:
    assert read_metadata(wav(tmp_path / "a.wav")) == RecordingMetadata()


def test_chunks_of_a_truncated_file(tmp_path: Path) -> None:
    path = wav(tmp_path / "20240503_051530.wav", chunk(b"guan", GUANO.encode()))
    path.write_bytes(path.read_bytes()[:-50] + b"")
    assert read_metadata(path).lat == 52.52  # the lines that are there
    path.write_bytes(path.read_bytes()[:500])
    assert read_metadata(path).source == {"datetime_utc": "filename (no zone, taken as UTC)"}


def test_only_headers_are_read(tmp_path: Path) -> None:
    # A sparse file of 3 GB: reading the samples would take seconds and show in the resident size.
    size = 3 * 2**30 - 2**20
    path = wav(tmp_path / "a.wav")
    header = bytearray(path.read_bytes()[:44])
    header[40:44] = struct.pack("<I", size)
    header[4:8] = struct.pack("<I", size + 36)
    with path.open("wb") as file:
        file.write(header)
        file.seek(44 + size)
        file.write(chunk(b"guan", GUANO.encode()))
    assert read_metadata(path).lon == 13.405


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError) as caught:
        read_metadata(tmp_path / "20240503_051530.wav")
    assert caught.value.cause == "missing"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode on this system")
def test_a_site_is_always_storable_text(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9_20240503_051530.wav")
    Path(path).write_bytes(wav(tmp_path / "a.wav").read_bytes())
    site = read_metadata(path).site
    assert site is not None
    assert site.encode("utf-8") == b"caf\\udce9"
