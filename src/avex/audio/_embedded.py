"""Metadata that recorders write into WAV files: the GUANO chunk and AudioMoth's comment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo

from avex.audio._times import make_datetime, parse_offset

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s*(Z|z|[+-]\d\d(?::?\d\d)?)?"
)
_AUDIOMOTH = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.\d+)? (\d\d)/(\d\d)/(\d{4}) \(UTC([+-][\d:.]+)?\)"
    r"(?: by (AudioMoth [0-9A-Fa-f]+))?"
)


@dataclass(frozen=True)
class Embedded:
    """What one source says; None for what it does not say. `zone` None means that the time is local."""

    time: datetime | None = None
    zone: tzinfo | None = None
    lat: float | None = None
    lon: float | None = None
    site: str | None = None
    device: str | None = None


def parse_guano(payload: bytes) -> Embedded:
    """Read a GUANO chunk (guano-md.org, version 1.0): lines of `key: value` in UTF-8.

    Fields that cannot be read are left out one by one.
    """
    text = payload.decode("utf-8", errors="replace").lstrip("\ufeff").rstrip("\0")
    lines = (line.partition(":") for line in text.splitlines())
    fields = {key.strip("\0 \t"): value.strip() for key, colon, value in lines if colon}
    time, zone = _parse_iso(fields.get("Timestamp", ""))
    lat, lon = _parse_position(fields.get("Loc Position", ""))
    site = next((v for k, v in fields.items() if (k == "Site" or k.endswith("|Site")) and v), None)
    device = " ".join(fields[key] for key in ("Make", "Model", "Serial") if fields.get(key))
    return Embedded(time, zone, lat, lon, site, device or None)


def parse_audiomoth(info: dict[bytes, str]) -> Embedded:
    """Read the comment (ICMT) and artist (IART) of AudioMoth's `LIST`/`INFO` chunk, in any of its firmware's forms.

    Example:
        >>> parse_audiomoth({b"ICMT": "Recorded at 19:17:30 12/09/2018 (UTC) by AudioMoth 24526B065D325963 at gain "
        ...                           "setting 2 while battery state was 4.7V"}).device
        'AudioMoth 24526B065D325963'
    """
    match = _AUDIOMOTH.match(info.get(b"ICMT", ""))
    if match is None:
        return Embedded()
    hour, minute, second, day, month, year, offset, device = match.groups()
    artist = info.get(b"IART", "")
    device = device or (artist if artist.startswith("AudioMoth ") else None)
    zone = timezone.utc if offset is None else parse_offset(offset)
    if zone is None:
        return Embedded(device=device)
    return Embedded(make_datetime([year, month, day, hour, minute, second]), zone, device=device)


def parse_info_list(payload: bytes) -> dict[bytes, str]:
    """Read a `LIST` chunk of type `INFO`: four-byte names to text."""
    return dict(_info_items(payload)) if payload[:4] == b"INFO" else {}


def _info_items(payload: bytes) -> Iterator[tuple[bytes, str]]:
    position = 4
    while position + 8 <= len(payload):
        size = int.from_bytes(payload[position + 4 : position + 8], "little")
        value = payload[position + 8 : position + 8 + size]
        yield (
            payload[position : position + 4],
            value.split(b"\0")[0].decode("utf-8", errors="replace").strip(),
        )
        position += 8 + size + size % 2


def _parse_iso(text: str) -> tuple[datetime | None, tzinfo | None]:
    match = _ISO.fullmatch(text)
    if match is None:
        return None, None
    *fields, second, fraction, offset = match.groups()
    zone = parse_offset(offset) if offset else None
    if offset and zone is None:
        return None, None
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    return make_datetime([*fields, second or "0"], microsecond), zone


def _parse_position(text: str) -> tuple[float | None, float | None]:
    """Read `latitude longitude` in degrees; both or neither."""
    try:
        lat, lon = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        return None, None
    return (lat, lon) if abs(lat) <= 90 and abs(lon) <= 180 else (None, None)
