"""`avex check`: does a model load, is its file the published one, and does it compute what it should?"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from avex._core.errors import ConfigError, WeightsError
from avex.configs import ModelCard
from avex.io import fetch, sha256_of
from avex.models.base_model import ModelBase
from avex.models.utils.building import misfits
from avex.models.utils.load import LoadRequest, load_card
from avex.models.utils.registry import resolve
from avex.weights import compare, output_fingerprint


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a check.

    Attributes:
        name: The card.
        checksum: `verified`, or why it was not.
        report: What was loaded, or `nothing` if that failed or gave no numbers.
        fingerprint: Measured output for the test signal; None if nothing could be loaded.
        differences: How it differs from the card's, in words; None if the card states none.
        seconds: Time to load and run.
        device: Where it ran.
        findings: What is wrong with the file; empty if nothing is.
        tensors: What the published checksums of single tensors say; empty if the card states none.
        output: What the published checksums of an output say; empty if the card states none.
    """

    name: str
    checksum: str
    report: str
    fingerprint: dict[str, Any] | None
    differences: tuple[str, ...] | None
    seconds: float
    device: str
    findings: tuple[str, ...] = ()
    tensors: str = ""
    output: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings and not self.differences


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


def check_model(
    model: str | ModelCard, device: str | None = None, checkpoint: str | Path | None = None
) -> CheckResult:
    """Load a model and compare it with its card.

    Args:
        model: A card, or the name of one.
        device: Where to run.
        checkpoint: A file to check against the card, instead of the file that the card names. What is wrong with it
            is then a finding and no exception.

    Raises:
        ChecksumError: The card's own file is not the published one.
        WeightsError: The card's own weights do not fit.
        ConfigError: The model is not a `ModelBase`.

    Example:
        >>> check_model("birdnet").differences                                # doctest: +SKIP
        ()
    """
    started = time.perf_counter()
    card = resolve(model)
    checksum, findings = _checksum(card, checkpoint)
    try:
        loaded = load_card(card, LoadRequest(device=device, checkpoint_path=checkpoint))
        if not isinstance(loaded, ModelBase):
            raise ConfigError(f"'{card.name}' is a {type(loaded).__name__}; only a ModelBase can be checked.")
        measured = output_fingerprint(embed_check_signal(loaded))
    except (WeightsError, ConfigError) as error:
        if checkpoint is None:
            raise
        seconds = time.perf_counter() - started
        findings = (*findings, str(error))
        return CheckResult(card.name, checksum, "nothing", None, None, seconds, device or "cpu", findings)
    wrong = wrong_tensors(loaded, card.tensor_sha256)
    published = len(card.tensor_sha256)
    report = getattr(loaded, "load_report", None)
    return CheckResult(
        name=card.name,
        checksum=checksum,
        report=report.table() if report else "the graph file was loaded as it is",
        fingerprint=measured,
        differences=_differences(card, measured),
        seconds=time.perf_counter() - started,
        device=str(loaded.device),
        findings=(*findings, *_contradictions(loaded, card, wrong)),
        tensors=f"{published - len(wrong)} of {published} as published" if published else "",
        output=_published_output(loaded, card.output_sha256),
    )


def _contradictions(model: ModelBase, card: ModelCard, wrong: list[str]) -> Iterator[str]:
    """What the card says of its model that this one does not keep."""
    yield from misfits(model, card)
    for name in wrong:
        yield f"tensor '{name}' is not the published one"


def _differences(card: ModelCard, measured: dict[str, Any]) -> tuple[str, ...] | None:
    """How an output differs from the card's, in words; None if the card states none."""
    if not card.fingerprint:
        return None
    return compare(card.fingerprint.model_dump(exclude={"rtol"}), measured, card.fingerprint.rtol)


def tones_sha256(model: ModelBase) -> str:
    """The checksum of an output as avex 1.4.0 publishes it.

    Six tones of a second at 16 kHz (220, 440 and 880 Hz, each at 0.8 and 0.9), features averaged over tokens or
    over the map, rounded to four decimals.

    Source:
        The tests of avex 1 (earthspecies/avex, commit 7cf81b1).
    """
    time_axis = np.arange(16000, dtype=np.float32) / 16000
    tones = [
        level * np.sin(2 * np.pi * frequency * time_axis)
        for frequency in (220, 440, 880)
        for level in (0.8, 0.9)
    ]
    with torch.inference_mode():
        values = model.forward_features(
            torch.from_numpy(np.array(tones, np.float32)).to(model.device)
        ).values.float()
    pooled = values.mean((2, 3)) if values.ndim == 4 else values.mean(1) if values.ndim == 3 else values
    return hashlib.sha256(np.round(pooled.cpu().numpy(), 4).tobytes()).hexdigest()


def _published_output(model: ModelBase, published: Mapping[str, str]) -> str:
    """Whether an output is one of those that were published; that it is not says little."""
    if not published:
        return ""
    actual = tones_sha256(model)
    equal = [version for version, expected in published.items() if expected == actual]
    if equal:
        return f"as published for {', '.join(equal)}"
    return f"none of the {len(published)} that were published, which hold to the last bit only"


def wrong_tensors(model: nn.Module, published: Mapping[str, str]) -> list[str]:
    """Names of the tensors that are absent or whose float32 bytes do not have the published sha256."""
    state = model.state_dict() if published else {}
    return [name for name, expected in published.items() if _sha256(state.get(name)) != expected]


def _sha256(tensor: torch.Tensor | None) -> str | None:
    if tensor is None:
        return None
    return hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def _checksum(card: ModelCard, checkpoint: str | Path | None) -> tuple[str, tuple[str, ...]]:
    """What can be said about the sha256 of the file, and what is wrong about it."""
    partial = (
        "" if card.sha256 is None or len(card.sha256) == 64 else f" (its first {len(card.sha256)} digits)"
    )
    if checkpoint is None:
        if card.checkpoint_path is None:
            return "the card has no checkpoint", ()
        if card.sha256 is None:
            return "not verified: the card states no sha256", ()
        return f"verified{partial}", ()  # or loading raises
    path = fetch(checkpoint)
    if path.is_dir():
        return "a folder has none", ()  # loading says what to give instead
    actual = sha256_of(path)
    if card.sha256 is None:
        return f"{actual}; the card states none", ()
    if actual.startswith(card.sha256):
        return f"verified{partial}", ()
    finding = f"the file's sha256 is {actual}, the card states {card.sha256}: it is not the published file"
    return "DIFFERS from the card", (finding,)
