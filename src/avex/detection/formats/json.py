"""Detections as JSON, one object with a schema version, one recording per line.

`{"schema_version": 1, "run": {...}, "recordings": [{...}, ...]}` where each recording has `recording`,
`duration_s`, `sample_rate`, `channels`, `datetime_utc` and `detections`, each of which has the fields of
`Detection`. Numbers are exact. Recordings without detections are listed too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from avex._core.errors import ConfigError
from avex.detection.formats import rows, text
from avex.detection.records import Detection, RecordingDetections

SCHEMA_VERSION = 1

_TEXTS = ("recording", "label", "scientific_name", "common_name")


def write(
    target: text.Target,
    recordings: Iterable[RecordingDetections],
    *,
    run: Mapping[str, object] | None = None,
) -> None:
    """Write one document, recording by recording.

    Args:
        target: Path (written atomically) or text file.
        recordings: May be a stream.
        run: Settings of the run, JSON-able.

    Example:
        >>> import io
        >>> document = io.StringIO()
        >>> write(document, [RecordingDetections("quiet.wav", 60.0, 48_000, 1, ())])
        >>> json.loads(document.getvalue())["recordings"][0]["duration_s"]
        60.0
    """
    with text.output(target) as file:
        file.write(f'{{"schema_version": {SCHEMA_VERSION}, "run": {_dump(dict(run or {}))}, "recordings": [')
        separator = "\n"
        for recording in recordings:
            file.write(separator + _dump(_recording_object(recording)))
            separator = ",\n"
        file.write("\n]}\n")


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _recording_object(recording: RecordingDetections) -> dict[str, object]:
    return {
        "recording": text.escape(recording.recording, text.NOTHING),
        "duration_s": float(recording.duration_s),
        "sample_rate": int(recording.sample_rate),
        "channels": int(recording.channels),
        "datetime_utc": recording.datetime_utc,
        "detections": [_detection_object(detection) for detection in recording.detections],
    }


def _detection_object(detection: Detection) -> dict[str, object]:
    # Scores often come as NumPy scalars, which the JSON encoder refuses.
    return {
        "start_s": float(detection.start_s),
        "end_s": float(detection.end_s),
        "label": text.escape(detection.label, text.NOTHING),
        "confidence": float(detection.confidence),
        "scientific_name": text.escape(detection.scientific_name, text.NOTHING),
        "common_name": text.escape(detection.common_name, text.NOTHING),
        "channel": int(detection.channel),
        "low_hz": float(detection.low_hz),
        "high_hz": float(detection.high_hz),
    }


def read(path: rows.TablePath) -> list[Detection]:
    """Read the detections of a document.

    Raises:
        ConfigError: As `read_recordings`.
    """
    return [detection for recording in read_recordings(path) for detection in recording.detections]


def read_recordings(path: rows.TablePath) -> list[RecordingDetections]:
    """Read a document with everything in it, recordings without detections included.

    Raises:
        ConfigError: It is not JSON, not ours, from a newer version, or a field is missing or wrong.
    """
    document = _load(path)
    version = document.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION or "recordings" not in document:
        raise ConfigError(
            f"Table '{path}' has schema version {version!r} and the keys {rows.quoted(document)}. Expected "
            f"'recordings' in version {SCHEMA_VERSION} or older; if it is newer, upgrade avex."
        )
    return [_recording(value, index, str(path)) for index, value in enumerate(document["recordings"])]


def _load(path: rows.TablePath) -> dict[str, Any]:
    with rows.open_text(path) as file:
        try:
            document = json.load(file)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"Table '{path}', line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})."
            ) from error
    if not isinstance(document, dict):
        raise ConfigError(f"Table '{path}' holds a {type(document).__name__}. Expected a JSON object.")
    return document


def _recording(value: dict[str, Any], index: int, path: str) -> RecordingDetections:
    place = f"Table '{path}', recording {index + 1}"
    try:
        name = text.unescape(value["recording"], text.NOTHING)
        detections = tuple(_detection(item, name, place) for item in value["detections"])
        return RecordingDetections(**{**value, "recording": name, "detections": detections})
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{place}: a field is missing, unknown or of the wrong type ({error}).") from error


def _detection(value: dict[str, Any], recording: str, place: str) -> Detection:
    fields = {"recording": recording, **value}
    for name in _TEXTS[1:]:
        fields[name] = text.unescape(fields.get(name, ""), text.NOTHING)
    return rows.make_detection(place, **fields)
