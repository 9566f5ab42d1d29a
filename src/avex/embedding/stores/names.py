r"""Recording names as text columns: any name goes in, the same name comes out.

File names on Linux are bytes. Python shows the bytes that are not UTF-8 as lone surrogates, which no Parquet
reader accepts. Such a name, and no other, is stored with the prefix `avex-escaped:` and with its surrogates written
as `\udc80` ... `\udcff` and its backslashes doubled.
"""

from __future__ import annotations

import re

PREFIX = "avex-escaped:"

_SPECIAL = re.compile("[\\\\\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(\\|u[0-9a-f]{4})")


def encode_name(name: str) -> str:
    r"""Return the text that stands for `name` in a store.

    Example:
        >>> encode_name("marsh/0412.wav")
        'marsh/0412.wav'
        >>> encode_name("caf\udce9.wav")
        'avex-escaped:caf\\udce9.wav'
    """
    if not name.startswith(PREFIX) and _is_unicode(name):
        return name
    return PREFIX + _SPECIAL.sub(_escape, name)


def decode_name(stored: str) -> str:
    """Return the name that `encode_name` was given."""
    if not stored.startswith(PREFIX):
        return stored
    return _ESCAPE.sub(_unescape, stored[len(PREFIX) :])


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return "\\\\" if character == "\\" else f"\\u{ord(character):04x}"


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    return "\\" if code == "\\" else chr(int(code[1:], 16))
