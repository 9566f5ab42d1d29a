"""Recording time and site from file names."""

from __future__ import annotations

import re
from datetime import datetime, timezone, tzinfo

from avex.audio._times import make_datetime, parse_offset

_ZONE = r"(?P<zone>Z|[+-]\d{4})?(?!\d)"
_PATTERNS = (
    re.compile(r"(?<!\d)(\d{4})(\d\d)(\d\d)[_T-](\d\d)(\d\d)(\d\d)" + _ZONE),
    re.compile(r"(?<!\d)(\d{4})-(\d\d)-(\d\d)[_T ](\d\d)[-:](\d\d)[-:](\d\d)" + _ZONE),
)
_UNIX_HEX = re.compile(r"[0-9A-Fa-f]{8}")
_HEX_YEARS = range(2000, 2101)


def parse_stem(stem: str) -> tuple[datetime | None, tzinfo | None, str | None]:
    """Read a file name without its extension.

    Understood are `YYYYMMDD_HHMMSS` (also with `T` or `-` between) and `YYYY-MM-DD_HH-MM-SS`, each with an
    optional `Z` or `+hhmm` behind and a site before (`SITE_YYYYMMDD_HHMMSS`, Wildlife Acoustics), and the eight
    hexadecimal digits of early AudioMoths (seconds since 1970 in UTC).

    Returns:
        Naive time, its zone if written, and the site; each None when the name does not say.

    Example:
        >>> parse_stem("POND_20240503_051500")
        (datetime.datetime(2024, 5, 3, 5, 15), None, 'POND')
    """
    for pattern in _PATTERNS:
        for match in pattern.finditer(stem):
            time = make_datetime(list(match.groups()[:6]))
            zone = parse_offset(match["zone"]) if match["zone"] else None
            if time is not None and not (match["zone"] and zone is None):
                site = stem[: match.start()].rstrip("_- ")
                return time, zone, site or None
    if _UNIX_HEX.fullmatch(stem):
        time = datetime.fromtimestamp(int(stem, 16), timezone.utc).replace(tzinfo=None)
        if time.year in _HEX_YEARS:
            return time, timezone.utc, None
    return None, None, None
