"""Walk the chunks of RIFF (WAV), RF64/BW64, W64, AIFF and AU files by seeking, without touching the audio.

Needed because libsndfile shortens, without a word, a file whose `data` chunk promises more than there is, and
because recorders keep their metadata in chunks that libsndfile does not return.

Sources: Microsoft RIFF and EBU Tech 3306 (RF64), Sony Sound Forge W64, Apple AIFF-C.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MAX_CHUNKS = 10_000
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk.

    Attributes:
        name: Four bytes (`b"data"`; for W64 the first four of the GUID).
        offset: Position in the file of its first payload byte.
        size: Payload bytes as declared; may reach beyond the file.
    """

    name: bytes
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Container:
    """A chunked file.

    Attributes:
        kind: `"RIFF"`, `"RF64"`, `"W64"`, `"AIFF"` or `"AU"`.
        chunks: In file order, as far as they can be followed.
        file_size: Bytes in the file.
    """

    kind: str
    chunks: tuple[Chunk, ...]
    file_size: int

    def find(self, name: bytes) -> Chunk | None:
        """Return the first chunk of that name."""
        return next((chunk for chunk in self.chunks if chunk.name == name), None)

    @property
    def sound(self) -> Chunk | None:
        """The chunk that holds the samples, without AIFF's 8 bytes of offset and block size."""
        chunk = self.find(b"SSND" if self.kind == "AIFF" else b"data")
        if chunk is None or self.kind != "AIFF":
            return chunk
        return Chunk(chunk.name, chunk.offset + 8, max(0, chunk.size - 8))

    def is_unfinished(self) -> bool:
        """Tell whether a WAV says that it holds no samples, but bytes that are no chunk follow (a lost battery)."""
        sound = self.sound
        if self.kind != "RIFF" or sound is None or sound.size or sound.offset >= self.file_size:
            return False
        follower = next((chunk for chunk in self.chunks if chunk.offset == sound.offset + 8), None)
        plausible = follower is not None and follower.name.isascii() and follower.name.decode().isprintable()
        return not (plausible and follower is not None and follower.offset + follower.size <= self.file_size)

    def missing_bytes(self) -> int:
        """Return how many bytes of samples are promised beyond the end of the file; 0 where it is unknown."""
        sound = self.sound
        if sound is None or (self.kind in ("RIFF", "AIFF", "AU") and _is_placeholder(sound.size)):
            return 0
        return max(0, sound.offset + sound.size - self.file_size)


def read_container(file: BinaryIO) -> Container | None:
    """Read the chunk headers; None when this is not a chunked audio file. Moves the file position."""
    file_size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(40)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        kind = "RIFF" if head[:4] == b"RIFF" else "RF64"
        return Container(kind, tuple(_walk(file, file_size, 12, "little", kind)), file_size)
    if head[:4] == b"RIFX" and head[8:12] == b"WAVE":
        return Container("RIFF", tuple(_walk(file, file_size, 12, "big", "RIFF")), file_size)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Container("AIFF", tuple(_walk(file, file_size, 12, "big", "AIFF")), file_size)
    if head[:4] == b".snd":
        offset, size = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        return Container("AU", (Chunk(b"data", offset, size),), file_size)
    if head[:16] == _W64_RIFF:
        return Container("W64", tuple(_walk_w64(file, file_size)), file_size)
    return None


def read_payload(file: BinaryIO, chunk: Chunk, limit: int = 2**20) -> bytes:
    """Return the payload of a chunk, at most `limit` bytes."""
    file.seek(chunk.offset)
    return file.read(min(chunk.size, limit))


def _walk(file: BinaryIO, file_size: int, position: int, order: str, kind: str) -> Iterator[Chunk]:
    """Follow 32-bit chunks; the sizes that RF64 keeps in `ds64` replace the marker 0xFFFFFFFF."""
    data_size: int | None = None
    for _ in range(_MAX_CHUNKS):
        if position + 8 > file_size:
            return
        file.seek(position)
        header = file.read(8)
        name, size = header[:4], int.from_bytes(header[4:8], order)  # type: ignore[arg-type]
        if name == b"ds64" and kind == "RF64":
            data_size = int.from_bytes(file.read(16)[8:16], "little")
        elif name == b"data" and kind == "RF64" and size == 0xFFFFFFFF and data_size is not None:
            size = data_size
        yield Chunk(name, position + 8, size)
        position += 8 + size + size % 2


def _walk_w64(file: BinaryIO, file_size: int) -> Iterator[Chunk]:
    """Follow W64 chunks: 16-byte GUID, 64-bit size that includes the 24-byte header, aligned to 8 bytes."""
    position = 40
    for _ in range(_MAX_CHUNKS):
        if position + 24 > file_size:
            return
        file.seek(position)
        header = file.read(24)
        size = int.from_bytes(header[16:24], "little")
        if size < 24:
            return
        yield Chunk(header[:4], position + 24, size - 24)
        position += (size + 7) // 8 * 8


def _is_placeholder(size: int) -> bool:
    """Tell whether a writer that could not seek back left this size (0, about 2 GiB, or about 4 GiB)."""
    return size == 0 or 0x7FFFF000 <= size <= 0x80000000 or size >= 0xFFFFF000
