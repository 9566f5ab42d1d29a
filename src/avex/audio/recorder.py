"""Date, time, place and device of a recording, as its recorder left them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import PurePath

from avex._core.errors import AudioError
from avex.audio._chunks import read_container, read_payload
from avex.audio._embedded import Embedded, parse_audiomoth, parse_guano, parse_info_list
from avex.audio._files import PathLike, open_recording, quoted
from avex.audio._names import parse_stem
from avex.audio._times import parse_zone, to_utc


@dataclass(frozen=True)
class RecordingMetadata:
    """Where and when a recording was made.

    Attributes:
        datetime_utc: Start of the recording, aware, in UTC.
        lat: Latitude, degrees north.
        lon: Longitude, degrees east.
        site: Name of the site.
        device: Make, model and serial number of the recorder, as far as known.
        source: For each field that is known, where it comes from: `"guano"`, `"audiomoth"` or `"filename"`, with a
            note when the time had no zone.
    """

    datetime_utc: datetime | None = None
    lat: float | None = None
    lon: float | None = None
    site: str | None = None
    device: str | None = None
    source: dict[str, str] = field(default_factory=dict)


def read_metadata(path: PathLike, *, timezone: str | None = None) -> RecordingMetadata:
    """Read what a recorder wrote into a recording and its name.

    Taken in this order, field by field: the GUANO chunk, AudioMoth's comment, the file name. Only chunk headers and
    the metadata are read, never the audio. Anything malformed counts as absent.

    Args:
        path: A recording. WAV, RF64 and W64 files may carry metadata; of others only the name is used.
        timezone: Zone of times that are written without one: an IANA name or an offset such as `"+02:00"`; None
            takes them as UTC and says so in `source`.

    Raises:
        AudioError: The file cannot be opened.
        ConfigError: There is no such zone.

    Example:
        >>> read_metadata("POND_20240503_051500.wav", timezone="Europe/Berlin").datetime_utc  # doctest: +SKIP
        datetime.datetime(2024, 5, 3, 3, 15, tzinfo=datetime.timezone.utc)
    """
    zone = parse_zone(timezone) if timezone is not None else None
    sources = {**_read_embedded(path), "filename": _read_name(path)}
    fields: dict[str, object] = {}
    notes: dict[str, str] = {}
    for source, said in sources.items():
        for name, value, note in _statements(said, zone):
            if name not in fields:
                fields[name] = value
                notes[name] = source + note
    return RecordingMetadata(**fields, source=notes)  # type: ignore[arg-type]


def _statements(said: Embedded, default_zone: tzinfo | None) -> list[tuple[str, object, str]]:
    """Return the (field, value, note) that a source states."""
    statements: list[tuple[str, object, str]] = []
    if said.time is not None:
        statements.append(("datetime_utc", *to_utc(said.time, said.zone, default_zone)))
    rest = (("lat", said.lat), ("lon", said.lon), ("site", said.site), ("device", said.device))
    return statements + [(name, value, "") for name, value in rest if value is not None]


def _read_embedded(path: PathLike) -> dict[str, Embedded]:
    """Return what the file's chunks say, by source, in order of priority."""
    with open_recording(path) as file:
        try:
            container = read_container(file)
            chunks = container.chunks if container is not None else ()
            payloads = [(c.name, read_payload(file, c)) for c in chunks if c.name in (b"guan", b"LIST")]
        except OSError as error:
            raise AudioError(f"{quoted(path)} cannot be read: {error.strerror or error}.") from error
    guano = next((payload for name, payload in payloads if name == b"guan"), b"")
    info: dict[bytes, str] = {}
    for name, payload in payloads:
        if name == b"LIST":
            info = {**parse_info_list(payload), **info}
    return {"guano": parse_guano(guano), "audiomoth": parse_audiomoth(info)}


def _read_name(path: PathLike) -> Embedded:
    time, zone, site = parse_stem(PurePath(os.fsdecode(path)).stem)
    if site is not None:  # a name that is not UTF-8 must not break the tables that it is written to
        site = site.encode("utf-8", "backslashreplace").decode()
    return Embedded(time=time, zone=zone, site=site)
