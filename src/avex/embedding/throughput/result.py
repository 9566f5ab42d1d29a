"""What a measurement of speed says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class ProductShare:
    """All products of one shape in the lower bound of a network.

    Attributes:
        label: Kind and shapes.
        dtype: Element type of the operands.
        count: How often a pass computes it.
        gflop: Operations of all of them, in 1e9.
        way: The way of computing it that was the fastest on this machine.
        share: Part of the bound's time, 0 to 1.
        gflop_per_s: Rate at which it was computed.
    """

    label: str
    dtype: str
    count: int
    gflop: float
    way: str
    share: float
    gflop_per_s: float


@dataclass(frozen=True)
class Throughput:
    """Speed of a model with one precision and batch size.

    Times are those of a pass, in which each of `workers` sessions embeds one batch; item i of each is from round i.

    Attributes:
        model: Name of the card, or of the class.
        backend: What computes: `torch`, `native`, `litert`, `onnx`.
        weights: Which weights, in words; with random ones the speed is the same.
        device: `cpu`, `cuda:0`, ...
        device_name: Its name for people.
        precision: Arithmetic of the network: `fp32`, `bf16`, `fp16`.
        batch_size: Windows per batch.
        workers: Sessions that run at once.
        threads: Threads that torch uses, all sessions together.
        window_s: Length of a window.
        compiled: Whether the network went through `torch.compile`.
        clock: `wall` or `cpu`.
        pass_seconds: Time of the whole pass.
        frontend_seconds: Time of the front end alone; empty where it cannot be run alone.
        bound_seconds: Time of the network's products alone; empty where they cannot be known.
        gflop_per_window: Operations of those products for a window, in 1e9; 0 where unknown.
        peak_memory_bytes: Most memory during a pass, other precisions of the model not counted; None if unknown.
        products: What the bound consists of, longest first.

    Example:
        >>> result = Throughput("m", "torch", "random", "cpu", "CPU", "fp32", 2, 1, 1, 5.0, False, "wall",
        ...                     (0.5, 0.4, 0.6), (0.1, 0.1, 0.1), (0.4, 0.4, 0.4), 1.5, None)
        >>> result.realtime_factor, result.ms_per_window, result.frontend_share
        (20.0, 250.0, 0.2)
    """

    model: str
    backend: str
    weights: str
    device: str
    device_name: str
    precision: str
    batch_size: int
    workers: int
    threads: int
    window_s: float
    compiled: bool
    clock: str
    pass_seconds: tuple[float, ...]
    frontend_seconds: tuple[float, ...]
    bound_seconds: tuple[float, ...]
    gflop_per_window: float
    peak_memory_bytes: int | None
    products: tuple[ProductShare, ...] = ()

    @property
    def realtime_factor(self) -> float:
        """Seconds of audio per second: the median of the rounds."""
        return self._audio_s / median(self.pass_seconds)

    @property
    def spread(self) -> float | None:
        """Half the distance between the quartiles of the rounds, relative to the median; None of one round."""
        if len(self.pass_seconds) < 2:
            return None
        first, middle, third = quantiles(self.pass_seconds, n=4, method="inclusive")
        return (third - first) / 2 / middle

    @property
    def ms_per_window(self) -> float:
        """Milliseconds of work per window."""
        return 1e3 * median(self.pass_seconds) / (self.batch_size * self.workers)

    @property
    def frontend_share(self) -> float | None:
        """Time of the front end as a part of the whole, 0 to 1; the median of the rounds."""
        return self._ratio(self.frontend_seconds)

    @property
    def bound_ratio(self) -> float | None:
        """Time of the products alone as a part of the whole, 1 being perfect; the median of the rounds."""
        return self._ratio(self.bound_seconds)

    @property
    def bound_realtime_factor(self) -> float | None:
        """Seconds of audio per second if there were nothing but the products."""
        return self._audio_s / median(self.bound_seconds) if self.bound_seconds else None

    def as_dict(self) -> dict[str, Any]:
        """All facts, for JSON; those that are derived too."""
        derived = (
            "realtime_factor",
            "spread",
            "ms_per_window",
            "frontend_share",
            "bound_ratio",
            "bound_realtime_factor",
        )
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}

    @property
    def _audio_s(self) -> float:
        return self.batch_size * self.workers * self.window_s

    def _ratio(self, seconds: tuple[float, ...]) -> float | None:
        if not seconds:
            return None
        return median(part / whole for part, whole in zip(seconds, self.pass_seconds, strict=True))
