"""The journal of a prediction run: what was detected in each recording, one line each, safe against a crash.

It is what a run goes on from, and what combined tables are written from, so that neither needs all detections
in memory.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from filelock import FileLock, Timeout

from avex._core.errors import StoreError, StoreExistsError, StoreLockedError
from avex.detection.records import Detection, RecordingDetections

_SCHEMA = 1
_DETECTION_FIELDS = (
    "start_s",
    "end_s",
    "label",
    "confidence",
    "scientific_name",
    "common_name",
    "channel",
    "low_hz",
    "high_hz",
)

Mode = Literal["resume", "overwrite", "read"]
Key = tuple[int, int]  # size in bytes, modification time in ns


class _Entry(NamedTuple):
    """Where a recording's line is, which state of the file it speaks of, and what its tables are called."""

    position: int
    key: Key
    table: str


class PredictionJournal:
    """Results of a run in a folder, appended recording by recording.

    Args:
        folder: The output folder.
        settings: Everything that determines the detections; a run with others is refused.
        mode: `resume` goes on with what is there, `overwrite` starts anew, `read` changes nothing.

    Raises:
        StoreExistsError: The folder holds results made with other settings.
        StoreLockedError: Another process is writing there.
        StoreError: The journal is damaged in the middle.
    """

    NAME = ".avex-predict.jsonl"

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], mode: Mode = "resume") -> None:
        folder = Path(folder)
        self.path = folder / self.NAME
        self._settings = {"avex_predict_schema": _SCHEMA, **settings}
        self._entries: dict[str, _Entry] = {}
        self._lock = FileLock(self.path.with_suffix(".lock"))
        if mode == "read":
            self._file: BinaryIO = self.path.open("rb")
            self._load(writable=False)
            return
        if folder.exists() and not folder.is_dir():
            raise StoreExistsError(f"'{folder}' is a file. Name a folder for the tables.")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise StoreLockedError(f"Another process is writing predictions to '{folder}'.") from error
        try:
            fresh = mode == "overwrite" or not self._has_results()
            self._file = self.path.open("w+b" if fresh else "r+b")
            if fresh:
                self._write(self._settings)
            else:
                self._load(writable=True)
        except BaseException:
            self._lock.release()
            raise

    def _has_results(self) -> bool:
        """Whether there is a whole line behind the header; settings of a run that gave nothing bind nobody."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as file:
            file.readline()
            return file.readline().endswith(b"\n")

    def _load(self, writable: bool) -> None:
        try:
            position = self._read_entries()
        except BaseException:
            self._file.close()
            raise
        if writable:
            # What a crash tore off at the end is cut away: that recording is done again.
            self._file.seek(position)
            self._file.truncate()

    def _read_entries(self) -> int:
        """Read all lines; returns where the last whole one ends."""
        header = self._file.readline()
        try:
            existing = json.loads(header)
        except ValueError:
            existing = {}
        self._check_settings(existing)
        position = self._file.tell()
        number = 1
        while line := self._file.readline():
            number += 1
            try:
                entry = json.loads(line)
                known = _Entry(position, (entry["bytes"], entry["mtime_ns"]), entry["table"])
                self._entries[entry["name"]] = known
            except (ValueError, KeyError, TypeError) as error:
                if not self._file.read(1):
                    break  # the last line: torn by a crash
                raise StoreError(
                    f"Line {number} of '{self.path}' is damaged. Use --overwrite to do all recordings again, or "
                    "remove that line to do only that one again."
                ) from error
            position = self._file.tell()
        return position

    def _check_settings(self, existing: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(self._settings))
        differing = [key for key in {*existing, *wanted} if existing.get(key) != wanted.get(key)]
        if differing:
            shown = reprlib.Repr()
            shown.maxstring = 80  # a list of classes is cut after a few, but no checksum
            listing = "; ".join(
                f"{key}: was {shown.repr(existing.get(key))}, now {shown.repr(wanted.get(key))}"
                for key in sorted(differing)
            )
            raise StoreExistsError(
                f"'{self.path.parent}' holds predictions made with other settings ({listing}). "
                "Use --overwrite to replace them, or another output folder."
            )

    def done(self) -> dict[str, Key]:
        """Recordings that have results, with their size and modification time then."""
        return {name: entry.key for name, entry in self._entries.items()}

    def tables(self) -> dict[str, str]:
        """What the tables of each recording are called: a path below the folder, without the format's ending."""
        return {name: entry.table for name, entry in self._entries.items()}

    def append(self, name: str, key: Key, table: str, result: RecordingDetections) -> None:
        """Record the results of a recording; a killed process loses nothing that was recorded.

        Args:
            name: The recording.
            key: Its size and modification time.
            table: What its tables are called.
            result: What was detected.
        """
        position = self._file.tell()
        self._write(
            {
                "name": name,
                "bytes": key[0],
                "mtime_ns": key[1],
                "table": table,
                "recording": result.recording,
                "duration_s": result.duration_s,
                "sample_rate": result.sample_rate,
                "channels": result.channels,
                "datetime_utc": result.datetime_utc,
                "detections": [
                    [getattr(detection, field) for field in _DETECTION_FIELDS]
                    for detection in result.detections
                ],
            }
        )
        self._entries[name] = _Entry(position, key, table)

    def read(self, name: str) -> RecordingDetections:
        """Results of one recording.

        Raises:
            KeyError: It has none.
        """
        end = self._file.tell()
        self._file.seek(self._entries[name].position)
        entry = json.loads(self._file.readline())
        self._file.seek(end)
        detections = tuple(
            Detection(entry["recording"], **dict(zip(_DETECTION_FIELDS, values, strict=True)))
            for values in entry["detections"]
        )
        return RecordingDetections(
            recording=entry["recording"],
            duration_s=entry["duration_s"],
            sample_rate=entry["sample_rate"],
            channels=entry["channels"],
            detections=detections,
            datetime_utc=entry["datetime_utc"],
        )

    def __iter__(self) -> Iterator[RecordingDetections]:
        return (self.read(name) for name in list(self._entries))

    def close(self) -> None:
        """Flush to disk and let others write."""
        if not self._file.closed:
            if self._file.writable():
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
        self._lock.release()

    def __enter__(self) -> PredictionJournal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, entry: Mapping[str, Any]) -> None:
        # ASCII JSON keeps file names that are not valid UTF-8 (surrogate escapes) as they are.
        self._file.write(json.dumps(entry).encode("ascii") + b"\n")
        self._file.flush()
