"""What a detector hands over: one event, and all events of one recording."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone

from avex._core.errors import ConfigError

MIX_CHANNEL = 0


@dataclass(frozen=True, slots=True)
class Detection:
    """One event: something was heard in `[start_s, end_s)` of a recording.

    Attributes:
        recording: Path or URI of the recording, as the user gave it.
        start_s: Begin, in seconds from the start of the recording.
        end_s: End, in seconds (equal to `start_s` for a point annotation).
        label: Class name as the model or the annotator wrote it.
        confidence: Score; 1.0 for a human annotation.
        scientific_name: Scientific name, or empty.
        common_name: Common name, or empty.
        channel: Audio channel, counted from 1; 0 is the mono mix of all channels.
        low_hz: Lower edge of the frequency band.
        high_hz: Upper edge of the frequency band; 0 when no band is known.

    Raises:
        ConfigError: A time, frequency, channel or confidence is impossible.

    Example:
        >>> Detection("dawn.wav", 3.0, 6.0, "Turdus merula_Eurasian Blackbird", 0.87).channel
        1
    """

    recording: str
    start_s: float
    end_s: float
    label: str
    confidence: float
    scientific_name: str = ""
    common_name: str = ""
    channel: int = 1
    low_hz: float = 0.0
    high_hz: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.end_s) and 0 <= self.start_s <= self.end_s):
            raise self._impossible(f"runs from {self.start_s} s to {self.end_s} s", "0 <= start_s <= end_s")
        if not math.isfinite(self.confidence):
            raise self._impossible(f"has confidence {self.confidence}", "a finite number")
        if self.channel < MIX_CHANNEL:
            raise self._impossible(f"has channel {self.channel}", "1 for the first channel, 0 for the mix")
        band_is_known = self.high_hz != 0
        if not (math.isfinite(self.high_hz) and 0 <= self.low_hz < math.inf and self.high_hz >= 0) or (
            band_is_known and self.low_hz > self.high_hz
        ):
            raise self._impossible(
                f"has the band {self.low_hz}-{self.high_hz} Hz", "0 <= low_hz <= high_hz, or 0 and 0"
            )

    def _impossible(self, found: str, expected: str) -> ConfigError:
        return ConfigError(f"Detection '{self.label}' in '{self.recording}' {found}. Expected {expected}.")


@dataclass(frozen=True, slots=True)
class RecordingDetections:
    """Everything detected in one recording, and what a table must know of that recording.

    Attributes:
        recording: Path or URI, the same as in every detection.
        duration_s: Length of the recording in seconds. Detections begin inside it; the last one may end
            after it, when the model padded its last window.
        sample_rate: Of the recording (not of the model), in Hz.
        channels: Number of channels in the file.
        detections: In the order in which tables list them.
        datetime_utc: Start of the recording as ISO 8601; without an offset it is taken as UTC.

    Raises:
        ConfigError: A field is impossible, or a detection belongs elsewhere.

    Example:
        >>> RecordingDetections("quiet.wav", 60.0, 48_000, 1, ()).detections
        ()
    """

    recording: str
    duration_s: float
    sample_rate: int
    channels: int
    detections: tuple[Detection, ...]
    datetime_utc: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s >= 0):
            raise ConfigError(
                f"Recording '{self.recording}' has duration_s {self.duration_s}. Expected 0 or more."
            )
        if self.sample_rate < 1 or self.channels < 1:
            raise ConfigError(
                f"Recording '{self.recording}' has sample_rate {self.sample_rate} and {self.channels} "
                "channel(s). Expected at least 1 of each; read them from the file's header."
            )
        for detection in self.detections:
            self._check(detection)
        self.started_at()

    def _check(self, detection: Detection) -> None:
        if detection.recording != self.recording:
            raise ConfigError(
                f"A detection of '{detection.recording}' was put among those of '{self.recording}'. "
                "Expected the same recording; group detections by recording first."
            )
        if detection.start_s > self.duration_s:
            raise ConfigError(
                f"Detection '{detection.label}' begins at {detection.start_s} s, but '{self.recording}' lasts "
                f"{self.duration_s} s. Expected a begin inside it; pass the decoded length as duration_s."
            )
        if detection.channel > self.channels:
            raise ConfigError(
                f"Detection '{detection.label}' is on channel {detection.channel}, but '{self.recording}' "
                f"has {self.channels}. Expected 1 to {self.channels}, or 0 for the mix."
            )

    def started_at(self) -> datetime | None:
        """Return `datetime_utc` as an aware UTC time, or None when it is unknown."""
        if self.datetime_utc is None:
            return None
        try:  # Python 3.10 does not read the suffix Z
            moment = datetime.fromisoformat(self.datetime_utc.replace("Z", "+00:00").replace("z", "+00:00"))
        except ValueError:
            raise ConfigError(
                f"Recording '{self.recording}' has datetime_utc '{self.datetime_utc}'. "
                "Expected ISO 8601, such as '2024-05-01T04:30:00+00:00'."
            ) from None
        if moment.tzinfo is None:
            return moment.replace(tzinfo=timezone.utc)
        return moment.astimezone(timezone.utc)
