"""Change the sample rate, streaming or at once: `soxr_hq` and `kaiser_best`.

A resampler belongs to the definition of a model: embeddings of the same recording differ between the two.
Both give exactly `ceil(n * target / orig)` samples, and the same samples however the recording is cut into blocks.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args

import numpy as np

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex.audio.polyphase import kernel_for

Method = Literal["soxr_hq", "kaiser_best"]


class Resampler(Protocol):
    """Resamples a recording that arrives in blocks.

    Attributes:
        method: Name of the method, to be recorded with results.
    """

    method: str

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take a block (n, channels) float32 and return the output (m, channels) float32 that is ready, m >= 0."""
        ...

    def flush(self) -> np.ndarray:
        """Return the rest (m, channels) after the last block. The resampler cannot be used afterwards."""
        ...


def check_method(method: Method | str) -> None:
    """Check that there is a resampler of this name.

    Raises:
        UnknownNameError: There is none.
    """
    if method not in get_args(Method):
        raise UnknownNameError(
            f"Unknown resampler '{method}'.{did_you_mean(method, get_args(Method))} "
            f"Known: {', '.join(get_args(Method))}."
        )


def output_length(n: int, orig_rate: int, target_rate: int) -> int:
    """Return `ceil(n * target_rate / orig_rate)`, in integers.

    Example:
        >>> output_length(441, 44100, 16000)
        160
    """
    return -(-n * target_rate // orig_rate)


def make_resampler(
    orig_rate: int, target_rate: int, channels: int, method: Method | str = "soxr_hq"
) -> Resampler:
    """Make a streaming resampler.

    Args:
        orig_rate: Sample rate of the input, Hz.
        target_rate: Sample rate of the output, Hz. When both are equal, blocks pass through unchanged.
        channels: Number of channels of every block.
        method: `"soxr_hq"` (libsoxr, high quality) or `"kaiser_best"` (as `librosa.resample` with
            `res_type="kaiser_best", scale=True`: energy is kept, so amplitudes grow by `sqrt(orig / target)`).

    Raises:
        ConfigError: A rate or the number of channels is not a positive integer.
        UnknownNameError: There is no such method.

    Example:
        >>> resampler = make_resampler(48000, 16000, channels=1)
        >>> len(resampler.push(np.zeros((48000, 1), np.float32))) + len(resampler.flush())
        16000
    """
    for name, value in (("orig_rate", orig_rate), ("target_rate", target_rate), ("channels", channels)):
        if int(value) != value or value < 1:
            raise ConfigError(f"{name} is {value!r}; expected a positive integer.")
    check_method(method)
    if orig_rate == target_rate:
        return _Identity(channels, method)
    make = _Soxr if method == "soxr_hq" else _KaiserBest
    return make(int(orig_rate), int(target_rate), int(channels))


def resample(x: np.ndarray, orig_rate: int, target_rate: int, method: Method | str = "soxr_hq") -> np.ndarray:
    """Resample a whole signal.

    Args:
        x: (n,) or (n, channels), floating point; computed in float32.
        orig_rate: Sample rate of `x`, Hz.
        target_rate: Sample rate wanted, Hz.
        method: See `make_resampler`.

    Returns:
        (m,) or (m, channels) float32, m = `output_length(n, orig_rate, target_rate)`. A copy when rates are equal.

    Raises:
        ConfigError: `x` has another number of dimensions or holds integers.

    Example:
        >>> resample(np.zeros(48000, np.float32), 48000, 16000, "kaiser_best").shape
        (16000,)
    """
    x = np.asarray(x)
    if x.ndim not in (1, 2) or not np.issubdtype(x.dtype, np.floating):
        raise ConfigError(
            f"Cannot resample an array of shape {x.shape} and type {x.dtype}; expected floating point "
            "samples of shape (n,) or (n, channels). Scale integers to -1..1 first."
        )
    block = np.ascontiguousarray(x[:, None] if x.ndim == 1 else x, np.float32)
    resampler = make_resampler(orig_rate, target_rate, block.shape[1], method)
    out = np.concatenate([resampler.push(block), resampler.flush()])
    return out[:, 0] if x.ndim == 1 else out


class _Identity:
    """Equal rates: blocks pass through."""

    def __init__(self, channels: int, method: str) -> None:
        self.method = method
        self._channels = channels

    def push(self, block: np.ndarray) -> np.ndarray:
        return _checked(block, self._channels)

    def flush(self) -> np.ndarray:
        return np.empty((0, self._channels), np.float32)


class _Soxr:
    """libsoxr's HQ recipe as a stream, fitted to the exact length."""

    method = "soxr_hq"

    def __init__(self, orig_rate: int, target_rate: int, channels: int) -> None:
        import soxr

        self._rates = (orig_rate, target_rate)
        self._channels = channels
        self._received = self._emitted = 0
        self._stream: Any = soxr.ResampleStream(orig_rate, target_rate, channels, "float32", "HQ")

    def push(self, block: np.ndarray) -> np.ndarray:
        block = _checked(block, self._channels)
        _require_open(self._stream)
        self._received += len(block)
        out = self._stream.resample_chunk(block) if len(block) else block
        self._emitted += len(out)
        return out

    def flush(self) -> np.ndarray:
        _require_open(self._stream)
        empty = np.empty((0, self._channels), np.float32)
        rest = self._stream.resample_chunk(empty, last=True) if self._received else empty
        self._stream = None
        missing = output_length(self._received, *self._rates) - self._emitted
        out = np.zeros((missing, self._channels), np.float32)
        out[: len(rest)] = rest[:missing]
        return out


class _KaiserBest:
    """Collects fixed chunks, with the filter's reach on either side, and runs the kernel on each channel."""

    method = "kaiser_best"

    def __init__(self, orig_rate: int, target_rate: int, channels: int) -> None:
        self._rates = (orig_rate, target_rate)
        self._kernel = kernel_for(orig_rate, target_rate)
        self._reach = self._kernel.filter.reach
        self._buffer: np.ndarray | None = np.zeros(
            (channels, 2 * self._reach + self._kernel.chunk_in), np.float32
        )
        self._filled = self._reach
        self._received = self._emitted = 0

    def push(self, block: np.ndarray) -> np.ndarray:
        buffer = _require_open(self._buffer)
        block = _checked(block, len(buffer))
        self._received += len(block)
        chunks = []
        position = 0
        while position < len(block):
            taken = block[position : position + buffer.shape[1] - self._filled]
            buffer[:, self._filled : self._filled + len(taken)] = taken.T
            self._filled += len(taken)
            position += len(taken)
            if self._filled == buffer.shape[1]:
                chunks.append(self._run(buffer))
        return _joined(chunks, len(buffer))

    def flush(self) -> np.ndarray:
        buffer = _require_open(self._buffer)
        # The reference computes only whole output samples and pads the last one with a zero.
        computed = self._received * self._rates[1] // self._rates[0]
        before = self._emitted
        chunks = []
        while self._emitted < computed:
            buffer[:, self._filled :] = 0
            chunks.append(self._run(buffer))
        self._buffer = None
        out = np.zeros((output_length(self._received, *self._rates) - before, len(buffer)), np.float32)
        out[: computed - before] = _joined(chunks, len(buffer))[: computed - before]
        return out

    def _run(self, buffer: np.ndarray) -> np.ndarray:
        """Resample the full buffer and move its end, which the next chunk needs again, to the front."""
        out = np.stack([self._kernel.run(channel, self._emitted) for channel in buffer], axis=1)
        self._emitted += len(out)
        buffer[:, : 2 * self._reach] = buffer[:, self._kernel.chunk_in :].copy()
        self._filled = 2 * self._reach
        return out


def _joined(chunks: list[np.ndarray], channels: int) -> np.ndarray:
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.empty((0, channels), np.float32)


def _require_open(state: Any) -> Any:
    if state is None:
        raise ConfigError("This resampler was flushed already; make a new one for every recording.")
    return state


def _checked(block: np.ndarray, channels: int) -> np.ndarray:
    if block.ndim != 2 or block.shape[1] != channels:
        raise ConfigError(f"A block has shape {block.shape}; expected (frames, {channels}).")
    return np.ascontiguousarray(block, np.float32)
