"""Dates and zones as recorders write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from avex._core.errors import ConfigError

_OFFSET = re.compile(r"([+-])(\d{1,2})(?::?(\d\d)|\.(\d+))?")
_FIRST_YEAR, _LAST_YEAR = 1950, 2100


def parse_offset(text: str) -> tzinfo | None:
    """Read an offset from UTC: `Z`, `+02:00`, `-0500`, `+1`, `-3:30` or `+5.5`; None when it is none of these.

    Example:
        >>> parse_offset("+5.5").utcoffset(None).total_seconds() / 60
        330.0
    """
    if text.upper() == "Z":
        return timezone.utc
    match = _OFFSET.fullmatch(text)
    if match is None:
        return None
    sign, hours, minutes, fraction = match.groups()
    total = 60 * int(hours) + int(minutes or 0) + round(60 * float(f"0.{fraction or 0}"))
    if total >= 24 * 60:
        return None
    return timezone(timedelta(minutes=-total if sign == "-" else total))


def parse_zone(name: str) -> tzinfo:
    """Read a zone given by the user: an IANA name (`"Europe/Berlin"`), `"UTC"` or an offset (`"+02:00"`).

    Raises:
        ConfigError: There is no such zone.
    """
    offset = parse_offset(name)
    if offset is not None:
        return offset
    if name.upper() == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"timezone is {name!r}; expected an IANA name such as 'Europe/Berlin' or an offset such as '+02:00'."
        ) from error


def make_datetime(fields: list[str], microsecond: int = 0) -> datetime | None:
    """Build a naive time from year, month, day, hour, minute and second; None when there is no such time."""
    try:
        year, month, day, hour, minute, second = (int(field) for field in fields)
        made = datetime(year, month, day, hour, minute, second, microsecond)
    except ValueError:
        return None
    return made if _FIRST_YEAR <= made.year <= _LAST_YEAR else None


def to_utc(local: datetime, own_zone: tzinfo | None, default_zone: tzinfo | None) -> tuple[datetime, str]:
    """Convert a naive time to UTC.

    Args:
        local: The time as written.
        own_zone: The zone written with it, if any.
        default_zone: The zone to take otherwise; None means UTC.

    Returns:
        The aware time in UTC, and a note on the zone for `RecordingMetadata.source` (empty when it was written).
    """
    if own_zone is not None:
        return local.replace(tzinfo=own_zone).astimezone(timezone.utc), ""
    if default_zone is not None:
        return local.replace(tzinfo=default_zone).astimezone(
            timezone.utc
        ), f" (no zone, taken as {default_zone})"
    return local.replace(tzinfo=timezone.utc), " (no zone, taken as UTC)"
