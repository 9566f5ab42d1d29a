"""The journal of a prediction run: what was detected in each recording, one line each, safe against a crash.

It is what a run goes on from, and what combined tables are written from, so that neither needs all detections
in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from avex._core.errors import StoreExistsError, StoreLockedError
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

Key = tuple[int, int]  # size in bytes, modification time in ns


class PredictionJournal:
    """Results of a run in a folder, appended recording by recording.

    Args:
        folder: The output folder.
        settings: Everything that determines the detections; a run with others is refused.
        mode: `resume` goes on with what is there, `overwrite` starts anew.

    Raises:
        StoreExistsError: The folder holds results made with other settings.
        StoreLockedError: Another process is writing there.
    """

    NAME = ".avex-predict.jsonl"

    def __init__(
        self, folder: str | Path, settings: Mapping[str, Any], mode: Literal["resume", "overwrite"] = "resume"
    ) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / self.NAME
        self._lock = FileLock(self.path.with_suffix(".lock"))
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise StoreLockedError(f"Another process is writing predictions to '{folder}'.") from error
        self._offsets: dict[str, tuple[int, Key]] = {}
        try:
            self._settings = {"avex_predict_schema": _SCHEMA, **settings}
            if mode == "overwrite":
                self.path.unlink(missing_ok=True)
            if self.path.exists() and self.path.stat().st_size:
                self._load()
            else:
                self._file = self.path.open("w+b")
                self._write(self._settings)
        except BaseException:
            self._lock.release()
            raise

    def _load(self) -> None:
        self._file = self.path.open("r+b")
        header = self._file.readline()
        try:
            existing = json.loads(header)
        except ValueError:
            existing = {}
        self._check_settings(existing)
        position = self._file.tell()
        while line := self._file.readline():
            if not line.endswith(b"\n"):
                break  # torn by a crash: that recording is done again
            entry = json.loads(line)
            self._offsets[entry["name"]] = (position, (entry["bytes"], entry["mtime_ns"]))
            position = self._file.tell()
        self._file.seek(position)
        self._file.truncate()

    def _check_settings(self, existing: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(self._settings))
        differing = [key for key in {*existing, *wanted} if existing.get(key) != wanted.get(key)]
        if differing:
            self._file.close()
            listing = "; ".join(
                f"{key}: was {existing.get(key)!r}, now {wanted.get(key)!r}" for key in sorted(differing)
            )
            raise StoreExistsError(
                f"'{self.path.parent}' holds predictions made with other settings ({listing}). "
                "Use --overwrite to replace them, or another output folder."
            )

    def done(self) -> dict[str, Key]:
        """Recordings that have results, with their size and modification time then."""
        return {name: key for name, (_, key) in self._offsets.items()}

    def append(self, name: str, key: Key, result: RecordingDetections) -> None:
        """Record the results of a recording; a killed process loses nothing that was recorded."""
        position = self._file.tell()
        self._write(
            {
                "name": name,
                "bytes": key[0],
                "mtime_ns": key[1],
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
        self._offsets[name] = (position, key)

    def read(self, name: str) -> RecordingDetections:
        """Results of one recording.

        Raises:
            KeyError: It has none.
        """
        position, _ = self._offsets[name]
        end = self._file.tell()
        self._file.seek(position)
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
        return (self.read(name) for name in list(self._offsets))

    def close(self) -> None:
        """Flush to disk and let others write."""
        if not self._file.closed:
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
