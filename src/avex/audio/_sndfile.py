"""Read with libsndfile: WAV, RF64, W64, AIFF, FLAC, OGG (Vorbis, Opus), MP3 and more."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile

from avex._core.errors import AudioError
from avex.audio._chunks import Container, read_container
from avex.audio._files import PathLike, quoted
from avex.audio._reader import AudioInfo

_UNKNOWN_FRAMES = 2**62  # libsndfile gives 2**63 - 1 for a FLAC stream without a length
_BYTES_PER_SAMPLE = {
    "PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1,
}  # fmt: skip
_MPEG_FRAME = 1152
_MP3_LEAD = 16 * _MPEG_FRAME
_OGG_LAST_PAGE = 2**18  # frames: 255 packets of 1024, rounded up
_SKIP_BLOCK = 2**16
_MP3_SLACK = 2**13  # bytes after the audio: tags
_OGG_PAGE_SEARCH = 2**16 + 2**8  # the longest page is 65307 bytes
_SYSTEM_ERROR = 2
_COUNT_BLOCK = 2**20


class UnrecognisedError(Exception):
    """libsndfile cannot open the file."""


class _ForwardFile(soundfile.SoundFile):
    """A SoundFile that does not seek after every read.

    soundfile seeks to where it already is after each read. For MP3 that throws away the decoder's bit reservoir, so
    a file read in blocks would differ from the same file read at once.
    """

    def seekable(self) -> bool:
        return False


class SndfileReader:
    """A recording open in libsndfile; see `avex.audio._reader.Reader`.

    Owns `file` from then on.

    Raises:
        UnrecognisedError: libsndfile does not know the format or finds it damaged.
    """

    exact = True

    def __init__(self, path: PathLike, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._error: soundfile.LibsndfileError | None = None
        container = read_container(file)
        self._sound = _open(path, file, container)
        try:
            frames = self._sound.frames
            self.info = AudioInfo(
                path=os.fsdecode(path),
                sample_rate=self._sound.samplerate,
                channels=self._sound.channels,
                frames=frames if frames < _UNKNOWN_FRAMES else self._count(),
                format=self._sound.format,
                subtype=self._sound.subtype,
            )
        except BaseException:
            self._sound.close()
            raise
        self.announced = self.info.frames + _missing_frames(container, self.info)
        self.tolerance = 2 * _MPEG_FRAME if self.info.format == "MP3" else 0

    def seek(self, frame: int) -> None:
        """See `Reader.seek`."""
        landing = self._landing(frame)
        try:
            self._sound.seek(landing)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{quoted(self._path)} cannot be read from {frame / self.info.sample_rate:.3f} s on: {error}"
            ) from error
        while landing < frame:
            skipped = len(self.read(min(frame - landing, _SKIP_BLOCK)))
            if not skipped:
                return  # what is wrong there shows at the next read
            landing += skipped

    def _landing(self, frame: int) -> int:
        """Return a frame at or before `frame` to which libsndfile seeks exactly."""
        if self.info.format == "MP3":  # a frame may use bits of several frames before it
            return max(0, frame - _MP3_LEAD)
        if self.info.format == "OGG" and frame > self.info.frames - _OGG_LAST_PAGE:
            # The end of a Vorbis stream is trimmed, and libsndfile misplaces positions in the last page by that.
            return max(0, self.info.frames - 2 * _OGG_LAST_PAGE)
        return frame

    def read(self, frames: int) -> np.ndarray:
        """See `Reader.read`."""
        # When decoding fails half-way, soundfile does not tell how far it got; NaN marks what was not written.
        # Decoders that can fail there (FLAC, MP3, OGG) never produce NaN themselves.
        block = np.full((frames, self.info.channels), np.nan, np.float32)
        try:
            return cast(np.ndarray, self._sound.read(out=block))
        except soundfile.LibsndfileError as error:
            self._error = error
            written = np.flatnonzero(~np.isnan(block).all(axis=1))
            return block[: written[-1] + 1 if len(written) else 0]

    def complaint(self) -> str | None:
        """See `Reader.complaint`."""
        if self._error is not None:
            if self._error.code == _SYSTEM_ERROR:
                raise AudioError(f"{quoted(self._path)} could not be read on: {self._error}")
            return f"the decoder stopped ({self._error.error_string.removeprefix('Error : ').strip(' .')})"
        if (
            self.info.format == "MP3"
            and self._unread_bytes() > _MP3_SLACK
            and not _mp3_states_length(self._file)
        ):
            raise AudioError(
                f"{quoted(self._path)} has no length in its header, and libsndfile's estimate ends "
                f"{self._unread_bytes()} bytes before the file does. Convert it to FLAC or WAV to read all of it."
            )
        if self.info.format == "OGG" and not _ogg_is_complete(self._file):
            return "the stream has no end mark"
        return None

    def close(self) -> None:
        """See `Reader.close`."""
        self._sound.close()
        self._file.close()

    def _unread_bytes(self) -> int:
        return os.fstat(self._file.fileno()).st_size - self._file.tell()

    def _count(self) -> int:
        """Decode a stream that does not state its length, once, to learn it."""
        total = 0
        block = np.empty((max(1, _COUNT_BLOCK // self._sound.channels), self._sound.channels), np.float32)
        # What is wrong with a damaged stream shows, and is raised, when the recording itself is read.
        with contextlib.suppress(soundfile.LibsndfileError):
            while count := len(self._sound.read(out=block)):
                total += count
        self._sound.seek(0)
        return total


class _LengthFilled(io.RawIOBase):
    """A WAV whose writer never filled in the sizes, with the sizes filled in."""

    def __init__(self, file: BinaryIO, container: Container) -> None:
        sound = cast(Any, container.sound)
        data_size = container.file_size - sound.offset
        self._file = file
        self._patches = {
            4: min(container.file_size - 8, 0xFFFFFFFF).to_bytes(4, "little"),
            sound.offset - 4: min(data_size, 0xFFFFFFFF).to_bytes(4, "little"),
        }

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        start = self._file.tell()
        count = cast(Any, self._file).readinto(buffer)
        for position, patch in self._patches.items():
            for i, byte in enumerate(patch):
                if start <= position + i < start + count:
                    buffer[position + i - start : position + i - start + 1] = bytes([byte])
        return count


def _open(path: PathLike, file: BinaryIO, container: Container | None) -> soundfile.SoundFile:
    """Open by descriptor: any name works, and libsndfile cannot take an extension's word for the format."""
    file.seek(0)
    source: Any = file.fileno() if os.name == "posix" else file
    if container is not None and container.is_unfinished():
        source = _LengthFilled(file, container)
    try:
        return _ForwardFile(source, closefd=False)
    except soundfile.LibsndfileError as error:
        raise UnrecognisedError(error.error_string) from error


