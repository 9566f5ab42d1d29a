"""Detections as Parquet: one row each, typed, for tables of millions.

The footer holds, under the key `avex`, a JSON object with `kind` ("detections"), `schema_version` and `run`,
the settings of the run. Times are float64 and kept exactly; confidence is float32. Recordings without detections
have no row; the JSON format lists them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from avex._core.errors import ConfigError
from avex.detection.formats import rows, text
from avex.detection.records import Detection, RecordingDetections

SCHEMA_VERSION = 1
ROW_GROUP = 65_536
SCHEMA = pa.schema(
    [
        pa.field("recording", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("channel", pa.int16(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("scientific_name", pa.string(), nullable=False),
        pa.field("common_name", pa.string(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        pa.field("low_hz", pa.float64(), nullable=False),
        pa.field("high_hz", pa.float64(), nullable=False),
        pa.field("sample_rate", pa.int32(), nullable=False),
        pa.field("datetime_utc", pa.timestamp("us", tz="UTC")),
    ]
)

_FOOTER_KEY = b"avex"
_REQUIRED = ("recording", "start_s", "end_s", "label")
_TEXTS = ("recording", "label", "scientific_name", "common_name")
_READABLE = (*_REQUIRED, "confidence", "scientific_name", "common_name", "channel", "low_hz", "high_hz")


def write(
    target: text.Target,
    recordings: Iterable[RecordingDetections],
    *,
    run: Mapping[str, object] | None = None,
) -> None:
    """Write one table, by row groups; memory does not grow with the number of recordings.

    Args:
        target: Path (written atomically) or binary file.
        recordings: May be a stream.
        run: Settings of the run, JSON-able, for the footer.

    Example:
        >>> import io
        >>> write(io.BytesIO(), [RecordingDetections("quiet.wav", 60.0, 48_000, 1, ())], run={"card": "birdnet"})
    """
    footer = {"kind": "detections", "schema_version": SCHEMA_VERSION, "run": dict(run or {})}
    schema = SCHEMA.with_metadata({_FOOTER_KEY: json.dumps(footer, allow_nan=False).encode()})
    table_rows = _rows(recordings)
    with (
        text.output(target, "wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while group := list(islice(table_rows, ROW_GROUP)):
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*group, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=ROW_GROUP)


def _rows(recordings: Iterable[RecordingDetections]) -> Iterator[tuple[object, ...]]:
    for recording in recordings:
        moment = recording.started_at()
        name = text.escape(recording.recording, text.NOTHING)
        for detection in recording.detections:
            yield (
                name,
                detection.start_s,
                detection.end_s,
                detection.channel,
                text.escape(detection.label, text.NOTHING),
                text.escape(detection.scientific_name, text.NOTHING),
                text.escape(detection.common_name, text.NOTHING),
                detection.confidence,
                detection.low_hz,
                detection.high_hz,
                recording.sample_rate,
                moment,
            )


def read(path: rows.TablePath) -> list[Detection]:
    """Read a table.

    Raises:
        ConfigError: It is not Parquet, lacks a column, or was written by a newer version.
    """
    with _open(path) as file:
        _version(file, path)
        names = set(file.schema_arrow.names)
        missing = [name for name in _REQUIRED if name not in names]
        if missing:
            raise ConfigError(
                f"Table '{path}' has no column '{missing[0]}'. Expected {rows.quoted(_REQUIRED)}; "
                f"found {rows.quoted(file.schema_arrow.names)}."
            )
        columns = [name for name in _READABLE if name in names]
        return list(_detections(file, columns, path))


def read_run(path: rows.TablePath) -> dict[str, object]:
    """Return the settings of the run from the footer.

    Raises:
        ConfigError: It is not Parquet, or was written by a newer version.
    """
    with _open(path) as file:
        return dict(_version(file, path).get("run", {}))


def _open(path: rows.TablePath) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(os.fspath(path))
    except pa.ArrowInvalid as error:
        raise ConfigError(f"'{path}' is not a Parquet table, or a damaged one ({error}).") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"There is no table at '{path}'. Expected a file.") from error


def _version(file: pq.ParquetFile, path: rows.TablePath) -> dict[str, dict[str, object]]:
    """Return our footer (empty in a table by others) after checking that this version can read it."""
    metadata = file.schema_arrow.metadata or {}
    if _FOOTER_KEY not in metadata:
        return {}
    footer = json.loads(metadata[_FOOTER_KEY])
    if footer.get("kind") != "detections" or footer["schema_version"] > SCHEMA_VERSION:
        raise ConfigError(
            f"Table '{path}' holds {footer.get('kind', 'embeddings')}, schema version "
            f"{footer.get('schema_version')}. Expected detections up to version {SCHEMA_VERSION}; if it is newer, "
            "upgrade avex."
        )
    return footer


def _detections(file: pq.ParquetFile, columns: list[str], path: rows.TablePath) -> Iterator[Detection]:
    row = 0
    for batch in file.iter_batches(columns=columns):
        for values in batch.to_pylist():
            row += 1
            fields = {name: value for name, value in values.items() if value is not None}
            fields |= {name: text.unescape(fields[name], text.NOTHING) for name in _TEXTS if name in fields}
            yield rows.make_detection(f"Table '{path}', row {row}", **{"confidence": 1.0, **fields})
