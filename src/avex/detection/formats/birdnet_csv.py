"""The CSV of BirdNET-Analyzer: `Start (s),End (s),Scientific name,Common name,Confidence,File`.

UTF-8, lines end in a line feed, quoting by RFC 4180 (names with commas, quotes or line breaks). Times have up to
six decimals, confidences four. The table has no column for label, channel or band: a label that is not
`Scientific_Common` stands in the common-name column where no name is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from avex.detection.formats import rows, text
from avex.detection.formats.quoting import csv_line
from avex.detection.records import Detection, RecordingDetections

COLUMNS = ("Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File")


def write(target: text.Target, recordings: Iterable[RecordingDetections]) -> None:
    """Write one table; rows of several recordings follow one another, told apart by `File`.

    Args:
        target: Path (written atomically) or text file.
        recordings: May be a stream.

    Example:
        >>> import io
        >>> table = io.StringIO()
        >>> heard = (Detection("a.wav", 0.0, 3.0, "Parus major_Great Tit", 0.87, "Parus major", "Great Tit"),)
        >>> write(table, [RecordingDetections("a.wav", 60.0, 48_000, 1, heard)])
        >>> table.getvalue().splitlines()[1]
        '0.0,3.0,Parus major,Great Tit,0.8700,a.wav'
    """
    with text.output(target) as file:
        file.write(csv_line(COLUMNS))
        for recording in recordings:
            for detection in recording.detections:
                file.write(csv_line(_cells(detection)))


def _cells(detection: Detection) -> tuple[str, ...]:
    has_name = detection.scientific_name or detection.common_name
    return (
        text.print_seconds(detection.start_s),
        text.print_seconds(detection.end_s),
        detection.scientific_name,
        detection.common_name if has_name else detection.label,
        text.print_confidence(detection.confidence),
        detection.recording,
    )


def read(path: rows.TablePath, *, encoding: str = "utf-8") -> list[Detection]:
    """Read a table of BirdNET-Analyzer or avex.

    The label becomes `Scientific_Common`, or whichever of the two names is there. Further columns are ignored.

    Raises:
        ConfigError: A column is missing or a cell is wrong, with file, line and column.
    """
    with rows.open_table(path, ",", encoding) as table:
        table.require(*COLUMNS)
        return [_detection(row) for row in table.rows]


def _detection(row: rows.Row) -> Detection:
    scientific, common = (
        text.unescape(row.text(name), text.NOTHING) for name in ("Scientific name", "Common name")
    )
    return rows.make_detection(
        row.place,
        recording=text.unescape(row.text("File"), text.NOTHING),
        start_s=row.number("Start (s)"),
        end_s=row.number("End (s)"),
        label="_".join(name for name in (scientific, common) if name),
        confidence=row.number("Confidence"),
        scientific_name=scientific,
        common_name=common,
    )
