"""What a template's `y` may be, and the features that it becomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from avex.models.features import Features, TokenLayout
from avex.models.template.cards import TemplateRunError


def as_features(y: Any, x: Tensor, file: str, frame_rate: float | None) -> Features:
    """Turn the embedding of a template into features.

    Args:
        y: `torch.Tensor`, NumPy array or anything that `torch.as_tensor` takes: (B, D) for one vector per clip, or
            (B, T, C) for T steps in time.
        x: (B, S) the waveform it was computed from; its device is taken over.
        file: The template, for messages.
        frame_rate: Steps per second, if the template states them.

    Raises:
        TemplateRunError: `y` has another shape, holds no real numbers, or belongs to another number of clips.
    """
    values = _as_tensor(y, file)
    if values.is_complex() or values.layout != torch.strided or values.is_meta:
        kind = "complex" if values.is_complex() else "meta" if values.is_meta else "sparse"
        raise TemplateRunError(
            f"Template '{file}': expected `y` as real numbers in a dense tensor, found a {kind} tensor. Convert it "
            "in embed_fwd."
        )
    if values.ndim not in (2, 3):
        raise TemplateRunError(
            f"Template '{file}': expected `y` as (B, D) for one vector per clip or (B, T, C) for steps in time, "
            f"found the shape {tuple(values.shape)}. Reshape it in embed_fwd."
        )
    if values.shape[0] != x.shape[0] or 0 in values.shape:
        raise TemplateRunError(
            f"Template '{file}': expected `y` for {x.shape[0]} clips with the batch first, found the shape "
            f"{tuple(values.shape)}."
        )
    layout = TokenLayout("vector") if values.ndim == 2 else TokenLayout("tokens", frame_rate=frame_rate)
    values = values.to(x.device, torch.float32)
    if values.is_inference() and not torch.is_inference_mode_enabled():
        values = values.clone()  # templates compute in inference mode, but a head behind them may be trained
    return Features(values, layout)


def _as_tensor(y: Any, file: str) -> Tensor:
    if isinstance(y, Tensor):
        return y
    try:
        if isinstance(y, np.ndarray) and y.dtype.kind in "biufc":
            # Torch takes neither read-only arrays nor foreign byte orders nor steps backwards.
            y = np.require(y, y.dtype.newbyteorder("="), ["C", "W"])
        return torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TemplateRunError(
            f"Template '{file}': expected `y` as a tensor or an array, found a {type(y).__name__} ({error})."
        ) from error
