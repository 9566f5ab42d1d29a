"""Raven selection tables (Raven Pro and Raven Lite, Cornell Lab of Ornithology).

Tab-separated, UTF-8, one line per selection. Times have up to six decimals, frequencies three, confidences
four. A tab or line break inside a name is written as its Unicode control picture and read back.

In a table of several recordings, Begin and End Time run over the whole list of files, one behind the other,
as Raven counts when it opens them as one sequence; recordings without detections take their time too. `File
Offset (s)` is the begin inside the file. With one recording the two are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from avex._core.errors import ConfigError
from avex.detection.formats import rows, text
from avex.detection.formats.naming import recording_of_table
from avex.detection.formats.paths import split_name
from avex.detection.records import Detection, RecordingDetections

COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin File",
    "Begin Path",
    "File Offset (s)",
    "Common Name",
    "Scientific Name",
    "Label",
    "Confidence",
)
LABEL_COLUMNS = ("Label", "Species", "Annotation", "Common Name", "Species Code")
VIEW = "Spectrogram 1"

_CONFIDENCE_COLUMNS = ("Confidence", "Score")


def write(target: text.Target, recordings: Iterable[RecordingDetections]) -> None:
    r"""Write one selection table.

    What the format cannot say: a selection ends with its recording at the latest (the padded part of the last
    window is cut), the mono mix is shown on channel 1, and an unknown frequency band is the whole band.

    Args:
        target: Path (written atomically) or text file.
        recordings: In the order in which Raven will open the files; may be a stream.

    Example:
        >>> import io
        >>> table = io.StringIO()
        >>> write(table, [RecordingDetections("quiet.wav", 60.0, 48_000, 1, ())])
        >>> table.getvalue().split("\t")[:3]
        ['Selection', 'View', 'Channel']
    """
    with text.output(target) as file:
        file.write("\t".join(COLUMNS) + "\n")
        selection = 0
        elapsed_s = Fraction(0)  # exact: floats would drift by milliseconds over 40,000 files
        for recording in recordings:
            offset = round(elapsed_s * 1_000_000)
            for detection in recording.detections:
                selection += 1
                file.write("\t".join(_cells(selection, detection, recording, offset)) + "\n")
            elapsed_s += Fraction(float(recording.duration_s))


def _cells(
    selection: int, detection: Detection, recording: RecordingDetections, offset: int
) -> tuple[str, ...]:
    begin = text.microseconds(detection.start_s)
    end = text.microseconds(min(detection.end_s, recording.duration_s))
    low, high = text.band(detection, recording.sample_rate)
    return (
        str(selection),
        VIEW,
        str(max(detection.channel, 1)),
        text.print_micro(offset + begin),
        text.print_micro(offset + end),
        text.print_hz(low),
        text.print_hz(high),
        text.escape(split_name(detection.recording)[1]),
        text.escape(detection.recording),
        text.print_micro(begin),
        text.escape(detection.common_name),
        text.escape(detection.scientific_name),
        text.escape(detection.label),
        text.print_confidence(detection.confidence),
    )


def read(
    path: rows.TablePath,
    label_column: str | None = None,
    *,
    recording: str | None = None,
    times_in_file: bool = False,
    encoding: str = "utf-8",
) -> list[Detection]:
    r"""Read a selection table written by Raven, by avex or by another tool.

    Columns may stand in any order and further ones are ignored. Where Raven saved each selection once per view,
    the spectrogram's line is kept. A table without a confidence is taken as human annotation: 1.0.

    Args:
        path: The table; CRLF and a byte order mark are fine.
        label_column: Column with the annotation; None takes the first of `LABEL_COLUMNS` that is there.
        recording: Name of the recording where the table has neither `Begin Path` nor `Begin File`; None derives
            it from the table's name (`dawn.Table.1.selections.txt` is of `dawn`).
        times_in_file: Say that Begin Time is counted inside each file, for tables of several files that have no
            `File Offset (s)`.
        encoding: Of the table; Raven on Windows may write `"cp1252"`.

    Raises:
        ConfigError: A column is missing, a cell is wrong (with file, line and column), or the times of several
            files cannot be told apart.

    Example:
        >>> import tempfile, pathlib
        >>> table = pathlib.Path(tempfile.mkdtemp()) / "dawn.txt"
        >>> _ = table.write_text("Begin Time (s)\tEnd Time (s)\tSpecies\n1.5\t2.0\twren\n")
        >>> read(table)[0].label
        'wren'
    """
    with rows.open_table(path, "\t", encoding) as table:
        table.require("Begin Time (s)", "End Time (s)")
        label_name = table.choose(label_column, LABEL_COLUMNS, "label")
        has_offset = table.find(["File Offset (s)"]) is not None
        confidence_name = table.find(_CONFIDENCE_COLUMNS) or "Confidence"
        lines = _one_view(list(table.rows))
    if not (has_offset or times_in_file):
        _check_single_file(lines, str(path))
    unnamed = recording if recording is not None else recording_of_table(path)
    return [_detection(row, label_name, confidence_name, unnamed, times_in_file) for row in lines]


def _detection(
    row: rows.Row, label_name: str, confidence_name: str, unnamed: str, times_in_file: bool
) -> Detection:
    begin, end = row.number("Begin Time (s)"), row.number("End Time (s)")
    start = begin if times_in_file else row.number("File Offset (s)", begin)
    if start != begin:
        # A cumulative table: move the end into the file; what it was printed with is all that it is good for.
        end = round(start + (end - begin), 6)
    return rows.make_detection(
        row.place,
        recording=text.unescape(row.text("Begin Path") or row.text("Begin File")) or unnamed,
        start_s=start,
        end_s=end,
        label=text.unescape(row.text(label_name)),
        confidence=row.number(confidence_name, 1.0),
        scientific_name=text.unescape(row.text("Scientific Name")),
        common_name=text.unescape(row.text("Common Name")),
        channel=row.integer("Channel", 1),
        low_hz=row.number("Low Freq (Hz)", 0.0),
        high_hz=row.number("High Freq (Hz)", 0.0),
    )


def _one_view(lines: list[rows.Row]) -> list[rows.Row]:
    """Keep one line per selection where the same selection is listed under several views."""
    if len({row.text("View") for row in lines}) < 2:
        return lines
    best: dict[tuple[str, ...], str] = {}
    for row in lines:
        key, view = _selection_key(row), row.text("View")
        if key not in best or (_is_spectrogram(view) and not _is_spectrogram(best[key])):
            best[key] = view
    return [row for row in lines if row.text("View") == best[_selection_key(row)]]


def _selection_key(row: rows.Row) -> tuple[str, ...]:
    # Selection numbers restart where tables were put together by hand, so the number alone is not enough.
    identity = ("Selection", "Channel", "Begin Time (s)", "End Time (s)", "Begin Path", "Begin File")
    return tuple(row.text(name) for name in identity)


def _is_spectrogram(view: str) -> bool:
    return view.strip().casefold().startswith("spectrogram")


def _check_single_file(lines: Iterable[rows.Row], path: str) -> None:
    files = dict.fromkeys(_files(lines))
    if len(files) > 1:
        first, second = list(files)[:2]
        raise ConfigError(
            f"Table '{path}' covers {len(files)} files ('{first}', '{second}', ...) but has no column "
            "'File Offset (s)', so Begin Time may count from the first file or from each. Export it from Raven "
            "with the measurement File Offset, or read it with times_in_file=True if each file starts at 0."
        )


def _files(lines: Iterable[rows.Row]) -> Iterator[str]:
    for row in lines:
        name = row.text("Begin Path") or row.text("Begin File")
        if name:
            yield name
