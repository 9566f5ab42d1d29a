"""`avex check`: does a model load, is its file the published one, and does it compute what it should?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from avex._core.errors import ConfigError
from avex.configs import ModelCard
from avex.models.base_model import ModelBase
from avex.models.utils.load import LoadRequest, load_card
from avex.models.utils.registry import resolve
from avex.weights import compare, output_fingerprint


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a check.

    Attributes:
        name: The card.
        checksum: `verified`, or why it was not.
        report: What was loaded.
        fingerprint: Measured output for the test signal.
        differences: How it differs from the card's, in words; None if the card states none.
        seconds: Time to load and run.
        device: Where it ran.
    """

    name: str
    checksum: str
    report: str
    fingerprint: dict[str, Any]
    differences: tuple[str, ...] | None
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


def embed_check_signal(model: ModelBase) -> torch.Tensor:
    """The model's embedding of the test signal, (D,)."""
    waveform = check_signal(model.window_seconds or 5.0, model.sample_rate)
    with torch.inference_mode():
        return model.embed(torch.from_numpy(waveform)[None].to(model.device))[0].float().cpu()


def check_model(model: str | ModelCard, device: str | None = None) -> CheckResult:
    """Load a model and compare it with its card.

    Raises:
        ChecksumError: The weights file is not the published one.
        WeightsError: The weights do not fit.
        ConfigError: The model is not a `ModelBase`.

    Example:
        >>> check_model("birdnet").differences                                # doctest: +SKIP
        ()
    """
    started = time.perf_counter()
    card = resolve(model)
    loaded = load_card(card, LoadRequest(device=device))
    if not isinstance(loaded, ModelBase):
        raise ConfigError(f"'{card.name}' is a {type(loaded).__name__}; only a ModelBase can be checked.")
    measured = output_fingerprint(embed_check_signal(loaded))
    differences = None
    if card.fingerprint:
        expected = card.fingerprint.model_dump(exclude={"rtol"})
        differences = compare(expected, measured, card.fingerprint.rtol)
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
        differences=differences,
        seconds=time.perf_counter() - started,
        device=str(loaded.device),
    )
