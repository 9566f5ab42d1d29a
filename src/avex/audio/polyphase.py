"""Run a `KaiserFilter` fast: filter banks as matrix products, in chunks of one fixed shape.

For a rational ratio L/M only L sets of weights ("phases") occur. A group of consecutive outputs is a banded matrix
applied to one stretch of input, and the stretches of groups a period apart are the rows of a single product.
Chunks always have the same shape and start at multiples of their length in the recording, so the
value of an output does not depend on the blocks in which the recording arrived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided

from avex.audio.kaiser import TABLE_STEPS, KaiserFilter

# Measured: wider groups spend their time on the zeros of the band, narrower ones starve the matrix product.
_GROUP_OUTPUTS = 32
# OpenBLAS runs products of at most 2**18 multiplications on the calling thread. Many of those are as fast as one
# spread over the cores of an idle machine, and up to a hundred times faster than one waiting for busy cores.
_STACK_ROWS = 12
_MAX_PRODUCT = 2**18
# Longer chunks gain nothing and cost short clips more padding.
_CHUNK_OUTPUTS = 2**14
# Above these a bank would take more than 16 MB or its products would have too few rows.
_MAX_BANK_WEIGHTS = 2**22
_MAX_PHASES = 2048
_PIECE = 2**12
_CORRECTION_ROWS = 64


class Kernel(Protocol):
    """Resamples chunks of a fixed number of samples."""

    @property
    def filter(self) -> KaiserFilter:
        """The filter it applies."""
        ...

    @property
    def chunk_in(self) -> int:
        """Input samples per chunk."""
        ...

    @property
    def chunk_out(self) -> int:
        """Output samples per chunk."""
        ...

    def run(self, signal: np.ndarray, first_output: int) -> np.ndarray:
        """Resample one chunk of one channel.

        Args:
            signal: (reach + chunk_in + reach,) float32; item `reach` is the first sample of the chunk.
            first_output: Index in the recording of the first output of the chunk.

        Returns:
            (chunk_out,) float32.
        """
        ...


@dataclass(frozen=True)
class _Group:
    """Consecutive outputs, and the banded matrix (samples, outputs) that makes them from one stretch of input."""

    input_offset: int
    output_offset: int
    matrix: np.ndarray


@dataclass(frozen=True)
class MatrixKernel:
    """`rows` equal stretches of input, each resampled by the same groups, in products of `stack` rows.

    A row advances by at least the length of any stretch, so the strided view of the input goes to BLAS uncopied.
    """

    filter: KaiserFilter
    groups: tuple[_Group, ...]
    rows: int
    stack: int
    row_in: int
    row_out: int

    @property
    def chunk_in(self) -> int:
        """Input samples per chunk."""
        return self.rows * self.row_in

    @property
    def chunk_out(self) -> int:
        """Output samples per chunk."""
        return self.rows * self.row_out

    def run(self, signal: np.ndarray, first_output: int) -> np.ndarray:
        """See `Kernel.run`."""
        shape = (self.rows // self.stack, self.stack)
        out = np.empty((*shape, self.row_out), np.float32)
        advance = self.row_in * signal.itemsize
        strides = (self.stack * advance, advance, signal.itemsize)
        for group in self.groups:
            length, width = group.matrix.shape
            stretches = as_strided(signal[group.input_offset :], (*shape, length), strides, writeable=False)
            np.matmul(
                stretches, group.matrix, out=out[..., group.output_offset : group.output_offset + width]
            )
        return _correct_rounding(out.reshape(-1), signal, self.filter, first_output)


@dataclass(frozen=True)
class GatherKernel:
    """The same filter evaluated output by output, for ratios with too many phases to tabulate (44100 to 22051 Hz).

    It loops over the taps and works on a few thousand outputs at a time, so memory stays small for any ratio.
    """

    filter: KaiserFilter
    chunk_in: int
    chunk_out: int

    def run(self, signal: np.ndarray, first_output: int) -> np.ndarray:
        """See `Kernel.run`."""
        out = np.empty(self.chunk_out, np.float32)
        for start in range(0, self.chunk_out, _PIECE):
            n, phase = np.divmod(
                np.arange(start, min(start + _PIECE, self.chunk_out)) * self.filter.down, self.filter.up
            )
            left = self.filter.scale * (phase / self.filter.up)
            centre = n + self.filter.reach
            total = self._wing(signal, centre, -1, left)
            total += self._wing(signal, centre + 1, 1, self.filter.scale - left)
            out[start : start + len(n)] = total
        return _correct_rounding(out, signal, self.filter, first_output)

    def _wing(
        self, signal: np.ndarray, index: np.ndarray, direction: int, crossings: np.ndarray
    ) -> np.ndarray:
        """Sum one side of the filter in float64, from the nearest sample `index` outwards."""
        table, slope, step = self.filter.table, self.filter.slope, self.filter.step
        position = crossings * TABLE_STEPS
        offset = position.astype(np.int64)
        eta = position - offset
        count = (len(table) - offset) // step
        total = np.zeros(len(index))
        for i in range(int(count.max())):
            point = np.minimum(offset + i * step, len(table) - 1)
            weight = np.where(i < count, table[point] + eta * slope[point], 0.0)
            total += weight * signal[index + direction * i]
        return total


def _correct_rounding(
    out: np.ndarray, signal: np.ndarray, filt: KaiserFilter, first_output: int
) -> np.ndarray:
    """Recompute in place the outputs described in `KaiserFilter.rounds_below`; returns `out`."""
    whole = np.arange(0, len(out), filt.up)
    whole = whole[filt.rounds_below(whole + first_output)]
    taps = filt.taps(math.nextafter(1.0, 0.0)) if len(whole) else np.empty(0)
    for start in range(0, len(whole), _CORRECTION_ROWS):
        some = whole[start : start + _CORRECTION_ROWS]
        # Relative to the sample *before* the one the output coincides with. For the very first output the
        # first item lies outside the buffer; its weight is zero.
        index = (some // filt.up * filt.down - 1)[:, None] + np.arange(len(taps))
        out[some] = signal[index.clip(0)].astype(np.float64) @ taps
    return out


@lru_cache(maxsize=16)
def kernel_for(orig_rate: int, target_rate: int) -> Kernel:
    """Return the kernel for a pair of rates (Hz); kernels are immutable and shared.

    Example:
        >>> type(kernel_for(48000, 16000)).__name__
        'MatrixKernel'
    """
    filt = KaiserFilter.for_rates(orig_rate, target_rate)
    periods = max(1, _GROUP_OUTPUTS // filt.up)
    parts = math.ceil(periods * filt.up / _GROUP_OUTPUTS)
    stretch = 2 * filt.reach + periods * filt.down // parts
    if filt.up > _MAX_PHASES or periods * filt.up * stretch > _MAX_BANK_WEIGHTS:
        periods = min(max(1, 2**20 // filt.down), math.ceil(_PIECE / filt.up))
        return GatherKernel(filt, periods * filt.down, periods * filt.up)
    return _matrix_kernel(filt, periods, parts)


def _matrix_kernel(filt: KaiserFilter, periods: int, parts: int) -> MatrixKernel:
    """Build the groups of `periods` periods cut into `parts`, repeated until a row is as long as a stretch."""
    unit_in, unit_out = periods * filt.down, periods * filt.up
    edges = [round(i * unit_out / parts) for i in range(parts + 1)]
    unit = [_group(filt, first, last) for first, last in pairwise(edges)]
    repeats = math.ceil(max(len(group.matrix) for group in unit) / unit_in)
    largest = max(group.matrix.size for group in unit)
    groups = tuple(
        _Group(group.input_offset + r * unit_in, group.output_offset + r * unit_out, group.matrix)
        for r in range(repeats)
        for group in unit
    )
    row_in, row_out = repeats * unit_in, repeats * unit_out
    stack = min(max(4, _MAX_PRODUCT // largest // 4 * 4), _STACK_ROWS)
    rows = math.ceil(_CHUNK_OUTPUTS / (stack * row_out)) * stack
    return MatrixKernel(filt, groups, rows, stack, row_in, row_out)


def _group(filt: KaiserFilter, first: int, last: int) -> _Group:
    """Build the matrix of outputs `first`..`last - 1`, counted from an output at input sample 0."""
    positions = [divmod(j * filt.down, filt.up) for j in range(first, last)]
    low = positions[0][0]
    matrix = np.zeros((positions[-1][0] - low + 2 * filt.reach + 1, last - first), np.float32)
    for column, (n, phase) in enumerate(positions):
        taps = filt.taps(phase / filt.up)
        matrix[n - low : n - low + len(taps), column] = taps
    used = np.flatnonzero(matrix.any(axis=1))
    return _Group(low + int(used[0]), first, np.ascontiguousarray(matrix[used[0] : used[-1] + 1]))
