"""Trying a template on a recording."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from avex.audio import read
from avex.models.template.cards import avex_errors, read_template, template_card
from avex.models.template.model import TemplateModel
from avex.models.template.trust import trust_template
from deep_audio_embedding import install_dependencies

_DEFAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Trial:
    """What a template made of a recording.

    Attributes:
        sample_rate: Rate of the audio that it was given, in Hz.
        audio_seconds: Length of that audio.
        kind: `vector` or `tokens`.
        shape: Shape of the unpooled features, batch first.
        embedding_dim: Length of the pooled embedding.
        mean: Mean of its values.
        std: Their standard deviation.
        seconds: Time that computing took.
    """

    sample_rate: int
    audio_seconds: float
    kind: str
    shape: tuple[int, ...]
    embedding_dim: int
    mean: float
    std: float
    seconds: float


def install_template(path: str | Path) -> None:
    """Run the `install_cmds` of a template in the working directory; calling this is trusting it.

    Raises:
        TemplateRunError: A command failed.
        ConfigError: There is no such file, or it is not a template.
    """
    trust_template(path)
    with avex_errors():
        install_dependencies(read_template(path))


def try_template(
    path: str | Path,
    recording: str | Path,
    *,
    trust: bool = False,
    seconds: float | None = None,
    device: str | None = None,
) -> Trial:
    """Run a template on the start of a recording.

    Args:
        path: A template, as `load_model` takes it.
        recording: Any recording; channels are averaged, other rates resampled. One shorter than the template's
            window gets silence at its end.
        trust: Allow its commands.
        seconds: How much of the recording; None takes the template's window, else 10 s.
        device: Where to run.

    Raises:
        TemplateTrustError: It needs trust.
        TemplateRunError: A step failed.
        AudioError: The recording cannot be read.
    """
    if trust:
        trust_template(path)
    card = template_card(path)
    audio_config = card.model_spec.audio_config
    assert audio_config is not None
    length = seconds or audio_config.target_length_seconds or _DEFAULT_SECONDS
    waveform, rate = read(recording, end_s=length, sample_rate=audio_config.sample_rate)
    wanted = round(length * rate)
    if audio_config.target_length_seconds is not None:  # as `avex embed` does with the end of a recording
        waveform = np.pad(waveform, (0, max(wanted - len(waveform), 0)))
    model = TemplateModel(str(path), device or "cpu", audio_config)
    x = torch.from_numpy(waveform[None, :wanted].copy()).to(model.device)
    started = time.perf_counter()
    with torch.inference_mode():
        features = model.forward_features(x)
    took = time.perf_counter() - started
    pooled = features.pooled()[0]
    return Trial(
        rate,
        x.shape[1] / rate,
        features.layout.kind,
        tuple(features.values.shape),
        len(pooled),
        float(pooled.mean()),
        float(pooled.std(unbiased=False)),
        took,
    )
