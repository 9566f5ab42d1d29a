"""How many keys are below others, without sorting all of them.

A query of a large database has a thousand relevant items among fifty thousand; only the ranks of the former are
wanted. A histogram counts everything in steps that hold no relevant item; what is in the steps that do, a few
per cent, is sorted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.intp]
Keys = npt.NDArray[np.signedinteger]
_MOST_BITS = 16


@dataclass(frozen=True, eq=False)
class KeyHistogram:
    """Whole numbers, and how many of them are in each of equal steps.

    Attributes:
        keys: (N,) the numbers, of a type that holds their differences.
        lowest: The least of them.
        shift: A step is 2^shift wide.
        steps: (N,) step of each key.
        below: (S + 1,) keys in lower steps, for each step and beyond the last.

    Example:
        >>> histogram = KeyHistogram.of(np.array([3, 900, 3, 7]))
        >>> [counts.tolist() for counts in histogram.ranks(np.array([3, 7]))]
        [[0, 2], [2, 3]]
    """

    keys: Keys
    lowest: int
    shift: int
    steps: Ints
    below: Ints

    @classmethod
    def of(cls, keys: Keys) -> KeyHistogram:
        """Count keys, in about as many steps as there are keys."""
        lowest, highest = int(keys.min()), int(keys.max())
        bits = min(_MOST_BITS, len(keys).bit_length())
        shift = max(0, (highest - lowest).bit_length() - bits)
        narrow = keys - lowest
        narrow >>= shift
        steps = narrow.astype(np.intp)  # what counting and taking would make of it, each for itself
        counts = np.bincount(steps, minlength=((highest - lowest) >> shift) + 1)
        below = np.zeros(len(counts) + 1, np.intp)
        np.cumsum(counts, out=below[1:])
        return cls(keys, lowest, shift, steps, below)

    def ranks(self, wanted: Keys) -> tuple[Ints, Ints]:
        """Keys less than each of some keys, and keys not greater than it.

        Args:
            wanted: (P,) some of the keys, ascending.
        """
        own = (wanted - self.lowest) >> self.shift
        shared = np.zeros(len(self.below) - 1, bool)
        shared[own] = True
        # Clipping spares the check of bounds; there is nothing to clip.
        near = np.sort(self.keys[np.flatnonzero(shared.take(self.steps, mode="clip"))])
        before = self.below[own] - np.searchsorted(near, (own << self.shift) + self.lowest)
        return before + np.searchsorted(near, wanted, "left"), before + np.searchsorted(near, wanted, "right")

    def floor_of(self, count: int) -> int:
        """A key that at least `count` of the keys reach, and few more."""
        step = int(np.searchsorted(self.below, len(self.keys) - count, "right")) - 1
        return self.lowest + (step << self.shift)
