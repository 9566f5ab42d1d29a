"""Group commit: many small recordings share one part, a long one streams to its own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pyarrow as pa

from avex._core.errors import StoreError
from avex.embedding.stores.base import RecordingKey, check_turn
from avex.embedding.stores.folder import PartialFolder, Session
from avex.embedding.stores.footer import Entry, Footer
from avex.embedding.stores.parts import PartWriter, Segment, write_part
from avex.embedding.stores.rows import joined, rechunk

# After every so many parts the interval grows by itself, so that a run of weeks keeps to thousands of parts.
_PARTS_PER_INTERVAL = 512


@dataclass(frozen=True)
class SealPolicy:
    """When buffered recordings go to the disk. What waits is what a kill costs.

    Attributes:
        rows: Seal a part when so many rows (and recordings) wait.
        seconds: Seal a part when so much time has passed since the last one; after every 512 parts the interval
            grows by itself.
        stream_rows: A recording of more rows streams to its own part; also the rows of a row group in parts.

    Raises:
        StoreError: A number is out of range.
    """

    rows: int = 8192
    seconds: float = 5.0
    stream_rows: int = 1024

    def __post_init__(self) -> None:
        if self.rows < 1 or self.stream_rows < 1 or self.seconds < 0:
            raise StoreError(
                f"{self} is impossible: rows and stream_rows are at least 1, seconds at least 0."
            )


@dataclass
class _OpenRecording:
    name: str
    batches: list[pa.RecordBatch] = field(default_factory=list)
    stream: PartWriter | None = None
    torn: bool = False  # a write was interrupted: rows may be missing

    @property
    def waiting(self) -> int:
        return sum(batch.num_rows for batch in self.batches)


class GroupWriter:
    """Turns appended rows into parts of whole recordings.

    Args:
        folder: Where parts go.
        session: Whom they belong to.
        schema: Columns.
        policy: When to write them.

    Attributes:
        segments: The parts written by this object, in commit order.
    """

    def __init__(
        self, folder: PartialFolder, session: Session, schema: pa.Schema, policy: SealPolicy
    ) -> None:
        self.segments: list[Segment] = []
        self._folder = folder
        self._session = session
        self._schema = schema
        self._policy = policy
        self._next_number = max((number for number, _ in folder.parts()), default=0) + 1
        # One list of pairs, so that an interrupt between two statements cannot part rows from their entry.
        self._pending: list[tuple[Entry, list[pa.RecordBatch]]] = []
        self._pending_count = 0
        self._open: _OpenRecording | None = None
        self._sealed_at = time.monotonic()

    @property
    def pending_bytes(self) -> int:
        """Size in memory of what is not on the disk yet."""
        waiting = [batch for _, batches in self._pending for batch in batches]
        return sum(batch.nbytes for batch in waiting + (self._open.batches if self._open else []))

    def append(self, name: str, batch: pa.RecordBatch) -> None:
        """Add rows to the open recording.

        Raises:
            StoreError: Another recording is open.
            OSError: As the system reports it.
        """
        recording = self._turn_of(name)
        self._open = recording
        recording.batches.append(batch)
        if recording.waiting > self._policy.stream_rows:
            self._stream(recording)
        elif self._is_due():
            self.seal()

    def commit(self, key: RecordingKey) -> int:
        """Commit the open recording, or say that nothing came of one.

        Returns:
            The number of its rows.

        Raises:
            StoreError: Another recording is open.
            OSError: As the system reports it.
        """
        recording = self._turn_of(key.recording)
        rows = recording.waiting + (recording.stream.rows if recording.stream else 0)
        if recording.stream is not None:
            self._finish_stream(recording, recording.stream, key)
        else:
            self._pending.append((Entry(key, rows), recording.batches))
            self._pending_count += rows + 1
        self._open = None
        if self._is_due():
            self.seal()
        return rows

    def rollback(self) -> None:
        """Drop the open recording, also what of it is on the disk."""
        recording, self._open = self._open, None
        if recording is not None and recording.stream is not None:
            recording.stream.abort()

    def seal(self) -> None:
        """Write the committed recordings that wait in memory to a part.

        Raises:
            OSError: As the system reports it; the recordings still wait.
        """
        if self._pending:
            batches = [batch for _, batches in self._pending for batch in batches]
            groups = rechunk(batches, self._policy.stream_rows)
            footer = self._footer([entry for entry, _ in self._pending])
            target = self._folder.part(self._next_number)
            self._add(write_part(self._folder.temporary("sealing"), target, groups, self._schema, footer))
            self._pending, self._pending_count = [], 0
        self._sealed_at = time.monotonic()

    def _turn_of(self, name: str) -> _OpenRecording:
        recording = self._open or _OpenRecording(name)
        check_turn(recording.name, name)
        if recording.torn:
            raise StoreError(f"Writing '{name}' was interrupted. Roll it back and embed it again.")
        return recording

    def _stream(self, recording: _OpenRecording) -> None:
        """Write the rows of a long recording to its own file, which is not committed yet."""
        recording.torn = True
        if recording.stream is None:
            self.seal()  # what was committed before comes before it
            recording.stream = PartWriter(self._folder.temporary("streaming"), self._schema)
        batches, recording.batches = recording.batches, []
        for group in rechunk(batches, self._policy.stream_rows):
            if group.num_rows == self._policy.stream_rows:
                recording.stream.write(group)
            else:
                recording.batches = [group]
        recording.torn = False

    def _finish_stream(self, recording: _OpenRecording, stream: PartWriter, key: RecordingKey) -> None:
        recording.torn = True
        if recording.batches:
            stream.write(joined(recording.batches))
            recording.batches = []
        self._add(
            stream.finish(self._footer([Entry(key, stream.rows)]), self._folder.part(self._next_number))
        )
        self._sealed_at = time.monotonic()

    def _add(self, segment: Segment) -> None:
        self.segments.append(segment)
        self._next_number += 1

    def _footer(self, entries: list[Entry]) -> Footer:
        return Footer(self._session.id, self._session.header, entries)

    def _is_due(self) -> bool:
        interval = self._policy.seconds * (1 + self._next_number // _PARTS_PER_INTERVAL)
        late = bool(self._pending) and time.monotonic() - self._sealed_at >= interval
        return late or self._pending_count >= self._policy.rows
