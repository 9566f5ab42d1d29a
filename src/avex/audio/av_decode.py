"""Read with FFmpeg through PyAV (extra `av`): m4a, aac, wma, mp4, mov, mkv, webm and other containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from avex._core.errors import AudioError
from avex._core.optional import require
from avex.audio._files import PathLike, quoted
from avex.audio._reader import AudioInfo


class AvReader:
    """The first audio track of a container; see `avex.audio._reader.Reader`.

    Lengths in these containers are rounded or estimated, so the announced length is taken with half a second of
    tolerance and never cuts a recording off. Seeking decodes from the start and is therefore exact.

    Raises:
        MissingExtraError: PyAV is not installed.
        AudioError: The container cannot be opened (`decode_error`) or has no audio track (`not_audio`).
    """

    exact = False

    def __init__(self, path: PathLike, file: BinaryIO) -> None:
        av = require("av", "av", f"Reading {quoted(path)}")
        self._path = path
        self._file = file
        self._failures: tuple[type[Exception], ...] = (av.FFmpegError,)
        self._error: Exception | None = None
        try:
            self._container: Any = av.open(file, mode="r")
        except self._failures as error:
            raise AudioError(f"{quoted(path)} has a damaged header: {error}") from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioError(f"{quoted(path)} has no audio track.", cause="not_audio")
        self.info = _describe(path, self._container)
        self.announced = self.info.frames
        self.tolerance = self.info.sample_rate // 2
        self._pieces = self._decode(av)
        self._left = np.empty((0, self.info.channels), np.float32)

    def seek(self, frame: int) -> None:
        """See `Reader.seek`; only forward, from where reading stopped."""
        while frame > 0:
            skipped = len(self.read(min(frame, self.info.sample_rate)))
            if not skipped:
                return
            frame -= skipped

    def read(self, frames: int) -> np.ndarray:
        """See `Reader.read`."""
        pieces, total = [self._left], len(self._left)
        while total < frames:
            piece = next(self._pieces, None)
            if piece is None:
                break
            pieces.append(piece)
            total += len(piece)
        joined = np.concatenate(pieces)
        self._left = joined[frames:].copy()
        return joined[:frames]

    def complaint(self) -> str | None:
        """See `Reader.complaint`."""
        return None if self._error is None else f"the decoder stopped ({self._error})"

    def close(self) -> None:
        """See `Reader.close`."""
        self._container.close()
        self._file.close()

    def _decode(self, av: Any) -> Iterator[np.ndarray]:
        """Yield decoded pieces (frames, channels) until the end or the first error, which is kept."""
        stream = self._container.streams.audio[0]
        planar = av.AudioResampler(format="fltp", layout=stream.layout, rate=self.info.sample_rate)
        try:
            for frame in self._container.decode(stream):
                for converted in planar.resample(frame):
                    yield np.ascontiguousarray(converted.to_ndarray().T)
            for converted in planar.resample(None):
                yield np.ascontiguousarray(converted.to_ndarray().T)
        except self._failures as error:
            self._error = error


def _describe(path: PathLike, container: Any) -> AudioInfo:
    """Read the header; a track without a length of its own takes the container's (in microseconds)."""
    stream = container.streams.audio[0]
    if stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) / 1e6
    rate = stream.codec_context.sample_rate
    return AudioInfo(
        path=os.fsdecode(path),
        sample_rate=rate,
        channels=stream.codec_context.channels,
        frames=round(seconds * rate),
        format=container.format.name.split(",")[0],
        subtype=stream.codec_context.name,
    )
