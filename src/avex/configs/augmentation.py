"""Changes of training clips: what there is, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]


class Augmentation(BaseModel):
    """A change of clips that happens with a probability, drawn for each clip.

    Attributes:
        augmentation_prob: Share of the clips that are changed.
    """

    model_config = ConfigDict(extra="forbid")

    augmentation_prob: Share = 0.5


class NoiseAugment(Augmentation):
    """Add noise from recordings.

    Attributes:
        noise_dirs: Folders of noise recordings, searched with all that is below them; in a YAML file from
            the folder of that file.
        snr_db_range: Lowest and highest signal-to-noise ratio, dB.
        augmentation_prob: Share of the clips that get noise.
        mask_signal_prob: Share of these that become noise alone, and lose their labels.
    """

    kind: Literal["noise"] = "noise"
    noise_dirs: list[str] = Field(min_length=1)
    snr_db_range: Range
    augmentation_prob: Share
    mask_signal_prob: Share = 0.0

    @field_validator("snr_db_range")
    @classmethod
    def _in_order(cls, value: Range) -> Range:
        return _ordered("snr_db_range", value)


class MixupAugment(Augmentation):
    """Mix clips and their labels; labels become soft, in the proportion of the clips.

    Attributes:
        alpha: Of the Beta distribution of the weights.
        n_mixup: Times that a clip is mixed with another of its batch.
        augmentation_prob: Share of the batches that are mixed.

    Source:
        Zhang et al. (2018), https://arxiv.org/abs/1710.09412.
    """

    kind: Literal["mixup"] = "mixup"
    alpha: float = Field(gt=0)
    n_mixup: PositiveInt = 1
    augmentation_prob: Share


class TimeMaskAugment(Augmentation):
    """Silence stretches of a clip.

    Attributes:
        masks: Number of stretches.
        max_seconds: Length of the longest.

    Source:
        Park et al. (2019), https://arxiv.org/abs/1904.08779.
    """

    kind: Literal["time_mask"] = "time_mask"
    masks: PositiveInt = 2
    max_seconds: float = Field(default=0.5, gt=0)


class FrequencyMaskAugment(Augmentation):
    """Remove bands of frequencies, on the waveform, so that it works for every network.

    Attributes:
        masks: Number of bands.
        max_octaves: Width of the widest, octaves.
    """

    kind: Literal["frequency_mask"] = "frequency_mask"
    masks: PositiveInt = 2
    max_octaves: float = Field(default=0.5, gt=0)


class GainAugment(Augmentation):
    """Make clips louder or softer.

    Attributes:
        gain_db_range: Lowest and highest gain, dB.
    """

    kind: Literal["gain"] = "gain"
    gain_db_range: Range = (-12.0, 12.0)

    @field_validator("gain_db_range")
    @classmethod
    def _in_order(cls, value: Range) -> Range:
        return _ordered("gain_db_range", value)


class TimeShiftAugment(Augmentation):
    """Move a clip in time; what leaves at one end comes in at the other.

    Attributes:
        max_seconds: Farthest shift in either direction; None for anything up to the clip's length.
    """

    kind: Literal["time_shift"] = "time_shift"
    max_seconds: float | None = Field(default=None, gt=0)


class FilterAugment(Augmentation):
    """Attenuate low or high frequencies, as distance, vegetation and microphones do.

    Attributes:
        pass_type: `lowpass`, `highpass`, or `any` to draw one of them.
        cutoff_hz_range: Lowest and highest cut-off frequency, Hz.
        order: Of the Butterworth filter: 6 dB per octave each.
    """

    kind: Literal["filter"] = "filter"
    pass_type: Literal["lowpass", "highpass", "any"] = "any"
    cutoff_hz_range: Range = (500.0, 6000.0)
    order: PositiveInt = 2

    @field_validator("cutoff_hz_range")
    @classmethod
    def _in_order(cls, value: Range) -> Range:
        if value[0] <= 0:
            raise ValueError(f"cutoff_hz_range must be above 0 Hz, not {list(value)}")
        return _ordered("cutoff_hz_range", value)


class ReverbAugment(Augmentation):
    """Add reverberation: an exponentially decaying tail of noise, drawn for each clip.

    Attributes:
        rt60_range: Shortest and longest time in which the tail falls by 60 dB, s.
        wet_range: Smallest and largest share of the tail's energy beside the direct sound.
    """

    kind: Literal["reverb"] = "reverb"
    rt60_range: Range = (0.1, 1.0)
    wet_range: Range = (0.05, 0.5)

    @model_validator(mode="after")
    def _in_order(self) -> ReverbAugment:
        _ordered("rt60_range", self.rt60_range)
        _ordered("wet_range", self.wet_range)
        if self.rt60_range[0] <= 0 or not 0 <= self.wet_range[0] <= self.wet_range[1] < 1:
            raise ValueError("rt60_range must be above 0 s, and wet_range within [0, 1)")
        return self


Augment = Annotated[
    NoiseAugment
    | MixupAugment
    | TimeMaskAugment
    | FrequencyMaskAugment
    | GainAugment
    | TimeShiftAugment
    | FilterAugment
    | ReverbAugment,
    Field(discriminator="kind"),
]
KINDS = ("noise", "mixup", "time_mask", "frequency_mask", "gain", "time_shift", "filter", "reverb")


def unfold(item: Any) -> Any:
    """`{noise: {...}}` means `{kind: noise, ...}`.

    Example:
        >>> unfold({"gain": {"augmentation_prob": 1}})
        {'kind': 'gain', 'augmentation_prob': 1}
    """
    if isinstance(item, Mapping) and len(item) == 1:
        kind, fields = next(iter(item.items()))
        if kind in KINDS and (fields is None or isinstance(fields, Mapping)):
            return {"kind": kind, **(fields or {})}
    return item


def _ordered(name: str, value: Range) -> Range:
    if value[0] > value[1]:
        raise ValueError(f"{name} goes from the lowest to the highest, not {list(value)}")
    return value
