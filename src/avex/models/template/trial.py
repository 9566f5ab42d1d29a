"""Trying a template on a recording."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from avex.audio import read
from avex.models.template.cards import TemplateRunError, avex_errors, read_template, template_card
from avex.models.template.model import TemplateModel
from avex.models.template.trust import trust_template
from deep_audio_embedding import CommandError, install_dependencies, printable

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
        TemplateRunError: A step failed, or the embedding holds NaN or infinite values.
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
    if bad := int((~pooled.isfinite()).sum()):
        raise TemplateRunError(
            f"Template '{model.template.file}': expected finite numbers, but {bad} of "
            f"{len(pooled)} values of the embedding are NaN or infinite. Check the weights and pre_proc."
        )
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


def original_traceback(error: TemplateRunError) -> str | None:
    """The traceback of the error that a command of a template raised, from the template's own line on.

    Args:
        error: What running a template raised.

    Returns:
        Text as Python shows it, or None if the error was not raised by Python in a command.
    """
    command = error.__cause__
    if not isinstance(command, CommandError):
        return None
    original = command.__cause__
    if original is None:
        return None
    own = f"<{command.key} of {command.file}>"
    frames = original.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != own:
        frames = frames.tb_next
    if frames is None:  # it did not compile, or was a shell command
        return None
    return printable("".join(traceback.format_exception(type(original), original, frames)).rstrip())
