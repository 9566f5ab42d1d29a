"""The `kaiser_best` filter: a Kaiser-windowed sinc, tabulated and read with linear interpolation.

This is the filter of resampy 0.4 (J. O. Smith, "Digital Audio Resampling", CCRMA, Stanford), which librosa runs for
`res_type="kaiser_best"`. When downsampling, the distance between weights is *truncated* to whole table points (2972
for 44.1 to 16 kHz, 2972.15 before truncation). Published models were trained on audio made that way, so it is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from avex._core.errors import ConfigError

ZERO_CROSSINGS = 50
TABLE_STEPS = 2**13
KAISER_BETA = 12.984585247040012
ROLLOFF = 0.9173473712608761


@lru_cache(maxsize=1)
def half_window() -> np.ndarray:
    """Return the right half of the windowed sinc.

    Returns:
        (409601,) float64, read-only: 50 zero crossings of 8192 points each, and the end point.

    Example:
        >>> round(float(half_window()[0]), 6)
        0.917347
    """
    points = ZERO_CROSSINGS * TABLE_STEPS
    position = np.linspace(0.0, 1.0, points + 1)
    taper = np.i0(KAISER_BETA * np.sqrt(1.0 - position**2)) / np.i0(KAISER_BETA)
    table = ROLLOFF * np.sinc(ROLLOFF * ZERO_CROSSINGS * position) * taper
    table.flags.writeable = False
    return table


@dataclass(frozen=True)
class KaiserFilter:
    """The filter for one pair of rates.

    Attributes:
        up: L, the target rate over the greatest common divisor of both rates.
        down: M, the original rate over the same divisor.
        ratio: Target rate over original rate.
        step: Table points between the weights of neighbouring input samples.
        table: Half window times `min(1, ratio)` and the gain `1 / sqrt(ratio)` (librosa's `scale=True`), float64.
        slope: Differences of neighbouring table points, for the interpolation.
    """

    up: int
    down: int
    ratio: float
    step: int
    table: np.ndarray
    slope: np.ndarray

    @classmethod
    def for_rates(cls, orig_rate: int, target_rate: int) -> KaiserFilter:
        """Make the filter from `orig_rate` to `target_rate` (Hz).

        Raises:
            ConfigError: The ratio is below 1/8192, where the table has no points left.
        """
        ratio = float(target_rate) / orig_rate
        step = int(min(1.0, ratio) * TABLE_STEPS)
        if step < 1:
            raise ConfigError(
                f"kaiser_best cannot resample from {orig_rate} to {target_rate} Hz: the ratio must be at least "
                f"1/{TABLE_STEPS}. Resample in two steps or use 'soxr_hq'."
            )
        divisor = math.gcd(orig_rate, target_rate)
        table = half_window() * (min(1.0, ratio) / math.sqrt(ratio))
        slope = np.diff(table, append=table[-1])
        return cls(target_rate // divisor, orig_rate // divisor, ratio, step, table, slope)

    @property
    def scale(self) -> float:
        """Zero crossings per input sample: 1 when upsampling, else the ratio."""
        return min(1.0, self.ratio)

    @property
    def reach(self) -> int:
        """Input samples on either side of an output beyond which every weight is zero."""
        return len(self.table) // self.step + 1

    def taps(self, fraction: float) -> np.ndarray:
        """Return the weights around an output that lies `fraction` input samples after input sample n.

        Returns:
            (2 * reach + 1,) float64; item `reach` belongs to sample n.
        """
        left = self._wing(self.scale * fraction)
        right = self._wing(self.scale - self.scale * fraction)
        taps = np.zeros(2 * self.reach + 1)
        taps[self.reach + 1 - len(left) : self.reach + 1] = left[::-1]
        taps[self.reach + 1 : self.reach + 1 + len(right)] = right
        return taps

    def _wing(self, crossings: float) -> np.ndarray:
        """Return the weights of one side, nearest sample first; that one lies `crossings` zero crossings away."""
        position = crossings * TABLE_STEPS
        offset = int(position)
        index = offset + self.step * np.arange((len(self.table) - offset) // self.step)
        return self.table[index] + (position - offset) * self.slope[index]

    def rounds_below(self, outputs: np.ndarray) -> np.ndarray:
        """Tell which outputs the reference places just before the input sample that they coincide with.

        resampy computes output times as `index * (1 / ratio)` in float64. Where that falls an ulp short of a whole
        sample, the roles of left and right wing swap; with a truncated step the result then differs by some 1e-6.

        Args:
            outputs: (m,) int64 indices of outputs, multiples of `up`.

        Returns:
            (m,) bool, all False where the step needed no truncation and both readings agree.
        """
        if self.scale * TABLE_STEPS == self.step:
            return np.zeros(len(outputs), bool)
        return np.floor(outputs * (1.0 / self.ratio)) < outputs // self.up * self.down
