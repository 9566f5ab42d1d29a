"""What the text formats share: numbers, escapes, frequency bands, output files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import IO, Any, Literal

from avex._core.errors import ConfigError
from avex.detection.records import Detection, RecordingDetections
from avex.io.atomic import atomic_write

Target = str | os.PathLike[str] | IO[Any]
"""Where a table goes: a path (written atomically) or an open file."""

LINE_BREAKING: Mapping[str, str] = MappingProxyType({"\t": "\u2409", "\n": "\u2424", "\r": "\u240d"})
"""Characters that would break a tab-separated line, and the Unicode control pictures that stand for them."""

NOTHING: Mapping[str, str] = MappingProxyType({})

_ESCAPE = "\u241b"  # the control picture of "escape"
_MICRO = 1_000_000
_SPECIAL = re.compile("[\t\n\r\0\ud800-\udfff\u241b\u2409\u2424\u240d]")
_ESCAPED = re.compile(f"{_ESCAPE}(?:u([0-9A-F]{{4}})|([^u]))|([\u2409\u2424\u240d])")


def microseconds(seconds: float) -> int:
    """Round seconds to whole microseconds, the resolution of every printed time.

    Half a microsecond is less than half a sample up to 1 MHz, so sample positions survive printing.
    """
    # Printing rounds the exact binary value; seconds * 1e6 would already be rounded once.
    return int(f"{seconds:.6f}".replace(".", ""))


def print_micro(value: int) -> str:
    """Print microseconds as seconds with one to six decimals.

    Example:
        >>> print_micro(3_000_000), print_micro(20_833)
        ('3.0', '0.020833')
    """
    whole, fraction = divmod(value, _MICRO)
    return f"{whole}.{f'{fraction:06d}'.rstrip('0') or '0'}"


def print_seconds(seconds: float) -> str:
    """Print seconds with one to six decimals."""
    return print_micro(microseconds(seconds))


def print_hz(hertz: float) -> str:
    """Print a frequency with one to three decimals."""
    return print_micro(round(hertz * 1000) * 1000)


def print_confidence(confidence: float) -> str:
    """Print a confidence with four decimals."""
    return f"{confidence:.4f}"


def band(detection: Detection, sample_rate: int) -> tuple[float, float]:
    """Return the band of a detection as a table may state it: `low < high <= Nyquist`, in Hz, to 0.001 Hz.

    An unknown band, and one of which nothing lies below the Nyquist frequency of this recording (a bat model on
    an 8 kHz recording), is the whole band.
    """
    nyquist = sample_rate / 2
    low = round(float(detection.low_hz), 3)
    high = min(round(float(detection.high_hz), 3), nyquist)
    return (low, high) if low < high else (0.0, nyquist)


def escape(text: str, pictures: Mapping[str, str] = LINE_BREAKING) -> str:
    r"""Make a text safe for one cell of a UTF-8 table; `unescape` gives back exactly the same text.

    Ordinary text, backslashes and percent signs included, is unchanged. A character of `pictures` is replaced by
    its picture. A byte of a file name that is not UTF-8 (which Python holds as a lone surrogate) and NUL become
    `␛u` and four hexadecimal digits. A literal `␛`, or a picture that is meant as itself, gets a `␛` before it.

    Example:
        >>> escape("two\nlines")
        'two␤lines'
        >>> escape("C:\\new folder\\a.wav")
        'C:\\new folder\\a.wav'
    """
    if not _SPECIAL.search(text):
        return text
    meant_as_themselves = {_ESCAPE, *pictures.values()}

    def replaced(match: re.Match[str]) -> str:
        character = match[0]
        if character in pictures:
            return pictures[character]
        if character in meant_as_themselves:
            return _ESCAPE + character
        if character == "\0" or "\ud800" <= character <= "\udfff":
            return f"{_ESCAPE}u{ord(character):04X}"
        return character

    return _SPECIAL.sub(replaced, text)


def unescape(text: str, pictures: Mapping[str, str] = LINE_BREAKING) -> str:
    """Undo `escape`."""
    if not _ESCAPED.search(text):
        return text
    characters = {picture: character for character, picture in pictures.items()}

    def restored(match: re.Match[str]) -> str:
        code, literal, picture = match.groups()
        if code:
            return chr(int(code, 16))
        return literal or characters.get(picture, picture)

    return _ESCAPED.sub(restored, text)


@contextmanager
def output(target: Target, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open `target` for writing: a path atomically, an open file as it is (and left open)."""
    if isinstance(target, (str, os.PathLike)):
        with atomic_write(target, mode) as file:
            yield file
    else:
        yield target


def only_one(recordings: Iterable[RecordingDetections], format_name: str) -> RecordingDetections:
    """Return the single recording of an iterable.

    Raises:
        ConfigError: There are none or several.
    """
    iterator = iter(recordings)
    first, second = next(iterator, None), next(iterator, None)
    if first is None or second is not None:
        raise ConfigError(
            f"A table in format '{format_name}' describes exactly one recording, but "
            f"{'none was' if first is None else 'several were'} given. Write one table per recording."
        )
    return first
