"""`avex check`: does a model load, is its file the published one, and does it compute what it should?"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from avex._core.errors import ConfigError
from avex.configs import ModelCard, OutputFingerprint
from avex.models.base_model import ModelBase
from avex.models.utils.load import LoadRequest, load_card
from avex.models.utils.registry import resolve

_NUM_SAMPLES = 16


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a check.

    Attributes:
        name: The card.
        checksum: `verified`, or why it was not.
        report: What was loaded.
        fingerprint: Measured output for the test signal.
        matches: Whether it equals the card's; None if the card states none.
        deviation: Largest difference in units of the standard deviation, if there was something to compare.
        seconds: Time to load and run.
        device: Where it ran.
    """

    name: str
    checksum: str
    report: str
    fingerprint: OutputFingerprint
    matches: bool | None
    deviation: float | None
    seconds: float
    device: str


def check_signal(seconds: float, sample_rate: int) -> np.ndarray:
    """The waveform that fingerprints are taken of: rising and falling tones over weak noise.

    Args:
        seconds: Length.
        sample_rate: Rate in Hz.

    Returns:
        (S,) float32, peak about 0.5; the same bits on every machine's NumPy.
    """
    count = round(seconds * sample_rate)
    time_axis = np.arange(count) / sample_rate
    rng = np.random.Generator(np.random.PCG64(20260101))
    signal = 0.01 * rng.standard_normal(count)
    for start, stop in ((0.02, 0.10), (0.20, 0.12), (0.05, 0.30)):
        sweep = start * time_axis + (stop - start) * time_axis**2 / (2 * seconds)
        signal += 0.16 * np.sin(2 * np.pi * sample_rate * sweep)
    return signal.astype(np.float32)


def fingerprint_of(model: ModelBase) -> OutputFingerprint:
    """Numeric summary of a model's embedding of the test signal."""
    waveform = check_signal(model.window_seconds or 5.0, model.sample_rate)
    with torch.inference_mode():
        values = model.embed(torch.from_numpy(waveform)[None].to(model.device))[0].float().cpu().numpy()
    positions = np.linspace(0, len(values) - 1, min(_NUM_SAMPLES, len(values))).astype(int)
    return OutputFingerprint(
        mean=float(values.mean()),
        std=max(float(values.std()), 1e-12),
        samples=[round(float(values[i]), 6) for i in positions],
    )


def compare(measured: OutputFingerprint, expected: OutputFingerprint) -> float:
    """Largest difference between two fingerprints in units of the expected standard deviation."""
    if len(measured.samples) != len(expected.samples):
        return float("inf")
    differences = np.abs(np.subtract(measured.samples, expected.samples)).tolist()
    differences += [abs(measured.mean - expected.mean), abs(measured.std - expected.std)]
    return max(differences) / expected.std


def check_model(model: str | ModelCard, device: str | None = None) -> CheckResult:
    """Load a model and compare it with its card.

    Raises:
        ChecksumError: The weights file is not the published one.
        WeightsError: The weights do not fit.
        ConfigError: The model is not a `ModelBase`.

    Example:
        >>> check_model("birdnet").matches                                    # doctest: +SKIP
        True
    """
    started = time.perf_counter()
    card = resolve(model)
    loaded = load_card(card, LoadRequest(device=device))
    if not isinstance(loaded, ModelBase):
        raise ConfigError(f"'{card.name}' is a {type(loaded).__name__}; only a ModelBase can be checked.")
    measured = fingerprint_of(loaded)
    deviation = compare(measured, card.fingerprint) if card.fingerprint else None
    report = getattr(loaded, "load_report", None)
    if card.checkpoint_path is None:
        checksum = "the card has no checkpoint"
    else:
        checksum = "verified" if card.sha256 else "not verified: the card states no sha256"
    return CheckResult(
        name=card.name,
        checksum=checksum,
        report=report.table() if report else "the graph file was loaded as it is",
        fingerprint=measured,
        matches=None if deviation is None or card.fingerprint is None else deviation <= card.fingerprint.rtol,
        deviation=deviation,
        seconds=time.perf_counter() - started,
        device=str(loaded.device),
    )
