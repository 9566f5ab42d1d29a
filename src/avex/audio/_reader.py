"""What `info` and `AudioStream` need from a decoder, and the choice between libsndfile and PyAV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np

from avex._core.errors import AudioError, MissingExtraError
from avex.audio._files import PathLike, open_recording, quoted


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a recording's header says.

    Attributes:
        path: The path as given, as text (undecodable bytes as surrogate escapes).
        sample_rate: Hz.
        channels: Number of channels.
        frames: Samples per channel that can be read; an estimate for containers read through the extra `av`.
        format: Container, as libsndfile or FFmpeg name it (`"WAV"`, `"FLAC"`, `"OGG"`, `"mp4"`, ...).
        subtype: Encoding of the samples (`"PCM_16"`, `"VORBIS"`, `"aac"`, ...).
    """

    path: str
    sample_rate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


class Reader(Protocol):
    """An open recording.

    Attributes:
        info: What the header says.
        announced: Frames the file ought to hold; more than `info.frames` when it was cut off.
        tolerance: Frames that may be missing at the end without the file being cut off.
        exact: False when `announced` is an estimate and there may also be more.
    """

    info: AudioInfo
    announced: int
    tolerance: int
    exact: bool

    def seek(self, frame: int) -> None:
        """Continue at a frame. Raises AudioError when it cannot be reached."""
        ...

    def read(self, frames: int) -> np.ndarray:
        """Return the next (<= frames, channels) float32; fewer than asked only at the end or at an error."""
        ...

    def complaint(self) -> str | None:
        """Say, at the end, why this is not a proper end; None when it is.

        Raises:
            AudioError: Reading failed for another reason than a recording that was cut off.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


# Sample rates that recordings have, from seismometers to ultrasonic arrays. Others come from damaged headers, and
# would make days of a minute.
_LOWEST_RATE, _HIGHEST_RATE = 50, 10_000_000
# First bytes of containers that libsndfile does not read and FFmpeg does: (offset, bytes).
_AV_MAGIC = (
    (4, b"ftyp"),  # m4a, mp4, mov, 3gp
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # wma, asf
    (0, b"\x1a\x45\xdf\xa3"),  # mkv, webm
    (8, b"AVI "),
    (0, b"\xff\xf1"),  # aac (ADTS)
    (0, b"\xff\xf9"),
    (0, b"MAC "),  # Monkey's Audio
    (0, b"wvpk"),  # WavPack
    (0, b"TTA1"),
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
)
_KNOWN_MAGIC = (
    b"RIFF",
    b"RIFX",
    b"RF64",
    b"BW64",
    b"riff",
    b"FORM",
    b"fLaC",
    b"OggS",
    b"ID3",
    b".snd",
    b"caff",
)


def open_reader(path: PathLike) -> Reader:
    """Open a recording with the decoder that understands its content; the file's extension plays no part.

    Raises:
        AudioError: See `avex.audio.info`.
    """
    file = open_recording(path)
    try:
        head = file.read(32)
        file.seek(0)
        if any(head[at : at + len(magic)] == magic for at, magic in _AV_MAGIC):
            return _checked(path, _open_av(path, file))
        return _checked(path, _open_sndfile(path, file, head))
    except BaseException as error:
        file.close()
        if isinstance(error, OSError) and not isinstance(error, AudioError):
            raise AudioError(f"{quoted(path)} cannot be read: {error.strerror or error}.") from error
        raise


def _checked(path: PathLike, reader: Reader) -> Reader:
    rate = reader.info.sample_rate
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        reader.close()
        raise AudioError(
            f"{quoted(path)} has a damaged header: it states {rate} samples per second. Recordings have "
            f"{_LOWEST_RATE} to {_HIGHEST_RATE}; correct the header, or write the file anew with its true rate.",
            cause="decode_error",
        )
    return reader


def _open_sndfile(path: PathLike, file: BinaryIO, head: bytes) -> Reader:
    from avex.audio._sndfile import SndfileReader, UnrecognisedError

    try:
        reader = SndfileReader(path, file)
    except UnrecognisedError as error:
        if head.startswith(_KNOWN_MAGIC):
            raise AudioError(f"{quoted(path)} has a damaged header: {error}", cause="decode_error") from error
        raise AudioError(
            f"{quoted(path)} is not an audio file: its content matches no known format, whatever its extension.",
            cause="not_audio",
        ) from error
    if reader.info.frames == 0:
        raise AudioError(
            f"{quoted(path)} holds no samples: its header is valid, but no audio follows. "
            "The recorder was probably stopped before it wrote any.",
            cause="no_samples",
        )
    return reader


def _open_av(path: PathLike, file: BinaryIO) -> Reader:
    try:
        from avex.audio.av_decode import AvReader

        return AvReader(path, file)
    except MissingExtraError as error:
        raise AudioError(f"{quoted(path)} needs another decoder. {error}", cause="unsupported") from error
