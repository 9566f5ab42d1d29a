"""The CSV of Kaleidoscope Pro (Wildlife Acoustics).

Paths are split into `INDIR` (the folder that holds all recordings), `FOLDER` below it and `IN FILE`. `CHANNEL`
counts from 0. `OFFSET` is the begin in the file and `DURATION` the length of the event, in seconds. `DATE`,
`TIME` and `HOUR` are when the recording (not the event) started, here in UTC. `TOP1DIST` is a distance, 0 for a
certain match: one minus the confidence. `MANUAL ID` is left empty for the person who reviews the table.
`CONFIDENCE` to `HIGH HZ` are columns of our own.
"""

from __future__ import annotations

from collections.abc import Iterable

from avex._core.errors import ConfigError
from avex.detection.formats import paths, rows, text
from avex.detection.formats.quoting import csv_line
from avex.detection.records import Detection, RecordingDetections

COLUMNS = (
    "INDIR",
    "FOLDER",
    "IN FILE",
    "CHANNEL",
    "OFFSET",
    "DURATION",
    "DATE",
    "TIME",
    "HOUR",
    "TOP1MATCH",
    "TOP1DIST",
    "CONFIDENCE",
    "SCIENTIFIC NAME",
    "COMMON NAME",
    "LOW HZ",
    "HIGH HZ",
    "MANUAL ID",
)
LABEL_COLUMNS = ("TOP1MATCH", "AUTO ID", "MANUAL ID")


def write(target: text.Target, recordings: Iterable[RecordingDetections], *, root: str | None = None) -> None:
    """Write one table.

    The mono mix is shown as channel 0, like the first channel.

    Args:
        target: Path (written atomically) or text file.
        recordings: May be a stream when `root` is given.
        root: Folder for `INDIR`; None finds the deepest common one in a first pass over `recordings`.

    Raises:
        ConfigError: A confidence is not between 0 and 1, a recording is outside `root`, or a stream that can be
            read only once came without `root`.

    Example:
        >>> import io
        >>> table = io.StringIO()
        >>> write(table, [RecordingDetections("site/quiet.wav", 60.0, 48_000, 1, ())])
        >>> table.getvalue().split(",")[:3]
        ['INDIR', 'FOLDER', 'IN FILE']
    """
    folder = _common_folder(recordings) if root is None else _as_folder(root)
    with text.output(target) as file:
        file.write(csv_line(COLUMNS))
        for recording in recordings:
            shared = _recording_cells(recording, folder)
            for detection in recording.detections:
                file.write(csv_line(_cells(shared, detection, recording.sample_rate)))


def _common_folder(recordings: Iterable[RecordingDetections]) -> str:
    if iter(recordings) is recordings:
        raise ConfigError(
            "The common folder of a Kaleidoscope table needs a first pass over the recordings, but they can be "
            "read only once. Pass root=... or something that can be read twice, such as a list."
        )
    return paths.common_folder(recording.recording for recording in recordings)


def _as_folder(root: str) -> str:
    if not root or root.endswith(tuple(paths.separators(root))):
        return root
    return root + ("\\" if "\\" in root and "\\" in paths.separators(root) else "/")


def _recording_cells(recording: RecordingDetections, root: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the cells for where, and those for when."""
    folder, name = paths.split_name(recording.recording)
    if not folder.startswith(root):
        raise ConfigError(
            f"Recording '{recording.recording}' is not below '{root}'. Pass a root that holds all recordings."
        )
    where = (paths.trim(root), paths.trim(folder[len(root) :]), name)
    moment = recording.started_at()
    if moment is None:
        return where, ("", "", "")
    return where, (f"{moment:%Y-%m-%d}", f"{moment:%H:%M:%S}", f"{moment:%H}")


def _cells(
    shared: tuple[tuple[str, ...], tuple[str, ...]], detection: Detection, sample_rate: int
) -> tuple[str, ...]:
    if not 0 <= detection.confidence <= 1:
        raise ConfigError(
            f"Detection '{detection.label}' in '{detection.recording}' has confidence {detection.confidence}. "
            "Expected 0 to 1, because Kaleidoscope's TOP1DIST is one minus it; apply the sigmoid first."
        )
    where, when = shared
    start, end = text.microseconds(detection.start_s), text.microseconds(detection.end_s)
    confidence = text.print_confidence(detection.confidence)
    band = text.band(detection, sample_rate) if detection.high_hz else None
    return (
        *where,
        str(max(detection.channel, 1) - 1),
        text.print_micro(start),
        text.print_micro(end - start),
        *when,
        detection.label,
        text.print_confidence(1 - float(confidence)),
        confidence,
        detection.scientific_name,
        detection.common_name,
        *(("", "") if band is None else (text.print_hz(band[0]), text.print_hz(band[1]))),
        "",
    )


def read(
    path: rows.TablePath, label_column: str | None = None, *, encoding: str = "utf-8"
) -> list[Detection]:
    """Read a table of Kaleidoscope or avex.

    Column names may end in `*`, as Kaleidoscope writes them. The confidence is `CONFIDENCE` where there is such a
    column, else one minus `TOP1DIST` (not below 0), else 1.0.

    Args:
        path: The table.
        label_column: None takes the first of `LABEL_COLUMNS` that is there. `"MANUAL ID"` reads the reviewer's
            labels: lines without one are left out, and the confidence is 1.0.
        encoding: Of the table.

    Raises:
        ConfigError: A column is missing or a cell is wrong, with file, line and column.
    """
    with rows.open_table(path, ",", encoding) as table:
        table.require("IN FILE", "OFFSET", "DURATION")
        name = table.choose(label_column, LABEL_COLUMNS, "label")
        manual = rows.column_key(name) == rows.column_key("MANUAL ID")
        return [_detection(row, name, manual) for row in table.rows if row.text(name).strip() or not manual]


def _detection(row: rows.Row, label_name: str, manual: bool) -> Detection:
    start, duration = row.number("OFFSET"), row.number("DURATION")
    folders = (text.unescape(row.text(name), text.NOTHING) for name in ("INDIR", "FOLDER", "IN FILE"))
    distance = max(0.0, 1 - row.number("TOP1DIST", 0.0))
    return rows.make_detection(
        row.place,
        recording=paths.join(*folders),
        start_s=start,
        end_s=round(start + duration, 6),
        label=text.unescape(row.text(label_name), text.NOTHING),
        confidence=1.0 if manual else row.number("CONFIDENCE", distance),
        scientific_name=text.unescape(row.text("SCIENTIFIC NAME"), text.NOTHING),
        common_name=text.unescape(row.text("COMMON NAME"), text.NOTHING),
        channel=row.integer("CHANNEL", 0) + 1,
        low_hz=row.number("LOW HZ", 0.0),
        high_hz=row.number("HIGH HZ", 0.0),
    )
