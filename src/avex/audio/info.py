"""What a recording's header says, without decoding it."""

from __future__ import annotations

from avex.audio._files import PathLike
from avex.audio._reader import AudioInfo, open_reader

__all__ = ["AudioInfo", "info"]


def info(path: PathLike) -> AudioInfo:
    """Read the header of a recording.

    The format is taken from the content, never from the extension. Nothing is decoded, except for FLAC streams that
    do not state their length: those are decoded once to count. A recording that was cut off states the frames that
    can be read where the container allows to see it (WAV, W64, RF64, AIFF, OGG), else those that were announced.

    Args:
        path: Any file name, also with newlines or bytes that are not UTF-8.

    Raises:
        AudioError: With `cause`

            - `missing`, `not_a_file` (a folder, pipe or device), `permission`, `empty` (0 bytes),
            - `not_audio`: the content is no known audio format,
            - `no_samples`: a valid header and nothing after it,
            - `unsupported`: a container for which the extra `av` is not installed,
            - `decode_error`: anything else.

    Example:
        >>> info("dawn.wav").duration_s  # doctest: +SKIP
        60.0
    """
    reader = open_reader(path)
    try:
        return reader.info
    finally:
        reader.close()
