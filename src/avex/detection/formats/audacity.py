r"""Audacity label tracks: `begin<TAB>end<TAB>label`, no header, one file per recording.

With spectral selections a second line follows each label, `\<TAB>low<TAB>high`, where -1 means "not set". See
"Importing and Exporting Labels" in the Audacity manual. A label track knows neither the recording nor the
channel; a confidence can only be part of the label's text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from avex._core.errors import ConfigError
from avex.detection.formats import rows, text
from avex.detection.formats.naming import recording_of_table
from avex.detection.records import Detection, RecordingDetections

_BAND_MARK = "\\"


def write(
    target: text.Target,
    recordings: Iterable[RecordingDetections],
    *,
    frequencies: bool = False,
    with_confidence: bool = False,
) -> None:
    r"""Write the label track of one recording.

    Args:
        target: Path (written atomically) or text file.
        recordings: Exactly one; Audacity has no form for several.
        frequencies: Add the frequency line below each label whose band is known.
        with_confidence: Append the confidence to the label's text (`wren 0.8700`).

    Raises:
        ConfigError: There is not exactly one recording.

    Example:
        >>> import io
        >>> track = io.StringIO()
        >>> heard = (Detection("a.wav", 0.0, 3.0, "wren", 0.87),)
        >>> write(track, [RecordingDetections("a.wav", 60.0, 48_000, 1, heard)])
        >>> track.getvalue()
        '0.0\t3.0\twren\n'
    """
    recording = text.only_one(recordings, "audacity")
    with text.output(target) as file:
        for detection in recording.detections:
            label = text.escape(detection.label)
            if with_confidence:
                label = f"{label} {text.print_confidence(detection.confidence)}"
            file.write(
                f"{text.print_seconds(detection.start_s)}\t{text.print_seconds(detection.end_s)}\t{label}\n"
            )
            if frequencies and detection.high_hz:
                low, high = text.band(detection, recording.sample_rate)
                file.write(f"{_BAND_MARK}\t{text.print_hz(low)}\t{text.print_hz(high)}\n")


def read(
    path: rows.TablePath,
    *,
    recording: str | None = None,
    with_confidence: bool = False,
    encoding: str = "utf-8",
) -> list[Detection]:
    """Read a label track.

    The confidence is 1.0 (a human annotation) unless it is in the label (`with_confidence`) or in a fourth column,
    which some tools append although Audacity itself cannot read it.

    Args:
        path: The label track.
        recording: What it describes; None derives the name from the file's (`dawn.txt` is of `dawn`).
        with_confidence: Take the last word of each label as its confidence.
        encoding: Of the file.

    Raises:
        ConfigError: A line is wrong, with file and line.
    """
    name = recording if recording is not None else recording_of_table(path)
    detections: list[Detection] = []
    with rows.open_text(path, encoding) as file:
        band_may_follow = False
        for number, line in enumerate(file, start=1):
            cells = line.rstrip("\r\n").split("\t")
            place = rows.place_of(path, number)
            if cells == [""]:
                continue
            if cells[0] == _BAND_MARK:
                if not band_may_follow:
                    raise ConfigError(f"{place}: found a frequency line, expected a label line before it.")
                detections[-1] = _with_band(detections[-1], cells, place)
                band_may_follow = False
                continue
            detections.append(_label_line(cells, place, name, with_confidence))
            band_may_follow = True
    return detections


def _label_line(cells: Sequence[str], place: str, recording: str, with_confidence: bool) -> Detection:
    if not 2 <= len(cells) <= 4:
        raise ConfigError(
            f"{place}: found {len(cells)} columns, expected 'begin', 'end' and 'label' with tabs."
        )
    label = cells[2] if len(cells) > 2 else ""
    confidence = cells[3] if len(cells) > 3 else "1.0"
    if with_confidence and len(cells) < 4:
        label, _, confidence = label.rpartition(" ")
    return rows.make_detection(
        place,
        recording=recording,
        start_s=rows.parse_number(cells[0], f"{place}, column 1 (begin)"),
        end_s=rows.parse_number(cells[1], f"{place}, column 2 (end)"),
        label=text.unescape(label),
        confidence=rows.parse_number(confidence, f"{place}, confidence"),
    )


def _with_band(detection: Detection, cells: Sequence[str], place: str) -> Detection:
    if len(cells) != 3:
        raise ConfigError(f"{place}: found {len(cells)} columns, expected '\\', low and high with tabs.")
    low, high = (rows.parse_number(cell, f"{place}, frequency") for cell in cells[1:])
    try:
        return replace(detection, low_hz=max(low, 0.0), high_hz=max(high, 0.0))
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