def _missing_frames(container: Container | None, info: AudioInfo) -> int:
    """Return how many frames a chunked file promises beyond its end."""
    sound = container.sound if container is not None else None
    if container is None or sound is None or not container.missing_bytes():
        return 0
    available = container.file_size - sound.offset
    width = _BYTES_PER_SAMPLE.get(info.subtype)
    if width is not None:
        return sound.size // (width * info.channels) - available // (width * info.channels)
    return container.missing_bytes() * info.frames // max(1, available)


def _mp3_states_length(file: BinaryIO) -> bool:
    """Tell whether an MP3's first frame carries the number of frames (Xing, LAME or Fraunhofer)."""
    position = file.tell()
    file.seek(0)
    head = file.read(10)
    tag = head[:3] == b"ID3"
    start = (
        10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
        if tag
        else 0
    )
    file.seek(start)
    frame = file.read(512)
    file.seek(position)
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def _ogg_is_complete(file: BinaryIO) -> bool:
    """Tell whether the last Ogg page is flagged as the end of its stream (RFC 3533) and is all there."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _OGG_PAGE_SEARCH))
    tail = file.read()
    file.seek(position)
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return False
    segments = tail[page + 27 : page + 27 + tail[page + 26]]
    return bool(tail[page + 5] & 4) and len(tail) >= page + 27 + len(segments) + sum(segments)
