"""What is written is read back, whatever the names; sample positions survive printing."""

from __future__ import annotations

import csv
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avex.detection import FORMATS, Detection, RecordingDetections, read_table
from avex.detection.formats.text import LINE_BREAKING, NOTHING, escape, microseconds, print_micro, unescape

# Surrogates U+DC80 to U+DCFF are how Python holds bytes of a file name that are not UTF-8.
anything = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\t\n\r␤␉␍␛u0\0\udc80\udcff\\\"',;_"),
    max_size=12,
)
names = st.lists(
    anything.filter(lambda s: s and "/" not in s and s[0] not in "\\"), min_size=1, max_size=3
).map(lambda parts: "rec/" + "/".join(parts))


@st.composite
def recordings(draw: st.DrawFn) -> list[RecordingDetections]:
    found = []
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        rate = draw(st.sampled_from([8_000, 44_100, 48_000, 384_000]))
        duration = draw(st.integers(10 * rate, 86_400 * rate)) / rate
        channels = draw(st.integers(1, 2))
        detections = []
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, int(duration * rate) - 3 * rate)) / rate
            end = start + draw(st.integers(1, 3 * rate)) / rate
            low, high = sorted([draw(st.integers(0, rate // 2 - 1)), draw(st.integers(1, rate // 2))])
            detections.append(
                Detection(
                    name,
                    start,
                    end,
                    draw(anything),
                    draw(st.floats(0, 1)),
                    draw(anything),
                    draw(anything),
                    draw(st.integers(1, channels)),
                    float(low),
                    float(max(high, low + 1)),
                )
            )
        found.append(RecordingDetections(name, duration, rate, channels, tuple(detections)))
    return found


def printed(detection: Detection) -> Detection:
    """What six decimals of time and four of confidence leave of a detection."""
    return replace(
        detection,
        start_s=round(detection.start_s, 6),
        end_s=round(detection.end_s, 6),
        confidence=round(detection.confidence, 4),
    )


def as_birdnet_csv(detection: Detection) -> Detection:
    """The CSV has two names and nothing else about the class, and no band or channel."""
    scientific, common = detection.scientific_name, detection.common_name
    common = common if scientific or common else detection.label
    label = "_".join(name for name in (scientific, common) if name)
    bare = Detection(detection.recording, detection.start_s, detection.end_s, label, detection.confidence)
    return printed(replace(bare, scientific_name=scientific, common_name=common))


def exact_times(detection: Detection) -> Detection:
    return replace(detection, confidence=float(np.float32(detection.confidence)))


EXPECTED = {
    "raven": printed,
    "kaleidoscope": printed,
    "csv": as_birdnet_csv,
    "parquet": exact_times,
    "json": lambda detection: detection,
}


@pytest.mark.parametrize("name", EXPECTED)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_combined_tables_round_trip(name: str, data: st.DataObject) -> None:
    written = data.draw(recordings())
    fmt = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        fmt.write(path, written)
        found = fmt.read(path)
        assert read_table(path) == found  # recognised by its content
        if name != "parquet":
            path.read_text(encoding="utf-8")  # valid, whatever the names were
    expected = [EXPECTED[name](detection) for recording in written for detection in recording.detections]
    assert found == expected


@settings(max_examples=100, deadline=None)
@given(recordings())
def test_audacity_round_trip(written: list[RecordingDetections]) -> None:
    recording = written[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "track.BirdNET.results.txt"
        FORMATS["audacity"].write(path, [recording], frequencies=True, with_confidence=True)
        found = FORMATS["audacity"].read(path, recording=recording.recording, with_confidence=True)
        unnamed = FORMATS["audacity"].read(path)
    expected = [
        replace(printed(detection), scientific_name="", common_name="", channel=1)
        for detection in recording.detections
    ]
    assert found == expected
    assert {detection.recording for detection in unnamed} <= {"track"}


@settings(max_examples=100, deadline=None)
@given(recordings())
def test_raven_times_are_cumulative_and_inside_the_file(written: list[RecordingDetections]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.txt"
        FORMATS["raven"].write(path, written)
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [line["Selection"] for line in lines] == [str(i + 1) for i in range(len(lines))]
    before = 0.0
    rows = iter(lines)
    for recording in written:
        for _ in recording.detections:
            line = next(rows)
            begin, end, offset = (
                float(line[n]) for n in ("Begin Time (s)", "End Time (s)", "File Offset (s)")
            )
            assert begin == pytest.approx(before + offset, abs=2e-6)
            assert before - 1e-6 <= begin <= end <= before + recording.duration_s + 2e-6
            assert (
                0 <= float(line["Low Freq (Hz)"]) < float(line["High Freq (Hz)"]) <= recording.sample_rate / 2
            )
            assert int(line["Channel"]) >= 1
        before += recording.duration_s


@given(st.integers(0, 7 * 86_400 * 48_000))
def test_samples_at_48_khz_survive_a_week(sample: int) -> None:
    text = print_micro(microseconds(sample / 48_000))
    assert round(float(text) * 48_000) == sample


@given(anything, st.sampled_from([LINE_BREAKING, NOTHING]))
def test_escaping_is_reversible_and_safe(text: str, pictures: dict[str, str]) -> None:
    safe = escape(text, pictures)
    assert unescape(safe, pictures) == text
    assert not set(safe) & set(pictures)
    safe.encode("utf-8")
    assert "\0" not in safe


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x23FF), max_size=30))
def test_ordinary_names_are_written_as_they_are(text: str) -> None:
    assert escape(text) == text
