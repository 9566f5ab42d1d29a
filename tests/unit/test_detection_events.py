"""Detections, scores to events, merging."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avex._core.errors import ConfigError
from avex.detection import Detection, RecordingDetections, merge_consecutive, select, sigmoid, softmax


def window(index: float, label: str = "wren", confidence: float = 0.5, **fields: object) -> Detection:
    return Detection("a.wav", 3.0 * index, 3.0 * index + 3.0, label, confidence, **fields)  # type: ignore[arg-type]


class TestDetection:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"start_s": -1.0}, "0 <= start_s <= end_s"),
            ({"end_s": 0.5}, "0 <= start_s <= end_s"),
            ({"start_s": math.nan}, "0 <= start_s <= end_s"),
            ({"end_s": math.inf}, "0 <= start_s <= end_s"),
            ({"confidence": math.nan}, "finite number"),
            ({"channel": -1}, "has channel -1"),
            ({"low_hz": 900.0, "high_hz": 100.0}, "900.0-100.0 Hz"),
            ({"low_hz": -1.0}, "low_hz <= high_hz"),
            ({"high_hz": math.nan}, "low_hz <= high_hz"),
        ],
    )
    def test_impossible_values_are_refused(self, fields: dict[str, float], message: str) -> None:
        values = {
            "recording": "a.wav",
            "start_s": 1.0,
            "end_s": 2.0,
            "label": "wren",
            "confidence": 0.5,
            **fields,
        }
        with pytest.raises(ConfigError, match=message):
            Detection(**values)  # type: ignore[arg-type]

    def test_point_annotation_is_legal(self) -> None:
        assert Detection("a.wav", 2.0, 2.0, "click", 1.0).end_s == 2.0


class TestRecordingDetections:
    def test_detection_of_another_recording_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"'b\.wav'"):
            RecordingDetections("b.wav", 60.0, 48_000, 1, (window(0),))

    def test_detection_behind_the_end_is_refused_but_a_padded_last_window_is_not(self) -> None:
        assert RecordingDetections("a.wav", 4.0, 48_000, 1, (window(1),)).detections[0].end_s == 6.0
        with pytest.raises(ConfigError, match=r"begins at 6.0 s, but 'a.wav' lasts 4.0 s"):
            RecordingDetections("a.wav", 4.0, 48_000, 1, (window(2),))

    def test_channel_beyond_the_file_is_refused_but_the_mix_is_not(self) -> None:
        RecordingDetections("a.wav", 4.0, 48_000, 2, (window(0, channel=0), window(0, channel=2)))
        with pytest.raises(ConfigError, match="on channel 3"):
            RecordingDetections("a.wav", 4.0, 48_000, 2, (window(0, channel=3),))

    @pytest.mark.parametrize(
        "fields", [(-1.0, 48_000, 1), (math.nan, 48_000, 1), (1.0, 0, 1), (1.0, 8_000, 0)]
    )
    def test_impossible_header_is_refused(self, fields: tuple[float, int, int]) -> None:
        with pytest.raises(ConfigError, match="Expected"):
            RecordingDetections("a.wav", *fields, ())

    @pytest.mark.parametrize(
        "text",
        ["2024-05-01T04:30:00Z", "2024-05-01T06:30:00+02:00", "2024-05-01T04:30:00", "2024-05-01 04:30:00"],
    )
    def test_start_is_read_as_utc(self, text: str) -> None:
        recording = RecordingDetections("a.wav", 1.0, 8_000, 1, (), text)
        assert recording.started_at() == datetime(2024, 5, 1, 4, 30, tzinfo=timezone.utc)

    def test_bad_start_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="'yesterday'"):
            RecordingDetections("a.wav", 1.0, 8_000, 1, (), "yesterday")


class TestSelect:
    def test_order_is_window_then_score_then_class(self) -> None:
        scores = np.array([[0.3, 0.9, 0.3], [0.1, 0.2, 0.8]], np.float32)
        windows, classes, values = select(scores, min_conf=0.2, top_n=None, allowed=None)
        assert windows.tolist() == [0, 0, 0, 1, 1]
        assert classes.tolist() == [1, 0, 2, 2, 1]
        assert values.tolist() == pytest.approx([0.9, 0.3, 0.3, 0.8, 0.2])
        assert values.dtype == np.float32

    def test_class_zero_and_the_threshold_itself_pass(self) -> None:
        # 0.7 in float32 is below 0.7 in float64; the comparison must be in the precision of the scores.
        windows, classes, _ = select(np.array([[0.7]], np.float32), min_conf=0.7)
        assert (windows.tolist(), classes.tolist()) == ([0], [0])

    def test_nan_never_passes(self) -> None:
        scores = np.array([[np.nan, 0.5], [np.nan, np.nan]])
        for top_n in (None, 1, 2):
            windows, classes, _ = select(scores, min_conf=-math.inf, top_n=top_n)
            assert (windows.tolist(), classes.tolist()) == ([0], [1])

    def test_top_n_breaks_ties_by_class(self) -> None:
        _, classes, _ = select(np.full((1, 5), 0.5), min_conf=0.1, top_n=2)
        assert classes.tolist() == [0, 1]

    def test_top_n_counts_allowed_classes_only(self) -> None:
        allowed = np.array([False, True, True])
        _, classes, _ = select([[0.9, 0.2, 0.4]], min_conf=0.1, top_n=1, allowed=allowed)
        assert classes.tolist() == [2]

    def test_no_windows(self) -> None:
        assert [len(part) for part in select(np.zeros((0, 4)), min_conf=0.1, top_n=3)] == [0, 0, 0]

    @pytest.mark.parametrize(
        ("scores", "fields", "message"),
        [
            ([0.1, 0.2], {"min_conf": 0.1}, "n_windows, n_classes"),
            (np.ones((1, 2), int), {"min_conf": 0.1}, "int64"),
            ([[0.1]], {"min_conf": math.nan}, "NaN"),
            ([[0.1]], {"min_conf": 0.1, "top_n": 0}, "top_n is 0"),
            ([[0.1]], {"min_conf": 0.1, "allowed": np.array([1])}, "bool mask of the 1"),
            ([[0.1]], {"min_conf": 0.1, "allowed": np.array([True, True])}, "bool mask of the 1"),
        ],
    )
    def test_wrong_arguments(self, scores: object, fields: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            select(scores, **fields)  # type: ignore[arg-type]

    @given(
        hnp.arrays(
            np.float32,
            st.tuples(st.integers(0, 4), st.integers(1, 6)),
            elements=st.sampled_from([0, 0.25, 0.5, 1, np.nan]),
        ),
        st.sampled_from([0.0, 0.25, 0.6]),
        st.sampled_from([None, 1, 2, 10]),
        st.data(),
    )
    def test_equals_the_plain_loop(
        self, scores: np.ndarray, min_conf: float, top_n: int | None, data: st.DataObject
    ) -> None:
        allowed = data.draw(st.none() | hnp.arrays(np.bool_, scores.shape[1]))
        expected = []
        for row, values in enumerate(scores.tolist()):
            hits = [
                (-value, column)
                for column, value in enumerate(values)
                if value >= min_conf and (allowed is None or allowed[column])
            ]
            expected += [(row, column, -value) for value, column in sorted(hits)[:top_n]]
        windows, classes, found = select(scores, min_conf=min_conf, top_n=top_n, allowed=allowed)
        assert list(zip(windows.tolist(), classes.tolist(), found.tolist(), strict=True)) == expected


class TestProbabilities:
    def test_known_values(self) -> None:
        assert sigmoid([0.0, math.log(3)]).tolist() == pytest.approx([0.5, 0.75])
        # Slope 0.5 at sensitivity 1.5: the odds e^-2 become e^-1.
        assert float(sigmoid(-2.0, 1.5)) == pytest.approx(1 / (1 + math.e))
        assert float(sigmoid(-2.0, 0.5)) == pytest.approx(1 / (1 + math.exp(3)))

    def test_logits_are_clipped_at_15(self) -> None:
        assert sigmoid([15.0, 400.0, math.inf])[1:].tolist() == [float(sigmoid(15.0))] * 2
        low = sigmoid(np.array([-1e30, -15.0], np.float32), 0.5)
        assert low.dtype == np.float32
        assert low[0] == low[1]
        assert low[0] == pytest.approx(math.exp(-22.5), rel=1e-5)

    @given(st.floats(-15, -0.1), st.floats(0.5, 1.4))
    def test_higher_sensitivity_lifts_weak_calls_and_lowers_strong_ones(
        self, logit: float, sensitivity: float
    ) -> None:
        assert sigmoid(logit, sensitivity + 0.1) > sigmoid(logit, sensitivity)
        assert sigmoid(-logit, sensitivity + 0.1) <= sigmoid(-logit, sensitivity)

    def test_float32_is_as_good_as_float64(self) -> None:
        logits = np.linspace(-20, 20, 4001)
        np.testing.assert_allclose(sigmoid(logits.astype(np.float32)), sigmoid(logits), rtol=5e-6)

    def test_half_precision_does_not_overflow(self) -> None:
        assert sigmoid(np.array([-15.0], np.float16)).dtype == np.float32
        assert float(sigmoid(np.array([-15.0], np.float16))[0]) == pytest.approx(math.exp(-15), rel=1e-5)

    @pytest.mark.parametrize("sensitivity", [0.49, 1.51, -1.0, math.nan])
    def test_sensitivity_outside_its_range(self, sensitivity: float) -> None:
        with pytest.raises(ConfigError, match="sensitivity"):
            sigmoid(0.0, sensitivity)

    def test_softmax(self) -> None:
        odds = softmax(np.log([[1.0, 2.0, 5.0], [2.0, 1.0, 1.0]]))
        np.testing.assert_allclose(odds, [[0.125, 0.25, 0.625], [0.5, 0.25, 0.25]])
        np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0], np.float32)), [0.5, 0.5])


class TestMerge:
    def test_touching_windows_join_and_the_maximum_stays(self) -> None:
        parts = [window(0, confidence=0.3), window(1, confidence=0.9), window(3, confidence=0.2)]
        events = merge_consecutive(parts)
        assert [(e.start_s, e.end_s, e.confidence) for e in events] == [(0.0, 6.0, 0.9), (9.0, 12.0, 0.2)]

    def test_gap_is_bridged_up_to_max_gap(self) -> None:
        parts = [window(0), window(2)]
        assert len(merge_consecutive(parts, max_gap_s=2.99)) == 2
        assert len(merge_consecutive(parts, max_gap_s=3.0)) == 1
        nearly = [Detection("a.wav", 0.0, 1.0, "x", 0.5), Detection("a.wav", 1.001, 2.0, "x", 0.5)]
        assert len(merge_consecutive(nearly)) == 2

    def test_rounded_edges_still_touch(self) -> None:
        parts = [Detection("a.wav", 0.0, 1 / 3, "x", 0.5), Detection("a.wav", 0.333334, 0.6, "x", 0.5)]
        assert len(merge_consecutive(parts)) == 1

    def test_only_the_same_recording_channel_and_label_join(self) -> None:
        other = Detection("b.wav", 3.0, 6.0, "wren", 0.5)
        parts = [window(0), window(1, channel=2), window(1, "robin"), other]
        assert len(merge_consecutive(parts)) == 4

    def test_max_windows_limits_the_length(self) -> None:
        events = merge_consecutive([window(i) for i in range(7)], max_windows=3)
        assert [(e.start_s, e.end_s) for e in events] == [(0.0, 9.0), (9.0, 18.0), (18.0, 21.0)]
        assert len(merge_consecutive([window(i) for i in range(7)], max_windows=1)) == 7

    def test_a_long_event_keeps_its_end_over_a_short_one_inside(self) -> None:
        parts = [
            Detection("a.wav", 0, 10, "x", 0.5),
            Detection("a.wav", 1, 2, "x", 0.5),
            Detection("a.wav", 9, 11, "x", 0.5),
        ]
        assert [(e.start_s, e.end_s) for e in merge_consecutive(parts)] == [(0, 11)]

    def test_bands_unite_unless_one_is_unknown(self) -> None:
        bands = [window(0, low_hz=900.0, high_hz=2000.0), window(1, low_hz=500.0, high_hz=1800.0)]
        assert [(e.low_hz, e.high_hz) for e in merge_consecutive(bands)] == [(500.0, 2000.0)]
        assert [(e.low_hz, e.high_hz) for e in merge_consecutive([*bands, window(2)])] == [(0.0, 0.0)]

    def test_recordings_keep_the_order_in_which_they_came(self) -> None:
        parts = [Detection("z.wav", 5, 6, "x", 0.5), window(0), Detection("z.wav", 1, 2, "x", 0.5)]
        assert [(e.recording, e.start_s) for e in merge_consecutive(parts)] == [
            ("z.wav", 1),
            ("z.wav", 5),
            ("a.wav", 0.0),
        ]

    @pytest.mark.parametrize("fields", [{"max_gap_s": -0.1}, {"max_gap_s": math.nan}, {"max_windows": 0}])
    def test_wrong_arguments(self, fields: dict[str, float]) -> None:
        with pytest.raises(ConfigError, match=next(iter(fields))):
            merge_consecutive([], **fields)  # type: ignore[arg-type]

    @given(
        st.lists(
            st.builds(window, st.integers(0, 12), st.sampled_from("ab"), st.sampled_from([0.1, 0.5])),
            max_size=15,
        ),
        st.randoms(),
    )
    def test_covers_the_same_time_whatever_the_order(self, parts: list[Detection], random: object) -> None:
        events = merge_consecutive(parts)
        for label in "ab":
            covered = {
                second for p in parts if p.label == label for second in range(int(p.start_s), int(p.end_s))
            }
            merged = [s for e in events if e.label == label for s in range(int(e.start_s), int(e.end_s))]
            assert sorted(covered) == sorted(merged)  # nothing lost, nothing twice
        assert merge_consecutive(events) == events
        shuffled = list(parts)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        assert merge_consecutive(shuffled) == events


def test_importing_detection_is_light() -> None:
    code = (
        "import sys, avex.detection, avex.detection.tables; "
        "heavy = {'torch', 'numpy', 'pyarrow', 'pandas'} & set(sys.modules); assert not heavy, heavy; "
        "import avex.detection.read, avex.detection.events, avex.detection.species; "
        "assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
